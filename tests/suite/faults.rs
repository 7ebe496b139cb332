//! An error from every call that reaches the disk, in turn, both mutating and read-only: once, until the disk is
//! healed, and a second error during the recovery from the first. Transient errors are retried as the daemon does;
//! others end the process, and the next start recovers. Signals, and the short reads and writes that go with them, are
//! not errors and fail nothing.

use distilld::engine::EngineError;
use fastrand::Rng;

use crate::support::bench::{Bench, EXPORT};
use crate::support::lake_gen::{EvidenceMode, Shape, Step, pairs_of, script};
use crate::support::naive::{multiset_difference, naive_batch};
use crate::support::sim_disk::fault::Partly;
use crate::support::sim_disk::{EIO, ENOSPC, Fate, Fault, SimDisk};
use crate::support::tools::number_from;

/// Maximum number of retries before the test fails.
const TRIES: usize = 12;
/// Variables for pairs of faults: the seed of the lake, different in each run, and the number of pairs.
const SEED_VARIABLE: &str = "DISTILLD_FAULTS_SEED";
const PAIRS_VARIABLE: &str = "DISTILLD_FAULT_PAIRS";
const PAIRS: u64 = 400;
/// Number of lakes under signals in the ordinary run.
const SIGNAL_SEEDS: u64 = 12;
/// Maximum number of calls between the error of the first fault and the second fault.
const SECOND_MAX: u64 = 40;

/// The kind of calls that are counted and fail.
#[derive(Debug, Clone, Copy)]
enum Calls {
    /// Calls that change something.
    Changing,
    /// Calls that only read.
    ReadOnly,
}

impl Calls {
    fn so_far(self, disk: &SimDisk) -> u64 {
        match self {
            Calls::Changing => disk.calls(),
            Calls::ReadOnly => disk.read_calls(),
        }
    }
}

/// An injected fault.
#[derive(Debug, Clone, Copy)]
struct Injected {
    calls: Calls,
    /// The number of the failing call; for a second fault, counted from the error of the first one.
    n: u64,
    fault: Fault,
}

impl Injected {
    fn inject(self, disk: &SimDisk) {
        match self.calls {
            Calls::Changing => disk.fail_at(self.n, self.fault),
            Calls::ReadOnly => disk.fail_read_call_at(self.n, self.fault),
        }
    }
}

/// A script under faults, driven as the daemon drives the engine.
struct Trial {
    bench: Bench,
    what: String,
    /// Injected at the first error.
    second: Option<Injected>,
    errors: usize,
    /// Calls that failed on previous disks, before a new process or a power cut.
    failed_before: Vec<String>,
    /// Number of steps between the first error and the power cut; `None` if there is none, or after it.
    cut_in: Option<usize>,
}

impl Trial {
    /// Ends the process; the next one finds the disk in this state.
    fn next_process(&mut self, fate: Fate) {
        let found = self.bench.disk.power_cut(1, fate);
        found.heal();
        self.failed_before.extend(self.bench.disk.failed_calls());
        self.bench.disk = found;
        self.bench.engine = None;
    }

    /// Returns the mutating calls that failed so far.
    fn failed_calls(&self) -> Vec<String> {
        [self.failed_before.clone(), self.bench.disk.failed_calls()].concat()
    }

    /// Cuts the power: everything without a successful sync is lost, including what a failed sync left in the kernel's
    /// memory.
    fn cut(&mut self) {
        self.next_process(Fate::Lost);
        self.persist(|_| Ok(()));
        if let Err(fault) = self.bench.read_export() {
            panic!("{}, power cut: {fault}", self.what);
        }
    }

    /// Cuts the power if the cut is due.
    fn cut_if_due(&mut self) {
        match self.cut_in {
            Some(0) if self.errors > 0 => {
                self.cut_in = None;
                self.cut();
            }
            Some(steps) if self.errors > 0 => self.cut_in = Some(steps - 1),
            _ => {}
        }
    }

    /// Acts on an error like the daemon's thread: retries, or starts a new process.
    fn after_error(&mut self, error: &EngineError) {
        self.errors += 1;
        if !error.is_transient() {
            // The process ends; the kernel keeps its data.
            self.next_process(Fate::Kept);
        }
        let bench = &mut self.bench;
        if let Some(second) = self.second.take() {
            second.inject(&bench.disk);
        }
        bench
            .read_export()
            .unwrap_or_else(|fault| panic!("{}: {fault}, after: {error}", self.what));
    }

