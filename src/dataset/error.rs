//! The reasons why a dataset is not read.

use std::io;
use std::path::{Path, PathBuf};

use crate::dataset::version::Version;
use crate::record::ledger::ExportId;
use crate::record::ledger::fold::FoldError;
use crate::record::row::RowError;

/// An error of a reader. No row is returned where one of these holds for it.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
    /// There is no export.
    #[error("there is no export at {}", .0.display())]
    NoExport(PathBuf),
    /// There is no ledger.
    #[error("the export has no ledger: {} does not exist, so nothing shows which of its rows are retracted", .0.display())]
    NoLedger(PathBuf),
    /// The ledger has no complete first line.
    #[error("the ledger {} is empty", .0.display())]
    EmptyLedger(PathBuf),
    /// The ledger breaks a rule.
    #[error("the ledger {} is damaged: {error}", path.display())]
    Ledger {
        /// The ledger.
        path: PathBuf,
        /// The line and the rule.
        error: FoldError,
    },
    /// The last line of the ledger is not complete, and stays so.
    #[error("the ledger {} ends within a line, at byte {at_byte}", path.display())]
    Torn {
        /// The ledger.
        path: PathBuf,
        /// Start of the line.
        at_byte: u64,
    },
    /// The ledger names a row that the export does not have.
    #[error("the ledger {} does not fit its export: {what}, at byte {at_byte} of the export", path.display())]
    Foreign {
        /// The ledger.
        path: PathBuf,
        /// The contradiction.
        what: &'static str,
        /// Offset in the export.
        at_byte: u64,
    },
    /// The export is shorter than at an event of its ledger.
    #[error("{} has {len_bytes} bytes, and its ledger was written when it had {needed}", path.display())]
    Short {
        /// The export.
        path: PathBuf,
        /// Its length.
        len_bytes: u64,
        /// The length that the ledger has for it.
        needed: u64,
    },
    /// The files were exchanged while they were read.
    #[error("{} was replaced while it was read{}", path.display(), new_export(*.now))]
    Replaced {
        /// The file.
        path: PathBuf,
        /// The export that has its name now, if that is known.
        now: Option<ExportId>,
    },
    /// The export became shorter while it was read.
    #[error("{} was cut to {at_byte} bytes while it was read", path.display())]
    Cut {
        /// The export.
        path: PathBuf,
        /// Its end.
        at_byte: u64,
    },
    /// The version is of an export that a rebuild replaced.
    #[error("the version is of the export {}, and {} is the export {now}: a rebuild came between{reason}", version.export, path.display())]
    Rebuilt {
        /// The export.
        path: PathBuf,
        /// The version.
        version: Version,
        /// The export that has its name now.
        now: ExportId,
        /// What its ledger has as the reason of its creation, after a colon.
        reason: String,
    },
    /// A file is shorter than in the version.
    #[error("{} has {len_bytes} bytes, and the version {needed}", path.display())]
    ShorterThanVersion {
        /// The file.
        path: PathBuf,
        /// Its length.
        len_bytes: u64,
        /// The length in the version.
        needed: u64,
    },
    /// The bytes of the version have changed.
    #[error("the first {} bytes of {} or the first {} bytes of its ledger are not those of the version: its digest is {found}", version.export_len, path.display(), version.ledger_len)]
    Changed {
        /// The export.
        path: PathBuf,
        /// The version.
        version: Version,
        /// The digest of the bytes now.
        found: String,
    },
    /// An offset that is no start of a row.
    #[error("no row of {} starts at byte {at_byte}", path.display())]
    NoRowStart {
        /// The export.
        path: PathBuf,
        /// The offset.
        at_byte: u64,
    },
    /// An offset after the end of the export.
    #[error("{} ends at byte {len_bytes}, before byte {at_byte}", path.display())]
    AfterEnd {
        /// The export.
        path: PathBuf,
        /// The offset.
        at_byte: u64,
        /// The length of its whole rows.
        len_bytes: u64,
    },
    /// A time or length before the ledger's first line.
    #[error("the ledger of {} begins at {begin}, and has nothing of what was known before", path.display())]
    BeforeLedger {
        /// The export.
        path: PathBuf,
        /// Time and length at its first line.
        begin: String,
    },
    /// The stamps of rows or events contradict each other about the time that was asked for.
    #[error("what {} had at that time is not known: the clock of its host went back later, so that earlier rows or \
             retractions have later times", path.display())]
    ClockWentBack {
        /// The export.
        path: PathBuf,
    },
    /// A line of the export that cannot be written as asked.
    #[error("the line at byte {at_byte} of {} is no row of distilld: {error}", path.display())]
    NoRow {
        /// The export.
        path: PathBuf,
        /// Offset of the line.
        at_byte: u64,
        /// The reason.
        error: RowError,
    },
    /// The second version of a range is before the first.
    #[error("the version {to} is before {from}")]
    Order {
        /// The first.
        from: Version,
        /// The second.
        to: Version,
    },
}

fn new_export(now: Option<ExportId>) -> String {
    now.map_or_else(String::new, |now| format!(": it is the export {now} now"))
}

impl DatasetError {
    /// Returns a function that makes an error of an I/O error with this path.
    pub(super) fn io(path: &Path) -> impl Fn(io::Error) -> DatasetError {
        move |source| DatasetError::Io {
            path: path.to_owned(),
            source,
        }
    }

    /// Returns whether the reader of the output closed it, which is no failure.
    #[must_use]
    pub fn is_closed_output(&self) -> bool {
        matches!(self, DatasetError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}
