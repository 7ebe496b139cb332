//! FIXME: store::journal::batch

use crate::pair::Overlay;
use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::index::{DeadLetter, EvidenceLine, PairId, ScoredLine, UnclaimedRow};
use crate::store::export::ExportMark;
use crate::store::row_buffer::Rows;
use serde::{Deserialize, Serialize};

/// What a batch changes of one pair. It holds the state *after* the batch, so that taking it in twice is the same
/// as once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairDelta {
    /// The pair.
    pub id: PairId,
    /// Its checkpoint after the batch.
    pub checkpoint: PairCheckpoint,
    /// Evidence records to put into its index.
    pub evidence: Vec<EvidenceLine>,
    /// Scored lines to put into its index, or whose verdict changed.
    pub entries: Vec<ScoredLine>,
    /// Rows that a line of the pair found already written.
    pub claims: Vec<UnclaimedRow>,
    /// Lines that are no records.
    pub dead_letters: Vec<DeadLetter>,
}

impl PairDelta {
    /// What `overlay` puts over the state of a pair, and its checkpoint with it.
    #[must_use]
    pub fn new(id: PairId, checkpoint: &PairCheckpoint, overlay: &Overlay) -> Self {
        Self {
            id,
            checkpoint: checkpoint.clone(),
            evidence: overlay.evidence_entries().collect(),
            entries: overlay.entries.values().copied().collect(),
            claims: overlay.claimed_rows.clone(),
            dead_letters: overlay.dead_letters.clone(),
        }
    }

    /// The overlay that it was made of.
    #[must_use]
    pub fn overlay(&self) -> Overlay {
        Overlay {
            evidence: self
                .evidence
                .iter()
                .map(|entry| (entry.run, entry.place))
                .collect(),
            entries: self
                .entries
                .iter()
                .map(|entry| ((entry.run, entry.offset), *entry))
                .collect(),
            dead_letters: self.dead_letters.clone(),
            claimed_rows: self.claims.clone(),
        }
    }
}

/// What a batch changes in the state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BatchDelta {
    /// The export as the last checkpoint left it: by this a journal is known to belong to it even without a state.
    pub mark: ExportMark,
    /// Length of the export before the batch's rows, bytes.
    pub export_from: u64,
    /// What changes of each pair.
    pub pairs: Vec<PairDelta>,
}

/// A batch as it is committed: what changes in the state, and the rows to show.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// What changes in the state.
    pub delta: BatchDelta,
    /// What it shows.
    pub rows: Rows,
}

impl Batch {
    /// Length of the export behind the batch's rows, bytes.
    #[must_use]
    pub fn export_to(&self) -> u64 {
        self.delta.export_from + self.rows.len_bytes() as u64
    }
}