    /// Repeats `act` until it succeeds, and opens the engine where there is none.
    fn persist(&mut self, mut act: impl FnMut(&mut Bench) -> Result<(), EngineError>) {
        let mut last = String::new();
        for tries in 0..TRIES {
            if tries == TRIES / 2 {
                self.bench.disk.heal();
            }
            let opened = if self.bench.engine.is_none() {
                self.bench.open().map(|_| ())
            } else {
                Ok(())
            };
            match opened.and_then(|()| act(&mut self.bench)) {
                Ok(()) => return,
                Err(error) => {
                    last = error.to_string();
                    self.after_error(&error);
                }
            }
        }
        panic!("{}: stuck: {last}", self.what);
    }
}

/// As [`run_bench_with_faults`], in one thread.
fn run_with_faults(
    seed: u64,
    steps: &[Step],
    disk: SimDisk,
    first: Option<Injected>,
    second: Option<Injected>,
    cut_in: Option<usize>,
) -> Trial {
    run_bench_with_faults(seed, steps, Bench::new(disk), first, second, cut_in)
}

/// Runs a script while calls fail; returns it after a final scan and silence, without remaining faults.
fn run_bench_with_faults(
    seed: u64,
    steps: &[Step],
    bench: Bench,
    first: Option<Injected>,
    second: Option<Injected>,
    cut_in: Option<usize>,
) -> Trial {
    let mut trial = Trial {
        bench,
        what: format!("seed {seed}, {first:?}, then {second:?}"),
        second,
        errors: 0,
        failed_before: Vec::new(),
        cut_in,
    };
    trial.bench.checkpoint_bytes = 2 << 10;
    if let Some(first) = first {
        first.inject(&trial.bench.disk);
    }
    for step in steps {
        // A failed step has appended its bytes already: only the scan is repeated.
        let mut appended = false;
        trial.persist(|bench| match step {
            Step::Append { .. } if appended => bench.scan().and_then(|()| bench.catch_up()),
            step => {
                appended = true;
                bench.step(step, true)
            }
        });
        trial.cut_if_due();
    }
    if let Some(failed) = trial.bench.disk.failed_read_call() {
        trial.what = format!("{}, last of them {failed}", trial.what);
    }
    trial.bench.disk.heal();
    trial.persist(|bench| bench.scan().and_then(|()| bench.quiet()));
    trial
}

/// Returns the first violation at the end of a script.
fn fault_at_the_end(trial: &mut Trial, steps: &[Step]) -> Option<String> {
    let bench = &mut trial.bench;
    let naive = naive_batch(&pairs_of(steps), false);
    let export = bench.disk.read(EXPORT).unwrap_or_default();
    multiset_difference(&export, &naive.rows)
        .or_else(|| bench.count_fault(&naive.counts))
        .or_else(|| bench.read_export().err())
}

/// Returns a small script and the number of its calls without faults.
fn small_script(seed: u64, calls: Calls) -> (Vec<Step>, u64) {
    let mut rng = Rng::with_seed(seed);
    let shape = Shape {
        lines: rng.usize(10..=20),
        ..Shape::small(&mut rng, EvidenceMode::Unique)
    };
    let steps = script(seed, &shape);
    let mut trial = run_with_faults(seed, &steps, SimDisk::new(), None, None, None);
    assert_eq!(fault_at_the_end(&mut trial, &steps), None, "{}", trial.what);
    let calls = calls.so_far(&trial.bench.disk);
    assert!(calls > 60, "seed {seed}: the script has only {calls} calls");
    (steps, calls)
}

/// Returns the difference between the reported errors and the failed calls, if there is one. Several calls that fail
/// until the disk is healed may be reported as one error.
fn reporting_fault(trial: &Trial, fault: Fault) -> Option<String> {
    let failed = trial.failed_calls();
    let reportable = failed.len() - trial.bench.failed_in_closing;
    let is_reported = match fault.persistent {
        true => (trial.errors > 0) == (reportable > 0) && trial.errors <= reportable,
        false => trial.errors == reportable,
    };
    let [errors, closing] = [trial.errors, trial.bench.failed_in_closing];
    (!is_reported)
        .then(|| format!("{errors} errors were reported, {closing} met in closing, of {failed:?}"))
}

