//! Requests that other threads send to the engine thread, and their replies: a consistent snapshot that is cheap to
//! take and can be read without holding anything.

use tokio::sync::oneshot;

use crate::engine::{OrderRequest, OrderResult};
use crate::lake::path::{PairPath, Stream};
use crate::pair::history::Recent;
use crate::query::dead_letters::{RetryRefusal, RetryReport};
use crate::query::status::{Status, UnreadPairs};
use crate::query::wait::WaitReport;

pub use crate::store::snapshot::StateSnapshot;

/// A request with the channel for its reply. A reply channel that is dropped means that there is no answer now.
#[derive(Debug)]
pub enum EngineRequest {
    /// Requests a snapshot of status and pairs.
    Snapshot(oneshot::Sender<Snapshot>),
    /// Requests the history of the last 24 hours.
    Recent(oneshot::Sender<Recent>),
    /// A query met a failed call to the state, which concerns the engine too. It has no reply.
    ReopenState,
    /// Requests that a day-file is read again from its start, as if it had been rewritten.
    Retry {
        /// The pair of the day-file.
        path: PairPath,
        /// The stream of the day-file.
        stream: Stream,
        /// Answered when the whole day-file has been read, or at once where it cannot be.
        reply: oneshot::Sender<Result<RetryReport, RetryRefusal>>,
    },
    /// Requests the end of a wait for all that is in the lake.
    Wait {
        /// The name of the wait, which the client chose.
        id: String,
        /// Answered when all of it is exported or refused, or reading is stopped.
        reply: oneshot::Sender<WaitReport>,
    },
    /// Carries out an order of an operator. The error is its text.
    Order(
        Box<OrderRequest>,
        oneshot::Sender<Result<OrderResult, String>>,
    ),
}

/// A consistent moment of the lake.
#[derive(Debug)]
pub struct Snapshot {
    /// The status, as `status` prints it.
    pub status: Status,
    /// The state of every pair and line.
    pub state: StateSnapshot,
    /// The pairs to measure for the lag.
    pub unread: UnreadPairs,
}
