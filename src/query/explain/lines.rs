//! The explanations of the lines of a run, and the page of them that is asked for.

use serde::{Deserialize, Serialize};

use crate::query::explain::{RetractedRow, Retraction};
use crate::query::retract::StandingOrder;

/// The lines of a run. Keys are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Explanation {
    /// The id that was asked for.
    pub run_id: String,
    /// Whether a line that was read, a row that is out or an order concerns the run.
    pub known: bool,
    /// The lines that concern it, as many as were asked for: day-file by day-file, scored lines first, in order.
    pub lines: Vec<LineExplanation>,
    /// Whether more lines or rows follow.
    #[serde(default)]
    pub more: bool,
    /// After the last line: its rows that are out and that no line has, because it was rewritten, or its day-file was deleted
    /// before the state was lost.
    #[serde(default)]
    pub retracted: Vec<RetractedRow>,
    /// The orders in force on it.
    #[serde(default)]
    pub orders: Vec<StandingOrder>,
    /// Number of rows, of all runs, that no line in the sources has. Which runs they are of is not known without reading
    /// them.
    #[serde(default)]
    pub rows_unclaimed: u64,
    /// For an unknown id: similar ids in the newest day-files and among the longest-waiting runs.
    pub near: Vec<String>,
}

impl Explanation {
    /// Removes the words of operators, which are for those who may read the ledger.
    #[must_use]
    pub fn without_reasons(mut self) -> Self {
        let of_lines = self.lines.iter_mut().flat_map(|line| {
            let retraction = line.retraction.as_mut().map(|found| &mut found.reason);
            let order = line.order.as_mut().map(|order| &mut order.reason);
            retraction.into_iter().chain(order)
        });
        let of_rows = (self.retracted.iter_mut()).map(|row| &mut row.retraction.reason);
        let of_orders = self.orders.iter_mut().map(|order| &mut order.reason);
        of_lines
            .chain(of_rows)
            .chain(of_orders)
            .for_each(String::clear);
        self
    }
}

/// One line of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LineExplanation {
    /// `scored` or `evidence`.
    pub stream: String,
    /// `YYYY/MM/DD/NAME.jsonl`, below the stream's directory.
    pub day_file: String,
    /// Its number in the day-file, from 1; `None` where the day-file cannot be read now.
    pub line: Option<u64>,
    /// Its offset, bytes.
    pub offset: u64,
    /// Its length without the newline, bytes.
    pub len_bytes: u64,
    /// For a scored line the code of a [`VerdictKind`](crate::pair::verdict::VerdictKind) except `malformed`; for
    /// evidence `counts`, or `replaced` if later evidence with its id counts.
    pub verdict: String,
    /// The rule that decided it.
    pub rule: String,
    /// The value that the rule tests.
    pub value: Option<String>,
    /// For an exported line: the position of its row.
    pub row: Option<RowRange>,
    /// For a waiting line: the start of the wait, RFC 3339.
    pub waiting_since: Option<String>,
    /// For a waiting line: the day-file below `data/evidence` that must bring its evidence.
    pub waits_for: Option<String>,
    /// For an exported line: different evidence arrived after the row was written.
    pub superseded: bool,
    /// For an exported line: a later line of the run overrules the row.
    pub contradicted: bool,
    /// For an exported line: whether the row is in the effective set; `None` where the ledger cannot be read.
    #[serde(default)]
    pub effective: Option<bool>,
    /// For a row that is out: the event of the ledger that took it out.
    #[serde(default)]
    pub retraction: Option<Retraction>,
    /// For a line with the verdict `ordered`: the order.
    #[serde(default)]
    pub order: Option<StandingOrder>,
    /// For a waiting line: other day-files below `data/evidence` that have evidence with its run id.
    #[serde(default)]
    pub evidence_elsewhere: Vec<String>,
    /// Whether the line changed since it was read: the daemon will read its day-file again.
    pub changed_since: bool,
    /// Whether its day-file does not exist any more.
    #[serde(default)]
    pub deleted: bool,
}

/// A row in the export.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RowRange {
    /// Its offset, bytes.
    pub offset: u64,
    /// Its length with the newline, bytes; `None` where it cannot be read.
    pub len_bytes: Option<u64>,
}

/// The lines of a page.
#[derive(Debug, Default)]
pub(super) struct LinePage {
    /// The number of lines that are still to be skipped.
    pub(super) skip: usize,
    /// The number of lines that are still to be shown.
    pub(super) limit: usize,
    pub(super) lines: Vec<LineExplanation>,
    pub(super) is_any_known: bool,
    pub(super) more: bool,
}

impl LinePage {
    /// Counts the next line of the run. Returns whether it is on the page.
    pub(super) fn has_next(&mut self) -> bool {
        self.is_any_known = true;
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        let is_shown = self.limit > 0;
        self.limit -= usize::from(is_shown);
        self.more |= !is_shown;
        is_shown
    }
}
