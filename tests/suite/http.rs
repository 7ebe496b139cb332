//! The public sockets of the real daemon: what they report, whom they refuse, and that a hostile client cannot affect
//! the pipeline.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use distilld::config::ListenAddress;
use distilld::daemon::inbox::Inbox;
use distilld::daemon::requests::EngineRequest;
use distilld::engine::metrics::Metrics;
use distilld::http::{QueryContext, Server, StatusCache};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::support::http::{
    connect, exchange, get, get_unix, get_with, metric, metric_sum, request,
};
use crate::support::kill_harness::{Daemon, wait_until};
use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, LONG, evidence, evidence_with, scored, scored_as};

const PAIR: &str = "2026/05/01/audits.jsonl";

/// Appends one line of most kinds.
fn mixed(bench: &Bench) {
    bench.append_run(PAIR, "r1");
    bench.append_run("2026/05/01/reviews.jsonl", "r2");
    bench.append(Stream::Scored, PAIR, scored_as("r3", "rejected"));
    bench.append(Stream::Scored, PAIR, scored_as("r4", "odd"));
    bench.append(Stream::Scored, PAIR, scored("r5"));
    bench.append(Stream::Evidence, PAIR, evidence_with("r6", " "));
    bench.append(Stream::Scored, PAIR, scored("r6"));
    bench.append(Stream::Scored, PAIR, "{\n");
    bench.append(Stream::Evidence, PAIR, "[\n");
}

/// The words of an operator are for those who may read the ledger.
#[test]
fn no_public_path_has_the_reason_of_an_order() {
    const OTHER: &str = "2026/05/02/audits.jsonl";
    const REASON: &str = "words of an operator";
    let bench = Bench::new();
    bench.append_run(PAIR, "r");
    bench.append(Stream::Scored, OTHER, scored("r"));
    bench.append_run(PAIR, "gone");
    bench.once();
    // A row that no line has any more, of a run that waits elsewhere.
    for stream in [Stream::Scored, Stream::Evidence] {
        fs::write(bench.path(stream, PAIR), "").unwrap();
    }
    bench.append_run(PAIR, "r");
    bench.append(Stream::Scored, OTHER, scored("gone"));
    bench.once();
    let order = [
        "retract",
        "--reason",
        REASON,
        "--day-file",
        PAIR,
        "r",
        "gone",
    ];
    bench.run(&mut bench.command(&order)).check(0, &[]);
    let (daemon, address) = bench.listening();
    for run in ["r", "gone"] {
        let explained = bench.run(&mut bench.command(&["explain", run, "--json"]));
        assert!(explained.stdout.contains(REASON), "{}", explained.stdout);
        assert!(
            explained.stdout.contains("\"waiting\""),
            "{}",
            explained.stdout
        );
    }
    for path in [
        "/recent.json",
        "/waiting.json",
        "/malformed.json",
        "/retracted.json",
        "/status.json",
        "/metrics",
        "/healthz",
        "/readyz",
        "/",
        "/instances.json",
    ] {
        let answer = get(address, path);
        assert!(!answer.body.contains(REASON), "{path}: {}", answer.body);
    }
    let waiting = get(address, "/waiting.json").body;
    assert!(
        waiting.contains("\"retraction\":{\"cause\":\"operator\""),
        "{waiting}"
    );
    bench.stop(daemon);
}

/// Passes the text to `promtool check metrics`; does nothing without promtool outside CI.
fn check_with_promtool(text: &str) {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match spawned {
        Ok(promtool) => promtool,
        Err(error) if error.kind() == ErrorKind::NotFound && std::env::var_os("CI").is_none() => {
            eprintln!("skipped: no promtool here; it comes with Debian's package prometheus");
            return;
        }
        Err(error) => panic!("promtool: {error}"),
    };
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let findings =
        String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && findings.is_empty(),
        "{findings}\n{text}"
    );
}

