//! Owns the knowledge which file is kept open under a path, and whether it is still there. It reads none of it.

use std::io;
use std::path::{Path, PathBuf};

use crate::platform::storage::Storage;
use crate::store::state::error::StateError;

/// A file of the state that is kept open. Whoever removes or replaces it leaves us with one that no start would find:
/// what is committed to that is lost with the process.
#[derive(Debug)]
pub(super) struct OpenFileGuard {
    path: PathBuf,
    identity: (u64, u64),
}

impl OpenFileGuard {
    /// The file that is open under this path.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn new(storage: &dyn Storage, path: &Path) -> Result<Self, StateError> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(storage, path).map_err(StateError::Io)?,
        })
    }

    /// That it still has its path.
    ///
    /// # Errors
    /// [`StateError::Damaged`] where it has not.
    pub fn check(&self, storage: &dyn Storage) -> Result<(), StateError> {
        let gone = |how: &str| {
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
                Err(gone("removed"))
            }
            Err(error) => Err(StateError::Io(error)),
            Ok(found) if found != self.identity => Err(gone("replaced")),
            Ok(_) => Ok(()),
        }
    }
}

fn identity(storage: &dyn Storage, path: &Path) -> io::Result<(u64, u64)> {
    let stat = storage.stat(path)?;
    Ok((stat.device, stat.inode))
}
