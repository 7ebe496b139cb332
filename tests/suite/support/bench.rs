//! An engine on a simulated disk, driven step by step as the daemon's thread drives it, and a reader that records the
//! export. The expected result is computed by the naive batch.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use distilld::engine::{
    BATCH_BYTES, CLAIMS_HELD_MAX, Engine, EngineError, OrderError, OrderRequest, OrderResult, Setup,
};
use distilld::lake::chunk::LineLimits;
use distilld::lake::identity::seen;
use distilld::lake::path::{PairPath, Stream as ProductStream};
use distilld::lake::walk::walk;
use distilld::pair::verdict::VerdictKind;
use distilld::platform::clock::Clock;
use distilld::platform::storage::Storage as _;
use distilld::recovery::report::OpenReport;

use super::lake_gen::{EvidenceMode, Shape, Step, script};
use super::ledger::{Event, ledger_fault, read_ledger, stamp_of_last_row};
use super::naive::{Counts, NaiveBatch};
use super::sim_disk::SimDisk;

/// The root of every simulated lake.
pub const ROOT: &str = "/lake";
/// Its export.
pub const EXPORT: &str = "/lake/data/distilled/sft/sft_export.jsonl";
/// Its retraction ledger.
pub const LEDGER: &str = "/lake/data/distilled/sft/sft_retractions.jsonl";
/// Its state directory.
pub const STATE_DIR: &str = "/lake/data/distilled/.distilld";
/// Small enough for several segments in a small lake.
const SEGMENT_BYTES: u64 = 700;
/// Time without change before a source settles, in the test's milliseconds.
pub const SETTLE_MS: u64 = 5_000;
/// More passes than any test's lake needs: reaching it indicates an endless loop.
const PASSES_MAX: usize = 20_000;
/// Duration of each pause of a slow checkpoint.
const CHECKPOINT_PAUSE: Duration = Duration::from_micros(300);
/// Calls of the disk from one of these pauses to the next.
const CALLS_A_PAUSE: u32 = 8;
/// More waits than there are conditions to wait for.
const WAITS_MAX: usize = 200;

/// A clock that advances only on request.
#[derive(Debug, Default)]
pub struct TestClock {
    monotonic_ms: AtomicU64,
    /// Offset of the wall clock, milliseconds.
    set_by_ms: AtomicI64,
}

impl TestClock {
    /// Advances both clocks.
    pub fn advance(&self, by_ms: u64) {
        self.monotonic_ms.fetch_add(by_ms, Ordering::SeqCst);
    }