#[test]
fn the_metrics_add_up_and_follow_the_conventions() {
    let bench = Bench::new();
    mixed(&bench);
    let (mut daemon, address) = bench.listening();
    let text = get(address, "/metrics").body;
    check_with_promtool(&text);
    for (verdict, lines) in [
        ("exported", 2.0),
        ("firewalled", 1.0),
        ("unknown_category", 1.0),
        ("wrong_role", 0.0),
        ("blank_text", 1.0),
        ("waiting", 1.0),
        ("malformed", 1.0),
    ] {
        let label = format!("verdict=\"{verdict}\"");
        assert_eq!(
            metric_sum(&text, "distilld_lines", &label),
            lines,
            "{verdict}: {text}"
        );
        let counted = metric_sum(&text, "distilld_scored_verdicts_total", &label);
        assert_eq!(counted, lines, "{verdict}: {text}");
    }
    assert_eq!(metric(&text, "distilld_lines_read"), Some(7.0));
    let lines = "distilld_scored_lines_total";
    assert_eq!(metric_sum(&text, lines, "class=\"audits\""), 6.0);
    assert_eq!(metric_sum(&text, lines, "class=\"reviews\""), 1.0);
    assert_eq!(metric_sum(&text, "distilld_rows_written_total", ""), 2.0);
    assert_eq!(
        metric(&text, "distilld_malformed_lines{stream=\"evidence\"}"),
        Some(1.0)
    );
    assert_eq!(metric(&text, "distilld_ready"), Some(1.0));

    // The waiting run gets a later verdict; the first ones remain as they were.
    bench.append(Stream::Evidence, PAIR, evidence("r5"));
    bench.wait_run(&mut daemon, "r5");
    let after = bench.wait_answer(
        &mut daemon,
        address,
        "/metrics",
        "nothing waits",
        |answer| metric(&answer.body, "distilld_waiting_runs") == Some(0.0),
    );
    let sum = |name, label| metric_sum(&after.body, name, label);
    assert_eq!(sum("distilld_late_verdicts_total", "exported"), 1.0);
    assert_eq!(sum("distilld_scored_verdicts_total", "waiting"), 1.0);
    assert_eq!(sum("distilld_scored_verdicts_total", ""), 7.0);
    assert_eq!(sum("distilld_rows_written_total", ""), 3.0);
    assert!(metric(&after.body, "distilld_freshness_seconds_count") >= Some(2.0));
    assert!(metric(&after.body, "distilld_commit_duration_seconds_count") >= Some(2.0));
    bench.stop(daemon);
}

/// A metric's type class (`gauge`, or `counter or histogram`) and its labels.
type Described = (&'static str, BTreeSet<String>);

/// Returns the metrics of a text in the older format, by name. A family without samples has no labels.
fn served_metrics(text: &str) -> BTreeMap<String, Described> {
    let mut served = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|typed| typed.split_once(' '))
        {
            let class = match kind {
                "gauge" => "gauge",
                _ => "counter or histogram",
            };
            served.insert(name.to_owned(), (class, BTreeSet::new()));
        } else if let Some((name, labels)) = line.split_once('{').filter(|_| !line.starts_with('#'))
        {
            let family = name.strip_suffix("_bucket").unwrap_or(name);
            let (_, known) = served.get_mut(family).unwrap_or_else(|| panic!("{line}"));
            let labels = labels.split_once('}').unwrap().0.split(',');
            let keys = labels.filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
            known.extend(keys.filter(|key| key != "le"));
        }
    }
    served
}

/// Returns the metrics of the two tables in `examples/prometheus/README.md`.
fn documented_metrics() -> BTreeMap<String, Described> {
    let readme = include_str!("../../examples/prometheus/README.md");
    let mut documented = BTreeMap::new();
    let mut class = None;
    for line in readme.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        match cells[..] {
            ["", "gauge", "labels", "meaning", ""] => class = Some("gauge"),
            ["", "counter or histogram", "labels", "meaning", ""] => {
                class = Some("counter or histogram");
            }
            ["", name, labels, _meaning, ""] if name.starts_with('`') => {
                let Some(class) = class else { continue };
                let labels = labels
                    .split(',')
                    .map(|label| label.trim().trim_matches('`'));
                let labels = labels.filter(|label| !label.is_empty()).map(str::to_owned);
                documented.insert(name.trim_matches('`').to_owned(), (class, labels.collect()));
            }
            _ => {}
        }
    }
    documented
}

#[test]
fn the_documented_metrics_equal_the_served_ones() {
    let bench = Bench::new();
    mixed(&bench);
    let (mut daemon, address) = bench.listening();
    // A waiting run has a gauge that is absent later; a late verdict exists only afterwards.
    let mut served = served_metrics(&get(address, "/metrics").body);
    bench.append(Stream::Evidence, PAIR, evidence("r5"));
    bench.wait_run(&mut daemon, "r5");
    let after = bench.wait_answer(&mut daemon, address, "/metrics", "a row exists", |answer| {
        metric(&answer.body, "distilld_last_row_timestamp_seconds").is_some()
            && metric(&answer.body, "distilld_waiting_runs") == Some(0.0)
    });
    served.extend(served_metrics(&after.body));
    assert_eq!(served, documented_metrics());
    bench.stop(daemon);
}

