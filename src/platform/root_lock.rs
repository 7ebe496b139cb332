//! The lock that lets only one daemon at a time write under a root: a lock on a file next to the export, which names
//! its holder. The kernel releases the lock with the process, so that a crash leaves nothing to clean up.
//!
//! A process that can open the lock file can hold its lock, so only the daemon's user and root can open it; a file with the
//! holder's name is there for all others. Queries share the lock, write nothing and create nothing: the directory
//! belongs to the daemon's user, who may have put anything at these names before root asks.

mod holder;

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::platform::held_dir::{HeldDir, NotOwnFile};
use crate::platform::lock_takers::{is_alive, is_held_by_reader};
pub use crate::platform::root_lock::holder::Holder;
use crate::platform::root_lock::holder::{
    HOLDER_FILE, holder_at, holder_in, publish, write_holder,
};
use crate::platform::storage::{OsStorage, Storage as _};

/// Name of the lock file, below `<root>/data/distilled` and in the state directory.
const LOCK_FILE: &str = ".distilld.lock";
/// Mode of the lock file.
const LOCK_MODE: u32 = 0o600;

/// Maximum time that a query or a command that ends soon may keep others from the lock.
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
    /// Another file is in the place of the lock.
    #[error("the lock {} is {what}, which distilld does not use as a lock", path.display())]
    NotOwnFile {
        /// The lock file.
        path: PathBuf,
        /// What is there.
        what: NotOwnFile,
    },
    /// The lock file cannot be used.
    #[error("the lock {} cannot be used: {source} (as user {user})", path.display(), user = rustix::process::geteuid())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The error of the disk.
        source: io::Error,
    },
}

/// A lock file. Its lock ends when this is dropped, also if a child that was just forked still has the file open: the
/// kernel ends a lock by itself only when no process has it open any more.
#[derive(Debug)]
struct LockFile(File);

impl Drop for LockFile {
    fn drop(&mut self) {
        // Without success the lock ends with the last open descriptor.
        _ = self.0.unlock();
    }
}

/// The locks of a running daemon, held until it is dropped.
#[derive(Debug)]
pub struct RootLock {
    _held: Vec<LockFile>,
    foreign_state_root: Option<PathBuf>,
}

impl RootLock {
    /// Takes the root's and the state directory's lock: two daemons may neither share an export nor a state. A query
    /// that reads the files is waited for.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn take(root: &Path, state_dir: &Path) -> Result<Self, LockError> {
        Self::take_as(&Holder::here(root, state_dir))
    }

    /// Takes both locks for a command that ends soon. A daemon that starts in the meantime waits for it.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn take_for_command(root: &Path, state_dir: &Path) -> Result<Self, LockError> {
        Self::take_as(&Holder {
            ends_soon: true,
            ..Holder::here(root, state_dir)
        })
    }

    fn take_as(holder: &Holder) -> Result<Self, LockError> {
        let paths = [lock_path(&holder.root), state_lock_path(&holder.state_dir)];
        let foreign_state_root = other_root(&paths[1], &holder.root);
        let lock = Self::take_all(paths, holder)?;
        Ok(Self {
            foreign_state_root,
            ..lock
        })
    }

    /// Shares both locks with other queries, to read what a daemon left. A lock that does not exist is not created: no
    /// daemon holds it.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn lock_for_query(root: &Path, state_dir: &Path) -> Result<Self, LockError> {
        let paths = BTreeSet::from([lock_path(root), state_lock_path(state_dir)]);
        let held = paths.iter().filter_map(|path| share_one(path).transpose());
        Ok(Self {
            _held: held.collect::<Result<_, _>>()?,
            foreign_state_root: None,
        })
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
        let held = held.collect::<Result<_, _>>()?;
        let path = lock_path(&holder.root).with_file_name(HOLDER_FILE);
        publish(&path, holder)?;
        Ok(Self {
            _held: held,
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
    let last = holder_at(state_lock).ok()??;
    if !is_another_lake(&last.root, root) {
        return None;
    }
    let there = last_holder(&last.root).ok()??;
    (there.state_dir == last.state_dir).then_some(last.root)
}

/// Returns whether a root that a lock names is there and is another lake than `root`. The lock file is the same wherever a
/// lake is moved or mounted.
fn is_another_lake(named: &Path, root: &Path) -> bool {
    let identity = |root: &Path| {
        let lock = fs::symlink_metadata(lock_path(root)).ok()?;
        Some((lock.dev(), lock.ino()))
    };
    named != root && identity(named).is_some_and(|named| Some(named) != identity(root))
}

/// The daemon that keeps, or last kept, the export of a root; `None` if none ever did. In a copy of a lake the lock of the
/// other lake was copied too: as long as that lake is there, its daemon and its state are not those of the copy.
///
/// # Errors
/// Neither the lock file nor the file with the holder's name can be read.
pub fn last_holder(root: &Path) -> Result<Option<Holder>, LockError> {
    let holder = named_holder(root)?;
    Ok(holder.filter(|holder| !is_another_lake(&holder.root, root)))
}

/// The holder that the lock of a root names.
fn named_holder(root: &Path) -> Result<Option<Holder>, LockError> {
    let lock = lock_path(root);
    match holder_at(&lock) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let path = lock.with_file_name(HOLDER_FILE);
            match holder_at(&path).map_err(at(&path))? {
                // An earlier version wrote only the lock.
                None => Err(at(&lock)(error)),
                holder => Ok(holder),
            }
        }
        read => read.map_err(at(&lock)),
    }
}

