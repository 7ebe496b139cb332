//! The self-test of the event source: it changes the times of a file of our own and checks that an event arrives. Any
//! event suffices, so an overflowed queue does not count as a failure.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use notify::{RecursiveMode, Watcher};

use crate::platform::held_dir::HeldDir;
use crate::platform::storage::{FILE_MODE_MAX, OsStorage, remove_if_exists};

/// The name of the file in the state directory.
const FILE: &str = "watcher-test";

/// The count of received events, and the file that can cause one.
#[derive(Debug, Default)]
pub struct SelfTest {
    events: AtomicU64,
    /// Whether a test waits for an event. Only then the thread of the event source takes the lock.
    is_waiting: AtomicBool,
    state: Mutex<State>,
    received: Condvar,
}

#[derive(Debug, Default)]
struct State {
    path: Option<PathBuf>,
    /// Open while it is watched: the watch belongs to the inode and survives the removal of the name.
    file: Option<File>,
}

impl SelfTest {
    /// Counts an event of the event source.
    pub(super) fn on_event(&self) {
        self.events.fetch_add(1, Ordering::SeqCst);
        if self.is_waiting.load(Ordering::SeqCst) {
            // Under the lock, so that it cannot fall between the check and the wait of the test.
            drop(self.lock());
            self.received.notify_all();
        }
    }

    /// Sets the directory of the file.
    pub(super) fn place(&self, state_dir: &Path) {
        self.lock().path = Some(state_dir.join(FILE));
    }

    /// Lets a new event source watch the file. Without an event source changes are polled, and there is nothing to
    /// test.
    pub(super) fn arm(&self, watcher: Option<&mut (dyn Watcher + Send + 'static)>) {
        let path = self.lock().path.clone();
        let armed = match (path, watcher) {
            (Some(path), Some(watcher)) => open_and_watch(&path, watcher),
            _ => Ok(None),
        };
        // The lock is not held while the watch is placed: the watcher may be calling.
        self.lock().file = armed.unwrap_or_else(|error| {
            tracing::warn!(%error, "the watchdog cannot test the event source: {error}");
            None
        });
    }

    /// Returns whether an event arrives within `patience`; true if there is nothing to test.
    #[must_use]
    pub fn passes(&self, patience: Duration) -> bool {
        let state = self.lock();
        let Some(Ok(file)) = state.file.as_ref().map(File::try_clone) else {
            return true;
        };
        drop(state);
        self.is_waiting.store(true, Ordering::SeqCst);
        let passes = self.causes_event(&file, patience);
        self.is_waiting.store(false, Ordering::SeqCst);
        passes
    }

    fn causes_event(&self, file: &File, patience: Duration) -> bool {
        let before = self.events.load(Ordering::SeqCst);
        if file.set_modified(SystemTime::now()).is_err() {
            // The engine detects faults of the disk.
            return true;
        }
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        while self.events.load(Ordering::SeqCst) == before {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.received.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_and_watch(path: &Path, watcher: &mut dyn Watcher) -> io::Result<Option<File>> {
    remove_if_exists(&OsStorage, path)?;
    let (dir, name) = HeldDir::of(path)?;
    let file = dir.create(name, FILE_MODE_MAX)?;
    watcher
        .watch(path, RecursiveMode::NonRecursive)
        .map_err(io::Error::other)?;
    Ok(Some(file))
}
