//! Errors of the journal.

use std::io;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk refused; nothing of the batch counts.
    #[error("writing the journal failed: {0}")]
    Io(#[from] io::Error),
    /// A sync failed, so that it is unknown what is durable. Fatal.
    #[error(
        "syncing the journal failed: {0}; what is on the disk is unknown until the next start looks"
    )]
    Sync(io::Error),
    /// Durable bytes are gone or changed.
    #[error("the journal is damaged: {0}")]
    Damaged(String),
}