/// Returns whether a process holds the root's lock, or it is unknown. Takes the lock for a moment only if the last
/// holder has ended: a daemon that starts then waits for it, and does not take this process for another daemon.
#[must_use]
pub fn is_held(root: &Path) -> bool {
    if matches!(last_holder(root), Ok(Some(holder)) if is_alive(holder.pid)) {
        return true;
    }
    match HeldDir::of(&lock_path(root)).and_then(|(dir, name)| dir.open_read(name)) {
        Ok(file) => LockFile(file).0.try_lock_shared().is_err(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// The lock of a root.
pub(crate) fn lock_path(root: &Path) -> PathBuf {
    root.join("data/distilled").join(LOCK_FILE)
}

/// The file that names the holder of a root's lock, and its name while it is written: each start replaces both.
pub(crate) fn holder_paths(root: &Path) -> [PathBuf; 2] {
    let holder = lock_path(root).with_file_name(HOLDER_FILE);
    let temporary = holder.with_file_name(format!("{HOLDER_FILE}.new"));
    [holder, temporary]
}

/// The lock of a state directory.
pub(crate) fn state_lock_path(state_dir: &Path) -> PathBuf {
    state_dir.join(LOCK_FILE)
}

/// Returns the conversion of an error at a lock's path.
fn at(path: &Path) -> impl Fn(io::Error) -> LockError {
    |source| {
        let path = path.to_owned();
        match NotOwnFile::of(&source) {
            Some(what) => LockError::NotOwnFile { path, what },
            None => LockError::Io { path, source },
        }
    }
}

/// Takes a lock alone, and writes the holder's name into its file.
fn take_one(path: &Path, holder: &Holder) -> Result<LockFile, LockError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    OsStorage.create_dir_all(parent).map_err(at(path))?;
    let (dir, name) = HeldDir::of(path).map_err(at(path))?;
    let began = Instant::now();
    loop {
        // Opened for reading if it exists, so that a disk that hangs or is read-only does not hide the holder.
        let file = match dir.open_read(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match dir.create(name, LOCK_MODE) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                    created => created,
                }
            }
            opened => opened,
        };
        let file = LockFile(file.map_err(at(path))?);
        let is_open_to_others = is_open_to_others(&file.0).map_err(at(path))?;
        let attempt = file.0.try_lock();
        let taken = match attempt {
            Ok(()) if is_open_to_others => replace(&dir, name, &file.0).map_err(at(path))?,
            Ok(()) => dir.names(name, &file.0).then_some(file),
            Err(TryLockError::Error(source)) => return Err(at(path)(source)),
            Err(TryLockError::WouldBlock) => match blocked(path, &file.0, began)? {
                Blocked::Wait => {
                    drop(file);
                    std::thread::sleep(TRY_AGAIN);
                    continue;
                }
                Blocked::ByReader => replace(&dir, name, &file.0).map_err(at(path))?,
            },
        };
        // Without a file, another process replaced it in the meantime.
        if let Some(file) = taken {
            write_holder(&dir, name, &file.0, holder).map_err(at(path))?;
            return Ok(file);
        }
    }
}

/// What follows from a lock that another process has.
enum Blocked {
    /// It is tried again.
    Wait,
    /// Users who can only read the file of an earlier version have it: no daemon.
    ByReader,
}

