//! Who holds a lock: the text of a lock file, and of the file next to it for users who may not open the lock.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::platform::held_dir::HeldDir;
use crate::platform::root_lock::{LockError, at};
use crate::platform::storage::retry_interrupted;

/// Name of the file next to the root's lock that names the holder for users who may not open the lock.
pub(super) const HOLDER_FILE: &str = ".distilld.holder";

/// Who holds a lock, or held it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// Its root.
    pub root: PathBuf,
    /// The state directory of that root.
    pub state_dir: PathBuf,
    /// Whether it is a command that soon ends by itself, so that others wait for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends_soon: bool,
}

impl Holder {
    /// This process, as a daemon.
    pub(super) fn here(root: &Path, state_dir: &Path) -> Self {
        Self {
            pid: std::process::id(),
            root: root.to_owned(),
            state_dir: state_dir.to_owned(),
            ends_soon: false,
        }
    }
}

/// Returns the holder that a file names; `None` if the file does not exist or names none.
pub(super) fn holder_at(path: &Path) -> io::Result<Option<Holder>> {
    match HeldDir::of(path).and_then(|(dir, name)| dir.open_read(name)) {
        Ok(file) => Ok(holder_in(&file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Maximum length of a file that names a holder: two paths and a number.
const HOLDER_BYTES_MAX: usize = 16 << 10;

pub(super) fn holder_in(file: &File) -> Option<Holder> {
    let mut bytes = vec![0; HOLDER_BYTES_MAX];
    let len = retry_interrupted(|| file.read_at(&mut bytes, 0)).ok()?;
    serde_json::from_slice(&bytes[..len]).ok()
}

/// Writes the holder's name into the file whose lock is taken.
pub(super) fn write_holder(
    dir: &HeldDir,
    name: &str,
    locked: &File,
    holder: &Holder,
) -> io::Result<()> {
    let file = dir.open_write(name, locked)?;
    file.set_len(0)?;
    file.write_all_at(&serde_json::to_vec(holder)?, 0)
}

/// Writes the holder's name where users can read it who may not open the lock. The caller has the lock.
pub(super) fn publish(path: &Path, holder: &Holder) -> Result<(), LockError> {
    let (dir, name) = HeldDir::of(path).map_err(at(path))?;
    let temporary = format!("{name}.new");
    let write = || {
        match dir.remove(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = dir.create(&temporary, 0o644)?;
        file.write_all_at(&serde_json::to_vec(holder)?, 0)
    };
    write().map_err(at(&path.with_file_name(&temporary)))?;
    dir.rename(&temporary, name).map_err(at(path))
}
