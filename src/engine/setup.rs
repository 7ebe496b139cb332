//! Owns what an engine is given: the disk, the clocks, where things lie, how lines are read.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::clock::Clock;
use crate::storage::Storage;
use crate::tail::LineLimits;

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
    /// Held by the one look at a time that works lines longer than a chunk, so that memory does not grow with threads.
    pub long_lines: Arc<Mutex<()>>,
    /// Threads that read day-files; 1: strictly one pair after the other, in order.
    pub threads: usize,
}
