//! The rights of new files: a person runs a command as root, and the daemon has to own the result. A file that replaces
//! another one gets its rights; any other belongs to the owner of its directory.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid, fchown, fstat};

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

/// Gives an open file or directory that root has just created to the owner of its directory, who must be able to use it
/// later. Other users can own nothing but what is theirs already.
///
/// # Errors
/// Those of the disk.
pub(super) fn give_to_owner_of(dir: impl AsFd, made: impl AsFd) -> io::Result<()> {
    let owner = fstat(dir)?;
    if rustix::process::geteuid().is_root() && owner.st_uid != 0 {
        let (uid, gid) = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
        // Root without that capability, as in some containers, keeps the file.
        let _ = fchown(made, Some(uid), Some(gid));
    }
    Ok(())
}
