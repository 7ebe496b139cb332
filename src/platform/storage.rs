//! The one interface to the disk, so that the same engine runs on a real file system and on a simulated one that
//! crashes. It makes no decisions.
//!
//! Assumptions about a disk: written bytes are durable after [`StorageFile::sync_data`] returned `Ok`; a name that
//! was created, renamed or removed is durable after [`Storage::sync_dir`] of its directory returned `Ok`; until then
//! each write, whole or in part, and each name may be there or not, in any combination. After a failed sync it is
//! unknown what is durable, and the result of a second sync must not be trusted.
//!
//! A call that a signal interrupted has not failed: an implementation repeats it ([`retry_interrupted`]). Only reads
//! and writes may report the interruption, as they may be short; [`read_full_at`] and [`write_all_at`] continue.

use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    fchown,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

/// The kind of file at a path, as far as distilld distinguishes kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link, not followed.
    Link,
    /// A FIFO, socket or device: never opened.
    Other,
}

/// Metadata of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStat {
    /// The kind of file.
    pub kind: FileKind,
    /// Length in bytes.
    pub len_bytes: u64,
    /// The device that holds it.
    pub device: u64,
    /// Its inode on that device.
    pub inode: u64,
    /// Number of its names.
    pub links: u64,
    /// Last change of content, nanoseconds since 1970.
    pub modified_ns: i128,
    /// Last change of content, name or rights, nanoseconds since 1970; no program can set it back.
    pub changed_ns: i128,
}

/// The owner, the group and the mode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// The owner's number.
    pub user: u32,
    /// The group's number.
    pub group: u32,
    /// The mode, with its permission bits alone.
    pub mode: u32,
}

/// One entry of a directory listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedEntry {
    /// Its name, as the file system has it: any bytes but `/` and NUL.
    pub name: std::ffi::OsString,
    /// Its kind, links not followed.
    pub kind: FileKind,
}

/// An open file. Offsets are always given; there is no cursor to lose.
pub trait StorageFile: Debug + Send + Sync {
    /// Reads at most `buf.len()` bytes from `offset` and returns their number; 0 at or after the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at most `buf.len()` bytes at `offset` and returns their number; a short write is not an error.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize>;
    /// Cuts or extends (with zeros) to `len_bytes`.
    fn set_len(&self, len_bytes: u64) -> io::Result<()>;
    /// Makes all written bytes, and the length, durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Returns the metadata of the open file, independent of its current name.
    fn stat(&self) -> io::Result<FileStat>;
    /// Returns an offset, `offset` or later, before which all bytes from `offset` on are zero because the file has a hole
    /// there; `None` if the hole extends to the end. Returns `offset` where holes are not known.
    fn next_data(&self, offset: u64) -> Option<u64> {
        Some(offset)
    }
    /// Gives the open file these rights; the owner where this process may. A storage without owners does nothing.
    fn set_rights(&self, _rights: Rights) -> io::Result<()> {
        Ok(())
    }
}

