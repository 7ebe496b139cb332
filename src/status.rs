//! Owns what `status` tells, and where it is taken from: from the running daemon's control socket or the snapshot that
//! it leaves in its state directory, else from the state itself, under the daemon's lock. It never changes state or export.

mod page;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hyper::Method;
use serde::{Deserialize, Serialize};

use crate::batch_export::export_path;
use crate::checkpoint::{PairCheckpoint, PairId, Totals};
use crate::clock::stamp;
use crate::config::Settings;
use crate::control;
use crate::engine::Engine;
use crate::journal::{Batch, Journal, JournalError};
use crate::lock::{Holder, LockError, RootLock};
use crate::open::{JOURNAL_FILE, STATE_FILE};
use crate::state::{State, StateError};
use crate::storage::{Disk, Storage as _};

pub use page::page;

/// Name of the snapshot in the state directory.
pub const SNAPSHOT_FILE: &str = "status.json";
/// A snapshot is written at most so often, milliseconds.
const PUBLISH_MS: u64 = 1_000;

/// The state of things. Keys are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// Whether a daemon is there now.
    pub running: bool,
    /// Its process.
    pub pid: Option<u32>,
    /// The root.
    pub root: PathBuf,
    /// The state directory.
    pub state_dir: PathBuf,
    /// When this was true, RFC 3339.
    pub as_of: String,
    /// The export.
    pub export: ExportStatus,
    /// Lines of the scored stream and what became of each.
    pub scored: ScoredStatus,
    /// Lines of the evidence stream.
    pub evidence: EvidenceStatus,
    /// Day-files and directories known to be unread. `None` where no daemon runs that would know.
    pub behind: Option<u64>,
    /// How changes are noticed: `events`, or `polling: ` and why.
    pub watch: Option<String>,
    /// The last error that stopped reading for a while.
    pub last_fault: Option<Fault>,
    /// When this daemon last wrote a row, RFC 3339.
    pub last_row_at: Option<String>,
}

/// The export in figures.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExportStatus {
    /// The file.
    pub path: PathBuf,
    /// Its length, bytes.
    pub len_bytes: u64,
    /// Its rows, those without a line included.
    pub rows: u64,
    /// Rows of which no line in the sources is known.
    pub rows_unclaimed: u64,
    /// Rows whose evidence was replaced later.
    pub superseded: u64,
    /// Rows whose run was rejected later.
    pub contradicted: u64,
}

/// The account of the scored stream: `lines` is the sum of all others but `balanced`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScoredStatus {
    /// Lines read.
    pub lines: u64,
    /// Of them in the export.
    pub exported: u64,
    /// Refused by the firewall.
    pub firewalled: u64,
    /// Refused: a category nobody knows.
    pub unknown_category: u64,
    /// Refused: the model's role.
    pub role: u64,
    /// Refused: a blank text.
    pub blank_text: u64,
    /// Waiting for evidence.
    pub waiting: u64,
    /// No records.
    pub dead_letters: u64,
    /// Whether the account balances.
    pub balanced: bool,
}

/// The account of the evidence stream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EvidenceStatus {
    /// Lines read.
    pub lines: u64,
    /// No records.
    pub dead_letters: u64,
}

/// An error that stopped reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// When it was first met, RFC 3339.
    pub at: String,
    /// What it was.
    pub what: String,
    /// Whether reading goes on since.
    pub over: bool,
}

/// What only a running daemon knows.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// Day-files and directories known to be unread.
    pub behind: u64,
    /// How changes are noticed.
    pub watch: String,
    /// The last error that stopped reading for a while.
    pub last_fault: Option<Fault>,
    /// When the last row was written, milliseconds since 1970.
    pub last_row_wall_ms: Option<u64>,
}

impl Status {
    /// What a running daemon says of itself.
    #[must_use]
    pub fn of_daemon(engine: &Engine, settings: &Settings, root: &Path, live: Live) -> Self {
        Self {
            running: true,
            pid: Some(std::process::id()),
            behind: Some(live.behind),
            watch: Some(live.watch),
            last_fault: live.last_fault,
            last_row_at: live.last_row_wall_ms.map(stamp),
            ..Self::of_figures(
                engine.totals(),
                engine.export_bytes(),
                engine.claimable(),
                root,
                &settings.state_dir,
            )
        }
    }

