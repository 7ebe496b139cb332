//! The lock that lets only one daemon at a time write under a root: a lock on a file next to the export, which names
//! its holder. The kernel releases the lock with the process, so that a crash leaves nothing to clean up.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

use crate::platform::storage::retry_interrupted;

/// Name of the lock file, below `<root>/data/distilled` and in the state directory.
const LOCK_FILE: &str = ".distilld.lock";

/// Who holds a lock, or held it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// Its root, or that of the daemon before it where it only asks.
    pub root: PathBuf,
    /// The state directory of that root.
    pub state_dir: PathBuf,
    /// Whether it is a query, which only reads what a daemon left and ends soon.
    #[serde(default)]
    pub is_query: bool,
}

impl Holder {
    /// This process, as a daemon.
    fn here(root: &Path, state_dir: &Path) -> Self {
        Self {
            pid: std::process::id(),
            root: root.to_owned(),
            state_dir: state_dir.to_owned(),
            is_query: false,
        }
    }
}

/// Maximum time that a query may keep a daemon from its lock.
const ASKING_PATIENCE: Duration = Duration::from_secs(60);
/// The lock is tried for again after so long.
const TRY_AGAIN: Duration = Duration::from_millis(20);
/// Maximum time between taking a lock and writing the holder's name.
const NAMELESS_PATIENCE: Duration = Duration::from_millis(500);

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another daemon is there.
    #[error(
        "another distilld (process {pid}, state in {state_dir}) already works on {root}",
        pid = .0.pid, root = .0.root.display(), state_dir = .0.state_dir.display()
    )]
    Held(Holder),
    /// Another daemon holds the lock and has not written its name yet.
    #[error("another distilld holds {}", .0.display())]
    HeldByUnknown(PathBuf),
    /// The lock file cannot be used.
    #[error("the lock {} cannot be used: {source} (as user {user})", path.display(), user = rustix::process::geteuid())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The error of the disk.
        source: io::Error,
    },
}

/// The locks of a running daemon, held until it is dropped.
#[derive(Debug)]
pub struct RootLock {
    _held: Vec<File>,
    foreign_state_root: Option<PathBuf>,
}

impl RootLock {
    /// Takes the root's and the state directory's lock: two daemons may neither share an export nor a state. A command
    /// that only asks is waited for.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn take(root: &Path, state_dir: &Path) -> Result<Self, LockError> {
        let paths = [lock_path(root), state_dir.join(LOCK_FILE)];
        let foreign_state_root = other_root(&paths[1], root);
        let lock = Self::take_all(paths, &Holder::here(root, state_dir))?;
        Ok(Self {
            foreign_state_root,
            ..lock
        })
    }

    /// The same to read what a daemon left.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn lock_for_query(root: &Path, state_dir: &Path) -> Result<Self, LockError> {
        let paths = [lock_path(root), state_dir.join(LOCK_FILE)];
        let holder = Holder {
            is_query: true,
            ..Holder::here(root, state_dir)
        };
        Self::take_all(paths, &holder)
    }

    /// Takes the root's lock alone: for who writes its export and keeps no state.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn take_root(root: &Path, state_dir: &Path) -> Result<Self, LockError> {
        Self::take_all([lock_path(root)], &Holder::here(root, state_dir))
    }

    fn take_all<const N: usize>(paths: [PathBuf; N], holder: &Holder) -> Result<Self, LockError> {
        let paths = BTreeSet::from(paths);
        let held = paths.iter().map(|path| take_one(path, holder));
        Ok(Self {
            _held: held.collect::<Result<_, _>>()?,
            foreign_state_root: None,
        })
    }

    /// The other lake that the state in the state directory is of, where there is one.
    #[must_use]
    pub fn foreign_state_root(&self) -> Option<&Path> {
        self.foreign_state_root.as_deref()
    }
}

/// The root that a state directory served last, if that is another lake than `root`, still there and still served from
/// this state directory. A lake that was moved, or is mounted elsewhere, is the same.
fn other_root(state_lock: &Path, root: &Path) -> Option<PathBuf> {
    let last: Holder = serde_json::from_slice(&fs::read(state_lock).ok()?).ok()?;
    if last.root == root {
        return None;
    }
    let there = last_holder(&last.root).ok()??;
    let identity = |root: &Path| {
        let lock = fs::metadata(lock_path(root)).ok()?;
        Some((lock.dev(), lock.ino()))
    };
    let is_other = identity(&last.root) != identity(root) && there.state_dir == last.state_dir;
    is_other.then_some(last.root)
}