/// Decides what follows from a lock that was refused since `began`.
fn blocked(path: &Path, file: &File, began: Instant) -> Result<Blocked, LockError> {
    if is_open_to_others(file).map_err(at(path))? {
        if is_held_by_reader(file) {
            return Ok(Blocked::ByReader);
        }
    } else if began.elapsed() < ASKING_PATIENCE && file.try_lock_shared().is_ok() {
        // Queries share it. This share ends with the file.
        return Ok(Blocked::Wait);
    }
    match refused(path, file, began) {
        None => Ok(Blocked::Wait),
        Some(error) => Err(error),
    }
}

/// Returns the error that names the holder; `None` while the holder may still write its name.
fn refused(path: &Path, file: &File, began: Instant) -> Option<LockError> {
    match holder_in(file) {
        Some(holder) if holder.ends_soon && began.elapsed() < ASKING_PATIENCE => None,
        Some(holder) if is_alive(holder.pid) => Some(LockError::Held(holder)),
        _ if began.elapsed() < NAMELESS_PATIENCE => None,
        Some(holder) => Some(LockError::Held(holder)),
        None => Some(LockError::HeldByUnknown(path.to_owned())),
    }
}

/// Shares a lock with other queries. Returns `None` if its file does not exist.
fn share_one(path: &Path) -> Result<Option<LockFile>, LockError> {
    let began = Instant::now();
    loop {
        let opened = HeldDir::of(path).and_then(|(dir, name)| {
            let file = LockFile(dir.open_read(name)?);
            Ok((dir, name, file))
        });
        let (dir, name, file) = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(at(path))?,
        };
        match file.0.try_lock_shared() {
            Ok(()) if dir.names(name, &file.0) => return Ok(Some(file)),
            // A daemon replaced it in the meantime.
            Ok(()) => continue,
            Err(TryLockError::Error(source)) => return Err(at(path)(source)),
            Err(TryLockError::WouldBlock) => {}
        }
        if let Some(error) = refused(path, &file.0, began) {
            return Err(error);
        }
        std::thread::sleep(TRY_AGAIN);
    }
}

/// Returns whether other users than the owner can open the file, as an earlier version created it.
fn is_open_to_others(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.mode() & 0o077 != 0)
}