    fn of_figures(
        totals: &Totals,
        export_bytes: u64,
        claimable: u64,
        root: &Path,
        state_dir: &Path,
    ) -> Self {
        let counts = &totals.counts;
        Self {
            root: root.to_owned(),
            state_dir: state_dir.to_owned(),
            export: ExportStatus {
                path: export_path(root),
                len_bytes: export_bytes,
                rows: counts.exported + claimable,
                rows_unclaimed: claimable,
                superseded: counts.superseded,
                contradicted: counts.contradicted,
            },
            scored: ScoredStatus {
                lines: totals.scored_lines,
                exported: counts.exported,
                firewalled: counts.firewalled,
                unknown_category: counts.unknown_category,
                role: counts.role,
                blank_text: counts.blank_text,
                waiting: counts.waiting,
                dead_letters: totals.scored_malformed,
                balanced: totals.balanced(),
            },
            evidence: EvidenceStatus {
                lines: totals.evidence_lines,
                dead_letters: totals.evidence_malformed,
            },
            ..Self::default()
        }
    }
}

/// Leaves a snapshot for `status` when something changed: at most one a second, none while nothing happens.
#[derive(Debug)]
pub struct Publisher {
    path: PathBuf,
    said: Option<Status>,
    due_ms: u64,
    failed: bool,
}

impl Publisher {
    /// Publishes in this state directory.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join(SNAPSHOT_FILE),
            said: None,
            due_ms: 0,
            failed: false,
        }
    }

    /// Writes the snapshot if it says something new and the last one is old enough. Gives when to come again with
    /// what could not be written yet, in monotonic milliseconds. An error is logged once and is no other's concern.
    pub fn offer(&mut self, status: Status, now_ms: u64, wall_ms: u64) -> Option<u64> {
        if self.said.as_ref() == Some(&status) {
            return None;
        }
        if now_ms < self.due_ms {
            return Some(self.due_ms);
        }
        self.due_ms = now_ms + PUBLISH_MS;
        let snapshot = Status {
            as_of: stamp(wall_ms),
            ..status.clone()
        };
        self.said = Some(status);
        match write_snapshot(&self.path, &snapshot) {
            Ok(()) => self.failed = false,
            Err(error) if self.failed => tracing::debug!(%error, "status not written"),
            Err(error) => {
                self.failed = true;
                tracing::warn!(path = %self.path.display(), %error, "`status` will show old figures");
            }
        }
        None
    }
}

