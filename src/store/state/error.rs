//! Errors of the state.

use crate::store::state::blocks::DamagedBlock;
use std::fmt::Debug;
use std::io;

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The disk refused. The state file is as it was before.
    #[error("the state's disk failed: {0}")]
    Io(#[source] io::Error),
    /// A sync failed, so that it is unknown what is durable. Fatal.
    #[error(
        "syncing the state failed: {0}; what is on the disk is unknown until the next start looks"
    )]
    Sync(String),
    /// The state's bytes are not what was written, or of another format. It is rebuilt from sources and export.
    #[error("the state is unreadable: {0}")]
    Damaged(String),
}

impl StateError {
    pub(crate) fn damaged(error: impl std::fmt::Display) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<redb::Error> for StateError {
    fn from(error: redb::Error) -> Self {
        match error {
            // No system call fails with this kind: redb reports it for bytes that it did not write or that are
            // missing.
            redb::Error::Io(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
                ) =>
            {
                Self::damaged(error)
            }
            redb::Error::Io(error) => Self::Io(error),
            redb::Error::PreviousIo => {
                Self::Io(io::Error::other("an earlier write to the state failed"))
            }
            other => Self::damaged(other),
        }
    }
}

impl From<DamagedBlock> for StateError {
    fn from(error: DamagedBlock) -> Self {
        Self::damaged(error)
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for StateError {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        }
    )*};
}
from_redb!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError
);
