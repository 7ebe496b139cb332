//! Crashes at every call that reaches the disk, and again at every call of the recovery from it, with unsynced writes
//! kept, lost or torn. The store's own file and the journal are on the same simulated disk.

use std::path::Path;

use fastrand::Rng;

use distilld::engine::{CLAIMS_HELD_MAX, EngineError};
use distilld::platform::storage::Storage as _;
use distilld::recovery::decide::RecoveryCase;

use crate::support::bench::{Bench, EXPORT, LEDGER, STATE_DIR};
use crate::support::lake_gen::{EvidenceMode, Shape, Step, Stream, pairs_of, script};
use crate::support::ledger::read_ledger;
use crate::support::naive::{multiset_difference, naive_batch};
use crate::support::process::{evidence, scored};
use crate::support::sim_disk::{EIO, Fate, Fault, NameOrder, SimDisk};

/// Scripts that are crashed at every call.
const SCRIPTS: u64 = 3;
/// A second crash is tested at every n-th call of a recovery, and of a recovery without a state.
const RECOVERY_STRIDE: u64 = 11;

/// The steps up to a crash, and the disk after it.
struct Crashed {
    bench: Bench,
    /// Steps that were taken, completely or in part.
    steps_taken: usize,
}

/// Runs a script until the disk fails at its `n`-th call; returns `None` if it does not.
fn run_into_crash(steps: &[Step], n: u64) -> Option<Crashed> {
    run_bench_into_crash(Bench::new(SimDisk::new()), steps, n)
}

fn run_bench_into_crash(mut bench: Bench, steps: &[Step], n: u64) -> Option<Crashed> {
    bench.checkpoint_bytes = 2 << 10;
    bench.disk.set_name_order(NameOrder::Any);
    bench.disk.crash_at(n);
    let mut steps_taken = 0;
    let mut alive = bench.open().is_ok();
    while alive && steps_taken < steps.len() {
        alive = bench.step(&steps[steps_taken], true).is_ok();
        steps_taken += 1;
    }
    let _seen_last = bench.read_export();
    bench
        .disk
        .is_dead()
        .then_some(Crashed { bench, steps_taken })
}

/// Creates a bench on another disk, with the rows that the reader of this one has seen.
fn moved_to(disk: SimDisk, bench: &Bench) -> Bench {
    let mut moved = Bench::new(disk);
    moved.checkpoint_bytes = bench.checkpoint_bytes;
    moved.claims_held_max = bench.claims_held_max;
    moved.seen = bench.seen.clone();
    moved.seen_ledger = bench.seen_ledger.clone();
    moved.was_opened = bench.was_opened;
    moved.seen_lengths = bench.seen_lengths.clone();
    moved
}

/// Creates a bench on the disk after the power cut, with the rows that the reader has seen.
fn after_power_cut(crashed: &Crashed, seed: u64, fate: Fate) -> Bench {
    moved_to(crashed.bench.disk.power_cut(seed, fate), &crashed.bench)
}

