//! Owns why the engine cannot go on, and whether the same may succeed later.

use crate::pair::accounting::Account;
use crate::pair::checkpoint::AccountingMismatch;
use crate::record::final_check;
use crate::store::export::ExportError;
use crate::store::journal::error::JournalError;
use crate::store::state::error::StateError;

/// Why the engine cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// See there.
    #[error(transparent)]
    State(#[from] StateError),
    /// See there.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// See there.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// Rule 3.
    #[error(
        "a row that must not be shown was about to be ({0}); distilld stops and the export is untouched"
    )]
    Forbidden(final_check::ForbiddenRow),
    /// Rule 4.
    #[error(transparent)]
    AccountingMismatch(#[from] AccountingMismatch),
    /// Rule 4, over all pairs.
    #[error("the totals do not balance ({0:?})")]
    LineTotals(Box<Account>),
    /// The export holds rows that no exporter may have written there.
    #[error("the export {export} holds a row that must not be in it ({what} at byte {offset})")]
    Tainted {
        /// The export.
        export: String,
        /// The row.
        what: String,
        /// Where it starts.
        offset: u64,
    },
    /// The state directory cannot be used.
    #[error(
        "the state directory {dir} cannot be used: {source} (as user {user})",
        user = rustix::process::geteuid()
    )]
    StateDir {
        /// The directory.
        dir: String,
        /// What the disk said.
        source: std::io::Error,
    },
}

impl EngineError {
    /// Where it was met, for a count by kind.
    #[must_use]
    pub fn place(&self) -> &'static str {
        match self {
            EngineError::State(_) | EngineError::StateDir { .. } => "state",
            EngineError::Journal(_) => "journal",
            EngineError::Export(_) | EngineError::Tainted { .. } => "export",
            _ => "other",
        }
    }

    /// Whether the same may succeed later, with nothing lost (rule 6): a full disk, a passing I/O error.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            EngineError::State(StateError::Io(_))
                | EngineError::Journal(JournalError::Io(_))
                | EngineError::Export(ExportError::Io { .. })
        )
    }

    /// Whether a call to the store failed, which refuses all more until it is opened anew.
    pub(super) fn is_of_the_store(&self) -> bool {
        matches!(self, EngineError::State(StateError::Io(_)))
    }
}
