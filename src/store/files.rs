//! Owns the names of the files in a state directory, and the one that is only a mark. What is in them others own.

use std::io;
use std::path::{Path, PathBuf};

use crate::platform::storage::Storage;

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
pub fn mark_state_damaged(storage: &dyn Storage, state_dir: &Path) -> io::Result<()> {
    match storage.create(&state_dir.join(DISTRUSTED_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => storage.sync_dir(state_dir),
    }
}

/// Gives state and journal other names: a start finds none, and makes a state from the sources and the export.
///
/// # Errors
/// What the disk says.
pub fn set_state_aside(storage: &dyn Storage, state_dir: &Path) -> io::Result<()> {
    for name in [STATE_FILE, JOURNAL_FILE] {
        set_aside(storage, &state_dir.join(name))?;
    }
    storage.sync_dir(state_dir)
}

/// Renames a file that is not trusted any more, over the one that was set aside before it. An empty one, as a crash
/// leaves it, tells nobody anything.
fn set_aside(storage: &dyn Storage, path: &Path) -> io::Result<()> {
    match storage.stat(path) {
        Ok(stat) if stat.len_bytes == 0 => return storage.remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut aside = path.as_os_str().to_owned();
    aside.push(".unreadable");
    storage.rename(path, &PathBuf::from(aside))
}
