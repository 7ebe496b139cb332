//! What the first line of a ledger holds of the export's origin.

use crate::record::ledger::{Cause, LedgerLine, Op};

/// The beginning of the reason of `begin` where a rebuild left out the rows that were not effective then.
pub const EFFECTIVE_ONLY: &str = "effective rows only";

impl LedgerLine {
    /// Returns whether the line begins the ledger of an export without the rows that were not effective at its rebuild.
    #[must_use]
    pub fn is_of_effective_rows(&self) -> bool {
        self.op == Op::Begin
            && self.cause == Cause::Rebuild
            && self.reason.starts_with(EFFECTIVE_ONLY)
    }
}