/// The daemon that keeps, or last kept, the export of a root; `None` if none ever did.
///
/// # Errors
/// The lock file is there and cannot be read.
pub fn last_holder(root: &Path) -> io::Result<Option<Holder>> {
    match fs::read(lock_path(root)) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns whether a process holds the root's lock, or it is unknown. Takes the lock for a moment only if the last
/// holder has ended: a daemon that starts then waits for it, and does not take this process for another daemon.
#[must_use]
pub fn is_held(root: &Path) -> bool {
    if matches!(last_holder(root), Ok(Some(holder)) if is_alive(holder.pid)) {
        return true;
    }
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut reading = OpenOptions::new();
    reading.read(true).custom_flags(flags);
    match retry_interrupted(|| reading.open(lock_path(root))) {
        Ok(file) => file.try_lock_shared().is_err(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// The lock of a root.
pub(crate) fn lock_path(root: &Path) -> PathBuf {
    root.join("data/distilled").join(LOCK_FILE)
}

fn take_one(path: &Path, holder: &Holder) -> Result<File, LockError> {
    let io_error = |source| LockError::Io {
        path: path.to_owned(),
        source,
    };
    let began = Instant::now();
    loop {
        let mut file = open(path).map_err(io_error)?;
        match file.try_lock() {
            Ok(()) => {
                match write_holder(path, holder) {
                    // No daemon can start on a disk that rejects writes, so a query needs no lock there.
                    Err(source) if !holder.is_query => return Err(io_error(source)),
                    _ => return Ok(file),
                }
            }
            Err(TryLockError::Error(source)) => return Err(io_error(source)),
            Err(TryLockError::WouldBlock) => {}
        }
        match holder_in(&mut file) {
            Some(other) if other.is_query && began.elapsed() < ASKING_PATIENCE => {
                std::thread::sleep(TRY_AGAIN);
            }
            Some(other) if is_alive(other.pid) => return Err(LockError::Held(other)),
            // The holder is about to write its name.
            _ if began.elapsed() < NAMELESS_PATIENCE => std::thread::sleep(TRY_AGAIN),
            Some(other) => return Err(LockError::Held(other)),
            None => return Err(LockError::HeldByUnknown(path.to_owned())),
        }
    }
}

/// Opens the lock file for reading if it exists, so that a disk that hangs or is read-only does not hide the holder.
fn open(path: &Path) -> io::Result<File> {
    // A FIFO at this path must not block.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut reading = OpenOptions::new();
    reading.read(true).custom_flags(flags);
    match retry_interrupted(|| reading.open(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let dir = path.parent().unwrap_or(Path::new("/"));
    retry_interrupted(|| fs::create_dir_all(dir))?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    // A file that root created must stay writable for the daemon; other users cannot change an owner.
    if let Ok(rights) = fs::metadata(dir) {
        let _ = chown(path, Some(rights.uid()), Some(rights.gid()));
    }
    Ok(file)
}

/// Returns whether there is such a process, as far as this namespace shows it.
fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| !matches!(test_kill_process(pid), Err(Errno::SRCH)))
}

fn holder_in(file: &mut File) -> Option<Holder> {
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Writes the holder's name. A query keeps the name of the daemon that was here before.
fn write_holder(path: &Path, holder: &Holder) -> io::Result<()> {
    let last = fs::read(path)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let holder = match last {
        Some(last) if holder.is_query => Holder {
            pid: holder.pid,
            is_query: true,
            ..last
        },
        _ => holder.clone(),
    };
    let bytes = serde_json::to_vec(&holder)?;
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    file.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_told_who_the_first_is() {
        let root = tempfile::tempdir().unwrap();
        let state_dir = root.path().join("state");
        assert_eq!(last_holder(root.path()).unwrap(), None);
        let first = RootLock::take(root.path(), &state_dir).unwrap();
        let error = RootLock::take(root.path(), &root.path().join("other"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(first);
        RootLock::take(root.path(), &state_dir).unwrap();
        assert_eq!(
            last_holder(root.path()).unwrap().unwrap().state_dir,
            state_dir
        );
    }

    #[test]
    fn two_roots_cannot_share_a_state() {
        let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let state_dir = roots[0].path().join("state");
        let _first = RootLock::take(roots[0].path(), &state_dir).unwrap();
        assert!(matches!(
            RootLock::take(roots[1].path(), &state_dir),
            Err(LockError::Held(_))
        ));
    }

    #[test]
    fn who_only_asks_is_waited_for_and_goes_on_naming_the_daemon() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let state_dir = root.join("state");
        drop(RootLock::take(root, &state_dir).unwrap());
        let asking = RootLock::lock_for_query(root, &root.join("other")).unwrap();
        let named = last_holder(root).unwrap().unwrap();
        assert_eq!((&named.state_dir, named.is_query), (&state_dir, true));
        std::thread::scope(|scope| {
            let daemon = scope.spawn(|| RootLock::take(root, &state_dir));
            let question = scope.spawn(|| RootLock::lock_for_query(root, &state_dir));
            std::thread::sleep(Duration::from_millis(200));
            assert!(!daemon.is_finished() && !question.is_finished());
            drop(asking);
            // Whichever comes first; the daemon waits for the question, and a question asks the daemon.
            let asked = question.join().unwrap();
            assert!(matches!(asked, Ok(_) | Err(LockError::Held(_))));
            drop(asked);
            let held = daemon.join().unwrap().unwrap();
            let refused = RootLock::lock_for_query(root, &state_dir);
            assert!(matches!(refused, Err(LockError::Held(holder)) if !holder.is_query));
            drop(held);
        });
    }

    #[test]
    fn a_state_directory_tells_the_lake_that_it_served() {
        let dir = tempfile::tempdir().unwrap();
        let [one, other, moved] = ["one", "other", "moved"].map(|name| dir.path().join(name));
        let state_dir = dir.path().join("state");
        let foreign_state_root = |root: &Path| {
            let lock = RootLock::take(root, &state_dir).unwrap();
            lock.foreign_state_root().map(Path::to_owned)
        };
        assert_eq!(foreign_state_root(&one), None);
        assert_eq!(foreign_state_root(&one), None);
        assert_eq!(foreign_state_root(&other), Some(one.clone()));
        assert_eq!(foreign_state_root(&one), Some(other));
        fs::rename(&one, &moved).unwrap();
        assert_eq!(foreign_state_root(&moved), None, "the same lake");
        std::os::unix::fs::symlink(&moved, &one).unwrap();
        assert_eq!(
            foreign_state_root(&one),
            None,
            "the same lake by another name"
        );
    }
}
