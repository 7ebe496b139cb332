//! Owns where an operator's question is answered: by the running daemon, through its control socket, or here, from state
//! and journal under its lock. Both answer from the same [`StateSnapshot`]. It never changes state or export.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use serde::de::DeserializeOwned;

use crate::config::Settings;
use crate::lake::path::{export_path, ledger_path};
use crate::pair::accounting::Account;
use crate::platform::rights::Denied;
use crate::platform::root_lock::{Holder, LockError, RootLock, last_holder};
use crate::platform::storage::{OsStorage, Storage};
use crate::query::control;
use crate::query::control::{Answer, ControlError, ControlSocket, socket_path};
use crate::recovery::open::check_export;
use crate::store::export::ExportError;
use crate::store::files::{JOURNAL_FILE, STATE_FILE};
use crate::store::journal::error::JournalError;
use crate::store::replay::Replay;
use crate::store::snapshot::StateSnapshot;
use crate::store::state::State;
use crate::store::state::error::StateError;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum InquireError {
    /// The user of this command lacks a right.
    #[error("{0}")]
    Denied(Box<Denied>),
    /// No daemon answers, and the user of this command may not read its files.
    #[error("no daemon answers on its control socket, and its files are for its own user: {0}")]
    DeniedFiles(Box<Denied>),
    /// The root cannot be used.
    #[error("the root {} cannot be used: {source}", root.display())]
    Root {
        /// The root.
        root: PathBuf,
        /// The error of the disk.
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
    NoSnapshotYet {
        /// The holder.
        pid: u32,
        /// The root.
        root: PathBuf,
    },
    /// The daemon runs and does not answer.
    #[error(
        "process {pid} works on {} and gives no answer: {source}", root.display()
    )]
    Unresponsive {
        /// The holder.
        pid: u32,
        /// The root.
        root: PathBuf,
        /// Why there is none.
        source: ControlError,
    },
    /// The daemon's answer is a refusal.
    #[error("the daemon, process {pid}, answered {status}: {message}")]
    Rejected {
        /// The holder.
        pid: u32,
        /// HTTP's status.
        status: u16,
        /// Its text.
        message: String,
    },
    /// The daemon's answer is of another version.
    #[error(
        "the daemon, process {pid}, gave an answer that this distilld does not know ({source})"
    )]
    IncompatibleResponse {
        /// The holder.
        pid: u32,
        /// The error of the decoder.
        source: serde_json::Error,
    },
    /// The snapshot cannot be read.
    #[error("the status snapshot {} cannot be read: {source}", path.display())]
    Snapshot {
        /// The snapshot.
        path: PathBuf,
        /// The error of the disk.
        source: io::Error,
    },
}

/// Maximum time of a response that needs much reading; other requests may be served first.
pub const LONG: Duration = Duration::from_secs(600);

/// Who can answer.
#[derive(Debug)]
pub enum Backend {
    /// The daemon that holds the lock.
    Daemon(Holder),
    /// No daemon runs; the files are read.
    OfflineState(Box<OfflineState>),
}

/// State and journal of a root on which no daemon runs, read and not recovered, and held until they are dropped.
#[derive(Debug)]
pub struct OfflineState {
    /// The root, without links in it.
    pub root: PathBuf,
    /// The state directory.
    pub state_dir: PathBuf,
    /// All that is remembered.
    pub state: StateSnapshot,
    /// Its sums.
    pub account: Account,
    /// Length of the export with the rows that only the journal holds, bytes.
    pub export_bytes: u64,
    /// Length of the ledger with the lines of the journal, bytes.
    pub ledger_bytes: u64,
    /// Rows that the ledger has out of the effective set.
    pub rows_out: u64,
    /// The rows that only the journal holds.
    pub rows_pending: u64,
    stored: State,
    /// A daemon that starts meanwhile would find the state open.
    lock: RootLock,
}

