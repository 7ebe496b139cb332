//! An error from every call that reaches the disk, in turn: once, and until it is healed. What may pass is tried
//! again as the daemon does; what may not ends the process, and the next start recovers.

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

fn run_with_fault(seed: u64, steps: &[Step], n: u64, fault: Fault) -> bool {
    let what = format!("seed {seed}, {fault:?} at call {n}");
    let mut bench = Bench::new(SimDisk::new());
    bench.checkpoint_bytes = 2 << 10;
    bench.disk.fail_at(n, fault);
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
    let reached = bench.disk.calls() > n;
    bench.disk.heal();
    persist(&mut bench, &what, |bench| {
        bench.look_around().and_then(|()| bench.quiet())
    });
    let naive = naive_batch(&pairs_of(steps), false);
    let export = bench.disk.read(EXPORT).unwrap_or_default();
    if let Some(difference) = multiset_difference(&export, &naive.rows) {
        panic!("{what}: {difference}");
    }
    reached
}

fn check(errno: i32, persistent: bool, partly: Partly) {
    for seed in 20..22 {
        let mut rng = Rng::with_seed(seed);
        let shape = Shape {
            lines: rng.usize(10..=20),
            ..Shape::small(&mut rng, EvidenceMode::Unique)
        };
        let steps = script(seed, &shape);
        let mut n = 0;
        while run_with_fault(
            seed,
            &steps,
            n,
            Fault {
                errno,
                persistent,
                partly,
            },
        ) {
            n += 1;
        }
        assert!(n > 60, "seed {seed}: the script has only {n} calls");
    }
}

#[test]
fn a_full_disk_at_any_call_loses_nothing_and_passes_by_itself() {
    check(ENOSPC, false, Partly::Nothing);
    check(ENOSPC, false, Partly::Torn);
    check(ENOSPC, true, Partly::Short);
}

#[test]
fn an_io_error_at_any_call_loses_nothing() {
    check(EIO, false, Partly::Nothing);
    check(EIO, true, Partly::Torn);
}
