//! The way to a file, by descriptors of directories: no name is looked up twice, so that a directory that another user
//! exchanges for a link in between leads nowhere else.
//!
//! Below the directory of a stream no link is followed at all: scorers can exchange everything there. On the way to any
//! other file an operator may have put links, as to a larger disk. A process of root follows those of root alone there:
//! the daemon's user owns the directories of the export and the state, and could lead root's writes away.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::platform::escape::shell_word;
use crate::platform::storage::retry_interrupted;

/// Maximum number of links on the way to a file, as in the kernel.
const LINKS_MAX: usize = 40;
/// For directories that are only passed through, and for the stat of a file.
const PASSING: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
/// The number of the user root.
const ROOT: u32 = 0;

/// A link of another user on the way to a file that root would use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignLink {
    /// The link.
    link: PathBuf,
    /// Its owner.
    owner: u32,
}

impl fmt::Display for ForeignLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (link, owner) = (self.link.display(), self.owner);
        let word = shell_word(&self.link);
        write!(
            f,
            "{link} is a symbolic link of user {owner}, which root does not follow: run the command as that user, or, if \
             the link is right, make it root's with `chown -h root {word}`"
        )
    }
}

impl std::error::Error for ForeignLink {}

/// Opens a directory, to reach the files in it. The empty path is the current directory.
///
/// # Errors
/// It does not exist, or this user may not enter it; [`ForeignLink`].
pub fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let flags = PASSING | OFlags::DIRECTORY;
    if !rustix::process::geteuid().is_root() {
        return retry_interrupted(|| Ok(rustix::fs::open(path, flags, Mode::empty())?));
    }
    match open_without_links(CWD, path, flags, ResolveFlags::NO_SYMLINKS) {
        Err(Errno::LOOP) => walk(path, ROOT).map(|(dir, _)| dir),
        Err(error) if is_missing_call(error) => walk(path, ROOT).map(|(dir, _)| dir),
        opened => Ok(opened?),
    }
}

/// Returns the path of a directory of the daemon with all links resolved, as far as it exists: a link that is pointed
/// elsewhere later does not lead there. A path with a link that [`open_dir`] refuses stays as it is, so that its use fails.
#[must_use]
pub fn resolved_dir(path: &Path) -> PathBuf {
    let resolved = match rustix::process::geteuid().is_root() {
        true => walk(path, ROOT).map(|(_, resolved)| resolved),
        false => retry_interrupted(|| std::fs::canonicalize(path)),
    };
    match (resolved, path.parent(), path.file_name()) {
        (Ok(resolved), ..) => resolved,
        (Err(error), Some(parent), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
            resolved_dir(parent).join(name)
        }
        _ => path.to_owned(),
    }
}

/// Opens the directory of a file, and returns it with the file's name.
///
/// # Errors
/// As [`open_dir`]; the path names no file (`InvalidInput`).
pub fn open_dir_of(path: &Path) -> io::Result<(OwnedFd, &OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok((open_dir(path.parent().unwrap_or(Path::new("/")))?, name))
}

/// Opens a file below an open directory, and follows no link on the way and none at the end. With `O_PATH` a link at the
/// end is opened itself.
///
/// # Errors
/// `ELOOP` at a link; `InvalidInput` if the path could leave the directory.
pub fn open_below(dir: BorrowedFd<'_>, below: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let is_name = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if !below.components().all(is_name) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let below = if below.as_os_str().is_empty() {
        Path::new(".")
    } else {
        below
    };
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    match open_without_links(dir, below, flags, resolve) {
        Err(error) if is_missing_call(error) => open_step_by_step(dir, below, flags),
        opened => Ok(opened?),
    }
}

/// Returns whether an error is that of a link that was not followed.
#[must_use]
pub fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

fn open_without_links(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    rustix::io::retry_on_intr(|| rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve))
}

/// Returns whether the kernel, or the filter of a container, has no `openat2`.
fn is_missing_call(error: Errno) -> bool {
    matches!(error, Errno::NOSYS | Errno::PERM)
}

/// [`open_below`] without `openat2`.
fn open_step_by_step(dir: BorrowedFd<'_>, below: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let Some(name) = below.file_name() else {
        return open_name(dir, OsStr::new("."), flags);
    };
    let mut last = None;
    for above in below.parent().into_iter().flat_map(Path::components) {
        let from = last.as_ref().map_or(dir, |last: &OwnedFd| last.as_fd());
        let opened = open_name(from, above.as_os_str(), PASSING | OFlags::NOFOLLOW)?;
        if is_link_itself(&opened)? {
            return Err(Errno::LOOP.into());
        }
        last = Some(opened);
    }
    open_name(last.as_ref().map_or(dir, |last| last.as_fd()), name, flags)
}

fn open_name(dir: BorrowedFd<'_>, name: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    retry_interrupted(|| Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?))
}

fn is_link_itself(opened: &OwnedFd) -> io::Result<bool> {
    let mode = rustix::fs::fstat(opened)?.st_mode;
    Ok(FileType::from_raw_mode(mode) == FileType::Symlink)
}