/// Finds who can answer for a root.
///
/// # Errors
/// See [`InquireError`].
pub fn find(settings: &Settings) -> Result<Backend, InquireError> {
    let root_error = |source| {
        denied_or(&settings.root, source, |source| InquireError::Root {
            root: settings.root.clone(),
            source,
        })
    };
    let root = OsStorage.canonicalize(&settings.root).map_err(root_error)?;
    let holder = last_holder(&root).map_err(lock_error)?;
    let has_state = |dir: &Path| dir.join(STATE_FILE).try_exists().unwrap_or(true);
    let state_dir = holder
        .as_ref()
        .map(|holder| holder.state_dir.clone())
        .filter(|dir| has_state(dir))
        .unwrap_or_else(|| settings.state_dir.clone());
    if holder.is_none() && !has_state(&state_dir) {
        // Taking the lock would leave files on a root where no daemon ever ran.
        return Err(InquireError::NoState(state_dir));
    }
    match RootLock::lock_for_query(&root, &state_dir) {
        Ok(lock) if has_state(&state_dir) => {
            let files = OfflineState::open(root, state_dir, lock)?;
            Ok(Backend::OfflineState(Box::new(files)))
        }
        Ok(_lock) => Err(InquireError::NoState(state_dir)),
        Err(LockError::Held(holder)) => Ok(Backend::Daemon(holder)),
        Err(error) => match (lock_error(error), holder) {
            (InquireError::Denied(lock), Some(holder)) => by_socket(holder, lock),
            (error, _) => Err(error),
        },
    }
}

/// The daemon that answers a user who may not open its lock.
fn by_socket(holder: Holder, lock: Box<Denied>) -> Result<Backend, InquireError> {
    match ControlSocket::probe(&holder.state_dir) {
        Ok(()) => Ok(Backend::Daemon(holder)),
        Err(error) => match Denied::of(&socket_path(&holder.state_dir), error) {
            Ok(socket) => Err(InquireError::Denied(Box::new(socket))),
            Err(_) => Err(InquireError::DeniedFiles(lock)),
        },
    }
}

/// Returns the missing right at a path, if the error is one.
pub(super) fn denied_or(
    path: &Path,
    error: io::Error,
    other: impl FnOnce(io::Error) -> InquireError,
) -> InquireError {
    Denied::of(path, error).map_or_else(other, |denied| InquireError::Denied(Box::new(denied)))
}

pub(super) fn lock_error(error: LockError) -> InquireError {
    match error {
        LockError::Io { path, source } => denied_or(&path.clone(), source, |source| {
            InquireError::Lock(LockError::Io { path, source })
        }),
        error => InquireError::Lock(error),
    }
}

/// Asks who can answer: the daemon for `path`, with its query, or `here` what it makes of the files.
///
/// # Errors
/// See [`InquireError`]; those of `here`.
pub fn inquire<T, E>(
    settings: &Settings,
    path: &str,
    here: impl FnOnce(&OfflineState) -> Result<T, E>,
) -> Result<T, E>
where
    T: DeserializeOwned,
    E: From<InquireError>,
{
    inquire_with(settings, path, Vec::new(), here)
}

/// As [`inquire`], with a body of the request to the daemon.
///
/// # Errors
/// As of [`inquire`].
pub fn inquire_with<T, E>(
    settings: &Settings,
    path: &str,
    body: Vec<u8>,
    here: impl FnOnce(&OfflineState) -> Result<T, E>,
) -> Result<T, E>
where
    T: DeserializeOwned,
    E: From<InquireError>,
{
    match find(settings)? {
        Backend::OfflineState(files) => here(&files),
        Backend::Daemon(holder) => Ok(of_daemon_with_body(&holder, Method::GET, path, body, LONG)?),
    }
}

/// The daemon's answer.
///
/// # Errors
/// See [`InquireError`].
pub fn of_daemon<T: DeserializeOwned>(
    holder: &Holder,
    method: Method,
    path: &str,
    patience: Duration,
) -> Result<T, InquireError> {
    of_daemon_with_body(holder, method, path, Vec::new(), patience)
}

