//! The engine on a simulated disk against the naive batch: random lakes with arbitrary cuts and interleavings,
//! restarts with and without a checkpoint, and a wall clock that jumps by years. The engine's own assertions check
//! rules 1 to 6 of `engine` after every step.

use std::collections::BTreeMap;

use distilld::engine::CLAIMS_HELD_MAX;
use fastrand::Rng;

use crate::support::bench::{Bench, EXPORT, LEDGER, STATE_DIR};
use crate::support::lake_gen::{EvidenceMode, Shape, Step, pairs_of, script, shrink};
use crate::support::naive::{multiset_difference, naive_batch, row_key};
use crate::support::sim_disk::SimDisk;

/// Cases of each kind in the ordinary run.
const CASES: u64 = 1_500;
/// Maximum jump of the wall clock: ten years.
const YEARS_MS: i64 = 10 * 365 * 86_400_000;

/// Runs a script to its end, with a final quiet, and returns the bench. The seed also determines whether an append is
/// read before the next step.
fn run(seed: u64, steps: &[Step]) -> Bench {
    let mut rng = Rng::with_seed(seed ^ 0x5eed);
    let mut bench = Bench::new(SimDisk::new());
    match rng.u8(..3) {
        0 => bench.commit_in_background(),
        threads => bench.threads = threads.into(),
    }
    bench.checkpoint_bytes = rng.choice([4 << 10, 1 << 20]).unwrap();
    bench.claims_held_max = rng.choice([0, CLAIMS_HELD_MAX]).unwrap();
    bench.open().unwrap();
    for step in steps {
        if rng.u8(..4) == 0 {
            bench.clock.set_wall(rng.i64(-YEARS_MS..YEARS_MS));
        }
        let heed = rng.u8(..4) > 0;
        bench.step(step, heed).unwrap();
    }
    bench.step(&Step::Quiet, true).unwrap();
    bench
}

/// Returns a violation in the export of a lake whose evidence never changes, if there is one.
fn fault_of(seed: u64, steps: &[Step]) -> Option<String> {
    let ran = std::panic::catch_unwind(|| {
        let bench = run(seed, steps);
        let naive = naive_batch(&pairs_of(steps), false);
        let export = bench.disk.read(EXPORT).unwrap_or_default();
        multiset_difference(&export, &naive.rows)
            .or_else(|| bench.count_fault(&naive.counts))
            .or_else(|| bench.ledger_fault(&naive))
    });
    ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Some(text.unwrap_or_else(|| "it panicked".to_owned()))
    })
}

#[test]
fn any_interleaving_of_a_random_lake_equals_the_batch() {
    for seed in 0..CASES {
        let mut rng = Rng::with_seed(seed);
        let steps = script(seed, &Shape::small(&mut rng, EvidenceMode::Unique));
        if let Some(fault) = fault_of(seed, &steps) {
            let least = shrink(&steps, |steps| fault_of(seed, steps).is_some());
            panic!(
                "seed {seed}: {fault}\nleast script: {least:#?}\n{:?}",
                fault_of(seed, &least)
            );
        }
    }
}

/// Day-files of one name on several days have lines with one row key: after the loss of the state nothing shows of which of
/// them a row is before a line claims it.
#[test]
fn a_lost_state_has_the_counts_and_the_effective_rows_of_the_batch_again() {
    for seed in 0..CASES / 3 {
        let mut rng = Rng::with_seed(seed);
        let steps = script(seed, &Shape::small(&mut rng, EvidenceMode::Unique));
        let naive = naive_batch(&pairs_of(&steps), false);
        let mut bench = run(seed, &steps);
        for lost in [&[][..], &[LEDGER]] {
            bench.engine = None;
            let state = ["state.redb", "journal"].map(|name| format!("{STATE_DIR}/{name}"));
            state.iter().for_each(|file| bench.disk.remove(file));
            lost.iter().for_each(|file| bench.disk.remove(file));
            bench.open().unwrap();
            bench.quiet().unwrap();
            bench.seen_lengths.clear();
            let export = bench.disk.read(EXPORT).unwrap_or_default();
            let fault = multiset_difference(&export, &naive.rows)
                .or_else(|| bench.count_fault(&naive.counts))
                .or_else(|| bench.ledger_fault(&naive));
            assert_eq!(fault, None, "seed {seed}, also lost: {lost:?}");
        }
    }
}

#[test]
fn changing_evidence_never_duplicates_or_loses_a_row() {
    for seed in 0..CASES {
        let mut rng = Rng::with_seed(seed);
        let steps = script(seed, &Shape::small(&mut rng, EvidenceMode::Free));
        let bench = run(seed, &steps);
        let naive = naive_batch(&pairs_of(&steps), false);
        let export = String::from_utf8(bench.disk.read(EXPORT).unwrap_or_default()).unwrap();
        // Day-files of the same name on two days may have identical lines.
        let mut rows = BTreeMap::<_, usize>::new();
        for row in export.lines() {
            *rows.entry((row_id(row), row_key(row))).or_default() += 1;
        }
        let pairs = pairs_of(&steps);
        for ((id, key), count) in &rows {
            let name = format!("/{}", id.rsplit_once(':').unwrap().0);
            let namesakes = pairs.keys().filter(|pair| pair.ends_with(&name)).count();
            assert!(
                *count <= namesakes,
                "seed {seed}: {count} rows of one line, {id} {key}"
            );
        }
        // A row that the batch earns with the last evidence exists, regardless of earlier evidence.
        for row in &naive.rows {
            let left = rows
                .get_mut(&(row_id(row), row_key(row)))
                .filter(|left| **left > 0);
            *left.unwrap_or_else(|| panic!("seed {seed}: missing {row}")) -= 1;
        }
    }
}

fn row_id(row: &str) -> String {
    let row: serde_json::Value = serde_json::from_str(row).unwrap();
    row["id"].as_str().unwrap().to_owned()
}