#[test]
fn a_rewritten_day_file_lowers_gauges_and_no_counter() {
    let bench = Bench::new();
    mixed(&bench);
    let (mut daemon, address) = bench.listening();
    let before = get(address, "/metrics").body;
    fs::write(bench.path(Stream::Scored, PAIR), scored("r1")).unwrap();
    let after = bench.wait_answer(
        &mut daemon,
        address,
        "/metrics",
        "it was read again",
        |answer| metric(&answer.body, "distilld_lines_read") == Some(2.0),
    );
    assert_eq!(
        metric(&after.body, "distilld_sources_reset_total"),
        Some(1.0)
    );
    for line in before.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let family = name.split('{').next().unwrap();
        if ["_total", "_count", "_sum", "_bucket"]
            .iter()
            .any(|ending| family.ends_with(ending))
        {
            let now = metric(&after.body, name).unwrap_or_else(|| panic!("{name} is gone"));
            assert!(now >= value.parse().unwrap(), "{name}: {value} then {now}");
        }
    }
    check_with_promtool(&after.body);
    bench.stop(daemon);
}

#[test]
fn openmetrics_is_served_on_request() {
    let bench = Bench::new();
    let (daemon, address) = bench.listening();
    let accept = "Host: localhost\r\nAccept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    let open = get_with(address, "/metrics", accept);
    assert!(
        open.head
            .contains("content-type: application/openmetrics-text"),
        "{open:?}"
    );
    assert!(open.body.ends_with("# EOF\n"), "{open:?}");
    assert!(
        open.body.contains("# TYPE distilld_errors counter\n"),
        "{open:?}"
    );
    let plain = get(address, "/metrics");
    assert!(
        plain
            .head
            .contains("content-type: text/plain; version=0.0.4"),
        "{plain:?}"
    );
    assert!(
        plain
            .body
            .contains("# TYPE distilld_errors_total counter\n"),
        "{plain:?}"
    );
    bench.stop(daemon);
}

#[test]
fn every_foreign_host_name_is_refused() {
    let bench = Bench::new();
    mixed(&bench);
    let (daemon, address) = bench.listening();
    for path in ["/", "/status.json", "/metrics", "/healthz", "/nothing"] {
        let refused = get_with(address, path, "Host: evil.example\r\n");
        assert_eq!(refused.status, 421, "{refused:?}");
        assert!(!refused.body.contains("data"), "{refused:?}");
    }
    let page = get_with(address, "/", &format!("Host: {address}\r\n"));
    assert_eq!(page.status, 200, "{page:?}");
    for header in [
        "content-security-policy: default-src 'none'",
        "x-content-type-options: nosniff",
        "cache-control: no-store",
    ] {
        assert!(page.head.contains(header), "{page:?}");
    }
    assert!(!page.head.contains("access-control"), "{page:?}");
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
        let sent = format!("{method} / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert_eq!(
            exchange(connect(address), &sent).unwrap().status,
            405,
            "{method}"
        );
    }
    let nothing = get(address, "/../../etc/passwd");
    assert_eq!(nothing.status, 404, "{nothing:?}");
    bench.stop(daemon);
}

#[test]
fn a_head_request_leaves_other_answers_intact() {
    let bench = Bench::new();
    let (daemon, address) = bench.listening();
    let sent = request("/recent.json", "Host: localhost\r\n").replace("GET", "HEAD");
    let head = exchange(connect(address), &sent).unwrap();
    assert_eq!((head.status, head.body.as_str()), (200, ""), "{head:?}");
    let whole = get(address, "/recent.json");
    assert_eq!(whole.status, 200, "{whole:?}");
    assert!(whole.json()["series"].is_object(), "{whole:?}");
    bench.stop(daemon);
}

#[test]
fn a_unix_socket_serves_any_host_name_and_is_removed_with_the_daemon() {
    let bench = Bench::new();
    let socket = bench.sibling("http.sock");
    // A daemon that was killed left its socket.
    drop(UnixListener::bind(&socket).unwrap());
    let listen = format!("unix:{}", socket.display());
    let daemon = bench.catch_up(&mut bench.command(&["run", "--listen", &listen]));
    let answer = get_unix(&socket, "/readyz", "anything.example");
    assert_eq!(
        (answer.status, answer.body.split(':').next()),
        (200, Some("no sources"))
    );
    bench.stop(daemon);
    assert!(!socket.exists());
}

