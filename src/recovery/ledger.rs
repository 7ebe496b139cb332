//! The retraction ledger at a start without a usable state: a new one begins, or the one that is there is folded and
//! must fit the rows of the export.
//!
//! | export | ledger | action |
//! |---|---|---|
//! | absent or empty | absent, or without a whole line | begins: `created` |
//! | has rows | absent, or without a whole line | begins: `adopted`; what is retracted is found while the sources are read |
//! | any | there | folded; every retracted row must be in the export, with its hash; a torn last line is cut |
//! | lacks the rows of the last commit | there, with the lines of that commit | these lines are cut |
//! | any | absent or short, and the state that is set aside has orders or rows that are out, and it lacks them | begins, with these |
//!
//! The lines of a commit are appended before its rows. If the process ends in between, and state and journal are lost as
//! well, nothing has the rows; no version of the dataset has the lines, and the sources are read again for both.
//!
//! A ledger that does not fit is refused, and not touched: rows of this export would be left out for events of another
//! one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::{EngineError, Setup};
use crate::platform::storage::exists;
use crate::record::ledger::fold::Fold;
use crate::record::ledger::{LedgerLine, Op, row_hash};
use crate::recovery::new_ledger::begin_ledger;
use crate::store::export::{Export, ExportError, RowBlock, Segments};
use crate::store::ledger::{LedgerChanges, RowFlags};
use crate::store::state::header::LedgerMark;

/// A retracted row, by which the ledger is held against the export.
#[derive(Debug, Clone, Copy)]
struct RetractedRow {
    offset: u64,
    len_bytes: u64,
    hash: [u8; 16],
}

/// A ledger that was read to its end.
#[derive(Debug)]
pub(super) struct FoldedLedger {
    path: PathBuf,
    pub(super) file: Export,
    mark: LedgerMark,
    changes: LedgerChanges,
    segments: Segments,
    /// End of the lines that count, bytes.
    end: u64,
    /// The lines after it.
    ahead: Ahead,
    /// Rows that are out and not yet held against the export, the last one first.
    unproven: Vec<RetractedRow>,
}

/// The lines at the end of a ledger that name a longer export than there is.
#[derive(Debug, Default)]
struct Ahead {
    lines: u64,
    /// Length of the export after their commit, bytes; `None` before the first line that has it.
    export_to: Option<u64>,
}

impl Ahead {
    /// Adds a line; `export_len` is the length of the export that is there. Returns whether all may be of one commit:
    /// retractions of its own rows come first, then events at its end. Before an order nothing is left to append.
    fn add(&mut self, line: &LedgerLine, export_len: u64) -> bool {
        self.lines += 1;
        let is_of_new_row =
            line.op == Op::Retract && line.row.is_some_and(|row| row.offset >= export_len);
        if self.export_to.is_none() && is_of_new_row {
            return true;
        }
        let export_to = *self.export_to.get_or_insert(line.export_len);
        line.export_len == export_to && !matches!(line.op, Op::Order | Op::Revoke)
    }
}

/// Opens the ledger of an export of `export_len` bytes, or begins one; `None` is an export that does not exist.
///
/// # Errors
/// [`EngineError::Ledger`] for a ledger that breaks a rule; errors of the disk.
pub(super) fn open_ledger(
    setup: &Setup,
    export_len: Option<u64>,
) -> Result<FoldedLedger, EngineError> {
    let storage = &setup.storage;
    let io_error = |source| ExportError::Io {
        path: setup.ledger_path.clone(),
        source,
    };
    let has_line = exists(&**storage, &setup.ledger_path).map_err(io_error)? && {
        let file = Export::open_or_create(Arc::clone(storage), &setup.ledger_path)?;
        file.whole_rows_len()? > 0
    };
    if !has_line {
        begin_ledger(setup, export_len.unwrap_or(0), None)?;
    }
    let file = Export::open_or_create(Arc::clone(storage), &setup.ledger_path)?;
    let folded = fold_ledger(setup, file, export_len)?;
    if has_line {
        let ledger = setup.ledger_path.display();
        let (rows, orders) = (folded.mark.rows_out, folded.changes.orders.len());
        tracing::info!(
            %ledger, rows, orders,
            "adopted the retraction ledger {ledger}: {rows} retracted rows, {orders} standing orders"
        );
    }
    Ok(folded)
}