/// Replaces a lock file that other users can open, or have open, by one that they cannot open. Returns the new one,
/// locked; `None` if another process was faster.
///
/// The new file is locked under its temporary name. Only the process that has that lock renames or removes it, so of
/// two processes one finds that the lock's name no longer names `old`.
fn replace(dir: &HeldDir, name: &str, old: &File) -> io::Result<Option<LockFile>> {
    let temporary = format!("{name}.new");
    let file = match dir.create(&temporary, LOCK_MODE) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => dir.open_read(&temporary),
        created => created,
    };
    let file = LockFile(file?);
    if file.0.try_lock().is_err() || !dir.names(&temporary, &file.0) {
        return Ok(None);
    }
    if !dir.names(name, old) {
        dir.remove(&temporary)?;
        return Ok(None);
    }
    dir.rename(&temporary, name)?;
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

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
    fn a_lock_ends_with_its_holder_even_if_a_child_has_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let (root, state_dir) = (dir.path().join("lake"), dir.path().join("state"));
        let taken = RootLock::take(&root, &state_dir).unwrap();
        // What a child has between fork and exec.
        let files = taken._held.iter().map(|held| held.0.try_clone().unwrap());
        let of_child: Vec<File> = files.collect();
        drop(taken);
        let asking = RootLock::lock_for_query(&root, &state_dir).unwrap();
        let files = asking._held.iter().map(|held| held.0.try_clone().unwrap());
        let of_child = of_child.into_iter().chain(files).collect::<Vec<_>>();
        drop(asking);
        drop(RootLock::take(&root, &state_dir).unwrap());
        drop(of_child);
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
    fn a_query_is_waited_for_and_the_lock_names_the_last_daemon() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let state_dir = root.join("state");
        drop(RootLock::take(root, &state_dir).unwrap());
        let asking = RootLock::lock_for_query(root, &root.join("other")).unwrap();
        let named = last_holder(root).unwrap().unwrap();
        assert_eq!(named.state_dir, state_dir);
        std::thread::scope(|scope| {
            let daemon = scope.spawn(|| RootLock::take(root, &state_dir));
            let question = scope.spawn(|| RootLock::lock_for_query(root, &state_dir));
            // Queries share the lock.
            drop(question.join().unwrap().unwrap());
            assert!(!daemon.is_finished());
            drop(asking);
            let held = daemon.join().unwrap().unwrap();
            let refused = RootLock::lock_for_query(root, &state_dir);
            assert!(matches!(refused, Err(LockError::Held(_))));
            drop(held);
        });
    }

    #[test]
    fn a_command_that_ends_soon_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (root, state_dir) = (dir.path().join("lake"), dir.path().join("state"));
        let command = RootLock::take_for_command(&root, &state_dir).unwrap();
        std::thread::scope(|scope| {
            let daemon = scope.spawn(|| RootLock::take(&root, &state_dir));
            std::thread::sleep(3 * TRY_AGAIN);
            assert!(!daemon.is_finished());
            drop(command);
            let daemon = daemon.join().unwrap().unwrap();
            let refused = RootLock::take_for_command(&root, &state_dir);
            assert!(matches!(refused, Err(LockError::Held(_))), "{refused:?}");
            drop(daemon);
        });
        let command = RootLock::take_for_command(&root, &state_dir).unwrap();
        std::thread::scope(|scope| {
            let query = scope.spawn(|| RootLock::lock_for_query(&root, &state_dir));
            std::thread::sleep(3 * TRY_AGAIN);
            assert!(!query.is_finished());
            drop(command);
            drop(query.join().unwrap().unwrap());
        });
    }

    #[test]
    fn a_link_in_place_of_the_lock_is_neither_followed_nor_written() {
        let dir = tempfile::tempdir().unwrap();
        let (root, state_dir) = (dir.path().join("lake"), dir.path().join("state"));
        drop(RootLock::take(&root, &state_dir).unwrap());
        let victim = dir.path().join("victim");
        let made = dir.path().join("made");
        fs::write(&victim, "text").unwrap();
        for lock in [lock_path(&root), state_dir.join(LOCK_FILE)] {
            let kept = fs::read(&lock).unwrap();
            for target in [&victim, &made] {
                fs::remove_file(&lock).unwrap();
                std::os::unix::fs::symlink(target, &lock).unwrap();
                for taken in [
                    RootLock::lock_for_query(&root, &state_dir),
                    RootLock::take(&root, &state_dir),
                ] {
                    let error = taken.unwrap_err();
                    assert!(error.to_string().contains("a symbolic link"), "{error}");
                }
            }
            // A second name of a file that only root can write.
            fs::remove_file(&lock).unwrap();
            fs::set_permissions(&victim, PermissionsExt::from_mode(0o600)).unwrap();
            fs::hard_link(&victim, &lock).unwrap();
            let error = RootLock::take(&root, &state_dir).unwrap_err();
            assert!(error.to_string().contains("other names"), "{error}");
            fs::remove_file(&lock).unwrap();
            fs::write(&lock, kept).unwrap();
        }
        assert_eq!(fs::read(&victim).unwrap(), b"text");
        assert!(!made.exists());
    }

    #[test]
    fn a_query_writes_and_creates_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (root, state_dir) = (dir.path().join("lake"), dir.path().join("state"));
        drop(RootLock::lock_for_query(&root, &state_dir).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        drop(RootLock::take(&root, &state_dir).unwrap());
        let before = fs::read(lock_path(&root)).unwrap();
        drop(RootLock::lock_for_query(&root, &state_dir).unwrap());
        assert_eq!(fs::read(lock_path(&root)).unwrap(), before);
    }

    #[test]
    fn a_lock_that_others_could_open_is_replaced_by_one_that_they_cannot() {
        let dir = tempfile::tempdir().unwrap();
        let (root, state_dir) = (dir.path().join("lake"), dir.path().join("state"));
        drop(RootLock::take(&root, &state_dir).unwrap());
        let lock = lock_path(&root);
        let rights = || fs::metadata(&lock).unwrap();
        assert_eq!(rights().mode() & 0o777, 0o600);
        fs::set_permissions(&lock, PermissionsExt::from_mode(0o644)).unwrap();
        let (earlier, opened) = (rights().ino(), File::open(&lock).unwrap());
        let taken = RootLock::take(&root, &state_dir).unwrap();
        assert_eq!(rights().mode() & 0o777, 0o600);
        assert_ne!(rights().ino(), earlier);
        drop(taken);
        // A process that opened it before cannot keep the next daemon out.
        opened.lock().unwrap();
        drop(RootLock::take(&root, &state_dir).unwrap());
        // A daemon of an earlier version can.
        fs::set_permissions(&lock, PermissionsExt::from_mode(0o644)).unwrap();
        let old = File::open(&lock).unwrap();
        old.lock().unwrap();
        let refused = RootLock::take(&root, &state_dir);
        assert!(matches!(refused, Err(LockError::Held(_))), "{refused:?}");
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
