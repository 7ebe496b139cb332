//! Detects that an open file was removed or replaced under its path. It reads no content.

use std::io;
use std::path::{Path, PathBuf};

use crate::platform::storage::Storage;
use crate::store::state::error::StateError;

/// The identity of a file that is kept open. If the file is removed or replaced, commits to the open one would be lost
/// with the process, because no later start finds it.
#[derive(Debug)]
pub(super) struct OpenFileGuard {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl OpenFileGuard {
    /// Records the identity of the file at `path`.
    ///
    /// # Errors
    /// [`StateError::Io`] where it cannot be examined.
    pub(super) fn new(storage: &dyn Storage, path: &Path) -> Result<Self, StateError> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(storage, path).map_err(StateError::Io)?,
        })
    }

    /// Records that the file was renamed.
    pub(super) fn renamed(&mut self, path: &Path) {
        self.path = path.to_owned();
    }

    /// Verifies that the path still leads to that file.
    ///
    /// # Errors
    /// [`StateError::Damaged`] where it does not.
    pub(super) fn check(&self, storage: &dyn Storage) -> Result<(), StateError> {
        let lost = |how: &str| {
            let path = self.path.display();
            StateError::Damaged(format!("{path} was {how} while distilld ran"))
        };
        match identity(storage, &self.path) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Err(lost("removed"))
            }
            Err(error) => Err(StateError::Io(error)),
            Ok(identity) if identity != self.identity => Err(lost("replaced")),
            Ok(_) => Ok(()),
        }
    }
}

fn identity(storage: &dyn Storage, path: &Path) -> io::Result<(u64, u64)> {
    let stat = storage.stat(path)?;
    Ok((stat.device, stat.inode))
}
