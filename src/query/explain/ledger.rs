//! What the retraction ledger has of rows: the rows that are out, page by page, and the events and orders of one run. It
//! reads the ledger alone, so the list needs neither daemon nor state.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::pair::verdict::Verdict;
use crate::platform::storage::Storage;
use crate::query::explain::RowRange;
use crate::query::explain::lines::LinePage;
use crate::query::ledger::{LedgerReadError, read_ledger};
use crate::query::retract::StandingOrder;
use crate::query::status::RUN_ID_SHOWN_MAX;
use crate::record::ledger::{LedgerLine, Op, RowSpan};
use crate::store::snapshot::RunOccurrences;

/// Some rows that are out of the effective set. Keys are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RetractedRows {
    /// Number of rows that are out.
    pub counted: u64,
    /// A page of them, in the order in which they were retracted.
    pub rows: Vec<RetractedRow>,
    /// Whether more follow.
    pub more: bool,
}

/// A row that is out, with the event that took it out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RetractedRow {
    /// The row.
    pub row: RowRange,
    /// Its run; `None` for an id over 4 KiB, so that a page of long ids takes no memory. The row has it.
    pub run_id: Option<String>,
    /// Why it is out.
    #[serde(flatten)]
    pub retraction: Retraction,
}

/// Why a row is out of the effective set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Retraction {
    /// The code of a [`Cause`](crate::record::ledger::Cause).
    pub cause: String,
    /// The day-file of the line that overrules the row; for an order that of the row's own line.
    pub day_file: String,
    /// Start of that line, bytes.
    pub line_offset: Option<u64>,
    /// Category of the overruling line; `None` for an order, in a list, and where the line cannot be read.
    pub category: Option<String>,
    /// The words of the operator; empty without an order.
    pub reason: String,
    /// When it happened, RFC 3339.
    pub at: String,
}

impl Retraction {
    fn of_event(event: LedgerLine) -> Self {
        Self {
            cause: event.cause.code().to_owned(),
            day_file: event.day_file,
            line_offset: event.line_offset,
            category: None,
            reason: event.reason,
            at: event.at,
        }
    }
}

/// Which rows are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Page {
    /// Number of results to skip.
    pub skip: usize,
    /// Maximum number of results.
    pub limit: usize,
}

/// Returns a page of the rows that are out. Memory grows with the page and with the rows that were ever restored, of which
/// there are few, and not with those that are out.
///
/// # Errors
/// See [`LedgerReadError`].
pub fn retracted_rows(
    storage: &dyn Storage,
    ledger: &Path,
    page: Page,
) -> Result<RetractedRows, LedgerReadError> {
    // The events of a row alternate: a row is out if its last `retract` is not followed by a `restore`.
    let mut restored: HashMap<u64, u64> = HashMap::new();
    let end = read_ledger(storage, ledger, None, |event| {
        if let (Op::Restore, Some(row)) = (event.op, event.row) {
            restored.insert(row.offset, event.seq);
        }
    })?;
    let mut result = RetractedRows::default();
    read_ledger(storage, ledger, Some(end), |event| {
        let (Op::Retract, Some(row)) = (event.op, event.row) else {
            return;
        };
        if restored
            .get(&row.offset)
            .is_some_and(|seq| *seq > event.seq)
        {
            return;
        }
        let number = result.counted;
        result.counted += 1;
        if number < page.skip as u64 {
            return;
        }
        if result.rows.len() >= page.limit {
            result.more = true;
            return;
        }
        result.rows.push(RetractedRow {
            row: range_of(row),
            run_id: Some(&event.source_run_id)
                .filter(|run_id| run_id.len() <= RUN_ID_SHOWN_MAX)
                .cloned(),
            retraction: Retraction::of_event(event),
        });
    })?;
    Ok(result)
}

fn range_of(row: RowSpan) -> RowRange {
    RowRange {
        offset: row.offset,
        len_bytes: Some(row.len_bytes),
    }
}

/// What the ledger has of one run.
#[derive(Debug, Default)]
pub(super) struct RunInLedger {
    /// Rows that are out, by offset.
    out: BTreeMap<u64, (RowRange, Retraction)>,
    /// Orders in force, by the day-file that they are limited to.
    orders: BTreeMap<String, StandingOrder>,
}

impl RunInLedger {
    /// Reads the events of a run.
    pub(super) fn read(
        storage: &dyn Storage,
        ledger: &Path,
        run_id: &str,
    ) -> Result<Self, LedgerReadError> {
        let mut run = Self::default();
        read_ledger(storage, ledger, None, |event| {
            if event.source_run_id == run_id {
                run.apply(event);
            }
        })?;
        Ok(run)
    }

    fn apply(&mut self, event: LedgerLine) {
        match (event.op, event.row) {
            (Op::Retract, Some(row)) => {
                let out = (range_of(row), Retraction::of_event(event));
                self.out.insert(row.offset, out);
            }
            (Op::Restore, Some(row)) => {
                self.out.remove(&row.offset);
            }
            (Op::Order, _) => {
                self.orders.insert(event.day_file.clone(), event.into());
            }
            (Op::Revoke, _) => {
                self.orders.remove(&event.day_file);
            }
            _ => {}
        }
    }

    /// Returns why a row is out; `None` for an effective row.
    pub(super) fn retraction(&self, row_offset: u64) -> Option<Retraction> {
        let out = self.out.get(&row_offset)?;
        Some(out.1.clone())
    }

    /// Returns the rows that are out and of none of the lines, as far as they are on the page, and the orders.
    pub(super) fn without_lines(
        mut self,
        run_id: &str,
        found: &[RunOccurrences],
        page: &mut LinePage,
    ) -> (Vec<RetractedRow>, Vec<StandingOrder>) {
        for line in found.iter().flat_map(|pair| &pair.entries) {
            if let Verdict::Exported { row_offset, .. } = line.verdict {
                self.out.remove(&row_offset);
            }
        }
        let on_page = self.out.into_values().filter(|_| page.has_next());
        let row = |(row, retraction)| RetractedRow {
            row,
            run_id: Some(run_id.to_owned()).filter(|id| id.len() <= RUN_ID_SHOWN_MAX),
            retraction,
        };
        (
            on_page.map(row).collect(),
            self.orders.into_values().collect(),
        )
    }

    /// Returns the order that keeps the rows of a pair out.
    pub(super) fn order_in(&self, day_file: &str) -> Option<StandingOrder> {
        let all = self.orders.get("");
        all.or_else(|| self.orders.get(day_file)).cloned()
    }
}