    /// Sets the offset of the wall clock.
    pub fn set_wall(&self, by_ms: i64) {
        self.set_by_ms.store(by_ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn monotonic_ms(&self) -> u64 {
        self.monotonic_ms.load(Ordering::SeqCst)
    }

    fn wall_ms(&self) -> u64 {
        let set_by_ms = self.set_by_ms.load(Ordering::SeqCst);
        (1_777_000_000_000 + self.monotonic_ms()).saturating_add_signed(set_by_ms)
    }
}

/// An engine, its disk, and a reader of its export.
#[derive(Debug)]
pub struct Bench {
    pub disk: SimDisk,
    pub clock: Arc<TestClock>,
    pub engine: Option<Engine>,
    /// Every complete line that the reader has seen.
    pub seen: Vec<u8>,
    /// Every complete line of the ledger that the reader has seen.
    pub seen_ledger: Vec<u8>,
    /// Whether a start ever succeeded: before that nothing of a ledger is promised.
    pub was_opened: bool,
    /// The lengths of export and ledger at each read, bytes.
    pub seen_lengths: Vec<(u64, u64)>,
    /// Journal length at which a checkpoint is due.
    pub checkpoint_bytes: u64,
    /// Threads of the engine.
    pub threads: usize,
    /// Bytes of rows at which a pass commits.
    pub batch_bytes: usize,
    /// Maximum unclaimed rows of an adopted export in memory.
    pub claims_held_max: usize,
    /// Time without change before a source settles.
    pub settle_ms: u64,
    /// Maximum line length; a longer line is a dead letter.
    pub line_bytes_max: u64,
    /// Calls that failed while an engine was closed: the store writes then, and no caller receives the error.
    pub failed_in_closing: usize,
}

impl Bench {
    /// Creates a bench on a disk without an open engine.
    pub fn new(disk: SimDisk) -> Self {
        Self {
            disk,
            clock: Arc::default(),
            engine: None,
            seen: Vec::new(),
            seen_ledger: Vec::new(),
            was_opened: false,
            seen_lengths: Vec::new(),
            checkpoint_bytes: 1 << 20,
            threads: 1,
            batch_bytes: BATCH_BYTES,
            claims_held_max: CLAIMS_HELD_MAX,
            settle_ms: SETTLE_MS,
            line_bytes_max: 16 << 20,
            failed_in_closing: 0,
        }
    }

    /// Creates a bench that has taken the first half of a random script. Returns the script and the steps that are taken.
    pub fn half_way(seed: u64) -> (Self, Vec<Step>, usize) {
        let mut rng = Rng::with_seed(seed);
        let steps = script(seed, &Shape::small(&mut rng, EvidenceMode::Unique));
        let taken = steps.len() / 2;
        let mut bench = Self::new(SimDisk::new());
        bench.open().unwrap();
        for step in &steps[..taken] {
            bench.step(step, true).unwrap();
        }
        (bench, steps, taken)
    }

    /// Commits the rows of each pass on a second thread while further pairs are merged. Checkpoints on a thread of their
    /// own are slow, so that further batches are committed meanwhile.
    pub fn commit_in_background(&mut self) {
        self.threads = 2;
        self.batch_bytes = 1;
        let calls = AtomicU32::new(0);
        self.disk.before_each_call(Arc::new(move || {
            let is_checkpoint = thread::current().name() == Some("checkpoint");
            if is_checkpoint
                && calls
                    .fetch_add(1, Ordering::Relaxed)
                    .is_multiple_of(CALLS_A_PAUSE)
            {
                thread::sleep(CHECKPOINT_PAUSE);
            }
        }));
    }

    /// Returns the setup of its engine.
    pub fn setup(&self) -> Setup {
        Setup {
            storage: Arc::new(self.disk.clone()),
            clock: Arc::clone(&self.clock) as _,
            root: PathBuf::from(ROOT),
            state_dir: PathBuf::from(STATE_DIR),
            export_path: PathBuf::from(EXPORT),
            ledger_path: PathBuf::from(LEDGER),
            ledger_origin: Default::default(),
            limits: LineLimits {
                line_bytes_max: self.line_bytes_max,
            },
            settle_ms: self.settle_ms,
            checkpoint_bytes: self.checkpoint_bytes,
            batch_bytes: self.batch_bytes,
            segment_bytes: SEGMENT_BYTES,
            claims_held_max: self.claims_held_max,
            long_lines: Arc::default(),
            exclude: Default::default(),
            threads: self.threads,
        }
    }

    /// Opens the engine and queues every changed day-file, as the daemon does at its start.
    pub fn open(&mut self) -> Result<OpenReport, EngineError> {
        self.close();
        let (engine, report) = Engine::open(self.setup())?;
        self.engine = Some(engine);
        self.was_opened = true;
        self.scan()?;
        Ok(report)
    }

    /// Closes the engine if one is open.
    fn close(&mut self) {
        let failed = self.disk.failed_calls().len();
        self.engine = None;
        self.failed_in_closing += self.disk.failed_calls().len() - failed;
    }

    /// Scans: queues every changed day-file. As in the daemon, a directory that cannot be listed is left to the next
    /// scan, and a day-file without readable metadata counts as changed.
    pub fn scan(&mut self) -> Result<(), EngineError> {
        let engine = self.engine.as_mut().unwrap();
        for stream in ProductStream::ALL {
            let listed = walk(&self.disk, Path::new(ROOT), stream).unwrap_or_default();
            for path in listed.day_files {
                let is_changed = match self.disk.stat(&path.path(Path::new(ROOT), stream)) {
                    Ok(stat) => engine
                        .has_changed(&path, stream, seen(&stat))
                        .unwrap_or(true),
                    Err(_) => true,
                };
                if is_changed {
                    engine.enqueue_backlog(path);
                }
            }
        }
        Ok(())
    }

    /// Runs passes until the queue is empty.
    pub fn catch_up(&mut self) -> Result<(), EngineError> {
        let engine = self.engine.as_mut().unwrap();
        for _ in 0..PASSES_MAX {
            if !engine.is_dirty() {
                engine.complete_state()?;
                engine.scrub_export()?;
                return engine.tick();
            }
            engine.pass()?;
            self.clock.advance(1);
        }
        panic!("{PASSES_MAX} passes, and the queue is not empty");
    }

    /// Catches up and waits for lines that may settle, as `run --once` does; returns whether the wait ended.
    pub fn settle_all(&mut self) -> Result<bool, EngineError> {
        for _ in 0..WAITS_MAX {
            self.catch_up()?;
            let engine = self.engine.as_mut().unwrap();
            if !engine.may_settle() {
                return Ok(true);
            }
            let now_ms = self.clock.monotonic_ms();
            let due_ms = engine.due_ms().unwrap_or(now_ms);
            self.clock.advance(due_ms.saturating_sub(now_ms));
            engine.tick()?;
        }
        Ok(false)
    }

    /// Returns the difference between the counts and those of the naive batch, if there is one.
    pub fn count_fault(&self, naive: &Counts) -> Option<String> {
        let totals = self.engine.as_ref().unwrap().totals();
        let counts = &totals.counts;
        let product = [
            counts[VerdictKind::Exported],
            counts[VerdictKind::Firewalled],
            counts[VerdictKind::UnknownCategory],
            counts[VerdictKind::Waiting],
            counts[VerdictKind::WrongRole],
            counts[VerdictKind::BlankText],
            totals.scored_malformed,
            counts.contradicted,
        ];
        let expected = [
            naive.exported,
            naive.firewall,
            naive.unknown_category,
            naive.no_evidence,
            naive.role,
            naive.blank_text,
            naive.malformed,
            naive.contradicted,
        ];
        (product != expected).then(|| format!("counts {product:?}, naive {expected:?}"))
    }

    /// Lets unterminated lines settle and quiet batches be committed.
    pub fn quiet(&mut self) -> Result<(), EngineError> {
        self.catch_up()?;
        for _ in 0..3 {
            self.clock.advance(self.settle_ms.max(SETTLE_MS));
            self.engine.as_mut().unwrap().tick()?;
            self.catch_up()?;
        }
        Ok(())
    }

    /// Appends what the steps append, without a hint for the engine.
    pub fn append_unnoticed(&self, steps: &[Step]) {
        for (stream, pair, bytes) in steps.iter().filter_map(Step::appended) {
            let day_file = stream.path(Path::new(ROOT), pair);
            self.disk.append_durable(day_file, bytes);
        }
    }

    /// Carries out one step of a script. With `heed`, an append is read before the next step.
    pub fn step(&mut self, step: &Step, heed: bool) -> Result<(), EngineError> {
        match step {
            Step::Append {
                stream,
                pair,
                bytes,
            } => {
                self.disk
                    .append_durable(stream.path(Path::new(ROOT), pair), bytes);
                let path = PairPath::from_relative(Path::new(pair)).unwrap();
                self.engine.as_mut().unwrap().enqueue(path);
                if heed {
                    self.catch_up()?
                }
            }
            Step::Quiet => self.quiet()?,
            Step::Checkpoint => self.engine.as_mut().unwrap().checkpoint()?,
            Step::Restart => {
                self.open()?;
                if heed {
                    self.catch_up()?
                }
            }
        }
        self.read_export()
            .map_or_else(|what| panic!("{what}"), |()| Ok(()))
    }

    /// Reads the export like a consumer: the lines seen so far must still be its beginning.
    pub fn read_export(&mut self) -> Result<(), String> {
        let bytes = self.disk.read(EXPORT).unwrap_or_default();
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |newline| newline + 1);
        if !bytes.starts_with(&self.seen) {
            return Err(format!(
                "the reader had seen {} bytes that are not the beginning of the export's {} any more",
                self.seen.len(),
                bytes.len()
            ));
        }
        self.seen = bytes[..whole].to_vec();
        self.read_ledger()
    }

    /// Reads the ledger like a consumer that has just read the export: what was seen of it stays, and it has every event
    /// that was committed before the newest row (L3).
    fn read_ledger(&mut self) -> Result<(), String> {
        if !self.was_opened {
            return Ok(());
        }
        let bytes = self.disk.read(LEDGER).unwrap_or_default();
        if !bytes.starts_with(&self.seen_ledger) {
            return Err(format!(
                "the reader had seen {} bytes that are not the beginning of the ledger's {} any more",
                self.seen_ledger.len(),
                bytes.len()
            ));
        }
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |newline| newline + 1);
        self.seen_ledger = bytes[..whole].to_vec();
        let lengths = (self.seen.len() as u64, whole as u64);
        self.seen_lengths.push(lengths);
        Ok(())
    }

