//! The environment and the settings of an engine: file system, clocks, paths, limits.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::config::{Exclude, LINE_BYTES_MAX};
use crate::engine::Engine;
use crate::engine::error::EngineError;
use crate::lake::chunk::LineLimits;
use crate::pair::ROWS_BYTES_MAX;
use crate::platform::clock::Clock;
use crate::platform::storage::Storage;
use crate::record::synthesize::row_len_max;
use crate::store::journal::PAYLOAD_LEN_MAX;
use crate::store::ledger::Order;

/// [`Setup::batch_bytes`] of the daemon: large enough that writing it takes longer than the fixed cost of a sync.
pub const BATCH_BYTES: usize = 4 << 20;

/// [`Setup::claims_held_max`] of the daemon: 12 MiB, which a checkpoint needs twice.
pub const CLAIMS_HELD_MAX: usize = 512 << 10;

/// Room in a frame of the journal for all of a batch but its rows.
const DELTA_BYTES_MAX: u64 = 64 << 20;
// A batch is committed as soon as it has BATCH_BYTES. Before that a read adds less than ROWS_BYTES_MAX and one row more:
// a row that no frame can hold would end each start.
const _: () = assert!(
    BATCH_BYTES as u64 + ROWS_BYTES_MAX as u64 + row_len_max(LINE_BYTES_MAX) + DELTA_BYTES_MAX
        <= PAYLOAD_LEN_MAX as u64
);

/// The environment and the settings of an engine.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The file system.
    pub storage: Arc<dyn Storage>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// The root of the lake, with all links resolved.
    pub root: PathBuf,
    /// The directory of the state and the journal.
    pub state_dir: PathBuf,
    /// The path of the export.
    pub export_path: PathBuf,
    /// The path of the retraction ledger.
    pub ledger_path: PathBuf,
    /// What a new ledger begins with.
    pub ledger_origin: LedgerOrigin,
    /// The day-files that are not read.
    pub exclude: Exclude,
    /// Limits on the length of a line.
    pub limits: LineLimits,
    /// Time for which a source must be unchanged before its unterminated last line is read, milliseconds.
    pub settle_ms: u64,
    /// Length of the journal at which a checkpoint is due, bytes.
    pub checkpoint_bytes: u64,
    /// Bytes of merged rows at which a pass begins a commit.
    pub batch_bytes: usize,
    /// Length of the segments that are hashed when an export is adopted, bytes.
    pub segment_bytes: u64,
    /// Maximum unclaimed rows of an adopted export that memory holds, 24 bytes each. Those of a longer export are in the state
    /// from the start.
    pub claims_held_max: usize,
    /// Held by a read that joins lines longer than a chunk: one at a time, so that memory does not grow with the threads.
    pub long_lines: Arc<Mutex<()>>,
    /// Number of threads that read day-files. With 1, pairs are read strictly in order.
    pub threads: usize,
}

/// What a new ledger begins with, apart from its export.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerOrigin {
    /// Whether a rebuild makes the export.
    pub is_rebuild: bool,
    /// Identity and lengths of what is replaced.
    pub reason: String,
    /// Standing orders that are carried over, each with the words of its operator.
    pub orders: Vec<(Order, String)>,
}

impl Setup {
    /// Returns the error for a failed access to the state directory.
    pub(crate) fn state_dir_error(&self, source: io::Error) -> EngineError {
        EngineError::StateDir {
            dir: self.state_dir.display().to_string(),
            source,
        }
    }
}

/// Settings that can change while the engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconfigure {
    /// See [`Setup::limits`].
    pub limits: LineLimits,
    /// See [`Setup::settle_ms`].
    pub settle_ms: u64,
    /// See [`Setup::checkpoint_bytes`].
    pub checkpoint_bytes: u64,
}

impl Engine {
    /// Applies changed settings from the next pass on. Lines that were read under the old ones keep their verdicts.
    pub fn reconfigure(&mut self, settings: Reconfigure) {
        let settle_before_ms = std::mem::replace(&mut self.ctx.settle_ms, settings.settle_ms);
        self.queue
            .settling
            .change_time(settle_before_ms, settings.settle_ms);
        if self.ctx.limits != settings.limits {
            self.ctx.limits = settings.limits;
            self.pairs.reset_scan_positions();
        }
        self.ctx.checkpoint_bytes = settings.checkpoint_bytes;
    }
}