/// Recovers, continues the script, and compares with the batch.
fn recover_and_finish(bench: &mut Bench, rest: &[Step], all: &[Step], what: &str) {
    let report = bench
        .open()
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    // A rebuild would be correct too, but a crash is no reason to distrust the state.
    assert_eq!(report.state_lost, None, "{what}");
    bench
        .read_export()
        .unwrap_or_else(|fault| panic!("{what}: after recovery, {fault}"));
    for step in rest {
        bench
            .step(step, true)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    bench
        .step(&Step::Quiet, true)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_quiet(bench, all, what);
}

/// Asserts that rows, counts and effective set are those of the batch.
fn assert_quiet(bench: &Bench, steps: &[Step], what: &str) {
    let naive = naive_batch(&pairs_of(steps), false);
    let export = bench.disk.read(EXPORT).unwrap_or_default();
    let of_rows = multiset_difference(&export, &naive.rows);
    assert_eq!(of_rows, None, "{what}");
    assert_eq!(bench.count_fault(&naive.counts), None, "{what}");
    assert_eq!(bench.ledger_fault(&naive), None, "{what}");
}

/// Crashes at every call of a script, with every fate; with `again` also at calls of each recovery.
fn crash_everywhere(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let shape = Shape {
        lines: rng.usize(10..=20),
        ..Shape::small(&mut rng, EvidenceMode::Unique)
    };
    let steps = script(seed, &shape);
    let mut n = 0;
    while let Some(crashed) = run_into_crash(&steps, n) {
        for fate in Fate::ALL {
            let what = format!("seed {seed}, crash at call {n}, writes {fate:?}");
            let cut_seed = seed ^ n;
            let rest = &steps[crashed.steps_taken..];
            let mut found = after_power_cut(&crashed, cut_seed, fate);
            let calls_before = found.disk.calls();
            recover_and_finish(&mut found, rest, &steps, &what);
            let calls = found.disk.calls() - calls_before;
            for m in (n % RECOVERY_STRIDE..calls).step_by(RECOVERY_STRIDE as usize) {
                crash_in_recovery(&crashed, cut_seed, fate, m, &steps, &what);
            }
        }
        n += 1;
    }
    assert!(n > 60, "seed {seed}: the script has only {n} calls");
}

fn crash_in_recovery(
    crashed: &Crashed,
    cut_seed: u64,
    fate: Fate,
    m: u64,
    steps: &[Step],
    what: &str,
) {
    let mut found = after_power_cut(crashed, cut_seed, fate);
    found.disk.crash_at(m);
    let mut taken = crashed.steps_taken;
    let mut alive = found.open().is_ok();
    while alive && taken < steps.len() {
        alive = found.step(&steps[taken], true).is_ok();
        taken += 1;
    }
    if alive {
        alive = found.step(&Step::Quiet, true).is_ok();
    }
    if alive {
        return;
    }
    // Between a power cut and the recovery from it only the journal has the newest rows, so the export is not read
    // here.
    let what = format!("{what}, crash again at call {m}");
    let crashed_again = Crashed {
        bench: found,
        steps_taken: taken,
    };
    for fate in Fate::ALL {
        let what = format!("{what}, writes {fate:?}");
        let mut found = after_power_cut(&crashed_again, cut_seed ^ m, fate);
        recover_and_finish(&mut found, &steps[taken..], steps, &what);
    }
}

#[test]
fn a_crash_at_any_call_and_in_its_recovery_loses_and_duplicates_nothing() {
    std::thread::scope(|scope| {
        for seed in 0..SCRIPTS {
            scope.spawn(move || crash_everywhere(seed));
        }
    });
}

/// In the middle of a script the state is copied into a new file, which takes its place.
#[test]
fn a_crash_at_any_call_of_a_compaction_loses_and_duplicates_nothing() {
    for seed in 40..43 {
        let (start, steps, taken) = Bench::half_way(seed);
        let rest = &steps[taken..];
        for n in 0.. {
            let mut bench = moved_to(start.disk.fork(), &start);
            bench.open().unwrap();
            bench.catch_up().unwrap();
            bench.disk.crash_at(n);
            let compacted = bench.engine.as_mut().unwrap().compact();
            if !bench.disk.is_dead() {
                compacted.unwrap();
                assert!(n > 20, "seed {seed}: a compaction has only {n} calls");
                bench.disk.crash_at(u64::MAX / 2);
                recover_and_finish(&mut bench, rest, &steps, &format!("seed {seed}"));
                break;
            }
            let crashed = Crashed {
                bench,
                steps_taken: taken,
            };
            for fate in Fate::ALL {
                let what = format!("seed {seed}, crash at call {n}, writes {fate:?}");
                let mut found = after_power_cut(&crashed, seed ^ n, fate);
                recover_and_finish(&mut found, rest, &steps, &what);
                let names = found.disk.list(Path::new(STATE_DIR)).unwrap();
                let names: Vec<_> = names.into_iter().map(|entry| entry.name).collect();
                assert_eq!(names, ["journal", "state.redb"], "{what}");
            }
        }
    }
}

/// Returns whether the frames of the last epoch are in another order than that in which they were written: a checkpoint
/// was written meanwhile, and later frames took the room of what it applied.
fn has_frames_over_applied_ones(journal: &[u8]) -> bool {
    let number = |at: usize| {
        let bytes = journal.get(at..at + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().unwrap()))
    };
    let heads = (0..journal.len())
        .step_by(64)
        .filter(|at| journal[*at..].starts_with(b"DJF1"));
    let frames: Vec<_> = heads
        .filter_map(|at| number(at + 8).zip(number(at + 16)))
        .collect();
    let last_epoch = frames.iter().map(|(epoch, _)| *epoch).max();
    let seqs = frames
        .iter()
        .filter(|(epoch, _)| Some(*epoch) == last_epoch);
    !seqs.is_sorted_by_key(|(_, seq)| *seq)
}

