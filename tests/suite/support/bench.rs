//! Owns an engine on a simulated disk, driven step by step as the daemon's thread drives it, and what a reader
//! beside it has seen. Never decides what should come out: the naive batch does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use distilld::clock::Clock;
use distilld::discover::{PairPath, Stream as ProductStream, walk};
use distilld::engine::{Engine, EngineError, Setup};
use distilld::open::OpenReport;
use distilld::storage::Storage as _;
use distilld::tail::{LineLimits, seen};

use super::lake_gen::Step;
use super::sim_disk::SimDisk;

/// The root of every simulated lake.
pub const ROOT: &str = "/lake";
/// The export of it.
pub const EXPORT: &str = "/lake/data/distilled/sft/sft_export.jsonl";
/// Where its state lies.
pub const STATE_DIR: &str = "/lake/data/distilled/.distilld";
/// How long a source must be still, in the test's milliseconds.
pub const SETTLE_MS: u64 = 5_000;

/// A clock that moves when the test says so.
#[derive(Debug, Default)]
pub struct TestClock(AtomicU64);

impl TestClock {
    /// Moves both clocks on.
    pub fn advance(&self, by_ms: u64) {
        self.0.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn monotonic_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn wall_ms(&self) -> u64 {
        1_777_000_000_000 + self.monotonic_ms()
    }
}

/// An engine, its disk, and a reader of its export.
#[derive(Debug)]
pub struct Bench {
    pub disk: SimDisk,
    pub clock: Arc<TestClock>,
    pub engine: Option<Engine>,
    /// Every whole line that the reader has seen.
    pub seen: Vec<u8>,
    /// Journal length at which a checkpoint is due.
    pub checkpoint_bytes: u64,
    /// Threads of the engine.
    pub threads: usize,
}

impl Bench {
    /// A bench on a disk; no engine is open.
    pub fn new(disk: SimDisk) -> Self {
        Self {
            disk,
            clock: Arc::default(),
            engine: None,
            seen: Vec::new(),
            checkpoint_bytes: 1 << 20,
            threads: 1,
        }
    }

    fn setup(&self) -> Setup {
        Setup {
            storage: Arc::new(self.disk.clone()),
            clock: Arc::clone(&self.clock) as _,
            root: PathBuf::from(ROOT),
            state_dir: PathBuf::from(STATE_DIR),
            export_path: PathBuf::from(EXPORT),
            limits: LineLimits {
                line_bytes_max: 16 << 20,
            },
            settle_ms: SETTLE_MS,
            checkpoint_bytes: self.checkpoint_bytes,
            long_lines: Arc::default(),
            threads: self.threads,
        }
    }

    /// Opens the engine, and has it look at every day-file that has news, as the daemon does at its start.
    pub fn open(&mut self) -> Result<OpenReport, EngineError> {
        self.engine = None;
        let (engine, report) = Engine::open(self.setup())?;
        self.engine = Some(engine);
        self.look_around()?;
        Ok(report)
    }

    /// A scan: touches every day-file that is not as it was.
    pub fn look_around(&mut self) -> Result<(), EngineError> {
        let engine = self.engine.as_mut().unwrap();
        for stream in ProductStream::ALL {
            for path in walk(&self.disk, Path::new(ROOT), stream).unwrap().day_files {
                let stat = self.disk.stat(&path.path(Path::new(ROOT), stream)).unwrap();
                if engine.is_news(&path, stream, seen(&stat))? {
                    engine.touch_later(path);
                }
            }
        }
        Ok(())
    }

    /// Passes until nothing is left to look at.
    pub fn catch_up(&mut self) -> Result<(), EngineError> {
        let engine = self.engine.as_mut().unwrap();
        while engine.is_dirty() {
            engine.pass()?;
        }
        engine.tick()
    }

    /// Lets unterminated lines settle and quiet batches be committed.
    pub fn quiet(&mut self) -> Result<(), EngineError> {
        self.catch_up()?;
        for _ in 0..3 {
            self.clock.advance(SETTLE_MS);
            self.engine.as_mut().unwrap().tick()?;
            self.catch_up()?;
        }
        Ok(())
    }

    /// Carries out one step of a script. `heed`: whether an append is looked at before the next step.
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
                self.engine.as_mut().unwrap().touch(path);
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

    /// Looks at the export as a reader does: what was seen must still be its beginning.
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
        Ok(())
    }
}