/// A file system.
pub trait Storage: Debug + Send + Sync {
    /// Opens an existing regular file for reading; never blocks on a FIFO, never follows a link in the last
    /// component.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>>;
    /// As [`Storage::open_read`], and follows no link below `base`: a directory that is exchanged for a link at any time
    /// leads nowhere else, the file is `NotFound` then.
    fn open_read_below(&self, base: &Path, below: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.open_read(&base.join(below))
    }
    /// Opens an existing file for reading and writing; never follows a link in the last component.
    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>>;
    /// Creates a file, which must not exist, for reading and writing.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>>;
    /// Returns the metadata of `path`; a link in the last component is not followed.
    fn stat(&self, path: &Path) -> io::Result<FileStat>;
    /// The entries of a directory, in byte order of their names.
    fn list(&self, dir: &Path) -> io::Result<Vec<ListedEntry>>;
    /// Renames a file, replacing an existing one.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name, which must be free, in the same directory. `Unsupported` where the file system has no
    /// second names.
    fn hard_link(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Creates a directory and those above it that are missing, durably.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Returns the rights of `path`; a link in the last component is not followed. `None` if the storage has no owners.
    fn rights(&self, _path: &Path) -> io::Result<Option<Rights>> {
        Ok(None)
    }
    /// Gives a directory that this process created these rights. It fails if another directory or a link is in its place.
    fn set_dir_rights(&self, _dir: &Path, _rights: Rights) -> io::Result<()> {
        Ok(())
    }
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// The path with all links resolved.
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf>;
}

/// Makes a call, and again for as long as a signal interrupts it.
///
/// # Errors
/// The first error that is not an interruption.
pub fn retry_interrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Returns whether file descriptors are exhausted, in this process or on the host, in which case the error is not
/// about the file.
#[must_use]
pub fn is_out_of_files(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

/// Returns a path with all links in it resolved, as far as it exists. The result is not affected by a link that is
/// pointed elsewhere later.
#[must_use]
pub fn without_links(storage: &dyn Storage, path: &Path) -> PathBuf {
    match (storage.canonicalize(path), path.parent(), path.file_name()) {
        (Ok(resolved), ..) => resolved,
        (Err(_), Some(parent), Some(name)) => without_links(storage, parent).join(name),
        _ => path.to_owned(),
    }
}

/// Writes all of `buf` at `offset`, however many calls it takes.
///
/// # Errors
/// The first error that is not an interruption. What was written before it stays.
pub fn write_all_at(file: &dyn StorageFile, mut buf: &[u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        let written = retry_interrupted(|| file.write_at(buf, offset))?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        buf = &buf[written..];
        offset += written as u64;
    }
    Ok(())
}

/// Fills `buf` from `offset` and returns the number of bytes before the end of the file.
///
/// # Errors
/// The first error that is not an interruption.
pub fn read_full_at(file: &dyn StorageFile, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match retry_interrupted(|| file.read_at(&mut buf[filled..], offset + filled as u64))? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Returns whether there is a file of any kind at `path`.
///
/// # Errors
/// Any error of the storage except that the path does not exist.
pub fn exists(storage: &dyn Storage, path: &Path) -> io::Result<bool> {
    match storage.stat(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        stat => stat.map(|_| true),
    }
}

/// Removes a file if it exists.
///
/// # Errors
/// Any error of the storage except that the path does not exist.
pub fn remove_if_exists(storage: &dyn Storage, path: &Path) -> io::Result<()> {
    match storage.remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Rights of a new file, less those that the umask takes.
pub const FILE_MODE_MAX: u32 = 0o644;
/// Rights of a new directory, less those that the umask takes.
const DIR_MODE_MAX: u32 = 0o755;

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
        retry_interrupted(|| self.0.metadata()).map(|metadata| file_stat(&metadata))
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
        // O_NONBLOCK: opening a FIFO that took the place of a day-file must not wait for its writer.
        let flags = rustix::fs::OFlags::NOFOLLOW
            | rustix::fs::OFlags::NONBLOCK
            | rustix::fs::OFlags::NOCTTY;
        let mut options = fs::OpenOptions::new();
        options.read(true).custom_flags(flags.bits().cast_signed());
        let file = retry_interrupted(|| options.open(path))?;
        regular(file)
    }

    fn open_read_below(&self, base: &Path, below: &Path) -> io::Result<Arc<dyn StorageFile>> {
        use rustix::fs::{Mode, OFlags, ResolveFlags};
        let dir_flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = retry_interrupted(|| Ok(rustix::fs::open(base, dir_flags, Mode::empty())?))?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        let open = || {
            Ok(rustix::fs::openat2(
                &dir,
                below,
                flags,
                Mode::empty(),
                resolve,
            )?)
        };
        let file = match retry_interrupted(open) {
            Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            // A kernel or a container without that call.
            Err(error) if error.raw_os_error() == Some(Errno::NOSYS.raw_os_error()) => {
                return self.open_read(&base.join(below));
            }
            opened => fs::File::from(opened?),
        };
        regular(file)
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        // The directory belongs to the user of the daemon, who must not have root write through a link.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let mut options = fs::OpenOptions::new();
        options
            .read(true)
            .write(true)
            .custom_flags(flags.bits().cast_signed());
        Ok(Arc::new(DiskFile(retry_interrupted(|| {
            options.open(path)
        })?)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let mut options = fs::OpenOptions::new();
        // Under no umask may another user write into a file or a directory of the daemon.
        options
            .read(true)
            .write(true)
            .create_new(true)
            .mode(FILE_MODE_MAX);
        Ok(Arc::new(DiskFile(retry_interrupted(|| {
            options.open(path)
        })?)))
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        retry_interrupted(|| fs::symlink_metadata(path)).map(|metadata| file_stat(&metadata))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<ListedEntry>> {
        // Restart from the beginning: an iterator that failed guarantees nothing about its next item.
        let mut entries = retry_interrupted(|| list_once(dir))?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        retry_interrupted(|| fs::rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        retry_interrupted(|| fs::remove_file(path))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        retry_interrupted(|| fs::hard_link(from, to))
    }

    fn rights(&self, path: &Path) -> io::Result<Option<Rights>> {
        let metadata = retry_interrupted(|| fs::symlink_metadata(path))?;
        Ok(Some(Rights {
            user: metadata.uid(),
            group: metadata.gid(),
            mode: metadata.mode() & 0o7777,
        }))
    }

    fn set_dir_rights(&self, dir: &Path, rights: Rights) -> io::Result<()> {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::DIRECTORY;
        let mut options = fs::OpenOptions::new();
        options.read(true).custom_flags(flags.bits().cast_signed());
        let opened = retry_interrupted(|| options.open(dir))?;
        let owner = retry_interrupted(|| opened.metadata())?.uid();
        if owner != rustix::process::geteuid().as_raw() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the directory was replaced by one of another user",
            ));
        }
        set_rights(&opened, rights)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if path.as_os_str().is_empty() || path.is_dir() {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(Path::new("/"));
        self.create_dir_all(parent)?;
        let mut builder = fs::DirBuilder::new();
        builder.mode(DIR_MODE_MAX);
        match retry_interrupted(|| builder.create(path)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.sync_dir(if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            }),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = retry_interrupted(|| fs::File::open(dir))?;
        retry_interrupted(|| dir.sync_all())
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        retry_interrupted(|| fs::canonicalize(path))
    }
}

fn regular(file: fs::File) -> io::Result<Arc<dyn StorageFile>> {
    if !retry_interrupted(|| file.metadata())?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    Ok(Arc::new(DiskFile(file)))
}

fn list_once(dir: &Path) -> io::Result<Vec<ListedEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = file_kind(retry_interrupted(|| entry.file_type())?);
        entries.push(ListedEntry {
            name: entry.file_name(),
            kind,
        });
    }
    Ok(entries)
}

fn file_kind(file_type: fs::FileType) -> FileKind {
    if file_type.is_file() {
        FileKind::Regular
    } else if file_type.is_dir() {
        FileKind::Directory
    } else if file_type.is_symlink() {
        FileKind::Link
    } else {
        FileKind::Other
    }
}

fn file_stat(metadata: &fs::Metadata) -> FileStat {
    FileStat {
        kind: file_kind(metadata.file_type()),
        len_bytes: metadata.len(),
        device: metadata.dev(),
        inode: metadata.ino(),
        links: metadata.nlink(),
        modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
    }
}

fn nanoseconds(seconds: i64, rest_ns: i64) -> i128 {
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
