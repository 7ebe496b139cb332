//! Waits for a change in a directory, for a reader of files that another process extends.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The longest wait: where the kernel reports no changes (network file systems, no right to list the directory), the
/// files are checked this often.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// A watch of one directory.
#[derive(Debug)]
pub struct FileWait {
    /// Keeps the watch; `None` where the kernel gives none.
    _watcher: Option<RecommendedWatcher>,
    changes: Receiver<()>,
}

impl FileWait {
    /// Begins to watch a directory. Changes from now on end the next wait, so the caller reads its files afterwards.
    #[must_use]
    pub fn new(dir: &Path) -> FileWait {
        // One change is as good as many: the reader reads to the end.
        let (sender, changes) = sync_channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the files is an event too.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _full = sender.try_send(());
            }
        });
        let watcher = watcher.ok().and_then(|mut watcher| {
            let placed = watcher.watch(dir, RecursiveMode::NonRecursive);
            placed.is_ok().then_some(watcher)
        });
        FileWait {
            _watcher: watcher,
            changes,
        }
    }

    /// Waits for a change, a second at most.
    pub fn wait(&self) {
        if self.changes.recv_timeout(WAIT_MAX) == Err(RecvTimeoutError::Disconnected) {
            std::thread::sleep(WAIT_MAX);
        }
    }
}

/// Returns whether the reader of a pipe or socket on stdout has closed it.
///
/// # Errors
/// The state cannot be determined.
pub fn is_stdout_closed() -> io::Result<bool> {
    let stdout = io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    match poll(&mut polled, Some(&Timespec::default())) {
        Err(error) if error == rustix::io::Errno::INTR => Ok(false),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(polled[0]
            .revents()
            .intersects(PollFlags::ERR | PollFlags::HUP)),
    }
}