/// Reads a ledger to its end, or to the lines of a commit whose rows the export does not have.
fn fold_ledger(
    setup: &Setup,
    file: Export,
    export_len: Option<u64>,
) -> Result<FoldedLedger, EngineError> {
    let refused = |what: String| EngineError::Ledger {
        ledger: setup.ledger_path.display().to_string(),
        what,
    };
    let mut fold = Fold::new(None);
    let mut changes = LedgerChanges::default();
    let mut rows = BTreeMap::new();
    let mut segments = Segments::new(setup.segment_bytes);
    let mut mark = LedgerMark::default();
    let mut ahead = Ahead::default();
    let mut end = 0;
    file.for_each_row(|at, line| -> Result<(), EngineError> {
        let bytes = [line, b"\n"].concat();
        let line = fold
            .read(&bytes)
            .map_err(|error| refused(error.to_string()))?;
        let export_len_now = export_len.unwrap_or(0);
        if line.export_len > export_len_now {
            let is_of_a_crash = ahead.add(&line, export_len_now) && export_len.is_some();
            let what = || {
                format!(
                    "it is of an export of at least {} bytes, and the export has {export_len_now}",
                    line.export_len
                )
            };
            return is_of_a_crash.then_some(()).ok_or_else(|| refused(what()));
        }
        end = at + bytes.len() as u64;
        segments.extend(&bytes);
        (mark.export, mark.next_seq) = (line.export.0, line.seq + 1);
        let offset = line.row.map(|row| row.offset);
        let before = offset.and_then(|offset| changes.rows.get(&offset).copied());
        changes.apply(&line, before.unwrap_or_default());
        match (line.op, line.row) {
            (Op::Retract, Some(row)) => {
                let retracted = RetractedRow {
                    offset: row.offset,
                    len_bytes: row.len_bytes,
                    hash: line.row_hash,
                };
                rows.insert(row.offset, retracted);
            }
            (Op::Restore, Some(row)) => drop(rows.remove(&row.offset)),
            _ => {}
        }
        Ok(())
    })?;
    mark.rows_out = rows.len() as u64;
    changes
        .rows
        .retain(|_, flags| *flags != RowFlags::default());
    changes.orders.retain(|_, is_in_force| *is_in_force);
    Ok(FoldedLedger {
        path: setup.ledger_path.clone(),
        file,
        mark,
        changes,
        segments,
        end,
        ahead,
        unproven: rows.into_values().rev().collect(),
    })
}

impl FoldedLedger {
    /// Holds the next rows of the export against the events of the rows at their offsets.
    ///
    /// # Errors
    /// [`EngineError::Ledger`].
    pub(super) fn on_rows(&mut self, rows: &RowBlock) -> Result<(), EngineError> {
        let next = self.unproven.last();
        if next.is_none_or(|next| next.offset >= rows.end()) {
            return Ok(());
        }
        let mut fault = None;
        rows.for_each(|offset, row| {
            if fault.is_none() {
                fault = self.on_row(offset, row).err();
            }
        });
        fault.map_or(Ok(()), Err)
    }

    fn on_row(&mut self, offset: u64, row: &[u8]) -> Result<(), EngineError> {
        let Some(next) = self.unproven.last().filter(|next| next.offset <= offset) else {
            return Ok(());
        };
        let len_bytes = row.len() as u64 + 1;
        let fits = (next.offset, next.len_bytes) == (offset, len_bytes)
            && row_hash(&[row, b"\n"].concat()) == next.hash;
        if !fits {
            let at = next.offset;
            return Err(self.refused(format!("the retracted row at byte {at} is another one")));
        }
        self.unproven.pop();
        Ok(())
    }

    /// Cuts what does not count, makes the ledger durable, and returns what the state takes in. All rows of the export
    /// were held against the ledger before.
    ///
    /// # Errors
    /// [`EngineError::Ledger`]; errors of the disk.
    pub(super) fn finish(&mut self) -> Result<(LedgerMark, LedgerChanges), EngineError> {
        if let Some(row) = self.unproven.last() {
            let at = row.offset;
            return Err(self.refused(format!("no row starts at byte {at}, where it has one")));
        }
        if self.file.len_bytes() > self.end {
            self.file.cut(self.end)?;
        }
        if self.ahead.lines > 0 {
            let (ledger, lines) = (self.path.display(), self.ahead.lines);
            tracing::warn!(
                %ledger, lines,
                "cut the last {lines} lines of the retraction ledger {ledger}: the process ended before their rows were in \
                 the export, and its journal is lost; the sources are read again"
            );
        }
        let segments = std::mem::replace(&mut self.segments, Segments::new(1));
        self.file.hashed(segments);
        self.mark.file = self.file.sync()?;
        self.mark.guard = self.file.guard();
        let mut changes = std::mem::take(&mut self.changes);
        changes.segments = self.file.finished_segments().to_vec();
        self.file.all_segments_applied();
        Ok((self.mark, changes))
    }

    fn refused(&self, what: String) -> EngineError {
        EngineError::Ledger {
            ledger: self.path.display().to_string(),
            what,
        }
    }
}
