//! A table in S3, served by moto over real HTTP. moto looks whether an object exists and stores it in two steps, so two
//! requests to create one object may both succeed when they arrive at the same time: twins commit one after the other here.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::publisher::{Publisher, python};
use crate::running::{is_published, log, wait_for};
use crate::support::http::{connect, exchange};
use crate::support::kill_harness::{Daemon, wait_until};
use crate::support::process::{Bench, LONG};

/// An S3 service on a free port. It ends on drop, with all its buckets.
struct S3 {
    server: Child,
    address: SocketAddr,
    _home: tempfile::TempDir,
}

impl S3 {
    fn start() -> Option<S3> {
        let home = tempfile::tempdir().unwrap();
        let log = home.path().join("log");
        let mut command = Command::new(python()?.with_file_name("moto_server"));
        let command = command
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env("PYTHONUNBUFFERED", "1");
        let server = command
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut address = None;
        let listens = wait_until(LONG, || {
            let text = fs::read_to_string(&log).unwrap();
            let named = text
                .split("http://")
                .nth(1)
                .and_then(|rest| rest.lines().next());
            address = named.and_then(|named| named.trim().parse().ok());
            Ok(address.is_some())
        });
        assert_eq!(listens, Ok(true), "{}", fs::read_to_string(&log).unwrap());
        Some(S3 {
            server,
            address: address.unwrap(),
            _home: home,
        })
    }

    fn make_bucket(&self) {
        self.request("PUT", "/lake", "");
    }

    /// Everything that is stored is gone.
    fn reset(&self) {
        self.request("POST", "/moto-api/reset", "");
    }

    /// From now on it answers only requests with a key that it knows, of which there is none, or all of them.
    fn ask_for_keys(&self, asks: bool) {
        let free_requests = if asks { "0" } else { "inf" };
        self.request("POST", "/moto-api/reset-auth", free_requests);
    }

    fn request(&self, method: &str, path: &str, body: &str) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let answer = exchange(connect(self.address), &request).unwrap();
        assert!((200..300).contains(&answer.status), "{answer:?}");
    }

    fn publisher(&self, host: &str) -> Publisher {
        let mut publisher = Publisher::with(Bench::new(), "s3://lake/tables/sft", host, "");
        let endpoint = format!("http://{}", self.address);
        let variables = [
            ("AWS_ENDPOINT_URL", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            // The time that one request may take, also while it is held.
            ("AWS_TIMEOUT", "120s"),
        ];
        publisher.environment = variables
            .map(|(name, value)| (name, value.to_owned()))
            .to_vec();
        publisher
    }
}

/// What a gate does with the first commit that goes through it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It waits until it is let through.
    Held,
    /// It arrives, and the connection ends instead of its answer.
    Unanswered,
}

/// A proxy between a publisher and the service.
struct Gate {
    address: SocketAddr,
    arrived: Receiver<()>,
    let_through: Sender<()>,
}

impl Gate {
    fn new(service: SocketAddr, fate: Fate) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (arrives, arrived) = channel();
        let (let_through, may_pass) = channel();
        let first = Arc::new(First {
            fate,
            is_taken: AtomicBool::new(false),
            arrives,
            may_pass: Mutex::new(may_pass),
        });
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                first.connect(client, TcpStream::connect(service).unwrap());
            }
        });
        Gate {
            address,
            arrived,
            let_through,
        }
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// The first commit that goes through a gate.
struct First {
    fate: Fate,
    is_taken: AtomicBool,
    arrives: Sender<()>,
    may_pass: Mutex<Receiver<()>>,
}

impl First {
    /// Carries both directions of a connection. Either ends both.
    fn connect(self: &Arc<Self>, client: TcpStream, service: TcpStream) {
        let first = Arc::clone(self);
        let is_unanswered = Arc::new(AtomicBool::new(false));
        let (mut from_client, mut to_service) =
            (client.try_clone().unwrap(), service.try_clone().unwrap());
        let unanswered = Arc::clone(&is_unanswered);
        thread::spawn(move || {
            carry(&mut from_client, &mut to_service, |part| {
                let head = String::from_utf8_lossy(part);
                let head = head.lines().next().unwrap_or_default();
                let is_commit = head.starts_with("PUT ") && head.contains(".json HTTP");
                if !is_commit || first.is_taken.swap(true, Ordering::AcqRel) {
                    return true;
                }
                if first.fate == Fate::Unanswered {
                    unanswered.store(true, Ordering::Release);
                    return true;
                }
                // The test waits for the one, and lets the other through or has ended.
                let _ = first.arrives.send(());
                first.may_pass.lock().unwrap().recv().is_ok()
            })
        });
        thread::spawn(move || {
            let (mut from_service, mut to_client) = (service, client);
            carry(&mut from_service, &mut to_client, |_part| {
                !is_unanswered.load(Ordering::Acquire)
            })
        });
    }
}

