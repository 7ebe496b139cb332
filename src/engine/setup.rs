//! Owns what an engine is given: the disk, the clocks, where things lie, how lines are read.

use crate::config::Settings;
use crate::engine::Engine;
use crate::engine::error::EngineError;
use crate::lake::chunk::LineLimits;
use crate::lake::path::export_path;
use crate::platform::clock::Clock;
use crate::platform::storage::{OsStorage, Storage};
use crate::store::export::SEGMENT_BYTES;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// [`Setup::batch_bytes`] of the daemon: a sync of it takes longer than what each sync costs besides.
pub const BATCH_BYTES: usize = 4 << 20;

/// More threads than this only wait for the one that commits.
const THREADS_MAX: usize = 4;

/// What an engine works on, and how.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The file system.
    pub storage: Arc<dyn Storage>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// The root, without links in it.
    pub root: PathBuf,
    /// Where the state and the journal lie.
    pub state_dir: PathBuf,
    /// The export.
    pub export_path: PathBuf,
    /// How lines are read.
    pub limits: LineLimits,
    /// For how long a source must be still before its unterminated last line is taken.
    pub settle_ms: u64,
    /// Length of the journal at which a checkpoint is due, bytes.
    pub checkpoint_bytes: u64,
    /// Bytes of rows at which a pass commits what it has merged, and goes on.
    pub batch_bytes: usize,
    /// Bytes of the segments by which a fresh state knows the export again.
    pub segment_bytes: u64,
    /// Held by the one look at a time that works lines longer than a chunk, so that memory does not grow with threads.
    pub long_lines: Arc<Mutex<()>>,
    /// Threads that read day-files; 1: strictly one pair after the other, in order.
    pub threads: usize,
}

impl Setup {
    /// What an engine of these settings works on.
    #[must_use]
    pub fn new(settings: &Settings, root: &Path, clock: Arc<dyn Clock>) -> Self {
        Self {
            storage: Arc::new(OsStorage),
            clock,
            root: root.to_owned(),
            state_dir: settings.state_dir.clone(),
            export_path: export_path(root),
            limits: LineLimits {
                line_bytes_max: settings.max_line_bytes,
            },
            settle_ms: u64::try_from(settings.settle.as_millis()).unwrap_or(u64::MAX),
            checkpoint_bytes: settings.checkpoint_bytes,
            batch_bytes: BATCH_BYTES,
            segment_bytes: SEGMENT_BYTES,
            long_lines: Arc::default(),
            threads: std::thread::available_parallelism()
                .map_or(1, |threads| threads.get().min(THREADS_MAX)),
        }
    }

    /// What the disk said of the state directory.
    pub(crate) fn state_dir_error(&self, source: io::Error) -> EngineError {
        EngineError::StateDir {
            dir: self.state_dir.display().to_string(),
            source,
        }
    }
}

/// What of a setup may change while the engine works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconfigure {
    /// As [`crate::engine::Setup::limits`].
    pub limits: LineLimits,
    /// As [`crate::engine::Setup::settle_ms`].
    pub settle_ms: u64,
    /// As [`crate::engine::Setup::checkpoint_bytes`].
    pub checkpoint_bytes: u64,
}

impl Engine {
    /// Works by other figures from the next pass on. What was decided by the old ones stays decided.
    pub fn tune(&mut self, tuning: Reconfigure) {
        let settle_before_ms = std::mem::replace(&mut self.setup.settle_ms, tuning.settle_ms);
        for due_ms in self.settling.values_mut() {
            *due_ms = due_ms.saturating_sub(settle_before_ms) + tuning.settle_ms;
        }
        if self.setup.limits != tuning.limits {
            self.setup.limits = tuning.limits;
            // Where a search for a newline stopped depends on how long a line may be.
            for slot in self.slots.values_mut() {
                slot.memory.scored.scanned_to = 0;
                slot.memory.evidence.scanned_to = 0;
            }
        }
        self.setup.checkpoint_bytes = tuning.checkpoint_bytes;
    }
}