/// Rows are merged and appended while the journal is written, and further batches are committed while a checkpoint is
/// written: which call is the `n`-th depends on the threads, so that each script meets the calls in another order.
#[test]
fn a_crash_during_a_background_commit_loses_and_duplicates_nothing() {
    let mut over_applied = 0;
    for seed in 30..36 {
        let mut rng = Rng::with_seed(seed);
        let steps = script(seed, &Shape::small(&mut rng, EvidenceMode::Unique));
        for n in 0.. {
            let mut bench = Bench::new(SimDisk::new());
            bench.commit_in_background();
            let Some(mut crashed) = run_bench_into_crash(bench, &steps, n) else {
                assert!(n > 60, "seed {seed}: the script has only {n} calls");
                break;
            };
            // As at the end of the process, before its disk is read.
            crashed.bench.engine = None;
            let fate = rng.choice(Fate::ALL).unwrap();
            let what = format!("seed {seed}, crash at call {n}, writes {fate:?}");
            let mut found = after_power_cut(&crashed, seed ^ n, fate);
            let journal = found.disk.read(format!("{STATE_DIR}/journal"));
            over_applied += u32::from(has_frames_over_applied_ones(&journal.unwrap_or_default()));
            found.commit_in_background();
            recover_and_finish(&mut found, &steps[crashed.steps_taken..], &steps, &what);
        }
    }
    assert!(
        over_applied > 50,
        "{over_applied} journals had frames over applied ones"
    );
}

/// The power cut that takes the newest rows from the export takes the state too: only the journal has these rows.
#[test]
fn visible_rows_survive_the_loss_of_the_state_in_the_same_power_cut() {
    let seed = 1;
    let mut rng = Rng::with_seed(seed);
    let shape = Shape {
        lines: 40,
        ..Shape::small(&mut rng, EvidenceMode::Unique)
    };
    let steps = script(seed, &shape);
    let (mut salvaged, mut failed_starts) = (0, 0);
    for n in (0..).step_by(2) {
        let Some(crashed) = run_into_crash(&steps, n) else {
            break;
        };
        for fate in Fate::ALL {
            let what = format!("seed {seed}, crash at call {n}, writes {fate:?}, state lost");
            let mut found = after_power_cut(&crashed, n, fate);
            let state = format!("{STATE_DIR}/state.redb");
            if found.disk.read(&state).is_some() {
                found.disk.write_file(&state, b"what a dying disk left");
            }
            let before = moved_to(found.disk.fork(), &found);
            let report = found
                .open()
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            if report.salvaged_bytes > 0 {
                if salvaged % RECOVERY_STRIDE == 0 {
                    failed_starts += fail_every_read_call_of_a_start(&before, &what);
                    crash_at_every_call_of_a_start(&before, &what);
                }
                salvaged += 1;
            }
            found
                .read_export()
                .unwrap_or_else(|fault| panic!("{what}: {fault}"));
            for step in &steps[crashed.steps_taken..] {
                found.step(step, true).unwrap();
            }
            found.step(&Step::Quiet, true).unwrap();
            assert_quiet(&found, &steps, &what);
        }
    }
    assert!(salvaged > 0, "no crash left rows in the journal alone");
    assert!(failed_starts > 0, "no look ended a start");
}

