//! The kernel's limits on inotify. The length of the event queue is global for the host: it is lowered only while a
//! daemon starts. Watches are limited in a user namespace of the daemon's own.

use std::fs;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::host::{self, wrapped};
use crate::support::kill_harness::Daemon;
use crate::support::process::Bench;

const QUEUE_LIMIT: &str = "/proc/sys/fs/inotify/max_queued_events";

/// Restores the limit on drop.
struct ShortQueue {
    before: String,
}

impl ShortQueue {
    fn new(events: u32) -> Self {
        let before = fs::read_to_string(QUEUE_LIMIT).unwrap();
        fs::write(QUEUE_LIMIT, events.to_string()).unwrap();
        Self { before }
    }
}

impl Drop for ShortQueue {
    fn drop(&mut self) {
        fs::write(QUEUE_LIMIT, self.before.trim()).unwrap();
    }
}

/// Returns a daemon that scans so rarely that it depends on events.
fn listening(bench: &Bench) -> Command {
    let mut command = bench.command(&["run"]);
    command.env("DISTILLD_RECENT_SCAN_MS", "3600000");
    command.env("DISTILLD_FULL_SCAN_MS", "604800000");
    command
}

fn signal(daemon: &Daemon, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn an_overflow_of_the_event_queue_loses_nothing() {
    if !host::has(&[]) {
        return;
    }
    let bench = Bench::new();
    for day in 1..=20 {
        bench.append_run(
            &format!("2026/01/{day:02}/n.jsonl"),
            &format!("before {day}"),
        );
    }
    let short = ShortQueue::new(3);
    let mut daemon = bench.catch_up(&mut listening(&bench));
    drop(short);
    bench.wait_rows(&mut daemon, 20);
    signal(&daemon, Signal::STOP);
    for day in 1..=20 {
        bench.append_run(
            &format!("2026/01/{day:02}/n.jsonl"),
            &format!("unheard {day}"),
        );
    }
    // A thousand days in a hundred months, in both streams.
    for day in 0..1_000 {
        let pair = format!("2027/{:02}/{:02}/n.jsonl", day / 10, day % 10);
        bench.append_run(&pair, &format!("directory {day}"));
    }
    signal(&daemon, Signal::CONT);
    bench.wait_rows(&mut daemon, 1_040);
    bench.assert_distinct(1_040);
    assert!(
        bench.log_text().contains("inotify queue overflowed"),
        "{}",
        bench.log_text()
    );
    let status = bench.status();
    assert!(status["event_overflows"].as_u64() > Some(0), "{status}");
    let at = status["last_overflow_at"].as_str().unwrap();
    assert!(at <= status["as_of"].as_str().unwrap(), "{status}");
    let page = bench.run(&mut bench.command(&["status"])).stdout;
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(page.contains("the event queue overflowed"), "{page}");
    // Events are received from then on, also of new directories.
    bench.append_run("2027/99/09/n.jsonl", "after");
    bench.append_run("2026/01/01/n.jsonl", "after too");
    bench.wait_rows(&mut daemon, 1_042);
    bench.stop(daemon);
    bench.assert_batch();
}

#[test]
fn thousands_of_directories_created_at_once_are_noticed() {
    if !host::has(&[]) {
        return;
    }
    let bench = Bench::new();
    bench.append_run("2026/01/01/n.jsonl", "first");
    let mut daemon = bench.catch_up(&mut listening(&bench));
    for day in 0..3_000 {
        let pair = format!("2027/{:02}/{:02}/n.jsonl", day / 50, day % 50);
        bench.append_run(&pair, &format!("directory {day}"));
    }
    bench.wait_rows(&mut daemon, 3_001);
    bench.stop(daemon);
    bench.assert_distinct(3_001);
    bench.assert_batch();
}

/// Returns the same command in a user namespace whose limit of `what` is set.
fn with_limit(command: &Command, what: &str, limit: u32) -> Command {
    let script = format!("echo {limit} > /proc/sys/user/max_inotify_{what} && exec \"$0\" \"$@\"");
    let arguments = ["--user", "--map-root-user", "sh", "-c", &script];
    wrapped(command, "unshare", &arguments)
}

/// Asserts that a daemon with few watches polls the other directories and reports it over HTTP.
fn polling_with(bench: &Bench, what: &str, limit: u32) -> Command {
    let mut command = listening(bench);
    command.env("DISTILLD_POLL_MS", "50");
    command.args(["--listen", "127.0.0.1:0"]);
    with_limit(&command, what, limit)
}

#[test]
fn exhausted_watches_make_the_daemon_poll_and_report_it() {
    if !host::has(&["unshare"]) {
        return;
    }
    let bench = Bench::new();
    for day in 1..=28 {
        bench.append_run(
            &format!("2026/01/{day:02}/n.jsonl"),
            &format!("before {day}"),
        );
    }
    let (mut daemon, address) = bench.listening_by(&mut polling_with(&bench, "watches", 12));
    bench.wait_rows(&mut daemon, 28);
    for day in [1, 14, 28, 30] {
        bench.append_run(
            &format!("2026/01/{day:02}/n.jsonl"),
            &format!("after {day}"),
        );
    }
    bench.wait_rows(&mut daemon, 32);
    let watch = bench.status()["watch"].to_string();
    assert!(
        watch.contains("polling: ") && watch.contains("watch"),
        "{watch}"
    );
    host::assert_watch_mode(address, "polling");
    assert!(
        bench.log_text().contains("polling in addition to events"),
        "{}",
        bench.log_text()
    );
    bench.stop(daemon);
    bench.assert_batch();
}

#[test]
fn without_an_event_source_the_daemon_polls_and_reports_the_reason() {
    if !host::has(&["unshare"]) {
        return;
    }
    let bench = Bench::new();
    for day in 1..=5 {
        bench.append_run(
            &format!("2026/01/{day:02}/n.jsonl"),
            &format!("before {day}"),
        );
    }
    let (mut daemon, address) = bench.listening_by(&mut polling_with(&bench, "instances", 0));
    bench.wait_rows(&mut daemon, 5);
    // The oldest day is found by the full scan, which runs once every thirty polls.
    for day in [1, 5, 6] {
        bench.append_run(
            &format!("2026/01/{day:02}/n.jsonl"),
            &format!("after {day}"),
        );
    }
    bench.wait_rows(&mut daemon, 8);
    let why = "see fs.inotify.max_user_instances";
    let watch = bench.status()["watch"].to_string();
    assert!(
        watch.contains("polling: ") && watch.contains(why),
        "{watch}"
    );
    let log = bench.log_text();
    let warned = log
        .lines()
        .filter(|line| line.contains("level=warn") && line.contains(why));
    assert_eq!(warned.count(), 1, "{log}");
    host::assert_watch_mode(address, "polling");
    bench.stop(daemon);
    bench.assert_batch();
}
