//! The file system of the host. It never follows a link in the last component of a path, and never blocks on a FIFO.

use std::fs;
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    fchown,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use crate::platform::storage::{
    FileKind, FileStat, ListedEntry, Rights, Storage, StorageFile, retry_interrupted,
};

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
