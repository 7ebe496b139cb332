//! The disk as a running daemon uses it: each call that returns is a step of its heartbeat, and while the engine is
//! being opened a stop fails every further call. Calls are otherwise passed through.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::daemon::inbox::Inbox;
use crate::platform::heartbeat::Heartbeat;
use crate::platform::storage::{FileStat, ListedEntry, Rights, Storage, StorageFile};

/// The disk whose calls count as progress.
#[derive(Debug, Clone)]
pub struct MonitoredDisk {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    disk: Arc<dyn Storage>,
    heartbeat: Arc<Heartbeat>,
    inbox: Arc<Inbox>,
    /// True while the engine is being opened. A recovery may read for minutes, and may be cut off anywhere, as by a
    /// crash.
    recovering: AtomicBool,
}

impl Shared {
    /// Fails if a stop was requested during the recovery.
    fn check_stop(&self) -> io::Result<()> {
        if self.recovering.load(Ordering::Relaxed) && self.inbox.stopping() {
            return Err(io::Error::other("stop requested during the recovery"));
        }
        Ok(())
    }

    /// Runs a call and counts it as a step.
    fn step<T>(&self, call: impl FnOnce(&dyn Storage) -> io::Result<T>) -> io::Result<T> {
        self.check_stop()?;
        let result = call(&*self.disk);
        self.heartbeat.tick();
        result
    }
}

impl MonitoredDisk {
    /// Monitors a disk, for opening the engine: a stop fails its calls.
    #[must_use]
    pub fn recovering(
        disk: Arc<dyn Storage>,
        heartbeat: Arc<Heartbeat>,
        inbox: Arc<Inbox>,
    ) -> Self {
        let recovering = AtomicBool::new(true);
        Self {
            shared: Arc::new(Shared {
                disk,
                heartbeat,
                inbox,
                recovering,
            }),
        }
    }

    /// Ends the recovery: from now on only the engine thread acts on a stop, and finishes what was begun.
    pub fn recovered(&self) {
        self.shared.recovering.store(false, Ordering::Relaxed);
    }

    fn file(&self, file: io::Result<Arc<dyn StorageFile>>) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(MonitoredFile {
            file: file?,
            shared: Arc::clone(&self.shared),
        }))
    }
}

#[derive(Debug)]
struct MonitoredFile {
    file: Arc<dyn StorageFile>,
    shared: Arc<Shared>,
}

impl StorageFile for MonitoredFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.shared.check_stop()?;
        let read = self.file.read_at(buf, offset);
        let bytes = read.as_ref().map_or(0, |read| *read as u64);
        self.shared.heartbeat.has_read(bytes);
        read
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.shared.check_stop()?;
        let written = self.file.write_at(buf, offset);
        let bytes = written.as_ref().map_or(0, |written| *written as u64);
        self.shared.heartbeat.has_written(bytes);
        written
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.shared.step(|_| self.file.set_len(len_bytes))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.shared.step(|_| self.file.sync_data())
    }

    fn stat(&self) -> io::Result<FileStat> {
        self.shared.step(|_| self.file.stat())
    }

    fn next_data(&self, offset: u64) -> Option<u64> {
        let data = self.file.next_data(offset);
        self.shared.heartbeat.tick();
        data
    }

    fn set_rights(&self, rights: Rights) -> io::Result<()> {
        self.shared.step(|_| self.file.set_rights(rights))
    }
}

impl Storage for MonitoredDisk {
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.file(self.shared.step(|disk| disk.open_read(path)))
    }

    fn open_read_below(&self, base: &Path, below: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.file(self.shared.step(|disk| disk.open_read_below(base, below)))
    }

    fn stat_below(&self, base: &Path, below: &Path) -> io::Result<FileStat> {
        self.shared.step(|disk| disk.stat_below(base, below))
    }

    fn list_below(&self, base: &Path, below: &Path) -> io::Result<Vec<ListedEntry>> {
        self.shared.step(|disk| disk.list_below(base, below))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.file(self.shared.step(|disk| disk.open_write(path)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.file(self.shared.step(|disk| disk.create(path)))
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        self.shared.step(|disk| disk.stat(path))
    }

    fn stats_below(&self, base: &Path, dir: &Path, names: &[&OsStr]) -> Vec<io::Result<FileStat>> {
        let stats = self.shared.disk.stats_below(base, dir, names);
        self.shared.heartbeat.tick();
        stats
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<ListedEntry>> {
        self.shared.step(|disk| disk.list(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.shared.step(|disk| disk.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.shared.step(|disk| disk.remove_file(path))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.shared.step(|disk| disk.hard_link(from, to))
    }

    fn rights(&self, path: &Path) -> io::Result<Option<Rights>> {
        self.shared.step(|disk| disk.rights(path))
    }

    fn set_dir_rights(&self, dir: &Path, rights: Rights) -> io::Result<()> {
        self.shared.step(|disk| disk.set_dir_rights(dir, rights))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.shared.step(|disk| disk.create_dir_all(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.shared.step(|disk| disk.sync_dir(dir))
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        self.shared.step(|disk| disk.canonicalize(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::storage::{OsStorage, read_full_at, write_all_at};

    #[test]
    fn every_returning_call_is_a_step_and_bytes_are_counted() {
        let home = tempfile::tempdir().unwrap();
        let heartbeat = Arc::new(Heartbeat::default());
        let disk = MonitoredDisk::recovering(
            Arc::new(OsStorage),
            Arc::clone(&heartbeat),
            Arc::new(Inbox::new()),
        );
        let path = home.path().join("file");
        let file = disk.create(&path).unwrap();
        write_all_at(&*file, b"twelve bytes", 0).unwrap();
        file.sync_data().unwrap();
        let mut bytes = [0; 64];
        assert_eq!(read_full_at(&*file, &mut bytes, 0).unwrap(), 12);
        assert_eq!(heartbeat.bytes(), (12, 12));
        let steps = heartbeat.steps();
        assert!(disk.stat(&home.path().join("no such file")).is_err());
        assert_eq!(heartbeat.steps(), steps + 1, "a failed call is a step too");
    }

    #[test]
    fn a_stop_fails_calls_during_the_recovery_only() {
        let home = tempfile::tempdir().unwrap();
        let inbox = Arc::new(Inbox::new());
        let disk =
            MonitoredDisk::recovering(Arc::new(OsStorage), Arc::default(), Arc::clone(&inbox));
        let file = disk.create(&home.path().join("file")).unwrap();
        inbox.stop();
        assert!(file.sync_data().is_err());
        assert!(disk.list(home.path()).is_err());
        disk.recovered();
        file.sync_data().unwrap();
        assert_eq!(disk.list(home.path()).unwrap().len(), 1);
    }
}
