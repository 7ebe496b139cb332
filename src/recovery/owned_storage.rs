//! A storage that gives what it creates the rights of the files that it replaces: a person runs a rebuild as root, and
//! the daemon has to own the result. Rights are set on the open file right after its creation, never by path: the
//! directories belong to the daemon's user, who could put a link in the place of a path.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::{EngineError, Setup};
use crate::platform::rights_of::{rights_of, rights_of_first};
use crate::platform::storage::{FileStat, ListedEntry, Rights, Storage, StorageFile, exists};
use crate::store::files::{JOURNAL_FILE, STATE_FILE};

/// See the module.
#[derive(Debug)]
struct OwnedStorage {
    inner: Arc<dyn Storage>,
    state_dir: PathBuf,
    /// The rights of the state directory and of the files in it.
    dir: Option<Rights>,
    state: Option<Rights>,
    /// The rights of the export.
    export: Option<Rights>,
}

/// Returns the setup on a storage whose new files belong to the owner of the state and the export that are there now.
///
/// # Errors
/// The rights of one of them cannot be read.
pub(super) fn with_owner(setup: &Setup) -> Result<Setup, EngineError> {
    let read = || -> io::Result<OwnedStorage> {
        let storage = &*setup.storage;
        let state = [STATE_FILE, JOURNAL_FILE].map(|name| setup.state_dir.join(name));
        Ok(OwnedStorage {
            inner: Arc::clone(&setup.storage),
            state_dir: setup.state_dir.clone(),
            dir: rights_of(storage, &setup.state_dir)?,
            state: rights_of_first(storage, &state)?,
            export: rights_of_first(storage, std::slice::from_ref(&setup.export_path))?,
        })
    };
    Ok(Setup {
        storage: Arc::new(read().map_err(|source| setup.state_dir_error(source))?),
        ..setup.clone()
    })
}

impl Storage for OwnedStorage {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.inner.create(path)?;
        let rights = if path.starts_with(&self.state_dir) {
            self.state
        } else {
            self.export
        };
        if let Some(rights) = rights {
            file.set_rights(rights)?;
        }
        Ok(file)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let is_new = !exists(&*self.inner, path)?;
        self.inner.create_dir_all(path)?;
        match self.dir {
            Some(rights) if is_new && path.starts_with(&self.state_dir) => {
                self.inner.set_dir_rights(path, rights)
            }
            _ => Ok(()),
        }
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.inner.open_read(path)
    }

    fn open_read_below(&self, base: &Path, below: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.inner.open_read_below(base, below)
    }

    fn stat_below(&self, base: &Path, below: &Path) -> io::Result<FileStat> {
        self.inner.stat_below(base, below)
    }

    fn list_below(&self, base: &Path, below: &Path) -> io::Result<Vec<ListedEntry>> {
        self.inner.list_below(base, below)
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.inner.open_write(path)
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        self.inner.stat(path)
    }

    fn stats_below(&self, base: &Path, dir: &Path, names: &[&OsStr]) -> Vec<io::Result<FileStat>> {
        self.inner.stats_below(base, dir, names)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<ListedEntry>> {
        self.inner.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }

    fn rights(&self, path: &Path) -> io::Result<Option<Rights>> {
        self.inner.rights(path)
    }

    fn set_dir_rights(&self, dir: &Path, rights: Rights) -> io::Result<()> {
        self.inner.set_dir_rights(dir, rights)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        self.inner.canonicalize(path)
    }
}