/// Fails every call in turn. Returns the total number of errors that the daemon met.
fn check(seed: u64, calls: Calls, fault: Fault) -> usize {
    check_also(seed, calls, fault, |_| None)
}

/// As [`check`]; `also` performs additional checks.
fn check_also(
    seed: u64,
    calls: Calls,
    fault: Fault,
    also: impl Fn(&Trial) -> Option<String>,
) -> usize {
    let (steps, end) = small_script(seed, calls);
    let mut wrong = Vec::new();
    let mut errors = 0;
    for n in 0..end {
        let first = Injected { calls, n, fault };
        let mut trial = run_with_faults(seed, &steps, SimDisk::new(), Some(first), None, None);
        errors += trial.errors;
        let wrong_end = fault_at_the_end(&mut trial, &steps);
        if let Some(fault) = wrong_end.or_else(|| also(&trial)) {
            wrong.push(format!("{}: {fault}", trial.what));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {end} calls, the first: {}",
        wrong.len(),
        wrong[0]
    );
    errors
}

fn check_changing(errno: i32, persistent: bool, partly: Partly) {
    for seed in 20..22 {
        let fault = Fault {
            errno,
            persistent,
            partly,
        };
        let errors = check_also(seed, Calls::Changing, fault, |trial| {
            reporting_fault(trial, fault)
        });
        assert!(
            errors > 60,
            "seed {seed}: only {errors} errors were reported"
        );
    }
}

#[test]
fn a_full_disk_at_any_call_loses_nothing_and_is_retried() {
    check_changing(ENOSPC, false, Partly::Nothing);
    check_changing(ENOSPC, false, Partly::Torn);
    check_changing(ENOSPC, true, Partly::Short);
}

#[test]
fn an_io_error_at_any_call_loses_nothing() {
    check_changing(EIO, false, Partly::Nothing);
    check_changing(EIO, true, Partly::Torn);
}

/// Fails every call of a compaction in the middle of a script.
fn check_compaction(seed: u64, calls: Calls, fault: Fault) {
    let (start, steps, taken) = Bench::half_way(seed);
    for n in 0.. {
        let first = Injected { calls, n, fault };
        let mut trial = Trial {
            bench: Bench::new(start.disk.fork()),
            what: format!("seed {seed}, {first:?} of a compaction"),
            second: None,
            errors: 0,
            failed_before: Vec::new(),
            cut_in: None,
        };
        trial.persist(Bench::catch_up);
        let end = calls.so_far(&trial.bench.disk) + n;
        first.inject(&trial.bench.disk);
        trial.persist(|bench| bench.engine.as_mut().unwrap().compact());
        let was_injected = calls.so_far(&trial.bench.disk) > end;
        trial.bench.disk.heal();
        for step in steps[taken..].iter().chain([&Step::Quiet]) {
            trial.persist(|bench| bench.step(step, true));
        }
        assert_eq!(fault_at_the_end(&mut trial, &steps), None, "{}", trial.what);
        if !was_injected {
            assert!(
                n > 15,
                "seed {seed}: a compaction has only {n} {calls:?} calls"
            );
            break;
        }
    }
}

#[test]
fn an_error_at_any_call_of_a_compaction_loses_nothing() {
    let full = Fault {
        errno: ENOSPC,
        persistent: true,
        partly: Partly::Short,
    };
    check_compaction(50, Calls::Changing, full);
    check_compaction(51, Calls::Changing, Fault::once(EIO));
    check_compaction(52, Calls::ReadOnly, Fault::once(EIO));
}

#[test]
fn a_read_call_that_fails_once_is_retried() {
    for seed in 20..24 {
        check(seed, Calls::ReadOnly, Fault::once(EIO));
    }
}

#[test]
fn read_calls_that_fail_for_a_while_lose_nothing() {
    for seed in 20..24 {
        check(seed, Calls::ReadOnly, Fault::until_healed(EIO));
    }
}

#[test]
fn a_call_interrupted_by_a_signal_is_retried_without_failure() {
    for seed in 20..22 {
        for calls in [Calls::Changing, Calls::ReadOnly] {
            let errors = check(seed, calls, Fault::interruption());
            assert_eq!(errors, 0, "seed {seed}, {calls:?}");
        }
    }
}

/// Every other call is interrupted, every read and write is short.
#[test]
fn permanent_signals_and_short_reads_and_writes_fail_nothing() {
    for seed in 20..20 + SIGNAL_SEEDS {
        let (steps, _) = small_script(seed, Calls::Changing);
        let disk = SimDisk::new();
        disk.set_signals(Some(seed));
        let mut trial = run_with_faults(seed, &steps, disk, None, None, None);
        assert_eq!(trial.errors, 0, "seed {seed}");
        let fault = fault_at_the_end(&mut trial, &steps);
        assert_eq!(fault, None, "seed {seed}");
    }
}

/// Returns a fault for the `n`-th call.
fn random_fault(rng: &mut Rng, n: u64) -> Injected {
    let errno = *rng.choice(&[EIO, ENOSPC]).unwrap();
    let partly = *rng
        .choice(&[Partly::Nothing, Partly::Short, Partly::Torn])
        .unwrap();
    Injected {
        calls: *rng.choice(&[Calls::Changing, Calls::ReadOnly]).unwrap(),
        n,
        fault: Fault {
            errno,
            persistent: rng.u8(..4) == 0,
            partly,
        },
    }
}

/// One call fails, and then another one of the calls by which the daemon recovers from the error or reopens
/// everything.
#[test]
fn an_error_during_the_recovery_from_an_error_loses_nothing() {
    let seed = number_from(SEED_VARIABLE).unwrap_or_else(|| fastrand::u64(..));
    let pairs = number_from(PAIRS_VARIABLE).unwrap_or(PAIRS);
    let mut rng = Rng::with_seed(seed);
    let (steps, end) = small_script(seed, Calls::Changing);
    let mut met_both = 0;
    for _ in 0..pairs {
        let n = rng.u64(..end);
        let first = random_fault(&mut rng, n);
        let after = rng.u64(..SECOND_MAX);
        let second = random_fault(&mut rng, after);
        let mut trial = run_with_faults(
            seed,
            &steps,
            SimDisk::new(),
            Some(first),
            Some(second),
            None,
        );
        met_both += u64::from(trial.errors > 1);
        let fault = fault_at_the_end(&mut trial, &steps);
        assert_eq!(fault, None, "{SEED_VARIABLE}={seed}: {}", trial.what);
    }
    eprintln!("{SEED_VARIABLE}={seed}: {pairs} pairs of faults, {met_both} of them met");
    assert!(met_both > pairs / 4, "{met_both} of {pairs}");
}

/// The result of a failed sync looks written to the next process, and is not on the disk. A commit that fails while a
/// pass runs returns its sealed rows: none of them is lost, and they precede the rows merged meanwhile.
#[test]
fn an_error_during_a_background_commit_loses_nothing() {
    let mut met = 0;
    for seed in 40..44 {
        let (steps, end) = small_script(seed, Calls::Changing);
        for n in 0..end {
            let mut bench = Bench::new(SimDisk::new());
            bench.commit_in_background();
            let fault = Fault {
                errno: if n % 2 == 0 { ENOSPC } else { EIO },
                persistent: n % 3 == 0,
                partly: if n % 5 == 0 {
                    Partly::Torn
                } else {
                    Partly::Nothing
                },
            };
            let calls = Calls::Changing;
            let first = Some(Injected { calls, n, fault });
            let mut trial = run_bench_with_faults(seed, &steps, bench, first, None, None);
            met += trial.errors;
            let fault = fault_at_the_end(&mut trial, &steps);
            assert_eq!(fault, None, "{}", trial.what);
        }
    }
    assert!(met > 100, "only {met} errors were met");
}

#[test]
fn a_power_cut_after_a_failed_sync_and_a_restart_loses_nothing() {
    for seed in 20..23 {
        let (steps, end) = small_script(seed, Calls::Changing);
        for n in 0..end {
            let disk = SimDisk::new();
            disk.set_doom_outlives_kill(true);
            let first = Injected {
                calls: Calls::Changing,
                n,
                fault: Fault::once(EIO),
            };
            let cut_in = Some(n as usize % 3);
            let mut trial = run_with_faults(seed, &steps, disk, Some(first), None, cut_in);
            let fault = fault_at_the_end(&mut trial, &steps);
            assert_eq!(fault, None, "{}, cut in {cut_in:?}", trial.what);
        }
    }
}
