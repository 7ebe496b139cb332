//! Errors of the state, and those of single calls before their cause is known.

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

    /// Returns the same error once more, for another caller.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Io(error) => error.into(),
            Self::Sync(error) => Self::Sync(error.clone()),
            Self::Damaged(what) => Self::Damaged(what.clone()),
        }
    }
}

impl From<DamagedBlock> for StateError {
    fn from(error: DamagedBlock) -> Self {
        Self::damaged(error)
    }
}

impl From<&io::Error> for StateError {
    /// Returns the error of a call to the state's file.
    fn from(error: &io::Error) -> Self {
        // No system call fails with this kind: it is reported for bytes that were not written or are missing.
        match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof, _) => Self::damaged(error),
            (_, Some(errno)) => Self::Io(io::Error::from_raw_os_error(errno)),
            (kind, None) => Self::Io(io::Error::new(kind, error.to_string())),
        }
    }
}

/// An error of a call to redb or of a value in it. It becomes a [`StateError`] only through
/// [`Failures::cause`](crate::store::state::failures::Failures::cause), because redb refuses all calls after a failed one
/// without the reason.
#[derive(Debug)]
pub(super) enum CallError {
    Redb(redb::Error),
    State(StateError),
}

impl From<StateError> for CallError {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

impl From<DamagedBlock> for CallError {
    fn from(error: DamagedBlock) -> Self {
        Self::State(error.into())
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for CallError {
            fn from(error: $error) -> Self {
                Self::Redb(error.into())
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
