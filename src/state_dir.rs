//! Owns the names of the files in a state directory, and the one that is only a mark. What is in them others own.

use std::io;
use std::path::Path;

use crate::storage::Storage;

/// Name of the state's file in the state directory.
pub const STATE_FILE: &str = "state.redb";
/// Name of the journal in the state directory.
pub const JOURNAL_FILE: &str = "journal";
/// A file of this name says that the state was found damaged while it was in use.
pub(crate) const DISTRUSTED_FILE: &str = "distrusted";
/// A file of this name names a segment of the export that was found changed.
pub(crate) const CHANGED_FILE: &str = "export-changed";

/// Has the next start rebuild the state of `state_dir` instead of trusting it.
///
/// # Errors
/// What the disk says.
pub fn distrust(storage: &dyn Storage, state_dir: &Path) -> io::Result<()> {
    match storage.create(&state_dir.join(DISTRUSTED_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => storage.sync_dir(state_dir),
    }
}
