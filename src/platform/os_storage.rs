//! The file system of the host. It reaches each file by the descriptor of its directory (`descend`), never follows a link
//! in the last component of a path, and never blocks on a FIFO.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::platform::descend::{is_link, open_below, open_dir, open_dir_of};
use crate::platform::held_dir::{Misplaced, NotOwnFile};
use crate::platform::rights_of::give_to_owner_of;
use crate::platform::storage::{
    FileKind, FileStat, ListedEntry, Rights, Storage, StorageFile, retry_interrupted,
};

/// Rights of a new file, less those that the umask takes.
pub const FILE_MODE_MAX: u32 = 0o644;
/// Rights of a new directory, less those that the umask takes.
const DIR_MODE_MAX: u32 = 0o755;
/// Opening a FIFO that took the place of a file must not wait for its writer.
const READING: OFlags = OFlags::NONBLOCK
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// The file system of the host.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsStorage;

#[derive(Debug)]
struct DiskFile(fs::File);

impl StorageFile for DiskFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(buf, offset)
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        retry_interrupted(|| self.0.set_len(len_bytes))
    }

    fn sync_data(&self) -> io::Result<()> {
        retry_interrupted(|| self.0.sync_data())
    }

    fn stat(&self) -> io::Result<FileStat> {
        Ok(file_stat(&rustix::fs::fstat(&self.0)?))
    }

    fn next_data(&self, offset: u64) -> Option<u64> {
        // The call moves the cursor of the file, which no other call uses.
        match rustix::fs::seek(&self.0, rustix::fs::SeekFrom::Data(offset)) {
            Ok(data) => Some(data.max(offset)),
            Err(Errno::NXIO) => None,
            // The file system does not know its holes, or fails, which the next read reports.
            Err(_) => Some(offset),
        }
    }

    fn set_rights(&self, rights: Rights) -> io::Result<()> {
        set_rights(&self.0, rights)
    }
}

/// Uses the open file, because another user may put a link at its path at any moment.
fn set_rights(file: &fs::File, rights: Rights) -> io::Result<()> {
    match retry_interrupted(|| fchown(file, Some(rights.user), Some(rights.group))) {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
        _ => {}
    }
    retry_interrupted(|| file.set_permissions(fs::Permissions::from_mode(rights.mode)))
}

