//! Files that a running daemon writes next to the state: a status snapshot for a `status` that gets no response, and
//! the 24-hour history for the next process. Losing either loses nothing else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::pair::history::Recent;
use crate::platform::storage::{OsStorage, Storage as _, remove_if_exists, write_all_at};
use crate::query::status::{SNAPSHOT_FILE, Status};
use crate::record::timestamp::stamp;

/// A snapshot is written at most so often, milliseconds.
const PUBLISH_MS: u64 = 1_000;
/// One that could not be written is tried again after so long, milliseconds.
const AGAIN_MS: u64 = 10_000;
/// The last day is written at most so often, milliseconds.
const RECENT_MS: u64 = 60_000;
/// Name of the file that keeps it.
const RECENT_FILE: &str = "recent.json";
/// A longer one is none of ours.
const RECENT_BYTES_MAX: u64 = 16 << 20;

/// Leaves a snapshot for `status` when something changed: at most one a second, none while nothing happens.
#[derive(Debug)]
pub struct Publisher {
    path: PathBuf,
    last_offered: Option<Status>,
    due_ms: u64,
    failed: bool,
}

impl Publisher {
    /// Publishes in this state directory.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join(SNAPSHOT_FILE),
            last_offered: None,
            due_ms: 0,
            failed: false,
        }
    }

    /// Until when the last snapshot is too young to be replaced, in monotonic milliseconds: a status composed before
    /// would be thrown away.
    #[must_use]
    pub fn idle_until(&self, now_ms: u64) -> Option<u64> {
        (now_ms < self.due_ms).then_some(self.due_ms)
    }

    /// Writes the snapshot if it changed. Returns the time of the next attempt after a failure, monotonic
    /// milliseconds. An error is logged once and concerns nothing else.
    pub fn offer(&mut self, status: Status, now_ms: u64, wall_ms: u64) -> Option<u64> {
        if self.last_offered.as_ref() == Some(&status) {
            return None;
        }
        self.due_ms = now_ms + PUBLISH_MS;
        let snapshot = Status {
            as_of: stamp(wall_ms),
            ..status.clone()
        };
        self.last_offered = Some(status);
        match replace(&self.path, &snapshot) {
            Ok(()) => self.failed = false,
            Err(error) if self.failed => tracing::debug!(%error, "status not written"),
            Err(error) => {
                self.failed = true;
                tracing::warn!(path = %self.path.display(), %error, "cannot write the published status {} ({error}); the running daemon still answers with current figures", self.path.display());
            }
        }
        if self.failed {
            // Nothing may be new when there is room again.
            self.last_offered = None;
            self.due_ms = now_ms + AGAIN_MS;
            return Some(self.due_ms);
        }
        None
    }
}

/// Keeps the last day's rows by minute: written when something was noted, at most once a minute.
#[derive(Debug)]
pub struct RecentFile {
    path: PathBuf,
    /// Number of changes at the last write.
    notes: u64,
    due_ms: u64,
}

impl RecentFile {
    /// Keeps it in this state directory.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join(RECENT_FILE),
            notes: 0,
            due_ms: 0,
        }
    }

    /// Returns the history that an earlier process stored, if it is readable.
    #[must_use]
    pub fn read(&self) -> Option<Recent> {
        let len_bytes = fs::metadata(&self.path).ok()?.len();
        if len_bytes > RECENT_BYTES_MAX {
            return None;
        }
        serde_json::from_slice(&fs::read(&self.path).ok()?).ok()
    }

    /// Writes it if something was noted and the last one is old enough. Gives when to come again with what could not be
    /// written yet, in monotonic milliseconds.
    pub fn offer(&mut self, recent: &Recent, now_ms: u64) -> Option<u64> {
        if recent.notes == self.notes {
            return None;
        }
        if now_ms < self.due_ms {
            return Some(self.due_ms);
        }
        self.due_ms = now_ms + RECENT_MS;
        self.write(recent);
        None
    }

    /// Writes it if something was noted.
    pub fn write(&mut self, recent: &Recent) {
        if recent.notes == self.notes {
            return;
        }
        self.notes = recent.notes;
        if let Err(error) = replace(&self.path, recent) {
            tracing::debug!(path = %self.path.display(), %error, "the last day's rows by minute are not kept");
        }
    }
}

/// Replaces the file by rename, so that a reader sees a whole file. It is not synced: after a crash it is not needed.
fn replace(path: &Path, value: &impl serde::Serialize) -> io::Result<()> {
    let fresh = path.with_extension("json.new");
    remove_if_exists(&OsStorage, &fresh)?;
    let file = OsStorage.create(&fresh)?;
    write_all_at(&*file, &serde_json::to_vec(value)?, 0)?;
    fs::rename(&fresh, path)
}
