//! An error from every call that reaches the disk, in turn, of those that change something and of those that only
//! look: once, and until it is healed. What may pass is tried again as the daemon does; what may not ends the process,
//! and the next start recovers.

use distilld::engine::EngineError;
use fastrand::Rng;

use crate::support::bench::{Bench, EXPORT};
use crate::support::lake_gen::{EvidenceMode, Shape, Step, pairs_of, script};
use crate::support::naive::{multiset_difference, naive_batch};
use crate::support::sim_disk::{EIO, ENOSPC, Fate, Fault, Partly, SimDisk};

/// How often something is tried again before the test calls it stuck.
const TRIES: usize = 12;

/// What the daemon's thread does after an error: again, or a new process.
fn after_error(bench: &mut Bench, error: &EngineError, what: &str) {
    if !error.may_pass() {
        // The process ends; the kernel keeps what it has.
        let found = bench.disk.power_cut(1, Fate::Kept);
        found.heal();
        bench.disk = found;
        bench.engine = None;
    }
    bench
        .read_export()
        .unwrap_or_else(|fault| panic!("{what}: {fault}, after: {error}"));
}

/// Does `act` until it succeeds, opening the engine where there is none.
fn persist(
    bench: &mut Bench,
    what: &str,
    mut act: impl FnMut(&mut Bench) -> Result<(), EngineError>,
) {
    let mut last = String::new();
    for tries in 0..TRIES {
        if tries == TRIES / 2 {
            bench.disk.heal();
        }
        let opened = if bench.engine.is_none() {
            bench.open().map(|_| ())
        } else {
            Ok(())
        };
        match opened.and_then(|()| act(bench)) {
            Ok(()) => return,
            Err(error) => {
                last = error.to_string();
                after_error(bench, &error, what);
            }
        }
    }
    panic!("{what}: stuck: {last}");
}

/// Which of the calls are counted, and fail.
#[derive(Debug, Clone, Copy)]
enum Calls {
    /// Those that change something.
    Changing,
    /// Those that only look.
    Looking,
}

impl Calls {
    fn fail_at(self, disk: &SimDisk, n: u64, fault: Fault) {
        match self {
            Calls::Changing => disk.fail_at(n, fault),
            Calls::Looking => disk.fail_look_at(n, fault),
        }
    }

    fn so_far(self, disk: &SimDisk) -> u64 {
        match self {
            Calls::Changing => disk.calls(),
            Calls::Looking => disk.looks(),
        }
    }
}

/// Carries out a script while the `n`-th call fails, and gives the bench as it stands after a last scan and silence,
/// with no fault left.
fn run_with_fault(
    seed: u64,
    steps: &[Step],
    injected: Option<(Calls, u64, Fault)>,
) -> (Bench, String) {
    let mut what = format!("seed {seed}, {injected:?}");
    let mut bench = Bench::new(SimDisk::new());
    bench.checkpoint_bytes = 2 << 10;
    if let Some((calls, n, fault)) = injected {
        calls.fail_at(&bench.disk, n, fault);
    }
    for step in steps {
        // A step that failed has appended its bytes already: only the looking is done again.
        let mut appended = false;
        persist(&mut bench, &what, |bench| match step {
            Step::Append { .. } if appended => bench.look_around().and_then(|()| bench.catch_up()),
            step => {
                appended = true;
                bench.step(step, true)
            }
        });
    }
    if let Some(failed) = bench.disk.failed_look() {
        what = format!("{what}, last of them {failed}");
    }
    bench.disk.heal();
    persist(&mut bench, &what, |bench| {
        bench.look_around().and_then(|()| bench.quiet())
    });
    (bench, what)
}

/// What is wrong at the end of a script, if anything.
fn fault_at_the_end(bench: &mut Bench, steps: &[Step]) -> Option<String> {
    let naive = naive_batch(&pairs_of(steps), false);
    let export = bench.disk.read(EXPORT).unwrap_or_default();
    multiset_difference(&export, &naive.rows)
        .or_else(|| bench.count_fault(&naive.counts))
        .or_else(|| bench.read_export().err())
}

/// A small script, and how many calls it makes where none fails.
fn small_script(seed: u64, calls: Calls) -> (Vec<Step>, u64) {
    let mut rng = Rng::with_seed(seed);
    let shape = Shape {
        lines: rng.usize(10..=20),
        ..Shape::small(&mut rng, EvidenceMode::Unique)
    };
    let steps = script(seed, &shape);
    let (mut bench, what) = run_with_fault(seed, &steps, None);
    assert_eq!(fault_at_the_end(&mut bench, &steps), None, "{what}");
    let calls = calls.so_far(&bench.disk);
    assert!(calls > 60, "seed {seed}: the script has only {calls} calls");
    (steps, calls)
}

fn check(seed: u64, calls: Calls, fault: Fault) {
    let (steps, end) = small_script(seed, calls);
    let mut wrong = Vec::new();
    for n in 0..end {
        let (mut bench, what) = run_with_fault(seed, &steps, Some((calls, n, fault)));
        if let Some(fault) = fault_at_the_end(&mut bench, &steps) {
            wrong.push(format!("{what}: {fault}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {end} calls, the first: {}",
        wrong.len(),
        wrong[0]
    );
}

fn check_changing(errno: i32, persistent: bool, partly: Partly) {
    for seed in 20..22 {
        let fault = Fault {
            errno,
            persistent,
            partly,
        };
        check(seed, Calls::Changing, fault);
    }
}

#[test]
fn a_full_disk_at_any_call_loses_nothing_and_passes_by_itself() {
    check_changing(ENOSPC, false, Partly::Nothing);
    check_changing(ENOSPC, false, Partly::Torn);
    check_changing(ENOSPC, true, Partly::Short);
}

#[test]
fn an_io_error_at_any_call_loses_nothing() {
    check_changing(EIO, false, Partly::Nothing);
    check_changing(EIO, true, Partly::Torn);
}

#[test]
fn a_look_at_the_disk_that_fails_once_is_taken_again() {
    for seed in 20..24 {
        check(seed, Calls::Looking, Fault::once(EIO));
    }
}

#[test]
fn looks_at_the_disk_that_fail_for_a_while_lose_nothing() {
    for seed in 20..24 {
        check(seed, Calls::Looking, Fault::until_healed(EIO));
    }
}
