//! Owns signals that interrupt the calls of the real daemon: a tracer has every third call of each kind end so. Nothing
//! fails, and nobody hears of it.

use std::fs;
use std::process::Command;

use crate::host;
use crate::support::process::Bench;

/// Calls, and from which of them on: what the program itself is loaded from is opened and read first.
const CALLS: [(&str, u32); 10] = [
    ("openat", 20),
    ("statx", 20),
    ("pread64", 20),
    ("getdents64", 1),
    ("pwrite64", 1),
    ("fdatasync", 1),
    ("fsync", 1),
    ("ftruncate", 1),
    ("rename", 1),
    ("mkdir", 1),
];

#[test]
fn a_call_of_any_kind_that_a_signal_interrupts_is_made_again() {
    if !host::has(&["strace"]) {
        return;
    }
    for (call, first) in CALLS {
        let bench = Bench::new();
        (1..=20).for_each(|run| {
            bench.append_run(&format!("2026/01/{run:02}/n.jsonl"), &format!("run {run}"));
        });
        let plain = bench.command(&["run", "--once"]);
        let trace = bench.beside("trace");
        let mut traced = Command::new("strace");
        traced
            .args(["-f", "-qq", "-e", &format!("trace={call}"), "-e"])
            .arg(format!("inject={call}:error=EINTR:when={first}+3"))
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
