//! A batch as the journal holds it: the changes of the state, and the rows to append.

use crate::pair::Overlay;
use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::index::{DeadLetter, EvidenceLine, PairId, ScoredLine, UnclaimedRow};
use crate::store::export::ExportMark;
use crate::store::row_buffer::Rows;
use serde::{Deserialize, Serialize};

/// The changes of one pair in a batch. It holds the values *after* the batch, so that applying it twice equals
/// applying it once.
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
    /// Returns the overlay of these changes on the state of the pair.
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

/// The changes of the state in a batch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BatchDelta {
    /// The export as the last checkpoint left it: by this a journal is known to belong to it even without a state.
    pub mark: ExportMark,
    /// Length of the export before the batch's rows, bytes.
    pub export_from: u64,
    /// The changes of each pair.
    pub pairs: Vec<PairDelta>,
    /// The lines to append to the ledger; `None` for a batch without an event.
    pub ledger: Option<LedgerAppend>,
}

/// The lines of a batch in the retraction ledger.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LedgerAppend {
    /// The ledger as the last checkpoint left it.
    pub mark: ExportMark,
    /// Length of the ledger before these lines, bytes.
    pub from: u64,
    /// Whole lines, each with its newline.
    pub lines: Vec<u8>,
}

impl LedgerAppend {
    /// Returns the length of the ledger after these lines, bytes.
    #[must_use]
    pub fn to(&self) -> u64 {
        self.from + self.lines.len() as u64
    }
}

/// A batch as it is committed: what changes in the state, and the rows to show.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The changes of the state.
    pub delta: BatchDelta,
    /// The rows to append to the export.
    pub rows: Rows,
}

impl Batch {
    /// Returns the length of the export after the batch's rows, bytes.
    #[must_use]
    pub fn export_to(&self) -> u64 {
        self.delta.export_from + self.rows.len_bytes() as u64
    }
}