#[test]
fn sockets_passed_in_are_served_without_any_flag() {
    let bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" --root \"$1\" run 3<&0 </dev/null",
        ])
        .arg(env!("CARGO_BIN_EXE_distilld"))
        .arg(bench.root())
        .stdin(OwnedFd::from(listener));
    let daemon = bench.catch_up(&mut command);
    assert_eq!(get(address, "/healthz").status, 200);
    assert_eq!(get_with(address, "/", "Host: evil.example\r\n").status, 421);
    bench.stop(daemon);
}

#[test]
fn an_address_in_use_stops_nothing_and_is_retried() {
    let bench = Bench::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut daemon = bench.catch_up(&mut bench.command(&["run", "--listen", &address.to_string()]));
    bench.probe(&mut daemon);
    assert!(
        bench.log_text().contains("cannot listen"),
        "{}",
        bench.log_text()
    );
    drop(taken);
    bench.wait_for(&mut daemon, "it listens in the end", || {
        TcpStream::connect(address).is_ok()
    });
    assert_eq!(get(address, "/healthz").status, 200);
    bench.stop(daemon);
}

#[test]
fn a_non_loopback_address_is_refused_with_the_reason() {
    let bench = Bench::new();
    let ended = bench.run(&mut bench.command(&["run", "--listen", "0.0.0.0:9743"]));
    ended.check(
        78,
        &["--listen", "other hosts could reach", "127.0.0.1:9743"],
    );
}

/// Returns a daemon whose files may not grow beyond 8 MiB, which it sees as a full disk.
pub fn full_disk_command(bench: &Bench) -> Command {
    let mut command = Command::new("sh");
    command
        .env_clear()
        .env("DISTILLD_SETTLE_MS", "50")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -S -f 16384; exec \"$0\" --root \"$1\" run --listen 127.0.0.1:0",
        ])
        .arg(env!("CARGO_BIN_EXE_distilld"))
        .arg(bench.root())
        .stdin(Stdio::null());
    command
}

/// Makes space on the disk again.
pub fn make_room(daemon: &Daemon) {
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap()).unwrap();
    let free = Rlimit {
        current: None,
        maximum: None,
    };
    prlimit(Some(pid), Resource::Fsize, free).unwrap();
}

#[test]
fn a_full_disk_is_reported_while_it_lasts() {
    let bench = Bench::new();
    let (mut daemon, address) = bench.listening_by(&mut full_disk_command(&bench));
    let long = evidence_with("r1", &"x".repeat(9 << 20));
    bench.append(Stream::Evidence, PAIR, long);
    bench.append(Stream::Scored, PAIR, scored("r1"));
    let not_ready = bench.wait_answer(
        &mut daemon,
        address,
        "/readyz",
        "it is not ready",
        |answer| answer.status == 503,
    );
    assert!(not_ready.body.contains("reading stopped"), "{not_ready:?}");
    assert_eq!(get(address, "/healthz").status, 200);
    let metrics = get(address, "/metrics").body;
    assert_eq!(
        metric(&metrics, "distilld_fault_active"),
        Some(1.0),
        "{metrics}"
    );
    assert_eq!(metric(&metrics, "distilld_ready"), Some(0.0), "{metrics}");
    assert!(
        metric_sum(&metrics, "distilld_errors_total", "") >= 1.0,
        "{metrics}"
    );
    let status = get(address, "/status.json").json();
    assert_eq!(status["health"]["verdict"], "stopped", "{status}");

    make_room(&daemon);
    bench.wait_run(&mut daemon, "r1");
    let ready = |answer: &crate::support::http::Answer| answer.status == 200;
    bench.wait_answer(&mut daemon, address, "/readyz", "it is ready again", ready);
    bench.stop(daemon);
}

