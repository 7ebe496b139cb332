//! The rows that a rebuild drops, as they are reported.

use std::fmt;

use serde::Serialize;

use crate::lake::path::PairPath;
use crate::recovery::availability::{Availability, EMPTY};

/// Why a row of the export is not in the fresh one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// Its day-file cannot be read now.
    Unreadable,
    /// Its day-file does not exist.
    Gone,
    /// No line of the day-files earns it: the line was changed or removed, or is refused now.
    LineGone,
    /// An operator ordered its run out, and its line earns no row therefore.
    Ordered,
    /// The firewall forbids it.
    Forbidden,
}

/// Rows of one day that are dropped for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DroppedRows {
    /// The directory of the day, for example `2026/05/01`; `null` if no state knows the day-file of the rows.
    pub day: Option<String>,
    /// The reason.
    pub reason: DropReason,
    /// Number of rows.
    pub rows: u64,
    /// The run of the first row; empty if the export has lost the row too.
    pub first_run: String,
    /// The path that cannot be read or does not exist, of the first row.
    pub path: Option<String>,
    /// The error of that path.
    pub error: Option<String>,
}

impl DroppedRows {
    /// Returns whether they count as unreadable because of an empty directory, which may be one whose file system is not
    /// mounted.
    #[must_use]
    pub fn is_of_empty_directory(&self) -> bool {
        self.error.as_deref() == Some(EMPTY)
    }
}

impl fmt::Display for DroppedRows {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = self.day.as_deref().unwrap_or("(no known day)");
        let noun = if self.rows == 1 { "row" } else { "rows" };
        write!(out, "{day}: {} {noun}", self.rows)?;
        let path = self.path.as_deref().unwrap_or("a day-file");
        match (self.reason, &self.error) {
            (DropReason::Unreadable, Some(error)) => write!(out, ", cannot read {path} ({error})")?,
            (DropReason::Unreadable, None) => write!(out, ", cannot read {path}")?,
            (DropReason::Gone, _) => write!(out, ", {path} is gone")?,
            (DropReason::LineGone, _) => write!(out, ", no line of the day-files earns them now")?,
            (DropReason::Ordered, _) => write!(out, ", an order keeps them out")?,
            (DropReason::Forbidden, _) => write!(out, ", forbidden by the firewall")?,
        }
        match self.first_run.as_str() {
            "" => Ok(()),
            run => write!(out, "; the first: run {run:?}"),
        }
    }
}

/// Returns the reason for the rows of a pair, and the path with its error.
pub(super) fn reason_of(
    availability: &Availability,
) -> (DropReason, Option<(String, Option<String>)>) {
    match availability {
        Availability::Readable => (DropReason::LineGone, None),
        Availability::Gone(path) => (DropReason::Gone, Some((path.display().to_string(), None))),
        Availability::Unreadable(path, error) => {
            let at = (path.display().to_string(), Some(error.clone()));
            (DropReason::Unreadable, Some(at))
        }
    }
}

/// Returns the directory of a pair's day.
pub(super) fn day_of(pair: &PairPath) -> Option<String> {
    let day = pair.as_path().parent()?;
    Some(day.display().to_string())
}