/// As [`of_daemon`], for a request with a body.
///
/// # Errors
/// See [`InquireError`].
pub fn of_daemon_with_body<T: DeserializeOwned>(
    holder: &Holder,
    method: Method,
    path: &str,
    body: Vec<u8>,
    patience: Duration,
) -> Result<T, InquireError> {
    let asked = control::ask(&holder.state_dir, method, path, body, patience);
    let unresponsive = |source| InquireError::Unresponsive {
        pid: holder.pid,
        root: holder.root.clone(),
        source,
    };
    let Answer { status, body } = asked.map_err(|source| match source {
        ControlError::Unreachable(source) => {
            denied_or(&socket_path(&holder.state_dir), source, |source| {
                unresponsive(ControlError::Unreachable(source))
            })
        }
        source => unresponsive(source),
    })?;
    if !status.is_success() {
        return Err(InquireError::Rejected {
            pid: holder.pid,
            status: status.as_u16(),
            message: String::from_utf8_lossy(&body).trim_end().to_owned(),
        });
    }
    serde_json::from_slice(&body).map_err(|source| InquireError::IncompatibleResponse {
        pid: holder.pid,
        source,
    })
}

/// State and journal, read without a lock of their own.
pub(super) struct StoredFiles {
    stored: State,
    pub(super) replay: Replay,
}

impl StoredFiles {
    /// Reads state and journal. The caller holds the root's lock, or another process of its own does.
    ///
    /// # Errors
    /// State or journal cannot be read.
    pub(super) fn read(root: &Path, state_dir: &Path) -> Result<Self, InquireError> {
        let state_path = state_dir.join(STATE_FILE);
        let stored = State::open(&OsStorage, &state_path).map_err(|error| match error {
            StateError::Io(error) => denied_or(&state_path, error, |e| StateError::Io(e).into()),
            error => error.into(),
        })?;
        let journal_path = state_dir.join(JOURNAL_FILE);
        let file = OsStorage
            .open_read(&journal_path)
            .map_err(|error| denied_or(&journal_path, error, |e| JournalError::Io(e).into()))?;
        let file_bytes = OsStorage
            .stat(&export_path(root))
            .map_or(0, |stat| stat.len_bytes);
        let replay = Replay::read::<InquireError>(&stored, file, file_bytes)?;
        Ok(Self { stored, replay })
    }
}

impl OfflineState {
    fn open(root: PathBuf, state_dir: PathBuf, lock: RootLock) -> Result<Self, InquireError> {
        let StoredFiles { stored, replay } = StoredFiles::read(&root, &state_dir)?;
        Ok(Self {
            root,
            state_dir,
            account: replay.account.clone(),
            export_bytes: replay.export_bytes,
            rows_pending: replay.rows_pending,
            ledger_bytes: replay.ledger_bytes,
            rows_out: replay.ledger.rows_out,
            state: replay.into_snapshot()?,
            stored,
            lock,
        })
    }

    /// Closes the state and takes the lock alone, for the engine of a command that ends soon: the root, the state
    /// directory, the lock.
    ///
    /// # Errors
    /// A daemon or another command took the lock in the meantime.
    pub fn into_lock(self) -> Result<(PathBuf, PathBuf, RootLock), InquireError> {
        drop((self.stored, self.lock));
        let lock = RootLock::take_for_command(&self.root, &self.state_dir);
        let lock = lock.map_err(InquireError::Lock)?;
        Ok((self.root, self.state_dir, lock))
    }

    /// Checks whether a start can continue with the export and its ledger.
    ///
    /// # Errors
    /// The error that a start ends with.
    pub fn check_export(&self) -> Result<(), ExportError> {
        let (header, path) = (self.stored.header(), self.export_path());
        check_export(&OsStorage, &path, header.export, self.export_bytes)?;
        self.check_ledger()
    }

    /// Checks whether a start can continue with the ledger.
    ///
    /// # Errors
    /// The error that a start ends with.
    pub fn check_ledger(&self) -> Result<(), ExportError> {
        let mark = self.stored.header().ledger.file;
        let path = ledger_path(&self.export_path());
        check_export(&OsStorage, &path, mark, self.ledger_bytes)
    }

    /// The export.
    #[must_use]
    pub fn export_path(&self) -> PathBuf {
        export_path(&self.root)
    }
}
