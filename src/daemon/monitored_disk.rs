//! Owns the disk as a running daemon uses it: each call that came back is a step of its pulse, and while the engine
//! is being opened a stop fails every further call. It changes no call otherwise.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::daemon::inbox::Inbox;
use crate::platform::heartbeat::Heartbeat;
use crate::platform::storage::{FileStat, ListedEntry, OsStorage, Storage, StorageFile};

/// The disk, and who is told of its calls.
#[derive(Debug, Clone)]
pub struct WatchedDisk {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pulse: Arc<Heartbeat>,
    wake: Arc<Inbox>,
    /// A recovery may read for minutes, and may be cut off anywhere, as by a crash.
    recovering: AtomicBool,
}

impl Shared {
    fn may_go_on(&self) -> io::Result<()> {
        if self.recovering.load(Ordering::Relaxed) && self.wake.stopping() {
            return Err(io::Error::other("distilld was told to stop"));
        }
        Ok(())
    }

    fn step<T>(&self, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.may_go_on()?;
        let result = call();
        self.pulse.tick();
        result
    }
}

impl WatchedDisk {
    /// The disk while the engine is being opened: a stop fails its calls.
    #[must_use]
    pub fn recovering(pulse: Arc<Heartbeat>, wake: Arc<Inbox>) -> Self {
        let recovering = AtomicBool::new(true);
        Self {
            shared: Arc::new(Shared {
                pulse,
                wake,
                recovering,
            }),
        }
    }

    /// From now on a stop is the engine's thread's to see: what was begun is finished in good order.
    pub fn recovered(&self) {
        self.shared.recovering.store(false, Ordering::Relaxed);
    }

    fn file(&self, file: io::Result<Arc<dyn StorageFile>>) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(WatchedFile {
            file: file?,
            shared: Arc::clone(&self.shared),
        }))
    }
}

#[derive(Debug)]
struct WatchedFile {
    file: Arc<dyn StorageFile>,
    shared: Arc<Shared>,
}

impl StorageFile for WatchedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.shared.may_go_on()?;
        let read = self.file.read_at(buf, offset);
        let bytes = read.as_ref().map_or(0, |read| *read as u64);
        self.shared.pulse.has_read(bytes);
        read
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.shared.may_go_on()?;
        let written = self.file.write_at(buf, offset);
        let bytes = written.as_ref().map_or(0, |written| *written as u64);
        self.shared.pulse.has_written(bytes);
        written
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.shared.step(|| self.file.set_len(len_bytes))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.shared.step(|| self.file.sync_data())
    }

    fn stat(&self) -> io::Result<FileStat> {
        self.shared.step(|| self.file.stat())
    }
}

impl Storage for WatchedDisk {
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.file(self.shared.step(|| OsStorage.open_read(path)))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.file(self.shared.step(|| OsStorage.open_write(path)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.file(self.shared.step(|| OsStorage.create(path)))
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        self.shared.step(|| OsStorage.stat(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<ListedEntry>> {
        self.shared.step(|| OsStorage.list(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.shared.step(|| OsStorage.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.shared.step(|| OsStorage.remove_file(path))
    }

    fn copy_ownership(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.shared.step(|| OsStorage.copy_ownership(from, to))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.shared.step(|| OsStorage.create_dir_all(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.shared.step(|| OsStorage.sync_dir(dir))
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        self.shared.step(|| OsStorage.canonicalize(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::storage::{read_full_at, write_all_at};

    #[test]
    fn every_call_that_comes_back_is_a_step_and_bytes_are_counted() {
        let home = tempfile::tempdir().unwrap();
        let pulse = Arc::new(Heartbeat::default());
        let disk = WatchedDisk::recovering(Arc::clone(&pulse), Arc::new(Inbox::new()));
        let path = home.path().join("file");
        let file = disk.create(&path).unwrap();
        write_all_at(&*file, b"twelve bytes", 0).unwrap();
        file.sync_data().unwrap();
        let mut bytes = [0; 64];
        assert_eq!(read_full_at(&*file, &mut bytes, 0).unwrap(), 12);
        assert_eq!(pulse.bytes(), (12, 12));
        let steps = pulse.steps();
        assert!(disk.stat(&home.path().join("no such file")).is_err());
        assert_eq!(pulse.steps(), steps + 1, "an error comes back too");
    }

    #[test]
    fn a_stop_cuts_a_recovery_off_and_nothing_behind_it() {
        let home = tempfile::tempdir().unwrap();
        let wake = Arc::new(Inbox::new());
        let disk = WatchedDisk::recovering(Arc::default(), Arc::clone(&wake));
        let file = disk.create(&home.path().join("file")).unwrap();
        wake.stop();
        assert!(file.sync_data().is_err());
        assert!(disk.list(home.path()).is_err());
        disk.recovered();
        file.sync_data().unwrap();
        assert_eq!(disk.list(home.path()).unwrap().len(), 1);
    }
}