#[test]
fn no_client_affects_the_pipeline() {
    let bench = Bench::new();
    let (mut daemon, address) = bench.listening();
    let mut held = Vec::new();
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
    ] {
        let mut stream = connect(address);
        stream.write_all(garbage).unwrap();
        held.push(stream);
    }
    // An endless head is refused, not buffered.
    let mut endless = connect(address);
    let mut sent = endless
        .write(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        .unwrap();
    while let Ok(more) = endless.write(&[b'a'; 4096]) {
        sent += more;
        assert!(sent < 8 << 20, "it took {sent} bytes of one head");
    }
    // For a client that sends requests and never reads an answer, nothing is buffered.
    let mut greedy = connect(address);
    greedy
        .set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut sent = 0;
    while let Ok(more) = greedy.write(
        request("/", "Host: localhost\r\n")
            .replace("close", "keep-alive")
            .repeat(100)
            .as_bytes(),
    ) {
        sent += more;
        assert!(sent < 32 << 20, "it took {sent} bytes of requests");
    }
    held.push(greedy);
    // More connections than are served, each with half a request.
    for _ in 0..100 {
        let mut stream = connect(address);
        if stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: loc")
            .is_ok()
        {
            held.push(stream);
        }
    }
    let began = Instant::now();
    for n in 0..20 {
        bench.append_run(PAIR, &format!("r{n}"));
        bench.wait_run(&mut daemon, &format!("r{n}"));
    }
    assert!(began.elapsed() < LONG, "rows took {:?}", began.elapsed());
    // The operator's own socket has a separate limit.
    let control = bench.state_dir().join("control.sock");
    assert_eq!(get_unix(&control, "/healthz", "localhost").status, 200);
    // Incomplete requests are disconnected in the end, and all requests are served again.
    let served = wait_until(LONG, || {
        let mut stream = connect(address);
        let written = stream.write_all(request("/healthz", "Host: localhost\r\n").as_bytes());
        let mut answer = [0; 12];
        Ok(written.is_ok() && stream.read_exact(&mut answer).is_ok() && &answer == b"HTTP/1.1 200")
    });
    assert!(served.unwrap(), "{}", bench.log_text());
    drop(held);
    bench.stop(daemon);
}

#[test]
fn a_thousand_requests_are_few_engine_requests() {
    let bench = Bench::new();
    let (daemon, address) = bench.listening();
    let turns = |text: &str| metric(text, "distilld_engine_iterations_total").unwrap();
    let before = turns(&get(address, "/metrics").body);
    let began = Instant::now();
    for _ in 0..1_000 {
        assert_eq!(get(address, "/status.json").status, 200);
    }
    let after = turns(&get(address, "/metrics").body);
    let bound = 8.0 * began.elapsed().as_secs_f64() + 20.0;
    assert!(
        after - before < bound,
        "{before} then {after}, bound {bound}"
    );
    bench.stop(daemon);
}

/// The engine's thread answers only when the test allows it.
#[test]
fn it_answers_before_recovery_and_while_the_engine_is_unresponsive() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("http.sock");
    let wake = Arc::new(Inbox::new());
    let answering = QueryContext::new(dir.path().to_owned(), 1 << 20);
    let meters = Arc::new(Metrics::new());
    let desk = Arc::new(StatusCache::new(
        Arc::clone(&wake),
        meters,
        Arc::new(answering),
    ));
    let address = ListenAddress::parse(&format!("unix:{}", socket.display())).unwrap();
    let server = Server::start(address, Arc::clone(&desk)).unwrap();
    // The socket exists before it listens.
    let listens = || Ok(std::os::unix::net::UnixStream::connect(&socket).is_ok());
    assert!(wait_until(LONG, listens).unwrap());
    let ask = |path| get_unix(&socket, path, "localhost");
    let check_answer = |path, status, expected: &str| {
        let answer = ask(path);
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.body.contains(expected), "{answer:?}");
    };
    check_answer("/healthz", 200, "recovering");
    check_answer("/readyz", 503, "recovering");
    check_answer("/status.json", 503, "\"verdict\":\"recovering\"");
    // Nothing is known of the account yet, which is no fault of it.
    check_answer("/status.json", 503, "\"balanced\":true");
    check_answer("/metrics", 200, "distilld_recovering 1");

    desk.recovered();
    check_answer("/healthz", 503, "got nothing done");
    // A second request does not wait for an answer that has just timed out.
    let began = Instant::now();
    check_answer("/readyz", 503, "unresponsive");
    check_answer("/metrics", 200, "distilld_engine_responsive 0");
    check_answer("/status.json", 503, "unresponsive");
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    assert!(
        wake.take_requests()
            .iter()
            .all(|question| matches!(question, EngineRequest::Snapshot(_)))
    );
    drop(server);
    assert!(!socket.exists());
}
