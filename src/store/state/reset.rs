//! What the state has to change for sources that are read again from their start.

use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::index::{PairId, UnclaimedRow};

/// A pair of which sources are read again from their start.
#[derive(Debug)]
pub struct PairReset {
    /// Its number.
    pub id: PairId,
    /// Its checkpoint, without what was read of these sources.
    pub checkpoint: PairCheckpoint,
    /// What becomes of what was known of each source.
    pub sources: Vec<Reset>,
}

/// Which of a pair's sources is read again from its start, and what becomes of what was known.
#[derive(Debug)]
pub enum Reset {
    /// The scored day-file: its index and dead letters go, and `released`, its exported rows, become claimable. If it was
    /// moved to the pair `heir`, the rows that were claimable for the pair before are claimable for that one.
    Scored {
        /// The rows.
        released: Vec<UnclaimedRow>,
        /// The pair at the new path; `None` also if no row was claimable before.
        heir: Option<PairId>,
    },
    /// The evidence day-file: its index and dead letters go, runs refused for their evidence wait again, since
    /// this second of 1970.
    Evidence(u64),
    /// Neither. The rows that were claimable for the pair are claimable for this one.
    Bequeath(PairId),
}

impl Reset {
    /// Returns the number of rows that become claimable.
    #[must_use]
    pub fn released(&self) -> usize {
        match self {
            Reset::Scored { released, .. } => released.len(),
            Reset::Evidence(_) | Reset::Bequeath(_) => 0,
        }
    }
}