/// The process is killed at any call, also between the append of the ledger and that of the export, and the state is lost
/// with its journal. A start finds lines of the ledger whose rows are in no file, and needs no help.
#[test]
fn a_kill_at_any_call_and_the_loss_of_state_and_journal_need_no_help() {
    let mut ahead = 0;
    for seed in 0..3 {
        let mut rng = Rng::with_seed(seed);
        let shape = Shape {
            lines: 40,
            ..Shape::small(&mut rng, EvidenceMode::Unique)
        };
        let steps = script(seed, &shape);
        for n in 0.. {
            let Some(crashed) = run_into_crash(&steps, n) else {
                break;
            };
            let what = format!("seed {seed}, killed at call {n}, state and journal lost");
            let mut intact = after_power_cut(&crashed, n, Fate::Kept);
            intact.open().unwrap();
            assert_eq!(intact.missed_event(), None, "{what} or not");
            let mut found = after_power_cut(&crashed, n, Fate::Kept);
            let files = ["state.redb", "journal"].map(|name| format!("{STATE_DIR}/{name}"));
            for file in files.iter().filter(|file| found.disk.read(file).is_some()) {
                found.disk.remove(file);
            }
            ahead += u64::from(forget_lines_without_rows(&mut found));
            recover_and_finish(&mut found, &steps[crashed.steps_taken..], &steps, &what);
        }
    }
    assert!(ahead > 0, "no crash was between the two appends");
}

/// Forgets what the reader has seen of the ledger beyond the rows that are there: no version has these lines. Returns
/// whether there are any.
fn forget_lines_without_rows(bench: &mut Bench) -> bool {
    let export = bench.disk.read(EXPORT).unwrap_or_default();
    let rows = export.iter().rposition(|byte| *byte == b'\n');
    let rows = rows.map_or(0, |newline| newline as u64 + 1);
    let ledger = bench.disk.read(LEDGER).unwrap_or_default();
    let events = read_ledger(&export[..rows as usize], &ledger).unwrap();
    let with_rows = events.iter().rfind(|event| event.export_len <= rows);
    bench
        .seen_ledger
        .truncate(with_rows.map_or(0, |event| event.end as usize));
    events.last().is_some_and(|event| event.export_len > rows)
}

/// Fails each read-only call of a start once. An error that ends the start must not discard the journal: the next
/// start finds all rows that were seen. Returns the number of starts that failed.
fn fail_every_read_call_of_a_start(before: &Bench, what: &str) -> usize {
    let mut ended = 0;
    for n in 0.. {
        let mut found = moved_to(before.disk.fork(), before);
        found.disk.fail_read_call_at(n, Fault::once(EIO));
        let opened = found.open();
        let Some(failed) = found.disk.failed_read_call() else {
            break;
        };
        if opened.is_err() {
            ended += 1;
            found
                .open()
                .unwrap_or_else(|error| panic!("{what}, {failed} failed: {error}"));
        }
        found
            .read_export()
            .unwrap_or_else(|fault| panic!("{what}, {failed} failed: {fault}"));
    }
    ended
}

/// Cuts the power again at each call of the start that rewrites the journal's rows.
fn crash_at_every_call_of_a_start(before: &Bench, what: &str) {
    for n in 0.. {
        let mut bench = moved_to(before.disk.fork(), before);
        bench.disk.crash_at(n);
        if bench.open().is_ok() {
            break;
        }
        let crashed = Crashed {
            bench,
            steps_taken: 0,
        };
        for fate in Fate::ALL {
            let what = format!("{what}, crash again at call {n}, writes {fate:?}");
            let mut found = after_power_cut(&crashed, n, fate);
            found
                .open()
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            found
                .read_export()
                .unwrap_or_else(|fault| panic!("{what}: {fault}"));
        }
    }
}