impl Storage for OsStorage {
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        open(path, READING).and_then(regular)
    }

    fn open_read_below(&self, base: &Path, below: &Path) -> io::Result<Arc<dyn StorageFile>> {
        find_below(base, below, READING).and_then(regular)
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let (dir, name) = open_dir_of(path)?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened =
            match retry_interrupted(|| Ok(rustix::fs::openat(&dir, name, flags, Mode::empty())?)) {
                Ok(opened) => opened,
                Err(error) => return Err(misplaced(path, error)),
            };
        match foreign(&dir, &opened)? {
            Some(what) => Err(Misplaced::error(path, what)),
            None => Ok(Arc::new(DiskFile(opened.into()))),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        // Under no umask may another user write into a file or a directory of the daemon.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let (dir, name) = open_dir_of(path)?;
        let file = open_in(&dir, name, flags)?;
        give_to_owner_of(&dir, &file)?;
        Ok(Arc::new(DiskFile(file.into())))
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        stat_at(path).map(|stat| file_stat(&stat))
    }

    fn stat_below(&self, base: &Path, below: &Path) -> io::Result<FileStat> {
        let opened = find_below(base, below, OFlags::PATH)?;
        Ok(file_stat(&rustix::fs::fstat(opened)?))
    }

    fn stats_below(&self, base: &Path, dir: &Path, names: &[&OsStr]) -> Vec<io::Result<FileStat>> {
        let dir = find_below(base, dir, OFlags::PATH);
        let stat = |name: &&OsStr| match &dir {
            Ok(dir) => stat_in(dir, name).map(|stat| file_stat(&stat)),
            Err(error) => Err(error.kind().into()),
        };
        names.iter().map(stat).collect()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<ListedEntry>> {
        list(&open_dir(dir)?)
    }

    fn list_below(&self, base: &Path, below: &Path) -> io::Result<Vec<ListedEntry>> {
        list(&find_below(base, below, OFlags::PATH)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let ((old_dir, old), (new_dir, new)) = (open_dir_of(from)?, open_dir_of(to)?);
        retry_interrupted(|| Ok(rustix::fs::renameat(&old_dir, old, &new_dir, new)?))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = open_dir_of(path)?;
        retry_interrupted(|| Ok(rustix::fs::unlinkat(&dir, name, AtFlags::empty())?))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let ((old_dir, old), (new_dir, new)) = (open_dir_of(from)?, open_dir_of(to)?);
        retry_interrupted(|| {
            Ok(rustix::fs::linkat(
                &old_dir,
                old,
                &new_dir,
                new,
                AtFlags::empty(),
            )?)
        })
    }

    fn rights(&self, path: &Path) -> io::Result<Option<Rights>> {
        let stat = stat_at(path)?;
        let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        Ok((!is_link).then_some(Rights {
            user: stat.st_uid,
            group: stat.st_gid,
            mode: stat.st_mode & 0o7777,
        }))
    }

    fn set_dir_rights(&self, dir: &Path, rights: Rights) -> io::Result<()> {
        let opened = fs::File::from(open(dir, OFlags::DIRECTORY)?);
        let owner = retry_interrupted(|| opened.metadata())?.uid();
        // A new directory may belong to the owner of the one around it, who may give it any mode in any case.
        if owner != rustix::process::geteuid().as_raw() && owner != rights.user {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the directory was replaced by one of another user",
            ));
        }
        set_rights(&opened, rights)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        match open_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened.map(drop),
        }
        self.create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        let (dir, name) = open_dir_of(path)?;
        let mode = Mode::from_raw_mode(DIR_MODE_MAX);
        match retry_interrupted(|| Ok(rustix::fs::mkdirat(&dir, name, mode)?)) {
            // Another process was faster, or a link that leads nowhere is in its place.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                open_dir(path).map(drop).map_err(|_| error)
            }
            Err(error) => Err(error),
            Ok(()) => {
                // It is the one that was just made, unless it has another owner by now: only root can give it one.
                let made = open_in(&dir, name, OFlags::DIRECTORY)?;
                if rustix::fs::fstat(&made)?.st_uid == rustix::process::geteuid().as_raw() {
                    give_to_owner_of(&dir, &made)?;
                }
                sync(&dir)
            }
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        sync(&open_dir(dir)?)
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        retry_interrupted(|| fs::canonicalize(path))
    }
}

/// Opens a file; does not follow a link and does not block on a FIFO that took its place.
fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let (dir, name) = open_dir_of(path)?;
    open_in(&dir, name, flags)
}

fn open_in(dir: &OwnedFd, name: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | READING | OFlags::NOFOLLOW;
    let mode = Mode::from_raw_mode(FILE_MODE_MAX);
    retry_interrupted(|| Ok(rustix::fs::openat(dir, name, flags, mode)?))
}

/// Opens a file below a directory. One that only a link leads to does not exist.
fn find_below(base: &Path, below: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let base = open_dir(base)?;
    if below.as_os_str().is_empty() {
        return Ok(base);
    }
    open_below(base.as_fd(), below, flags).map_err(|error| match is_link(&error) {
        true => io::ErrorKind::NotFound.into(),
        false => error,
    })
}

/// Names what is in the place of a file that could not be opened, if that is the reason.
fn misplaced(path: &Path, error: io::Error) -> io::Error {
    match NotOwnFile::of_open(&error) {
        Some(what) => Misplaced::error(path, what),
        None => error,
    }
}

/// Returns what an open file is, if it is none that the daemon writes. Root does not write what has other names too and is
/// not of the directory's owner: who owns a directory could have given a file a name there that only root can write.
fn foreign(dir: &OwnedFd, opened: &OwnedFd) -> io::Result<Option<NotOwnFile>> {
    let file = rustix::fs::fstat(opened)?;
    if FileType::from_raw_mode(file.st_mode) != FileType::RegularFile {
        return Ok(Some(NotOwnFile::NotRegular));
    }
    let is_root = rustix::process::geteuid().is_root();
    let is_foreign = is_root && file.st_nlink > 1 && file.st_uid != rustix::fs::fstat(dir)?.st_uid;
    Ok(is_foreign.then_some(NotOwnFile::ManyNames))
}

