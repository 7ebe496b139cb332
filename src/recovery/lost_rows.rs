//! Which rows of the old export are the lost ones, where rows of several pairs are equal: a day that was copied has the rows
//! of the original. An order on one of the two drops its rows and not those of the other, which has the same digests.
//!
//! Memory: about 40 bytes for each different row that is lost.

use std::collections::HashMap;

use crate::engine::EngineError;
use crate::record::kept_stamps;
use crate::recovery::left_out::LeftOut;
use crate::recovery::losses::take;
use crate::store::export::Export;

/// The rows that the fresh export lacks, by digest.
pub(super) struct LostRows {
    /// The number of all that are not taken yet.
    left: HashMap<u64, u64>,
    /// How many of them are out and have no row in the fresh export for that.
    out: HashMap<u64, u64>,
}

impl LostRows {
    /// Finds how many of the lost rows are out; `lost` has the number of lost rows.
    ///
    /// # Errors
    /// The old export cannot be read.
    pub(super) fn new(
        old: &Export,
        lost: HashMap<u64, u64>,
        left_out: &LeftOut,
    ) -> Result<Self, EngineError> {
        let mut out = HashMap::new();
        if left_out.any_row_goes() {
            old.for_each_row(|offset, line| -> Result<(), EngineError> {
                if left_out.row_goes(offset, line)
                    && let digest = kept_stamps::digest(line)
                    && let Some(lost) = lost.get(&digest)
                {
                    let rows: &mut u64 = out.entry(digest).or_default();
                    *rows = (*rows + 1).min(*lost);
                }
                Ok(())
            })?;
        }
        Ok(Self { left: lost, out })
    }

    /// Takes a row of the old export, without its newline, if it is lost. Of equal rows those that are out are the lost
    /// ones, then the others in the order of their offsets. Returns whether it is.
    pub(super) fn take(&mut self, offset: u64, line: &[u8], left_out: &LeftOut) -> bool {
        let digest = kept_stamps::digest(line);
        if left_out.row_goes(offset, line) {
            return take(&mut self.out, &digest) && take(&mut self.left, &digest);
        }
        self.left.get(&digest) > self.out.get(&digest) && take(&mut self.left, &digest)
    }
}
