//! What a rebuild reports: its result, and why it failed.

use std::io;
use std::path::PathBuf;

use serde::Serialize;

use crate::engine::EngineError;
use crate::recovery::dropped::{DropReason, DroppedRows};
use crate::store::export::ExportError;

/// Maximum groups of dropped rows that an error names.
const NAMED_MAX: usize = 20;

/// The standing orders that a rebuild carries over into the new ledger, or into the new state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CarriedOrders {
    /// Standing orders that stay in force.
    pub orders: u64,
    /// Those of them that only the state had: their reasons are lost with lines of the ledger.
    pub orders_without_reason: u64,
    /// Whether there may have been more: the ledger is missing or damaged, and no state can be read.
    pub orders_unknown: bool,
}

/// The result of a rebuild, or of its dry run, printed as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    /// Path of the export.
    pub output_path: String,
    /// Path of the replaced export, which is kept; `null` if there was none, and in a dry run.
    pub kept_path: Option<String>,
    /// Lines of the replaced export.
    pub rows_before: u64,
    /// Rows of the fresh export.
    pub rows_after: u64,
    /// Rows that stay, with their timestamps.
    pub rows_kept: u64,
    /// Rows that stay with other bytes: their evidence or their index was changed.
    pub rows_replaced: u64,
    /// Rows of the fresh export without one of the same origin in the replaced one.
    pub rows_added: u64,
    /// Rows that are left out because they are not effective.
    pub rows_left_out: u64,
    /// Other rows without one of the same origin in the fresh export.
    pub rows_dropped: u64,
    /// The dropped rows by day and reason, rows without a known day first.
    pub dropped: Vec<DroppedRows>,
    /// The standing orders of the new ledger.
    #[serde(flatten)]
    pub orders: CarriedOrders,
    /// Why a rebuild refuses to drop them, in a dry run; `null` if it does not refuse.
    pub refused: Option<DropReason>,
    /// Directories and day-files that could not be read, each named in the log. They hold no source of a row of the
    /// replaced export.
    pub passed_over: u64,
}

/// The cause of a failed rebuild. The old export and state are unchanged.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The engine that fills the fresh export failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The directory of a stream cannot be listed.
    #[error(
        "cannot list the sources in {}: {source}; the export is unchanged", path.display()
    )]
    Sources {
        /// The stream's directory.
        path: PathBuf,
        /// The error of the disk.
        source: io::Error,
    },
    /// A day-file could be opened and not be read to its end.
    #[error(
        "cannot read {} to its end; the export is unchanged", path.display()
    )]
    UnreadBytes {
        /// Pattern that names both day-files of the pair.
        path: PathBuf,
    },
    /// A day-file was rewritten between the reads that found its overruled rows and those that left them out.
    #[error("the day-file {} was rewritten during the rebuild; the export is unchanged", path.display())]
    Rewritten {
        /// The scored day-file.
        path: PathBuf,
    },
    /// Rows would be dropped. The reason is the one that matters most.
    #[error("{}", refusal(.0, *.1))]
    WouldDrop(Box<Rebuilt>, DropReason),
    /// There is no export whose rows a new state could adopt.
    #[error("there is no export at {}, and so no rows that a new state could adopt", .0.display())]
    NothingToAdopt(PathBuf),
    /// Another process put something else in the place of a new file.
    #[error("another process replaced {} during the rebuild; the export is unchanged", .0.display())]
    Replaced(PathBuf),
    /// The stop flag was set before the swap.
    #[error("stopped before the swap; the export and the state are as they were")]
    Stopped,
}

/// Describes the rows that would be dropped, the first groups in a line each.
fn refusal(rebuilt: &Rebuilt, reason: DropReason) -> String {
    let why = match reason {
        DropReason::Unreadable => "the sources of some of them cannot be read now",
        _ => "their sources are gone",
    };
    let mut text = format!(
        "a rebuild would drop {} of {} rows: {why}; the export is unchanged",
        rebuilt.rows_dropped, rebuilt.rows_before
    );
    for group in rebuilt.dropped.iter().take(NAMED_MAX) {
        text += &format!("\n  {group}");
    }
    match rebuilt.dropped.len().saturating_sub(NAMED_MAX) {
        0 => text,
        more => text + &format!("\n  and {more} more, see `distilld rebuild --dry-run`"),
    }
}

impl From<ExportError> for RebuildError {
    fn from(error: ExportError) -> Self {
        RebuildError::Engine(error.into())
    }
}
