//! The status of a root: from its daemon, from what the daemon published last, or from the files.

use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use hyper::Method;

use crate::config::Settings;
use crate::lake::chunk::LineLimits;
use crate::platform::held_dir::HeldDir;
use crate::platform::root_lock::Holder;
use crate::query::health::DaemonState;
use crate::query::offline::{self, Backend, InquireError};
use crate::query::status::{SNAPSHOT_FILE, Status};

/// Maximum wait for the daemon's status.
const PATIENCE: Duration = Duration::from_secs(15);

/// The status of a root, with or without a daemon on it. `now_ms`: milliseconds since 1970.
///
/// # Errors
/// See [`InquireError`].
pub fn status(settings: &Settings, now_ms: u64) -> Result<Status, InquireError> {
    let limits = LineLimits {
        line_bytes_max: settings.max_line_bytes,
    };
    match offline::find(settings)? {
        Backend::OfflineState(files) => Status::of_files(&files, limits, now_ms),
        // The published status is used for a daemon that is too busy to respond.
        Backend::Daemon(holder) => {
            match offline::of_daemon(&holder, Method::GET, "/status.json", PATIENCE) {
                // The published status would show a daemon that responds as one that does not.
                Err(error @ InquireError::Denied(_)) => Err(error),
                Err(error) => {
                    tracing::debug!(%error, "the daemon gave no status");
                    of_snapshot(&holder)
                }
                answered => answered,
            }
        }
    }
}

/// Reads a file that the user of the daemon may have replaced by a link or a FIFO.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let (dir, name) = HeldDir::of(path)?;
    let mut bytes = Vec::new();
    dir.open_read(name)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the last published status of a daemon that does not respond, or that it is starting.
fn of_snapshot(holder: &Holder) -> Result<Status, InquireError> {
    let path = holder.state_dir.join(SNAPSHOT_FILE);
    let starting = Status {
        running: true,
        pid: Some(holder.pid),
        root: holder.root.clone(),
        state_dir: holder.state_dir.clone(),
        ..Status::default()
    }
    .assessed(DaemonState::Starting);
    let bytes = match read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(starting),
        other => other.map_err(|source| {
            offline::denied_or(&path, source, |source| InquireError::Snapshot {
                path: path.clone(),
                source,
            })
        })?,
    };
    let snapshot: Status =
        serde_json::from_slice(&bytes).map_err(|error| InquireError::Snapshot {
            path,
            source: error.into(),
        })?;
    // A snapshot of an earlier process does not describe this one.
    if snapshot.pid == Some(holder.pid) {
        Ok(snapshot.assessed(DaemonState::Unresponsive))
    } else {
        Ok(starting)
    }
}
