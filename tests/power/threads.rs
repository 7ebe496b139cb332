//! Owns a host that has few threads to give: the daemon does with those that there are, or says that it cannot.

use std::process::Command;

use crate::host;
use crate::rights::as_user;
use crate::support::process::{Bench, LONG};

/// A user that has no other process, so that the limit counts the daemon's own threads.
const USER: &str = "65321";
/// More than a daemon that catches up has.
const THREADS_MAX: u32 = 12;
const PAIRS: usize = 8;

/// The limit is taken along into the program, and counts from when the user is another.
fn limited(threads: u32, command: &Command) -> Command {
    let mut limited = Command::new("prlimit");
    limited
        .env_clear()
        .envs(
            command
                .get_envs()
                .filter_map(|(key, value)| Some((key, value?))),
        )
        .arg(format!("--nproc={threads}"))
        .arg(command.get_program())
        .args(command.get_args());
    limited
}

#[test]
fn however_few_threads_there_are_it_ends_and_nothing_is_lost() {
    if !host::has(&["setpriv", "chown", "prlimit"]) {
        return;
    }
    let mut ended_well = 0;
    for threads in 1..=THREADS_MAX {
        let bench = Bench::new();
        for pair in 0..PAIRS {
            bench.append_run(&format!("2026/01/01/{pair}.jsonl"), &format!("run {pair}"));
        }
        let mut once = as_user(&bench, USER);
        once.arg("--once");
        let mut daemon = bench.start_command(&mut limited(threads, &once));
        let status = daemon
            .wait(LONG)
            .unwrap_or_else(|error| panic!("{threads} threads: {error}\n{}", bench.said()));
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
