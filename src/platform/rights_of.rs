//! The rights of the files that a new file replaces: a person runs a command as root, and the daemon has to own the result.

use std::io;
use std::path::{Path, PathBuf};

use crate::platform::storage::{Rights, Storage};

/// Permission bits of a file for which only the rights of its directory are known.
const FILE_BITS: u32 = 0o666;

/// Returns the rights of the first of these files that exists, else those that a file in their directory gets.
///
/// # Errors
/// Those of the disk.
pub fn rights_of_first(storage: &dyn Storage, paths: &[PathBuf]) -> io::Result<Option<Rights>> {
    for path in paths {
        if let Some(found) = rights_of(storage, path)? {
            return Ok(Some(found));
        }
    }
    let Some(dir) = paths.first().and_then(|path| path.parent()) else {
        return Ok(None);
    };
    let of_file = |dir: Rights| Rights {
        mode: dir.mode & FILE_BITS,
        ..dir
    };
    Ok(rights_of(storage, dir)?.map(of_file))
}

/// Returns the rights of a file or directory; `None` if it does not exist or is a link, or the storage has no owners.
///
/// # Errors
/// Those of the disk.
pub fn rights_of(storage: &dyn Storage, path: &Path) -> io::Result<Option<Rights>> {
    match storage.rights(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found,
    }
}
