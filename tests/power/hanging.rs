//! A file system that hangs: a FUSE mount whose server is stopped. No command waits for it without an end and without a word.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::host::Mounted;
use crate::support::kill_harness::wait_until;
use crate::support::process::Bench;

const PAIR: &str = "2026/01/01/a.jsonl";
/// The commands wait for 5 s, some of them twice.
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// A server of a FUSE mount, which continues before the mount is removed.
struct Server(Child);

impl Server {
    fn start(below: &Path, mounted: &Path) -> Self {
        let server = Command::new("bindfs")
            .arg("-f")
            .args([below, mounted])
            .spawn()
            .unwrap();
        let device = |path: &Path| rustix::fs::stat(path).unwrap().st_dev;
        let is_mounted = || Ok(device(below) != device(mounted));
        assert!(wait_until(ENDS_WITHIN, is_mounted).unwrap());
        Self(server)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Stops the server until the result is dropped.
    fn stop(&self) -> Stopped<'_> {
        self.signal(Signal::STOP);
        Stopped(self)
    }
}

struct Stopped<'a>(&'a Server);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
        self.signal(Signal::TERM);
        _ = self.0.wait();
    }
}

/// Runs a command to its end, and returns its exit code and what it printed.
fn ended(bench: &Bench, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = bench.command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let began = Instant::now();
    let is_ended = || Ok(child.try_wait().unwrap().is_some());
    if !wait_until(ENDS_WITHIN, is_ended).unwrap() {
        child.kill().unwrap();
        panic!("{arguments:?} has not ended after {:?}", began.elapsed());
    }
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// Mounts the directory at `mounted` of a lake over FUSE, with a daemon, and runs commands while the server is stopped.
fn with_hanging(mounted: &str, commands: &[(&[&str], &str)]) {
    let bench = Bench::new();
    bench.append_run(PAIR, "r");
    let below: PathBuf = bench.sibling("below");
    let at = bench.root().join(mounted);
    std::fs::create_dir_all(&at).unwrap();
    std::fs::rename(&at, &below).unwrap();
    std::fs::create_dir_all(&at).unwrap();
    let server = Server::start(&below, &at);
    let mount = Mounted::by_another(&at);
    let mut command = bench.command(&["run", "--listen", "127.0.0.1:0"]);
    command.env("DISTILLD_RECENT_SCAN_MS", "300");
    command.env("DISTILLD_FULL_SCAN_MS", "500");
    let (mut daemon, _) = bench.listening_by(&mut command);
    bench.wait_rows(&mut daemon, 1);
    bench.ask(&["wait", "--fresh", "--json"]);
    let stopped = server.stop();
    // The next scan hangs.
    let is_noticed = || Ok(ended(&bench, &[]).0 != Some(0));
    assert!(wait_until(ENDS_WITHIN, is_noticed).unwrap());
    for (arguments, word) in commands {
        let (code, text) = ended(&bench, arguments);
        assert!(text.contains(word), "{arguments:?}: {code:?}, {text}");
        assert!(code.is_some_and(|code| code > 0), "{arguments:?}: {text}");
    }
    drop(stopped);
    bench.stop(daemon);
    drop(mount);
    drop(server);
}

#[test]
fn a_lake_whose_file_system_hangs_is_reported_by_each_command() {
    let hangs = "does not answer";
    let commands: [(&[&str], &str); 8] = [
        (&[], hangs),
        (&["status", "--check"], hangs),
        (&["wait", "--fresh", "--timeout", "2s"], hangs),
        (&["check"], hangs),
        (&["explain", "r"], hangs),
        (&["plan"], hangs),
        (&["verify"], hangs),
        (&["retract", "--list"], hangs),
    ];
    with_hanging("", &commands);
}

#[test]
fn a_source_whose_file_system_hangs_is_reported_by_each_command() {
    let commands: [(&[&str], &str); 5] = [
        (&[], "unresponsive"),
        (&["status", "--check"], "unresponsive"),
        (&["wait", "--fresh", "--timeout", "2s"], "not fresh"),
        (&["check"], "does not answer"),
        (&["verify"], "does not answer"),
    ];
    with_hanging("data/evidence", &commands);
}
