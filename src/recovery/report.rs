//! The report of a start.

use crate::recovery::decide::RecoveryCase;

/// The findings and actions of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReport {
    /// The case.
    pub case: RecoveryCase,
    /// Why the state that was there was not used.
    pub state_lost: Option<String>,
    /// Rows read back from the export.
    pub rows_adopted: u64,
    /// Lines of the export that are no rows of any exporter; they stay where they are.
    pub rows_foreign: u64,
    /// Rows of a category that no row may have: an exporter that came before let them through.
    pub rows_unknown_category: u64,
    /// Bytes of rows that the journal of a lost state held, and that were written again where readers saw them.
    pub salvaged_bytes: u64,
    /// Bytes of a torn last row that were removed.
    pub torn_bytes: u64,
    /// Batches that the journal held.
    pub batches_redone: u64,
}

impl OpenReport {
    pub(crate) fn new(case: RecoveryCase) -> Self {
        Self {
            case,
            state_lost: None,
            rows_adopted: 0,
            rows_foreign: 0,
            rows_unknown_category: 0,
            salvaged_bytes: 0,
            torn_bytes: 0,
            batches_redone: 0,
        }
    }
}
