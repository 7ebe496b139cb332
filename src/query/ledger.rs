//! Reads the retraction ledger for a query: neither daemon nor state is needed, only the right to read the file.

use std::io;
use std::path::{Path, PathBuf};

use crate::platform::storage::Storage;
use crate::record::ledger::LedgerLine;
use crate::store::ledger::for_each_event;

/// The ledger cannot be read, or a line is no event.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the retraction ledger {}: {source}", path.display())]
pub struct LedgerReadError {
    /// The ledger.
    pub path: PathBuf,
    /// The error of the disk, or of the kind [`io::ErrorKind::InvalidData`].
    pub source: io::Error,
}

/// Calls `each` with the events of the whole lines before `end`, or before the end of the file. Returns that end.
///
/// # Errors
/// See [`LedgerReadError`]. A ledger without a line is one that was emptied: its first line is as old as its export.
pub(super) fn read_ledger(
    storage: &dyn Storage,
    path: &Path,
    end: Option<u64>,
    mut each: impl FnMut(LedgerLine),
) -> Result<u64, LedgerReadError> {
    let mut is_empty = true;
    let read = for_each_event(storage, path, end, |event| {
        is_empty = false;
        each(event);
    });
    let read = match read {
        Ok(_) if is_empty => Err(io::Error::new(io::ErrorKind::InvalidData, "it has no line")),
        read => read,
    };
    read.map_err(|source| LedgerReadError {
        path: path.to_owned(),
        source,
    })
}