    /// Returns the difference between the effective set and that of the naive batch, or an event that a reader did not see
    /// although it saw a later row.
    pub fn ledger_fault(&self, naive: &NaiveBatch) -> Option<String> {
        let export = self.disk.read(EXPORT).unwrap_or_default();
        let ledger = self.disk.read(LEDGER).unwrap_or_default();
        self.missed_event()
            .or_else(|| ledger_fault(&export, &ledger, naive))
    }

    /// Returns an event that a reader did not see although it saw a row of the same commit, or of a later one (L3).
    pub fn missed_event(&self) -> Option<String> {
        let export = self.disk.read(EXPORT).unwrap_or_default();
        let ledger = self.disk.read(LEDGER).unwrap_or_default();
        let events = read_ledger(&export, &ledger).unwrap_or_default();
        for (export_len, ledger_len) in &self.seen_lengths {
            let mut unseen = events.iter().filter(|event| event.end > *ledger_len);
            // The passes of a bench have different times: rows and events of one time are of one commit.
            let newest = stamp_of_last_row(&export, *export_len);
            let is_due = |event: &&Event| {
                event.export_len < *export_len
                    || event.export_len == *export_len && newest.as_ref() == Some(&event.at)
            };
            if let Some(event) = unseen.find(is_due) {
                return Some(format!(
                    "a reader of {export_len} bytes of the export saw {ledger_len} bytes of the ledger, without {event:?}"
                ));
            }
        }
        None
    }

    /// Gives or ends an order on runs, as `retract` does.
    pub fn order(&mut self, run_ids: &[&str], revoke: bool) -> Result<OrderResult, OrderError> {
        self.order_in(None, run_ids, revoke)
    }

    /// As [`Self::order`], limited to a day-file.
    pub fn order_in(
        &mut self,
        day_file: Option<&str>,
        run_ids: &[&str],
        revoke: bool,
    ) -> Result<OrderResult, OrderError> {
        let request = OrderRequest {
            run_ids: run_ids.iter().map(|id| (*id).to_owned()).collect(),
            reason: "the operator's words".to_owned(),
            day_file: day_file.map(str::to_owned),
            revoke,
            dry_run: false,
            unseen: true,
        };
        self.engine.as_mut().unwrap().order(&request)
    }
}
