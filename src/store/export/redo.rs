//! Owns what recovery does to the export: a committed batch is written again, a torn last row is cut off.

use crate::platform::storage::write_all_at;
use crate::record::keys::RowKey;
use crate::record::ledger::LedgerLine;
use crate::store::export::{Export, ExportError};
use crate::store::ledger::is_ledger;
use crate::store::row_buffer::Rows;

impl Export {
    /// Writes rows at `offset` again and truncates the export after them: redo after a crash. A crash leaves a part
    /// of these rows there, zero bytes, or garbled bytes; a whole row of other bytes was written by another process.
    ///
    /// # Errors
    /// [`ExportError::Changed`] if there is such a row; nothing is written then. [`ExportError::Io`].
    pub fn redo(&mut self, offset: u64, rows: &Rows) -> Result<(), ExportError> {
        for (at, piece) in rows.placed(offset) {
            self.refuse_other_rows(at, piece)?;
        }
        self.tail.clear();
        for (at, piece) in rows.placed(offset) {
            write_all_at(&*self.file, piece, at).map_err(|source| self.io_error(source))?;
            self.len_bytes = self.len_bytes.max(at + piece.len() as u64);
            self.guard.segments.extend(piece);
        }
        self.record_own_write();
        Ok(())
    }

    /// Fails if a whole row other than those of `rows` is at `offset`.
    fn refuse_other_rows(&self, offset: u64, rows: &[u8]) -> Result<(), ExportError> {
        let mut there = vec![0; rows.len()];
        let read = self.read_at(&mut there, offset)?;
        let mut at = 0;
        while at < read && there[at..read] != rows[at..read] {
            // The last one may be longer than what belongs there.
            let other = self.row_at(offset + at as u64)?;
            let end = at + other.len() + 1;
            let is_equal = rows
                .get(at..end)
                .is_some_and(|rows| rows[..other.len()] == other);
            if !is_equal && self.is_whole_line(&other) {
                return Err(self.changed(format!(
                    "the line at byte {} is not the one in the journal: the state is of another lake or is an older copy, \
                     or the export was replaced",
                    offset + at as u64
                )));
            }
            at = end;
        }
        Ok(())
    }

    /// Returns whether bytes are a line that a writer of such a file finished.
    fn is_whole_line(&self, line: &[u8]) -> bool {
        if is_ledger(&self.path) {
            LedgerLine::parse(line).is_ok()
        } else {
            RowKey::from_row(line).is_ok()
        }
    }

    /// Ends the export at `len_bytes`, where a row ends. Only ever used to drop a torn last row.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn cut(&mut self, len_bytes: u64) -> Result<(), ExportError> {
        self.file
            .set_len(len_bytes)
            .map_err(|source| self.io_error(source))?;
        self.len_bytes = len_bytes;
        self.tail.clear();
        self.record_own_write();
        Ok(())
    }
}
