//! Owns what other threads may ask the engine's thread, and what they are given: one moment of the lake, cheap to take
//! and free to be read at leisure. It decides nothing and reads nothing itself.

use tokio::sync::oneshot;

use crate::lake::path::{PairPath, Stream};
use crate::pair::history::Recent;
use crate::query::dead_letters::RetryReport;
use crate::query::status::{Status, UnreadBytes};

pub use crate::store::snapshot::StateSnapshot;

/// What may be asked. A reply that is dropped says that there is no answer now.
#[derive(Debug)]
pub enum EngineRequest {
    /// How are things?
    Snapshot(oneshot::Sender<Snapshot>),
    /// What came in the last day?
    Recent(oneshot::Sender<Recent>),
    /// Read a day-file again from its start, as if it had been rewritten; what became of it?
    Retry {
        /// The pair.
        path: PairPath,
        /// Which of its day-files.
        stream: Stream,
        /// Answered when all of it was read, or dropped where the pair is not known.
        reply: oneshot::Sender<RetryReport>,
    },
}

/// One moment of the lake.
#[derive(Debug)]
pub struct Snapshot {
    /// What a person wants to know.
    pub status: Status,
    /// What is remembered of every pair and line.
    pub figures: StateSnapshot,
    /// How far behind it is.
    pub freshness: LagRequest,
    /// What is known to be unread.
    pub unread: UnreadBytes,
}

/// How far the export is behind its sources, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LagRequest {
    /// Bytes of day-files known to be unread.
    pub bytes: u64,
    /// For how long the oldest unread news has been known, milliseconds.
    pub age_ms: u64,
    /// Within what age it counts as fresh, milliseconds.
    pub objective_ms: u64,
    /// Whether all that was there at the start has been looked at.
    pub caught_up: bool,
}