/// The state is lost, the export exists and lacks rows, and the process dies at every call of the adoption, of the passes
/// after it and of the completion of the state, which has claims in memory or not.
#[test]
fn a_crash_at_any_call_of_an_adoption_duplicates_nothing() {
    let seed = 11;
    let mut rng = Rng::with_seed(seed);
    let shape = Shape {
        lines: 40,
        ..Shape::small(&mut rng, EvidenceMode::Unique)
    };
    let steps = script(seed, &shape);
    let (before, after) = steps.split_at(steps.len() * 2 / 3);
    let mut whole = Bench::new(SimDisk::new());
    whole.open().unwrap();
    for step in before {
        whole.step(step, true).unwrap();
    }
    whole.engine.take().unwrap().checkpoint().unwrap();
    for file in ["state.redb", "journal"] {
        whole.disk.remove(format!("{STATE_DIR}/{file}"));
    }
    whole.append_unnoticed(after);
    for claims_held_max in [0, CLAIMS_HELD_MAX] {
        whole.claims_held_max = claims_held_max;
        let begun_again = crash_at_every_call_of_an_adoption(&whole, &steps);
        assert_eq!(begun_again > 0, claims_held_max > 0);
    }
}

/// Returns the number of adoptions that began again after rows were appended.
fn crash_at_every_call_of_an_adoption(whole: &Bench, steps: &[Step]) -> u64 {
    let rows = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    let adopted = rows(&whole.seen);
    let mut begun_again = 0;
    for n in 0.. {
        let mut crashed = moved_to(whole.disk.fork(), whole);
        crashed.checkpoint_bytes = 2 << 10;
        crashed.disk.crash_at(n);
        let report = crashed
            .open()
            .and_then(|report| crashed.quiet().map(|()| report));
        let _seen_last = crashed.read_export();
        let appended = rows(&crashed.seen) - adopted;
        if let Ok(report) = report {
            assert_eq!(
                (report.case, report.rows_adopted),
                (RecoveryCase::Adopt, adopted)
            );
            assert!(
                adopted > 0 && appended > 0,
                "{adopted}, {appended}: nothing is shown"
            );
            return begun_again;
        }
        let crashed = Crashed {
            bench: crashed,
            steps_taken: steps.len(),
        };
        for fate in Fate::ALL {
            let what = format!("adoption, crash at call {n}, writes {fate:?}");
            let mut found = after_power_cut(&crashed, n, fate);
            let has_state = found.disk.read(format!("{STATE_DIR}/state.redb")).is_some();
            begun_again += u64::from(appended > 0 && !has_state);
            recover_and_finish(&mut found, &[], steps, &what);
        }
    }
    begun_again
}

/// Appends a run and its evidence. Returns the numbers of mutating and of read-only calls.
fn calls_of_a_run(bench: &mut Bench, run: &str) -> Result<(u64, u64), EngineError> {
    let before = (bench.disk.calls(), bench.disk.read_calls());
    for (stream, line) in [
        (Stream::Evidence, evidence(run)),
        (Stream::Scored, scored(run)),
    ] {
        let step = Step::Append {
            stream,
            pair: "2026/01/01/steady.jsonl".to_owned(),
            // Whole blocks of the digest, so that each line needs the same reads.
            bytes: format!("{:<511}\n", line.trim_end()).into_bytes(),
        };
        bench.step(&step, true)?;
    }
    let [calls, read_calls] = [bench.disk.calls(), bench.disk.read_calls()];
    Ok((calls - before.0, read_calls - before.1))
}

/// A recovery leaves nothing that makes later work more expensive.
#[test]
fn a_crash_does_not_increase_the_cost_of_a_run() {
    for fate in Fate::ALL {
        let mut bench = Bench::new(SimDisk::new());
        bench.open().unwrap();
        let before =
            ["run-a", "run-b", "run-c"].map(|run| calls_of_a_run(&mut bench, run).unwrap());
        // At the call at which its frame is written and not yet durable.
        bench.disk.crash_at(1);
        assert!(calls_of_a_run(&mut bench, "run-x").is_err());
        let crashed = Crashed {
            bench,
            steps_taken: 0,
        };
        let mut found = after_power_cut(&crashed, 5, fate);
        found.open().unwrap();
        found.catch_up().unwrap();
        let after = ["run-d", "run-e", "run-f"].map(|run| calls_of_a_run(&mut found, run).unwrap());
        for ((calls, reads), (calls_before, reads_before)) in after.iter().zip(&before).skip(1) {
            assert_eq!(calls, calls_before, "writes {fate:?}");
            // A day-file whose stat is too young to be relied on has its samples compared.
            assert!(*reads <= reads_before + 2, "writes {fate:?}: {after:?}");
        }
    }
}
