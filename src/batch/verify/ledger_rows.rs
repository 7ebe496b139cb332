//! Holds the events of the retraction ledger against the rows that they name: each row starts after a newline, has the
//! length of the event, and its hash.

use std::io;
use std::path::Path;

use crate::lake::path::ledger_path;
use crate::platform::root_lock;
use crate::platform::storage::{Storage, StorageFile, read_full_at};
use crate::record::ledger::{LedgerLine, RowSpan, row_hash};
use crate::store::export::rows_between;

/// Returns the first event that names no row of the export. Lines that are no events are left to the fold.
///
/// Memory: one row.
///
/// # Errors
/// One of the files cannot be read.
pub(super) fn fault_of_rows(
    storage: &dyn Storage,
    root: &Path,
    export_path: &Path,
) -> io::Result<Option<String>> {
    let open = |path: &Path| match storage.open_read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    };
    let (Some(export), Some(ledger)) = (open(export_path)?, open(&ledger_path(export_path))?)
    else {
        return Ok(None);
    };
    // The daemon appends the ledger before the rows of the same commit.
    let is_growing = root_lock::is_held(root);
    let ledger_len = ledger.stat()?.len_bytes;
    let export_len = export.stat()?.len_bytes;
    let mut fault = Ok(None);
    rows_between(&*ledger, 0, ledger_len, |line| {
        let Ok(line) = LedgerLine::parse(line) else {
            return;
        };
        let Some(row) = line.row.filter(|_| matches!(fault, Ok(None))) else {
            return;
        };
        if is_growing && row.end() > export_len {
            return;
        }
        fault = is_row(&*export, row, line.row_hash).map(|is_row| {
            (!is_row).then(|| {
                format!(
                    "seq {} names the {} bytes at byte {} of the export, which are not the row that it retracted",
                    line.seq, row.len_bytes, row.offset
                )
            })
        });
    })?;
    fault
}

fn is_row(export: &dyn StorageFile, row: RowSpan, hash: [u8; 16]) -> io::Result<bool> {
    let before = row.offset.min(1);
    // A length that no row has would take as much memory.
    if row.end() > export.stat()?.len_bytes {
        return Ok(false);
    }
    let mut bytes = vec![0; (before + row.len_bytes) as usize];
    let read = read_full_at(export, &mut bytes, row.offset - before)?;
    let (newline, bytes) = bytes[..read].split_at((before as usize).min(read));
    Ok(newline.iter().all(|byte| *byte == b'\n') && row_hash(bytes) == hash)
}
