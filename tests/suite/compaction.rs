//! The length of the state's file after a history that was written live, and the compaction that ends it.

use std::path::Path;

use distilld::platform::storage::Storage as _;

use crate::support::bench::{Bench, STATE_DIR};
use crate::support::lake_gen::{Step, Stream};
use crate::support::process::{evidence, scored};
use crate::support::sim_disk::SimDisk;

/// Time without news after which the state is compacted, with a reserve.
const QUIET_MS: u64 = 10_000;
/// Pairs of day-files.
const PAIRS: u32 = 10;
/// Bytes of the state for each record.
const RECORD_BYTES_MAX: u64 = 40;

/// Returns the bytes that the state takes on a disk with holes.
fn state_bytes(bench: &Bench) -> u64 {
    let path = format!("{STATE_DIR}/state.redb");
    let bytes = bench.disk.read(&path).unwrap();
    let is_hole = |block: &&[u8]| block.iter().all(|byte| *byte == 0);
    let written = bytes.chunks(4_096).filter(|block| !is_hole(block));
    written.map(|block| block.len() as u64).sum()
}

/// Appends runs to each pair, in random order of their ids, and lets the engine read them.
fn write_live(bench: &mut Bench, rng: &mut fastrand::Rng, pairs: u32, runs: u32) {
    for pair in 0..pairs {
        let (mut scored_lines, mut evidence_lines) = (String::new(), String::new());
        for _ in 0..runs {
            let run = format!("{:016x}", rng.u64(..));
            scored_lines += &scored(&run);
            evidence_lines += &evidence(&run);
        }
        for (stream, lines) in [
            (Stream::Scored, scored_lines),
            (Stream::Evidence, evidence_lines),
        ] {
            let step = Step::Append {
                stream,
                pair: format!("2026/01/01/executor-{pair}.jsonl"),
                bytes: lines.into_bytes(),
            };
            bench.step(&step, false).unwrap();
        }
    }
    bench.catch_up().unwrap();
    bench.clock.advance(1_000);
}

/// Does what is due at once until nothing is, as the daemon does. Returns the number of steps.
fn work_while_idle(bench: &mut Bench) -> u32 {
    bench.clock.advance(QUIET_MS);
    let mut ticks = 0;
    let engine = bench.engine.as_mut().unwrap();
    while engine.due_ms().is_some_and(|due_ms| due_ms == 0) || ticks == 0 {
        engine.tick().unwrap();
        ticks += 1;
    }
    ticks
}

/// Returns a lake that was written in rounds, and the number of its records.
fn live_history(runs: u32, rounds: u32) -> (Bench, u64) {
    let mut bench = Bench::new(SimDisk::new());
    bench.checkpoint_bytes = 128 << 10;
    bench.open().unwrap();
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..rounds {
        write_live(&mut bench, &mut rng, PAIRS, runs);
    }
    (bench, 2 * u64::from(PAIRS * runs * rounds))
}

#[test]
fn a_history_that_was_written_live_takes_as_little_state_as_one_that_was_read_at_once() {
    let (mut bench, records) = live_history(25, 80);
    bench.engine.as_mut().unwrap().checkpoint().unwrap();
    let written = state_bytes(&bench);
    let ticks = work_while_idle(&mut bench);
    let compacted = state_bytes(&bench);
    assert!(written > 2 * RECORD_BYTES_MAX * records, "{written}");
    assert!(compacted <= RECORD_BYTES_MAX * records, "{compacted}");
    // The copy is made in small steps, between which news would be read, and only once.
    assert!(ticks > 3, "{ticks}");
    assert_eq!(work_while_idle(&mut bench), 1);

    let restarted = bench.open().unwrap();
    assert_eq!(restarted.state_lost, None);
    bench.quiet().unwrap();
    assert_eq!(
        bench.engine.as_ref().unwrap().totals().scored_lines,
        records / 2
    );
}

#[test]
fn news_during_a_compaction_are_read_and_a_checkpoint_ends_it() {
    let (mut bench, records) = live_history(25, 40);
    let copy = Path::new(STATE_DIR).join("state.redb.compacting");
    bench.engine.as_mut().unwrap().checkpoint().unwrap();
    bench.clock.advance(QUIET_MS);
    for _ in 0..2 {
        bench.engine.as_mut().unwrap().tick().unwrap();
    }
    assert!(bench.disk.stat(&copy).is_ok());
    let mut rng = fastrand::Rng::with_seed(8);
    write_live(&mut bench, &mut rng, 1, 1);
    let read = bench.engine.as_ref().unwrap().totals().scored_lines;
    assert_eq!(read, records / 2 + 1);
    assert!(bench.disk.stat(&copy).is_ok(), "it continues");
    bench.engine.as_mut().unwrap().checkpoint().unwrap();
    assert!(bench.disk.stat(&copy).is_err());
    work_while_idle(&mut bench);
    assert!(state_bytes(&bench) <= RECORD_BYTES_MAX * records + (64 << 10));
}