/// Opens a directory, and follows only the links of one user. Returns it with its path without links.
fn walk(path: &Path, trusted: u32) -> io::Result<(OwnedFd, PathBuf)> {
    let names = |path: &Path| -> VecDeque<OsString> {
        let names = path.components().map(|part| part.as_os_str().to_owned());
        names.collect()
    };
    let mut left = names(&std::path::absolute(path)?);
    let mut dir = retry_interrupted(|| Ok(rustix::fs::open("/", PASSING, Mode::empty())?))?;
    let (mut there, mut links) = (PathBuf::from("/"), 0);
    while let Some(name) = left.pop_front() {
        let opened = open_name(dir.as_fd(), &name, PASSING | OFlags::NOFOLLOW)?;
        if !is_link_itself(&opened)? {
            dir = opened;
            // An absolute target of a link begins at the root again: that name replaces the path.
            match name.as_bytes() {
                b".." => drop(there.pop()),
                _ => there.push(name),
            }
            continue;
        }
        let owner = rustix::fs::fstat(&opened)?.st_uid;
        if owner != trusted {
            let link = there.join(name);
            let refused = ForeignLink { link, owner };
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, refused));
        }
        links += 1;
        if links > LINKS_MAX {
            return Err(Errno::LOOP.into());
        }
        let target = retry_interrupted(|| Ok(rustix::fs::readlinkat(&opened, "", Vec::new())?))?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        let behind = std::mem::replace(&mut left, names(&target));
        left.extend(behind);
    }
    // A file in the place of the directory is an error here, as it is in one call.
    let opened = open_name(dir.as_fd(), OsStr::new("."), PASSING | OFlags::DIRECTORY)?;
    Ok((opened, there))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    /// A directory with the directories `a/b` and `other`, a link `l` to `a`, a link `out` that leaves it, and a file.
    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("base/a/b")).unwrap();
        fs::create_dir_all(dir.path().join("other/b")).unwrap();
        for base in ["base/a/b", "other/b"] {
            fs::write(dir.path().join(base).join("file"), base).unwrap();
        }
        symlink("a", dir.path().join("base/l")).unwrap();
        symlink(dir.path().join("other"), dir.path().join("base/out")).unwrap();
        symlink("file", dir.path().join("base/a/b/link")).unwrap();
        dir
    }

    fn inode(opened: &OwnedFd) -> u64 {
        rustix::fs::fstat(opened).unwrap().st_ino
    }

    #[test]
    fn below_a_directory_no_link_is_followed_with_and_without_openat2() {
        let dir = tree();
        let base = dir.path().join("base");
        let base_dir = open_dir(&base).unwrap();
        for open in [open_below, open_step_by_step] {
            for (below, flags) in [
                ("l/b/file", OFlags::RDONLY),
                ("out/b/file", OFlags::RDONLY),
                ("a/b/link", OFlags::RDONLY | OFlags::NOFOLLOW),
                ("out/b", OFlags::PATH),
            ] {
                let error = open(base_dir.as_fd(), Path::new(below), flags).unwrap_err();
                assert!(is_link(&error), "{below}: {error}");
            }
            let own = open(base_dir.as_fd(), Path::new("a/b/file"), OFlags::RDONLY).unwrap();
            assert_eq!(
                inode(&own),
                fs::metadata(base.join("a/b/file")).unwrap().ino()
            );
            let missing = open(base_dir.as_fd(), Path::new("a/c/file"), OFlags::RDONLY);
            assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        for outside in ["../other/b/file", "/etc/passwd", "a/../../other"] {
            let error = open_below(base_dir.as_fd(), Path::new(outside), OFlags::PATH).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{outside}");
        }
    }

    #[test]
    fn a_walk_follows_the_links_of_one_user_alone() {
        let dir = tree();
        let base = dir.path().join("base");
        let own = fs::symlink_metadata(base.join("out")).unwrap().uid();
        for (path, target) in [
            ("l/b", "base/a/b"),
            ("out/b", "other/b"),
            ("out/../base/a", "base/a"),
        ] {
            let (opened, resolved) = walk(&base.join(path), own).unwrap();
            let expected = fs::metadata(dir.path().join(target)).unwrap().ino();
            assert_eq!(inode(&opened), expected, "{path}");
            let canonical = fs::canonicalize(base.join(path)).unwrap();
            assert_eq!(resolved, canonical, "{path}");
            let error = walk(&base.join(path), own + 1).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            let shown = error.to_string();
            assert!(
                shown.contains("chown -h root") && shown.contains("base/"),
                "{shown}"
            );
        }
        let dot = walk(Path::new("."), own).unwrap().1;
        assert_eq!(dot, std::env::current_dir().unwrap());
        assert!(walk(&base.join("a/b"), own + 1).is_ok());
        assert!(walk(&base.join("a/b/file"), own).is_err());
        symlink("circle", base.join("circle")).unwrap();
        assert!(is_link(&walk(&base.join("circle"), own).unwrap_err()));
    }
}
