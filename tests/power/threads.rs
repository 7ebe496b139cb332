//! A host that allows few threads: the daemon works with fewer or reports that it cannot start.

use std::os::unix::process::CommandExt as _;

use crate::host::{self, wrapped};
use crate::support::process::{Bench, LONG};

/// A user without other processes, so that the limit counts the daemon's own threads.
const USER: u32 = 65_321;
/// More threads than a daemon has while it catches up.
const THREADS_MAX: u32 = 12;
const PAIRS: usize = 8;

#[test]
fn any_thread_limit_ends_the_daemon_cleanly_without_losses() {
    if !host::has(&["prlimit"]) {
        return;
    }
    let mut ended_well = 0;
    for threads in 1..=THREADS_MAX {
        let bench = Bench::new();
        for pair in 0..PAIRS {
            bench.append_run(&format!("2026/01/01/{pair}.jsonl"), &format!("run {pair}"));
        }
        let once = bench.as_user(USER, &["run", "--once"]);
        let limit = format!("--nproc={threads}");
        let mut once = wrapped(&once, "prlimit", &[&limit]);
        let mut daemon = bench.start_command(once.uid(USER).gid(USER));
        let status = daemon
            .wait(LONG)
            .unwrap_or_else(|error| panic!("{threads} threads: {error}\n{}", bench.log_text()));
        ended_well += u32::from(status.success());
        if status.success() {
            bench.assert_batch();
        }
        bench.once();
        bench.assert_batch();
        bench.assert_distinct(PAIRS);
    }
    assert!(
        (2..THREADS_MAX).contains(&ended_well),
        "{ended_well} of {THREADS_MAX} ended well: no limit was what it had to do with"
    );
}
