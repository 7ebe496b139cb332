//! System calls of the real daemon whose results a tracer changes. With every third call of each kind interrupted by a
//! signal, nothing fails and nothing is logged. A stop signal at any moment of the registration of the handlers stops the
//! daemon. A state store that rejects writes is reported in the status.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use crate::host;
use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, LONG, evidence, scored};
use distilld::platform::clock::{Clock as _, HostClock};
use distilld::record::timestamp::stamp;
use rustix::process::{Pid, Signal, kill_process};

/// Calls, and the first one of each that is affected: loading the program itself opens and reads files first.
const CALLS: [(&str, u32); 12] = [
    ("openat", 20),
    ("openat2", 1),
    ("statx", 20),
    ("pread64", 20),
    ("getdents64", 1),
    ("pwrite64", 1),
    ("fdatasync", 1),
    ("fsync", 1),
    ("ftruncate", 1),
    ("renameat", 1),
    ("mkdirat", 1),
    ("unlinkat", 1),
];

#[test]
fn an_interrupted_call_of_any_kind_is_retried() {
    if !host::has(&["strace"]) {
        return;
    }
    for (call, first) in CALLS {
        let bench = Bench::new();
        (1..=20).for_each(|run| {
            bench.append_run(&format!("2026/01/{run:02}/n.jsonl"), &format!("run {run}"));
        });
        let plain = bench.command(&["run", "--once"]);
        let trace = bench.sibling("trace");
        let inject = format!("inject={call}:error=EINTR:when={first}+3");
        let mut traced = Command::new("strace");
        traced
            .args(["-f", "-qq", "-e", &format!("trace={call}"), "-e", &inject])
            .arg("-o")
            .arg(&trace)
            .arg(plain.get_program())
            .args(plain.get_args());
        let ended = bench.run(&mut traced);
        ended.check(0, &["caught up"]);
        let trouble = ["level=warn", "level=error"].map(|level| ended.stderr.contains(level));
        assert_eq!(trouble, [false; 2], "{call}: {}", ended.stderr);
        let interrupted = fs::read_to_string(&trace).unwrap();
        assert!(
            interrupted.contains("INJECTED"),
            "no {call} was interrupted"
        );
        bench.assert_batch();
    }
}

/// Starts the daemon and sends it SIGTERM when the given registration of a handler returns. Returns the traced
/// registrations after the daemon has ended.
fn stop_at_registration(registration: usize) -> String {
    let bench = Bench::new();
    let plain = bench.command(&["run"]);
    let trace = bench.sibling("trace");
    let inject = format!("inject=rt_sigaction:signal=SIGTERM:when={registration}");
    let mut traced = Command::new("strace");
    traced
        .args(["-qq", "-e", "trace=rt_sigaction", "-e", &inject, "-o"])
        .arg(&trace)
        .arg(plain.get_program())
        .args(plain.get_args());
    let status = bench.start_command(&mut traced).wait(LONG);
    let status =
        status.unwrap_or_else(|error| panic!("lost at registration {registration}: {error}"));
    // Before there is a handler, the signal ends the process, and strace ends in the same way.
    let is_ended = status.success() || status.signal() == Some(Signal::TERM.as_raw());
    assert!(is_ended, "{registration}: {status}");
    fs::read_to_string(&trace).unwrap()
}

#[test]
fn a_stop_signal_at_any_moment_of_a_start_stops_the_daemon() {
    if !host::has(&["strace"]) {
        return;
    }
    // The handler of SIGXFSZ is registered last.
    let is_last = |registration: &usize| {
        let trace = stop_at_registration(*registration);
        let reached = trace.lines().nth(registration - 1);
        reached.is_some_and(|line| line.contains("(SIGXFSZ, {"))
    };
    let registrations = (1..).find(is_last);
    assert!(registrations > Some(10), "{registrations:?}");
}

/// More runs than are scored until the test ends, one per query.
const RUNS_MAX: u32 = 5_000;

fn run_named(run: u32) -> String {
    format!("run {run}")
}

#[test]
fn the_status_is_current_while_the_store_rejects_writes() {
    if !host::has(&["strace"]) {
        return;
    }
    let bench = Bench::new();
    let pair = "2026/01/01/n.jsonl";
    bench.append_run(pair, "first");
    // Only the store has the start of its waiting time.
    bench.append(Stream::Scored, pair, scored("waits"));
    // No other run waits: the evidence is read before reading stops.
    let given: String = (0..RUNS_MAX).map(|run| evidence(&run_named(run))).collect();
    bench.append(Stream::Evidence, pair, given);
    bench.once();
    // The status cannot be stored in a file either.
    fs::create_dir(bench.state_dir().join("status.json.new")).unwrap();
    let plain = bench.command(&["run"]);
    let mut traced = Command::new("strace");
    traced
        .args(["-f", "-qq", "-e", "trace=pwrite64", "-P"])
        .arg(bench.state_dir().join("state.redb"))
        .args(["-e", "inject=pwrite64:error=ENOSPC:when=5+", "-o"])
        .arg(bench.sibling("trace"))
        .arg(plain.get_program())
        .args(plain.get_args())
        .env("DISTILLD_CHECKPOINT_BYTES", "4096")
        .env("DISTILLD_SETTLE_MS", "50");
    let mut daemon = bench.catch_up(&mut traced);
    let mut scored_runs = 0;
    let mut score = || {
        assert!(scored_runs < RUNS_MAX, "more evidence is needed");
        bench.append(Stream::Scored, pair, scored(&run_named(scored_runs)));
        scored_runs += 1;
    };
    (0..20).for_each(|_| score());
    bench.wait_for(&mut daemon, "it logs the stop", || {
        bench.log_text().contains("msg=\"paused: ")
    });
    let requested_at = stamp(HostClock::new().wall_ms());
    let mut pid = 0;
    bench.wait_for(&mut daemon, "status gives the reason", || {
        // The last failed write may have been the final one: then the store has stored everything.
        score();
        let status = bench.status();
        pid = status["pid"].as_i64().unwrap();
        let fault = &status["last_fault"];
        fault["resolved"] == false
            && fault["what"]
                .to_string()
                .contains("the state's disk failed")
            && status["as_of"].as_str() > Some(&requested_at)
            && status["scored"]["waiting"] == 1
    });
    // The tracer ends with its process; in the other order the process would survive.
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    daemon.wait(LONG).unwrap();
    bench.once();
    bench.assert_batch();
}
