//! The whole daemon in a deterministic simulation: what a status promises, that everything is read in the end, and that
//! the idle daemon is quiet, with any event lost or late, and any disk full or broken.

use std::path::Path;
use std::time::Duration;

use crate::support::bench::ROOT;
use crate::support::lake_gen::Stream;
use crate::support::process::{evidence, scored};
use crate::support::sim_daemon::{Profile, simulate, simulate_lake, simulate_with};
use crate::support::tools::number_from;

/// Simulations in the ordinary run; the variables select the number and the seed of the first one.
const SIMULATIONS: u64 = 200;
const SIMULATIONS_VARIABLE: &str = "DISTILLD_SIMULATIONS";
const SEED_VARIABLE: &str = "DISTILLD_SIMULATIONS_SEED";

#[test]
fn a_simulated_daemon_keeps_its_promises() {
    let number = number_from(SIMULATIONS_VARIABLE);
    // The ordinary run has the same seeds each time, so that a change is the cause of its failure.
    let any = || number.map_or(0, |_| fastrand::u64(..));
    let first = number_from(SEED_VARIABLE).unwrap_or_else(any);
    let (mut turns, mut starts) = (0, 0);
    for n in 0..number.unwrap_or(SIMULATIONS) {
        let seed = first.wrapping_add(n);
        // The test runner prints this only if the check fails.
        println!("{SEED_VARIABLE}={seed}");
        let trace = simulate(seed);
        turns += trace.turns;
        starts += trace.starts;
    }
    println!("{turns} turns, {starts} starts");
}

/// A disk on which a scan takes longer than the pause between two scans, and few watches.
#[test]
fn a_daemon_whose_scans_are_slow_is_ready() {
    let slow = |profile: &mut Profile| {
        profile.call_ms = 40;
        profile.limits.watches_max = 4;
        profile.poll = Some(Duration::from_millis(200));
    };
    for seed in 0..10 {
        // The test runner prints this only if the check fails.
        println!("seed {seed}");
        simulate_with(seed, slow);
    }
}

/// Each turn of the loop ends with a scan that finds the unterminated line again.
#[test]
fn a_daemon_whose_slow_scans_find_an_unterminated_line_is_ready() {
    let slow = |profile: &mut Profile| {
        profile.actions = 0;
        profile.call_ms = 40;
        profile.limits.watches_max = 4;
        profile.poll = Some(Duration::from_millis(200));
    };
    let mut day_files = Vec::new();
    for day in 1..=4 {
        let pair = format!("2026/01/{day:02}/a.jsonl");
        for (stream, line) in [
            (Stream::Evidence, evidence("run")),
            (Stream::Scored, scored("run")),
        ] {
            let bytes = [line.as_bytes(), &line.as_bytes()[..20]].concat();
            day_files.push((stream.path(Path::new(ROOT), &pair), bytes));
        }
    }
    for seed in 0..4 {
        // The test runner prints this only if the check fails.
        println!("seed {seed}");
        simulate_lake(seed, slow, day_files.clone());
    }
}

#[test]
fn a_seed_has_one_trace() {
    for seed in 0..8 {
        let [one, other] = [simulate(seed), simulate(seed)].map(|trace| trace.text);
        let differs = one
            .lines()
            .zip(other.lines())
            .find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(one.len(), other.len(), "seed {seed}");
    }
}