/// Replaced by rename, so that a reader sees one whole snapshot. Not synced: after a crash nobody needs it.
fn write_snapshot(path: &Path, status: &Status) -> io::Result<()> {
    let fresh = path.with_extension("json.new");
    fs::write(&fresh, serde_json::to_vec(status)?)?;
    fs::rename(&fresh, path)
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The root cannot be used.
    #[error("the root {} cannot be used: {source}", root.display())]
    Root {
        /// The root.
        root: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// No daemon ever ran there.
    #[error(
        "there is no state in {}: no daemon has run on this root with this state directory", .0.display()
    )]
    NoState(PathBuf),
    /// See there.
    #[error("no daemon answers, and its lock cannot be taken to read the state: {0}")]
    Lock(#[source] LockError),
    /// See there.
    #[error("{0}")]
    State(#[from] StateError),
    /// See there.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// A process holds the lock and has left no snapshot.
    #[error(
        "process {pid} holds the lock of {} and has not published a status yet; it is starting, or a rebuild", root.display()
    )]
    Silent {
        /// The holder.
        pid: u32,
        /// The root.
        root: PathBuf,
    },
    /// The snapshot cannot be read.
    #[error("the status snapshot {} cannot be read: {source}", path.display())]
    Snapshot {
        /// The snapshot.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

/// The status of a root, with or without a daemon on it. `now_ms`: milliseconds since 1970.
///
/// # Errors
/// See [`StatusError`].
pub fn status(settings: &Settings, now_ms: u64) -> Result<Status, StatusError> {
    let root = Disk
        .canonicalize(&settings.root)
        .map_err(|source| StatusError::Root {
            root: settings.root.clone(),
            source,
        })?;
    let holder = crate::lock::last_holder(&root).map_err(|source| StatusError::Root {
        root: root.clone(),
        source,
    })?;
    let has_state = |dir: &Path| dir.join(STATE_FILE).try_exists().unwrap_or(true);
    let state_dir = holder
        .as_ref()
        .map(|holder| holder.state_dir.clone())
        .filter(|dir| has_state(dir))
        .unwrap_or_else(|| settings.state_dir.clone());
    if holder.is_none() && !has_state(&state_dir) {
        // Taking the lock would leave files on a root where no daemon ever ran.
        return Err(StatusError::NoState(state_dir));
    }
    // Held while reading: a daemon that starts meanwhile would find the state open. The lock goes on naming the
    // state directory that the daemon used, because `export` asks it what is kept.
    match RootLock::take(&root, &state_dir) {
        Ok(_lock) if has_state(&state_dir) => {
            let mut status = of_state(&root, &state_dir)?;
            status.as_of = stamp(now_ms);
            Ok(status)
        }
        Ok(_lock) => Err(StatusError::NoState(state_dir)),
        // What it published goes for one that is too busy to answer, or an old one.
        Err(LockError::Held(holder)) => of_daemon(&holder).map_or_else(|| of_snapshot(&holder), Ok),
        Err(error) => Err(StatusError::Lock(error)),
    }
}

/// What the daemon says of this moment, if it answers.
fn of_daemon(holder: &Holder) -> Option<Status> {
    match control::ask(&holder.state_dir, Method::GET, "/status.json") {
        Ok(answer) if answer.status.is_success() => serde_json::from_slice(&answer.body).ok(),
        Ok(answer) => {
            tracing::debug!(status = %answer.status, "the daemon gave no status");
            None
        }
        Err(error) => {
            tracing::debug!(%error, "the daemon gave no status");
            None
        }
    }
}

fn of_snapshot(holder: &Holder) -> Result<Status, StatusError> {
    let path = holder.state_dir.join(SNAPSHOT_FILE);
    let silent = StatusError::Silent {
        pid: holder.pid,
        root: holder.root.clone(),
    };
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(silent),
        other => other.map_err(|source| StatusError::Snapshot {
            path: path.clone(),
            source,
        })?,
    };
    let snapshot: Status =
        serde_json::from_slice(&bytes).map_err(|error| StatusError::Snapshot {
            path,
            source: error.into(),
        })?;
    // One that an earlier daemon left says nothing of this one.
    if snapshot.pid == Some(holder.pid) {
        Ok(snapshot)
    } else {
        Err(silent)
    }
}

/// What state and journal say, read and not recovered: rows that only the journal holds are counted as written.
fn of_state(root: &Path, state_dir: &Path) -> Result<Status, StatusError> {
    let state = State::open(&Disk, &state_dir.join(STATE_FILE))?;
    let header = *state.header();
    let file = Disk
        .open_read(&state_dir.join(JOURNAL_FILE))
        .map_err(JournalError::Io)?;
    let view = state.view()?;
    let (mut totals, mut export_bytes) = (header.totals, header.export.len_bytes);
    let mut claimable = header.claimable;
    let mut newest: BTreeMap<PairId, PairCheckpoint> = BTreeMap::new();
    let take_in = |_, batch: Batch| {
        export_bytes = batch.export_to();
        for delta in batch.delta.pairs {
            let before = match newest.remove(&delta.id) {
                Some(before) => before,
                None if view.pair_id(&delta.checkpoint.path)?.is_some() => {
                    view.checkpoint(delta.id)?
                }
                None => PairCheckpoint::default(),
            };
            totals.replace(&before, &delta.checkpoint);
            claimable = claimable.saturating_sub(delta.claims.len() as u64);
            newest.insert(delta.id, delta.checkpoint);
        }
        Ok::<_, StatusError>(())
    };
    Journal::replay(file, header.journal_epoch, header.seq_applied, take_in)?;
    Ok(Status::of_figures(
        &totals,
        export_bytes,
        claimable,
        root,
        state_dir,
    ))
}
