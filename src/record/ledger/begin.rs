//! What the first line of a ledger holds of the export's origin.

use crate::record::ledger::{Cause, ExportId, LedgerLine, Op};

/// The beginning of the reason of `begin` where a rebuild left out the rows that were not effective then.
pub const EFFECTIVE_ONLY: &str = "effective rows only";

/// What is before the identity that is replaced, in the reason of `begin`.
pub const REPLACES: &str = "replaces export ";

impl LedgerLine {
    /// Returns the identity that a first line replaces, if it names one.
    #[must_use]
    pub fn replaced(&self) -> Option<ExportId> {
        let (_, rest) = self.reason.split_once(REPLACES)?;
        let id = rest.split(',').next().and_then(ExportId::parse);
        id.filter(|_| self.op == Op::Begin)
    }

    /// Returns whether the line begins the ledger of an export without the rows that were not effective at its rebuild.
    #[must_use]
    pub fn is_of_effective_rows(&self) -> bool {
        self.op == Op::Begin
            && self.cause == Cause::Rebuild
            && self.reason.starts_with(EFFECTIVE_ONLY)
    }
}
