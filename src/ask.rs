//! Owns what other threads may ask the engine's thread, and what they are given: one moment of the lake, cheap to take
//! and free to be read at leisure. It decides nothing and reads nothing itself.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::discover::PairPath;
use crate::pair::ActivePair;
use crate::state::StateView;
use crate::status::Status;

/// What may be asked. A reply that is dropped says that there is no answer now.
#[derive(Debug)]
pub enum Question {
    /// How are things?
    Snapshot(oneshot::Sender<Snapshot>),
}

/// One moment of the lake.
#[derive(Debug)]
pub struct Snapshot {
    /// What a person wants to know.
    pub status: Status,
    /// What is remembered of every pair and line.
    pub figures: Figures,
    /// How far behind it is.
    pub freshness: Freshness,
}

/// How far the export is behind its sources, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freshness {
    /// Bytes of day-files known to be unread.
    pub bytes: u64,
    /// For how long the oldest unread news has been known, milliseconds.
    pub age_ms: u64,
    /// Within what age it counts as fresh, milliseconds.
    pub objective_ms: u64,
    /// Whether all that was there at the start has been looked at.
    pub caught_up: bool,
}

/// All that is remembered of pairs and lines at one moment. It keeps pages of the state alive: drop it soon.
#[derive(Debug, Clone)]
pub struct Figures {
    /// What the state had taken in.
    pub view: Arc<StateView>,
    /// Pairs of which memory knows more than the state; their overlays go before it.
    pub changed: Vec<(PairPath, Arc<ActivePair>)>,
}
