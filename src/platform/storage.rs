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

use std::ffi::OsStr;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

pub use crate::platform::os_storage::{FILE_MODE_MAX, OsStorage};

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
    /// Bytes that it takes on its device, which is less than its length where it has holes.
    pub allocated_bytes: u64,
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
    fn open_read_below(&self, base: &Path, below: &Path) -> io::Result<Arc<dyn StorageFile>>;
    /// Opens an existing file for reading and writing; never follows a link in the last component.
    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>>;
    /// Creates a file, which must not exist, for reading and writing.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>>;
    /// Returns the metadata of `path`; a link in the last component is not followed.
    fn stat(&self, path: &Path) -> io::Result<FileStat>;
    /// As [`Storage::stat`], and follows no link below `base`.
    fn stat_below(&self, base: &Path, below: &Path) -> io::Result<FileStat>;
    /// The same for names in one directory below `base`, whose way is walked once.
    fn stats_below(&self, base: &Path, dir: &Path, names: &[&OsStr]) -> Vec<io::Result<FileStat>> {
        let stat = |name: &&OsStr| self.stat_below(base, &dir.join(name));
        names.iter().map(stat).collect()
    }
    /// The entries of a directory, in byte order of their names.
    fn list(&self, dir: &Path) -> io::Result<Vec<ListedEntry>>;
    /// As [`Storage::list`], and follows no link below `base`. An empty `below` is the base itself, which may be a link.
    fn list_below(&self, base: &Path, below: &Path) -> io::Result<Vec<ListedEntry>>;
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
    /// Returns the rights of `path`; a link in the last component is not followed. `None` for a link, whose mode means
    /// nothing, and if the storage has no owners.
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
