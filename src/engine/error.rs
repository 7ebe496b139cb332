//! Errors of the engine, and whether a retry may succeed.

use std::io;

use crate::pair::accounting::Account;
use crate::pair::checkpoint::AccountingMismatch;
use crate::record::final_check;
use crate::store::export::ExportError;
use crate::store::journal::error::JournalError;
use crate::store::state::error::StateError;

/// An error that stops or pauses the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// An error of the state file.
    #[error(transparent)]
    State(#[from] StateError),
    /// An error of the journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// An error of the export.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A batch holds a row that the final check rejects (rule 3).
    #[error("refusing to append a forbidden row ({0}); stopping, the export is unchanged")]
    Forbidden(final_check::ForbiddenRow),
    /// The accounts of a pair do not balance (rule 4).
    #[error(transparent)]
    AccountingMismatch(#[from] AccountingMismatch),
    /// The totals do not balance (rule 4).
    #[error("the totals do not balance ({0:?}); stopping, the export is unchanged")]
    LineTotals(Box<Account>),
    /// The export holds a row that no exporter may write.
    #[error("the export {export} holds a forbidden row ({what} at byte {offset})")]
    Tainted {
        /// Path of the export.
        export: String,
        /// Description of the row.
        what: String,
        /// Offset of the row, bytes.
        offset: u64,
    },
    /// The retraction ledger is not one that this export can have.
    #[error("the retraction ledger {ledger} does not fit the export ({what})")]
    Ledger {
        /// Path of the ledger.
        ledger: String,
        /// The difference that was found.
        what: String,
    },
    /// The state directory cannot be used.
    #[error(
        "the state directory {dir} cannot be used: {source} (as user {user})",
        user = rustix::process::geteuid()
    )]
    StateDir {
        /// Path of the directory.
        dir: String,
        /// Error of the file system.
        source: io::Error,
    },
}

impl EngineError {
    /// Returns the component that failed, as the error metric names it.
    #[must_use]
    pub fn component(&self) -> &'static str {
        match self {
            EngineError::State(_) | EngineError::StateDir { .. } => "state",
            EngineError::Journal(_) => "journal",
            EngineError::Export(_) | EngineError::Ledger { .. } | EngineError::Tainted { .. } => {
                "export"
            }
            _ => "other",
        }
    }

    /// Returns whether a retry may succeed with nothing lost (rule 6), as after a full disk or a temporary I/O error.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            EngineError::State(StateError::Io(_))
                | EngineError::Journal(JournalError::Io(_))
                | EngineError::Export(ExportError::Io { .. })
        )
    }

    /// Returns what ends an error that is transient. Until then reading is retried, with nothing lost.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        let mut kind = None;
        while let Some(error) = cause {
            kind = kind.or(error.downcast_ref::<io::Error>().map(io::Error::kind));
            cause = error.source();
        }
        match kind {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                "free space on that file system, see `df`; reading is retried every few seconds, and nothing is lost"
            }
            Some(io::ErrorKind::FileTooLarge) => {
                "raise the limit of file sizes (`ulimit -f`, LimitFSIZE= in the unit), or free space; reading is retried \
                 every few seconds, and nothing is lost"
            }
            Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
                "give the user of the daemon the right to write there, or mount that file system read-write; `distilld \
                 check` names the rights that are missing, and reading is retried every few seconds"
            }
            _ => {
                "see the kernel log (`dmesg`) and `distilld check` for that disk; reading is retried every few seconds, \
                 and nothing is lost"
            }
        }
    }

    /// Returns whether the export is not the one that was committed, so that only an operator can decide how to continue. A
    /// restart would fail in the same way.
    #[must_use]
    pub fn needs_operator(&self) -> bool {
        matches!(
            self,
            EngineError::Export(
                ExportError::Missing { .. }
                    | ExportError::Short { .. }
                    | ExportError::Changed { .. }
            ) | EngineError::Tainted { .. }
                | EngineError::Ledger { .. }
        )
    }

    /// Returns whether a call to the state failed. It refuses all further calls then, until it is reopened.
    pub(super) fn is_store_failure(&self) -> bool {
        matches!(self, EngineError::State(StateError::Io(_)))
    }
}
