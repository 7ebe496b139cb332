//! Owns the promise that one daemon at a time writes under a root: a lock on a file beside the export, which names
//! its holder. The kernel drops the lock with the process, so a crash leaves nothing to clean up.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::storage::again;

/// Name of the lock file, below `<root>/data/distilled` and in the state directory.
const LOCK_FILE: &str = ".distilld.lock";

/// Who holds a lock, or held it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// Its root.
    pub root: PathBuf,
    /// Its state directory.
    pub state_dir: PathBuf,
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon is there.
    #[error(
        "another distilld (process {pid}, state in {state_dir}) already works on {root}",
        pid = .0.pid, root = .0.root.display(), state_dir = .0.state_dir.display()
    )]
    Held(Holder),
    /// Another daemon is there and has not said its name yet.
    #[error("another distilld holds {}", .0.display())]
    HeldByUnknown(PathBuf),
    /// The lock file cannot be used.
    #[error("the lock {} cannot be used: {source} (as user {user})", path.display(), user = rustix::process::geteuid())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

/// The locks of a running daemon, held until it is dropped.
#[derive(Debug)]
pub struct RootLock {
    _held: Vec<File>,
}

impl RootLock {
    /// Takes the root's and the state directory's lock: two daemons may neither share an export nor a state.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn take(root: &Path, state_dir: &Path) -> Result<Self, LockError> {
        let holder = Holder {
            pid: std::process::id(),
            root: root.to_owned(),
            state_dir: state_dir.to_owned(),
        };
        let paths = BTreeSet::from([lock_path(root), state_dir.join(LOCK_FILE)]);
        let held = paths.iter().map(|path| take_one(path, &holder));
        Ok(Self {
            _held: held.collect::<Result<_, _>>()?,
        })
    }
}

/// The daemon that keeps, or last kept, the export of a root; `None` if none ever did.
///
/// # Errors
/// The lock file is there and cannot be read.
pub fn last_holder(root: &Path) -> io::Result<Option<Holder>> {
    match fs::read(lock_path(root)) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn lock_path(root: &Path) -> PathBuf {
    root.join("data/distilled").join(LOCK_FILE)
}

fn take_one(path: &Path, holder: &Holder) -> Result<File, LockError> {
    let io_error = |source| LockError::Io {
        path: path.to_owned(),
        source,
    };
    if let Some(dir) = path.parent() {
        again(|| fs::create_dir_all(dir)).map_err(io_error)?;
    }
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(held(path, &mut file)),
        Err(TryLockError::Error(source)) => return Err(io_error(source)),
    }
    write_holder(&mut file, holder).map_err(io_error)?;
    Ok(file)
}

fn held(path: &Path, file: &mut File) -> LockError {
    let mut bytes = Vec::new();
    let holder = file
        .read_to_end(&mut bytes)
        .ok()
        .and_then(|_| serde_json::from_slice(&bytes).ok());
    holder.map_or_else(
        || LockError::HeldByUnknown(path.to_owned()),
        LockError::Held,
    )
}

fn write_holder(file: &mut File, holder: &Holder) -> io::Result<()> {
    let bytes = serde_json::to_vec(holder)?;
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_told_who_the_first_is() {
        let root = tempfile::tempdir().unwrap();
        let state_dir = root.path().join("state");
        assert_eq!(last_holder(root.path()).unwrap(), None);
        let first = RootLock::take(root.path(), &state_dir).unwrap();
        let error = RootLock::take(root.path(), &root.path().join("other"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(first);
        RootLock::take(root.path(), &state_dir).unwrap();
        assert_eq!(
            last_holder(root.path()).unwrap().unwrap().state_dir,
            state_dir
        );
    }

    #[test]
    fn two_roots_cannot_share_a_state() {
        let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let state_dir = roots[0].path().join("state");
        let _first = RootLock::take(roots[0].path(), &state_dir).unwrap();
        assert!(matches!(
            RootLock::take(roots[1].path(), &state_dir),
            Err(LockError::Held(_))
        ));
    }
}
