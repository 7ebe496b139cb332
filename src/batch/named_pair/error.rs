//! The reasons why a named pair has no result.

use std::io;
use std::path::{Path, PathBuf};

use crate::batch::pair::PairReadError;
use crate::record::final_check::ForbiddenRow;

/// An error of a named pair. Rows that were written to a stream before it are not a result.
#[derive(Debug, thiserror::Error)]
pub enum NamedPairError {
    /// The path has no name that rows can have.
    #[error("{} does not end in the name of a day-file, NAME.jsonl in UTF-8", .0.display())]
    Name(PathBuf),
    /// There is no such file.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// A directory, FIFO, socket or device.
    #[error("{} is {kind}, not a regular file", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A length was given for evidence that the pair does not have.
    #[error("EVIDENCE is -, and {wanted} bytes of it are to be read")]
    NoEvidence {
        /// The given length.
        wanted: u64,
    },
    /// The file cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the storage.
        source: io::Error,
    },
    /// The file is shorter than the given length.
    #[error("{} has {len} bytes, fewer than the {wanted} to be read", path.display())]
    Shorter {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: u64,
        /// The given length.
        wanted: u64,
    },
    /// The file became shorter.
    #[error("{} was cut to {len} of {wanted} bytes while it was read", path.display())]
    Cut {
        /// The file.
        path: PathBuf,
        /// The bytes that are left, or that could be read.
        len: u64,
        /// The length to which it was to be read.
        wanted: u64,
    },
    /// The file was rewritten.
    #[error("{} was rewritten while it was read", .0.display())]
    Changed(PathBuf),
    /// A line exceeds the limit.
    #[error("the line at byte {offset} of {} is longer than {max_line_bytes} bytes", path.display())]
    Overlong {
        /// The file.
        path: PathBuf,
        /// Offset of the line.
        offset: u64,
        /// The limit.
        max_line_bytes: usize,
    },
    /// A forbidden row was made, which is a bug in this program.
    #[error("refusing to write a forbidden row ({0}); please report this bug")]
    Forbidden(ForbiddenRow),
    /// The output cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The output.
        path: String,
        /// The error.
        source: io::Error,
    },
    /// The rows that are to be verified cannot be read.
    #[error("cannot read the rows {path}: {source}")]
    Rows {
        /// Their file.
        path: String,
        /// The error.
        source: io::Error,
    },
}

impl NamedPairError {
    pub(super) fn unreadable(path: &Path, source: io::Error) -> NamedPairError {
        NamedPairError::Unreadable {
            path: path.to_owned(),
            source,
        }
    }
}

impl From<PairReadError> for NamedPairError {
    fn from(error: PairReadError) -> NamedPairError {
        NamedPairError::unreadable(&error.path, error.source)
    }
}