fn stat_at(path: &Path) -> io::Result<Stat> {
    let Ok((dir, name)) = open_dir_of(path) else {
        // The root of the file system, `..`, or an error, which this reports too.
        return Ok(rustix::fs::fstat(open_dir(path)?)?);
    };
    stat_in(&dir, name)
}

fn stat_in(dir: &OwnedFd, name: &OsStr) -> io::Result<Stat> {
    retry_interrupted(|| Ok(rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?))
}

fn sync(dir: &OwnedFd) -> io::Result<()> {
    let dir = open_itself(dir)?;
    retry_interrupted(|| Ok(rustix::fs::fsync(&dir)?))
}

/// Opens a directory of which only a path is open, so that it can be read and synced.
fn open_itself(dir: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    retry_interrupted(|| Ok(rustix::fs::openat(dir, ".", flags, Mode::empty())?))
}

fn regular(file: OwnedFd) -> io::Result<Arc<dyn StorageFile>> {
    let file = fs::File::from(file);
    if !retry_interrupted(|| file.metadata())?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    Ok(Arc::new(DiskFile(file)))
}

fn list(dir: &OwnedFd) -> io::Result<Vec<ListedEntry>> {
    // Restart from the beginning: an iterator that failed guarantees nothing about its next item.
    let mut entries = retry_interrupted(|| list_once(dir))?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn list_once(dir: &OwnedFd) -> io::Result<Vec<ListedEntry>> {
    let mut entries = Vec::new();
    for entry in Dir::new(open_itself(dir)?)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let file_type = match entry.file_type() {
            // Not all file systems list it. An entry that is gone by now is found to be so when it is used.
            FileType::Unknown => rustix::io::retry_on_intr(|| {
                rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
            })
            .map_or(FileType::Unknown, |stat| {
                FileType::from_raw_mode(stat.st_mode)
            }),
            known => known,
        };
        entries.push(ListedEntry {
            name: OsString::from_vec(name.to_bytes().to_vec()),
            kind: file_kind(file_type),
        });
    }
    Ok(entries)
}

fn file_kind(file_type: FileType) -> FileKind {
    match file_type {
        FileType::RegularFile => FileKind::Regular,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Link,
        _ => FileKind::Other,
    }
}

#[allow(
    clippy::useless_conversion,
    reason = "the number of links is a u32 on arm64 and a u64 on x86-64"
)]
fn file_stat(stat: &Stat) -> FileStat {
    FileStat {
        kind: file_kind(FileType::from_raw_mode(stat.st_mode)),
        len_bytes: u64::try_from(stat.st_size).unwrap_or_default(),
        allocated_bytes: u64::try_from(stat.st_blocks).unwrap_or_default() * 512,
        device: stat.st_dev,
        inode: stat.st_ino,
        links: stat.st_nlink.into(),
        modified_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        changed_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
    }
}

fn nanoseconds(seconds: i64, rest_ns: u64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(rest_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const PRIVATE: Rights = Rights {
        user: 65_534,
        group: 65_534,
        mode: 0o600,
    };

    /// The owner of a directory may exchange what root creates in it at any moment.
    #[test]
    fn rights_are_given_to_the_created_file_and_not_to_what_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, made) = (dir.path().join("victim"), dir.path().join("made"));
        fs::write(&victim, "").unwrap();
        let before = OsStorage.rights(&victim).unwrap();
        let file = OsStorage.create(&made).unwrap();
        fs::rename(&made, dir.path().join("moved")).unwrap();
        symlink(&victim, &made).unwrap();
        file.set_rights(PRIVATE).unwrap();
        assert_eq!(OsStorage.rights(&victim).unwrap(), before);
        let moved = OsStorage.rights(&dir.path().join("moved")).unwrap();
        assert_eq!(moved.map(|rights| rights.mode), Some(PRIVATE.mode));
    }

    #[test]
    fn a_link_in_the_place_of_a_created_directory_gets_no_rights() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, made) = (dir.path().join("victim"), dir.path().join("made"));
        fs::create_dir(&victim).unwrap();
        let before = OsStorage.rights(&victim).unwrap();
        symlink(&victim, &made).unwrap();
        OsStorage.set_dir_rights(&made, PRIVATE).unwrap_err();
        assert_eq!(OsStorage.rights(&victim).unwrap(), before);
    }
}
