//! Owns the names of the files in a state directory, and the one that is only a mark. What is in them others own.

use std::io;
use std::path::{Path, PathBuf};

use crate::platform::storage::Storage;

/// Name of the state's file in the state directory.
pub const STATE_FILE: &str = "state.redb";
/// Name of the state's file until all unclaimed rows of an adopted export are in it. The next start removes it.
pub(crate) const BUILDING_FILE: &str = "state.redb.building";
/// Name of the journal in the state directory.
pub const JOURNAL_FILE: &str = "journal";
/// Name of the file that marks a state that was found damaged while in use.
pub(crate) const DISTRUSTED_FILE: &str = "distrusted";
/// A file of this name names a segment of the export that was found changed.
pub(crate) const CHANGED_FILE: &str = "export-changed";

/// Marks the state of `state_dir` as damaged, so that the next start rebuilds it.
///
/// # Errors
/// The file cannot be written.
pub fn mark_state_damaged(storage: &dyn Storage, state_dir: &Path) -> io::Result<()> {
    match storage.create(&state_dir.join(DISTRUSTED_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => storage.sync_dir(state_dir),
    }
}

/// Renames state and journal, so that the next start finds none and rebuilds the state from the sources and the
/// export.
///
/// # Errors
/// A file cannot be renamed.
pub fn set_state_aside(storage: &dyn Storage, state_dir: &Path) -> io::Result<()> {
    for name in [STATE_FILE, JOURNAL_FILE] {
        set_aside(storage, &state_dir.join(name))?;
    }
    storage.sync_dir(state_dir)
}

/// Renames a damaged file, replacing the one that was set aside before. An empty file, as a crash leaves it, is not
/// kept.
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
