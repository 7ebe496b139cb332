//! Owns the proof that the event source lives: a file of our own whose times are changed, and whether anything was
//! heard since. Any event is proof enough, so that a queue that overflowed is no sign of death.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

/// Name of the file in the state directory.
const FILE: &str = "watcher-test";

/// What the event source heard, and how to have it hear something.
#[derive(Debug, Default)]
pub struct SelfTest {
    state: Mutex<State>,
    heard: Condvar,
}

#[derive(Debug, Default)]
struct State {
    events: u64,
    path: Option<PathBuf>,
    /// Open while it is watched: the watch is the inode's, and lives on when somebody removes the name.
    file: Option<File>,
}

impl SelfTest {
    /// The event source called.
    pub(super) fn hear(&self) {
        let mut state = self.lock();
        state.events = state.events.wrapping_add(1);
        drop(state);
        self.heard.notify_all();
    }

    /// Where its file lies from now on.
    pub(super) fn place(&self, state_dir: &Path) {
        self.lock().path = Some(state_dir.join(FILE));
    }

    /// Has a new event source watch the file; none: changes are polled for, and there is nothing to prove.
    pub(super) fn arm(&self, watcher: Option<&mut RecommendedWatcher>) {
        let path = self.lock().path.clone();
        let armed = match (path, watcher) {
            (Some(path), Some(watcher)) => open_and_watch(&path, watcher),
            _ => Ok(None),
        };
        // Not while the watcher is at work: it may be calling.
        self.lock().file = armed.unwrap_or_else(|error| {
            tracing::warn!(%error, "the watchdog cannot test the event source");
            None
        });
    }

    /// Whether the event source hears within `patience`; true where there is none to test.
    #[must_use]
    pub fn passes(&self, patience: Duration) -> bool {
        let mut state = self.lock();
        let before = state.events;
        let Some(Ok(file)) = state.file.as_ref().map(File::try_clone) else {
            return true;
        };
        drop(state);
        if file.set_modified(SystemTime::now()).is_err() {
            // What is wrong with the disk is the engine's to find out.
            return true;
        }
        let deadline = Instant::now() + patience;
        state = self.lock();
        while state.events == before {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.heard.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_and_watch(path: &Path, watcher: &mut RecommendedWatcher) -> io::Result<Option<File>> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    watcher
        .watch(path, RecursiveMode::NonRecursive)
        .map_err(io::Error::other)?;
    Ok(Some(file))
}
