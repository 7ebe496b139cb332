//! Owns what other threads may ask the engine's thread, and what they are given: one moment of the lake, cheap to take
//! and free to be read at leisure. It decides nothing and reads nothing itself.

use tokio::sync::oneshot;

use crate::lake::path::{PairPath, Stream};
use crate::pair::history::Recent;
use crate::query::dead_letters::RetryReport;
use crate::query::status::{Status, UnreadPairs};

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
    /// The pairs to measure for the lag.
    pub unread: UnreadPairs,
}
