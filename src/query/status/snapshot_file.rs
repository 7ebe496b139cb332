//! Files that a running daemon writes next to the state: a status snapshot for a `status` that gets no response, and
//! the 24-hour history for the next process. Losing either loses nothing else.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::Engine;
use crate::platform::storage::{Storage, read_full_at, remove_if_exists, write_all_at};
use crate::query::status::Status;
use crate::record::timestamp::stamp;
use crate::store::recent::{RECENT_FILE, StoredHistory};

/// Name of the snapshot in the state directory.
pub const SNAPSHOT_FILE: &str = "status.json";

/// A snapshot is written at most so often, milliseconds.
const PUBLISH_MS: u64 = 1_000;
/// One that could not be written is tried again after so long, milliseconds.
const AGAIN_MS: u64 = 10_000;
/// The last day is written at most so often, milliseconds.
const RECENT_MS: u64 = 60_000;
/// Bytes of new rows after which it is written sooner.
const RECENT_BYTES: u64 = 64 << 20;
/// A longer file is not one of this program.
const RECENT_BYTES_MAX: u64 = 16 << 20;

/// Leaves a snapshot for `status` when something changed: at most one a second, none while nothing happens.
#[derive(Debug)]
pub struct Publisher {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    last_offered: Option<Status>,
    due_ms: u64,
    failed: bool,
}

impl Publisher {
    /// Publishes in this state directory.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>, state_dir: &Path) -> Self {
        Self {
            storage,
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
        match replace(&*self.storage, &self.path, &snapshot) {
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

/// Stores the history of the last day: when it changed, at most once a minute, or once for `RECENT_BYTES` of new rows,
/// which the next process would have to read.
#[derive(Debug)]
pub struct RecentFile {
    storage: Arc<dyn Storage>,
    state_dir: PathBuf,
    /// Number of changes at the last write.
    changes: u64,
    /// Length of the export at the last write, bytes.
    export_bytes: u64,
    due_ms: u64,
}

impl RecentFile {
    /// Stores it in this state directory.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>, state_dir: &Path) -> Self {
        Self {
            storage,
            state_dir: state_dir.to_owned(),
            changes: 0,
            export_bytes: 0,
            due_ms: 0,
        }
    }

    /// Returns the history that an earlier process stored, if it is readable.
    #[must_use]
    pub fn read(&self) -> Option<StoredHistory> {
        let path = self.state_dir.join(RECENT_FILE);
        let file = self.storage.open_read(&path).ok()?;
        let len_bytes = file.stat().ok()?.len_bytes;
        if len_bytes > RECENT_BYTES_MAX {
            return None;
        }
        let mut bytes = vec![0; len_bytes as usize];
        read_full_at(&*file, &mut bytes, 0).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Writes the history if it changed and the last write is long enough ago. Returns when a change that is not written
    /// is due, monotonic milliseconds.
    pub fn offer(&mut self, engine: &Engine, now_ms: u64) -> Option<u64> {
        if engine.recent_changes() == self.changes {
            return None;
        }
        let new_bytes = engine.export_bytes().saturating_sub(self.export_bytes);
        if now_ms < self.due_ms && new_bytes < RECENT_BYTES {
            return Some(self.due_ms);
        }
        self.due_ms = now_ms + RECENT_MS;
        self.write(engine);
        None
    }

    /// Writes the history if it changed.
    pub fn write(&mut self, engine: &Engine) {
        if engine.recent_changes() == self.changes {
            return;
        }
        self.changes = engine.recent_changes();
        self.export_bytes = engine.export_bytes();
        let written = engine.stored_recent().map_err(|error| error.to_string());
        let written = written.and_then(|stored| {
            let written = stored.write(&*self.storage, &self.state_dir);
            written.map_err(|error| error.to_string())
        });
        if let Err(error) = written {
            tracing::debug!(
                error,
                "cannot store the rows of the last day by minute ({error})"
            );
        }
    }
}

/// Replaces the file by rename, so that a reader sees a whole file. It is not synced: after a crash it is not needed.
fn replace(storage: &dyn Storage, path: &Path, value: &impl serde::Serialize) -> io::Result<()> {
    let fresh = path.with_extension("json.new");
    remove_if_exists(storage, &fresh)?;
    let file = storage.create(&fresh)?;
    write_all_at(&*file, &serde_json::to_vec(value)?, 0)?;
    storage.rename(&fresh, path)
}
