//! The real daemon killed repeatedly, with and without its state.
//!
//! A thousand kills: `DISTILLD_KILLS=1000 cargo test --test suite kill::`; with the same number, `DISTILLD_KILLS_SEED`
//! restores a failing lake and the durations of its lives. What the daemon was doing when it was killed depends on the
//! host.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::support::account::{Compared, account_fault};
use crate::support::kill_harness::{KillPlan, daemon_command, earns_rows_throughout, run};
use crate::support::lake_gen::{Shape, script};
use crate::support::naive::compare::difference_without_state;
use crate::support::tools::number_from;

const SEED_VARIABLE: &str = "DISTILLD_KILLS_SEED";

/// The seed differs in each run, so that many runs cover many moments; a failure prints it.
fn check(plan: &KillPlan) {
    let dir = tempfile::tempdir().unwrap();
    eprintln!("{SEED_VARIABLE}={}", plan.seed);
    let report = run(plan, dir.path()).unwrap_or_else(|fault| panic!("{fault}"));
    eprintln!("{report:?}");
    // A kill before the first row of a life tests little; on an idle host few are. A long run needs only some kills
    // with progress.
    assert!(
        report.kills_with_progress > (plan.kills / 6).min(25),
        "{SEED_VARIABLE}={}: {report:?}",
        plan.seed
    );
    let is_varied = report.retracted > 0 && report.answered > 0;
    assert!(is_varied, "{SEED_VARIABLE}={}: {report:?}", plan.seed);
    let fault = account_fault(&dir.path().join("lake"), Compared::All);
    assert_eq!(fault, None, "{SEED_VARIABLE}={}", plan.seed);
}

/// Returns a plan with lives that are mostly longer than a start, and a lake that earns rows until the last of them.
fn plan(kills: u32) -> KillPlan {
    let scoring = Duration::from_millis(250) * kills;
    let lines = 40 * kills as usize;
    let script_of = |seed| script(seed, &Shape::steady(lines));
    let first = number_from(SEED_VARIABLE).unwrap_or_else(|| fastrand::u64(..));
    let seed = (first..)
        .find(|seed| earns_rows_throughout(&script_of(*seed)))
        .expect("many scripts do");
    let appends = u32::try_from(script_of(seed).len()).unwrap();
    KillPlan {
        lines,
        appends_per_second: appends / u32::try_from(scoring.as_secs()).unwrap(),
        scoring,
        life: Duration::from_millis(400),
        ..KillPlan::new(seed, kills)
    }
}

/// Returns the number of kills, unless `DISTILLD_KILLS` selects another.
fn kills(ordinary: u32) -> u32 {
    let Ok(value) = std::env::var("DISTILLD_KILLS") else {
        return ordinary;
    };
    let kills = value.parse().ok().filter(|kills| *kills >= ordinary);
    kills.unwrap_or_else(|| panic!("DISTILLD_KILLS={value} is no number from {ordinary}"))
}

/// Starts so far, of the first test alone.
static LIVES: AtomicU32 = AtomicU32::new(0);

/// Returns the daemon's command; every second life writes checkpoints all the time, while rows come.
fn with_checkpoints(root: &Path) -> Command {
    let mut command = daemon_command(root);
    if LIVES.fetch_add(1, Ordering::Relaxed) % 2 == 1 {
        command.env("DISTILLD_CHECKPOINT_BYTES", (16 << 10).to_string());
    }
    command
}

#[test]
fn kills_lose_and_duplicate_nothing() {
    check(&KillPlan {
        command: with_checkpoints,
        ..plan(kills(50))
    });
}

/// Starts so far, of the second test alone.
static STARTS: AtomicU32 = AtomicU32::new(0);

/// Returns the daemon's command; before every third start it removes the state.
fn forgetful(root: &Path) -> Command {
    if STARTS.fetch_add(1, Ordering::Relaxed) % 3 == 2 {
        // A life may have been too short to create one.
        _ = fs::remove_dir_all(root.join("data/distilled/.distilld"));
    }
    daemon_command(root)
}

#[test]
fn kills_with_lost_states_duplicate_nothing() {
    check(&KillPlan {
        command: forgetful,
        difference: difference_without_state,
        ..plan(kills(30))
    });
}
