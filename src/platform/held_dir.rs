//! Files in a directory that another user may own and change at any time: the directory is held open, its entries are
//! opened without following links, and rights are changed by descriptor, so that a name that is exchanged in between
//! leads nowhere else.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::platform::descend::open_dir;
use crate::platform::rights_of::give_to_owner_of;
use crate::platform::storage::retry_interrupted;

/// A directory that is held open.
#[derive(Debug)]
pub struct HeldDir(OwnedFd);

/// What is in the place of a file that distilld owns alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotOwnFile {
    /// A symbolic link.
    Link,
    /// A directory, FIFO, socket or device.
    NotRegular,
    /// A file that has other names too.
    ManyNames,
}

impl fmt::Display for NotOwnFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotOwnFile::Link => "a symbolic link",
            NotOwnFile::NotRegular => "not a regular file",
            NotOwnFile::ManyNames => "a file that has other names too",
        })
    }
}

impl std::error::Error for NotOwnFile {}

impl NotOwnFile {
    /// Returns what is in the place of the file, if that is what the error reports.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }

    /// Returns what is in the place of a file that could not be opened for this reason.
    #[must_use]
    pub fn of_open(error: &io::Error) -> Option<Self> {
        match Errno::from_io_error(error)? {
            Errno::LOOP => Some(Self::Link),
            // The error for a socket, and for a device without a driver.
            Errno::NXIO | Errno::ISDIR => Some(Self::NotRegular),
            _ => None,
        }
    }
}

/// Something else in the place of a file of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misplaced {
    /// The place of the file.
    pub path: PathBuf,
    /// What is there.
    pub what: NotOwnFile,
}

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}", self.path.display(), self.what)
    }
}

impl std::error::Error for Misplaced {}

impl Misplaced {
    /// Returns the error of a file that cannot be used because something else is in its place.
    #[must_use]
    pub fn error(path: &Path, what: NotOwnFile) -> io::Error {
        let path = path.to_owned();
        io::Error::new(io::ErrorKind::InvalidInput, Self { path, what })
    }

    /// Returns whether it is a link, a directory or another thing that is no file.
    #[must_use]
    pub fn is_no_file(&self) -> bool {
        self.what != NotOwnFile::ManyNames
    }

    /// Returns what an error reports to be in the place of a file.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<NotOwnFile> for io::Error {
    fn from(what: NotOwnFile) -> Self {
        io::Error::new(io::ErrorKind::InvalidInput, what)
    }
}

impl HeldDir {
    /// Opens a directory.
    ///
    /// # Errors
    /// As [`open_dir`].
    pub fn open(dir: &Path) -> io::Result<Self> {
        open_dir(dir).map(Self)
    }

    /// Opens the directory of a file, and returns it with the file's name.
    ///
    /// # Errors
    /// See [`HeldDir::open`]; the path has no UTF-8 name.
    pub fn of(path: &Path) -> io::Result<(Self, &str)> {
        let dir = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().and_then(|name| name.to_str());
        Ok((Self::open(dir)?, name.ok_or(io::ErrorKind::InvalidInput)?))
    }

    /// Opens an existing regular file for reading; does not follow a link and does not block on a FIFO.
    ///
    /// # Errors
    /// [`NotOwnFile`]; those of the disk.
    pub fn open_read(&self, name: &str) -> io::Result<File> {
        self.open_existing(name, OFlags::RDONLY)
    }

    /// Opens the same file as `opened` for writing.
    ///
    /// # Errors
    /// [`NotOwnFile`]; those of the disk; the name names another file by now (`NotFound`).
    pub fn open_write(&self, name: &str, opened: &File) -> io::Result<File> {
        let file = self.open_existing(name, OFlags::WRONLY)?;
        let (own, other) = (file.metadata()?, opened.metadata()?);
        if (own.dev(), own.ino()) != (other.dev(), other.ino()) {
            return Err(io::ErrorKind::NotFound.into());
        }
        // A user could have linked a file here that only root can write.
        if own.nlink() > 1 {
            return Err(NotOwnFile::ManyNames.into());
        }
        Ok(file)
    }

    fn open_existing(&self, name: &str, access: OFlags) -> io::Result<File> {
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let open = || Ok(rustix::fs::openat(&self.0, name, flags, Mode::empty())?);
        let file = File::from(retry_interrupted(open).map_err(named)?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(NotOwnFile::NotRegular.into()),
        }
    }

    /// Creates a file, which must not exist, for reading and writing, with at most these rights. A file that root creates
    /// is given to the owner of the directory, who must be able to use it later.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn create(&self, name: &str, mode: u32) -> io::Result<File> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode);
        let create = || Ok(rustix::fs::openat(&self.0, name, flags, mode)?);
        let file = File::from(retry_interrupted(create)?);
        give_to_owner_of(&self.0, &file)?;
        Ok(file)
    }

    /// Returns whether the name still names this open file.
    #[must_use]
    pub fn names(&self, name: &str, file: &File) -> bool {
        let stat = || {
            Ok(rustix::fs::statat(
                &self.0,
                name,
                AtFlags::SYMLINK_NOFOLLOW,
            )?)
        };
        let there = retry_interrupted(stat);
        let (Ok(there), Ok(own)) = (there, file.metadata()) else {
            return false;
        };
        (there.st_dev, there.st_ino) == (own.dev(), own.ino())
    }

    /// Renames a file of this directory, replacing an existing one.
    ///
    /// # Errors
    /// [`NotOwnFile`]; those of the disk.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        retry_interrupted(|| Ok(rustix::fs::renameat(&self.0, from, &self.0, to)?)).map_err(named)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// [`NotOwnFile`]; those of the disk.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        retry_interrupted(|| Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?))
            .map_err(named)
    }
}

/// Names what is in the place of a file, if that is the reason of an error.
fn named(error: io::Error) -> io::Error {
    NotOwnFile::of_open(&error).map_or(error, Into::into)
}