/// Copies until one side ends or `may_pass` refuses a part.
fn carry(from: &mut TcpStream, to: &mut TcpStream, mut may_pass: impl FnMut(&[u8]) -> bool) {
    let mut part = [0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut part) {
        if !may_pass(&part[..len]) || to.write_all(&part[..len]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// Starts a publisher that reaches the service through a gate.
fn once_through(publisher: &Publisher, gate: &Gate) -> Child {
    let mut command = publisher.command(&["once"]);
    command.env("AWS_ENDPOINT_URL", gate.endpoint());
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(Stdio::piped()).spawn().unwrap()
}

/// Begins or ends a fault.
type Act<'a> = &'a dyn Fn();

/// Returns the account of a publisher that succeeds.
fn account_of(child: Child) -> Value {
    let ended = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{text}");
    serde_json::from_slice(&ended.stdout).unwrap()
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn two_hosts_share_a_table_in_a_bucket() {
    let Some(s3) = S3::start() else { return };
    s3.make_bucket();
    let hosts = ["lake-01", "lake-02"].map(|host| s3.publisher(host));
    for (publisher, run) in hosts.iter().zip(["a", "b"]) {
        publisher.configure("commit_bytes = \"1KiB\"\ncheckpoint_every = 3\n");
        for n in 0..6 {
            publisher.export_runs(&[&format!("{run}{n}")]);
        }
        publisher.once();
        publisher.judge(&format!("{run}3"), "rejected");
        assert_eq!(publisher.once()["retracted"], 1);
    }
    for publisher in &hosts {
        publisher.assert_published();
        publisher.run(&["verify"]).check(0, &[]);
        assert_eq!(publisher.once()["commits"], 0);
    }
}

#[test]
fn a_bucket_that_is_not_there_is_named() {
    let Some(s3) = S3::start() else { return };
    let publisher = s3.publisher("lake-01");
    publisher.export_runs(&["a"]);
    let missing = [
        "cannot use the table s3://lake/tables/sft",
        "check that the bucket exists",
    ];
    publisher.run(&["once"]).check(1, &missing);
    s3.make_bucket();
    publisher.once();
    publisher.assert_published();
}

#[test]
fn a_twin_that_was_stopped_before_its_commit_is_refused() {
    let Some(s3) = S3::start() else { return };
    s3.make_bucket();
    let publisher = s3.publisher("lake-01");
    publisher.export_runs(&["a", "b"]);
    publisher.once();
    // The first commit of the twins adds a row, or takes one out.
    for (added, rejected) in [("c", None), ("d", Some("a"))] {
        if let Some(rejected) = rejected {
            publisher.judge(rejected, "rejected");
        }
        publisher.export_runs(&[added]);
        let gate = Gate::new(s3.address, Fate::Held);
        let stale = once_through(&publisher, &gate);
        gate.arrived.recv_timeout(LONG).unwrap();
        kill_process(Pid::from_child(&stale), Signal::STOP).unwrap();
        let commits = if rejected.is_some() { 2 } else { 1 };
        assert_eq!(publisher.once()["commits"], commits);
        kill_process(Pid::from_child(&stale), Signal::CONT).unwrap();
        gate.let_through.send(()).unwrap();
        let account = account_of(stale);
        assert_eq!(
            (&account["commits"], &account["conflicts"]),
            (&0.into(), &1.into())
        );
        publisher.assert_published();
        publisher.run(&["verify"]).check(0, &[]);
    }
}

#[test]
fn a_commit_whose_answer_was_lost_is_not_repeated() {
    let Some(s3) = S3::start() else { return };
    s3.make_bucket();
    let publisher = s3.publisher("lake-01");
    publisher.export_runs(&["a", "b"]);
    publisher.once();
    publisher.export_runs(&["c"]);
    let before = publisher.run(&["status"]).stdout;
    let before: Value = serde_json::from_str(&before).unwrap();
    let gate = Gate::new(s3.address, Fate::Unanswered);
    let account = account_of(once_through(&publisher, &gate));
    let version = before["version"].as_u64().map(|version| version + 1);
    assert_eq!(account["version"].as_u64(), version, "{account}");
    publisher.assert_published();
    publisher.run(&["verify"]).check(0, &[]);
}

#[test]
fn run_says_what_is_wrong_with_the_service_and_continues_after_it() {
    let Some(s3) = S3::start() else { return };
    s3.make_bucket();
    let mut publisher = s3.publisher("lake-01");
    publisher.environment.push(("AWS_TIMEOUT", "2s".to_owned()));
    publisher.configure("commit_interval_s = 1\n");
    publisher.export_runs(&["a"]);
    let mut command = publisher.command(&["run"]);
    let publish_log = publisher.bench.sibling("publish.log");
    let mut daemon = Daemon::start(&mut command, &publish_log).unwrap();
    wait_for(&publisher, &mut daemon, || is_published(&publisher));
    let server = Pid::from_child(&s3.server);
    let hangs = |signal| kill_process(server, signal).unwrap();
    let faults: [(&str, Act<'_>, Act<'_>); 3] = [
        ("NoSuchBucket", &|| s3.reset(), &|| s3.make_bucket()),
        ("InvalidAccessKeyId", &|| s3.ask_for_keys(true), &|| {
            s3.ask_for_keys(false)
        }),
        ("timed out", &|| hangs(Signal::STOP), &|| {
            hangs(Signal::CONT)
        }),
    ];
    for (number, (fault, begin, end)) in faults.into_iter().enumerate() {
        let count = |message: &str| log(&publisher).matches(message).count();
        begin();
        publisher.export_runs(&[&format!("after {number}")]);
        wait_for(&publisher, &mut daemon, || {
            count("not published") == number + 1
        });
        let way_out =
            "check that the bucket exists, and AWS_ENDPOINT_URL, AWS_REGION and the credentials";
        publisher.run(&["status"]).check(
            1,
            &["cannot use the table s3://lake/tables/sft", fault, way_out],
        );
        end();
        wait_for(&publisher, &mut daemon, || {
            count("publishing again") == number + 1
        });
        publisher.assert_published();
    }
    assert_eq!(daemon.terminate(LONG).unwrap().code(), Some(0));
}
