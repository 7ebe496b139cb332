//! The engine's side of the retraction ledger: events that wait for the commit of their batch, their lines, and how
//! the ledger has rows since the last checkpoint.
//!
//! An event is in the same batch as the lines that cause it (L2 of the ledger's invariants): it becomes durable with them,
//! and its line is appended before the rows of the batch are (L3).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::EngineError;
use crate::pair::orders::Orders;
use crate::record::keys::RunKey;
use crate::record::ledger::{Cause, ExportId, LedgerLine, Op, RowSpan, row_hash};
use crate::record::row;
use crate::store::export::{Export, ExportError, ExportMark};
use crate::store::ledger::{LedgerChanges, Order, RowFlags, standing_orders};
use crate::store::state::StateView;
use crate::store::state::error::StateError;
use crate::store::state::header::LedgerMark;

/// Length of a line of the ledger, roughly, for the size of a batch, bytes.
pub(super) const LINE_BYTES: usize = 400;

/// Maximum length of an id in a line, bytes; a longer one is cut.
const ID_BYTES_MAX: usize = 64 << 10;

/// An event that no line of the ledger holds yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) op: Op,
    pub(super) cause: Cause,
    /// Start of the row in the export, bytes, for an event of a row.
    pub(super) row_offset: Option<u64>,
    /// The run of an order; that of a row is read from it.
    pub(super) run_id: String,
    /// The day-file of the line that is the reason; of an order the one that it is limited to.
    pub(super) day_file: Arc<str>,
    /// Start of that line, bytes.
    pub(super) line_offset: Option<u64>,
    /// The words of the operator.
    pub(super) reason: Arc<str>,
}

/// The open ledger.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(super) file: Export,
    id: ExportId,
    next_seq: u64,
    /// Rows that are out, by the lines that are in the file.
    rows_out: u64,
    /// What changed since the last checkpoint, pending events included.
    changes: LedgerChanges,
    /// The standing orders.
    pub(super) orders: Arc<Orders>,
    /// Events that are not sealed.
    pub(super) pending: Vec<Event>,
}

impl Ledger {
    /// Returns the ledger in `file`, as `mark` and `changes`, which are newer, describe it.
    pub(crate) fn new(
        file: Export,
        mark: &LedgerMark,
        changes: LedgerChanges,
        view: &StateView,
    ) -> Result<Self, StateError> {
        Ok(Self {
            file,
            id: ExportId(mark.export),
            next_seq: mark.next_seq,
            rows_out: mark.rows_out,
            orders: Arc::new(standing_orders(view, &changes)?),
            changes,
            pending: Vec::new(),
        })
    }

    /// Returns the number of rows that are out.
    pub(super) fn rows_out(&self) -> u64 {
        self.rows_out
    }

    /// Returns whether a row may be out.
    pub(super) fn has_rows_out(&self) -> bool {
        self.rows_out > 0 || !self.changes.rows.is_empty()
    }

    /// Returns whether a checkpoint has anything to write.
    pub(super) fn has_changes(&self) -> bool {
        !self.changes.rows.is_empty() || !self.changes.orders.is_empty()
    }

    /// Returns the number of rows and orders that the next checkpoint writes.
    pub(super) fn changes_len(&self) -> usize {
        self.changes.rows.len() + self.changes.orders.len()
    }

    /// Returns how the ledger has a row, if that changed since the last checkpoint.
    pub(super) fn recent_flags(&self, row_offset: u64) -> Option<RowFlags> {
        self.changes.rows.get(&row_offset).copied()
    }

    /// Returns how the ledger has the rows that changed since the last checkpoint.
    pub(super) fn all_recent_flags(&self) -> &BTreeMap<u64, RowFlags> {
        &self.changes.rows
    }

    /// Returns how the ledger, with the pending events, has a row.
    pub(super) fn flags(&self, view: &StateView, row_offset: u64) -> Result<RowFlags, StateError> {
        match self.recent_flags(row_offset) {
            Some(flags) => Ok(flags),
            None => view.row_flags(row_offset),
        }
    }

    /// Adds an event of a row, which the ledger has as `before` until now, unless it is there already.
    pub(super) fn push_row(&mut self, event: Event, row_offset: u64, before: RowFlags) {
        let after = before.after(event.op, event.cause);
        if after != before && (event.op == Op::Note || after.is_out() != before.is_out()) {
            self.changes.rows.insert(row_offset, after);
            self.pending.push(event);
        }
    }

    /// Adds an order, or the end of one, unless it is there already. Returns whether it was added.
    pub(super) fn push_order(&mut self, event: Event) -> bool {
        let run = RunKey::from_run_id(&event.run_id);
        let pair = event.day_file.as_bytes();
        let is_order = event.op == Op::Order;
        if self.orders.contains(run, pair) == is_order {
            return false;
        }
        let orders = Arc::make_mut(&mut self.orders);
        if is_order {
            orders.insert(run, pair);
        } else {
            orders.remove(run, pair);
        }
        let order = Order {
            run_id: event.run_id.clone(),
            pair: pair.to_vec(),
        };
        self.changes.orders.insert(order, is_order);
        self.pending.push(event);
        true
    }

    /// Takes the pending events as lines of a batch that lengthens the export from `export_from` to `export_to`. `row`
    /// returns the row at an offset, with its newline.
    ///
    /// The retractions of rows of the batch itself come first, each at the end of its row and with the timestamp of the row:
    /// no version of the dataset has such a row in its effective set.
    ///
    /// # Errors
    /// Those of `row`; [`StateError::Damaged`] where no row is at an offset. The events are pending then.
    pub(super) fn seal(
        &mut self,
        (export_from, export_to): (u64, u64),
        at: &str,
        mut row: impl FnMut(u64) -> Result<Vec<u8>, EngineError>,
    ) -> Result<(Vec<Event>, Vec<u8>), EngineError> {
        let new_row = |event: &Event| match (event.op, event.row_offset) {
            (Op::Retract, Some(offset)) if offset >= export_from => (0, offset),
            _ => (1, 0),
        };
        self.pending.sort_by_key(new_row);
        let mut lines = Vec::with_capacity(self.pending.len() * LINE_BYTES);
        for (event, seq) in self.pending.iter().zip(self.next_seq..) {
            let row = event.row_offset.map(|at| row(at).map(|row| (at, row)));
            let (mut line, stamp) = line_of(event, row.transpose()?)?;
            (line.seq, line.export) = (seq, self.id);
            let is_new = new_row(event).0 == 0;
            let row_end = line.row.map(RowSpan::end).filter(|_| is_new);
            line.export_len = row_end.unwrap_or(export_to);
            line.at = stamp.filter(|_| is_new).unwrap_or_else(|| at.to_owned());
            line.write(&mut lines);
        }
        self.next_seq += self.pending.len() as u64;
        Ok((std::mem::take(&mut self.pending), lines))
    }

    /// Makes the events of a batch that was not committed pending again, before those that came since.
    pub(super) fn unseal(&mut self, mut events: Vec<Event>) {
        self.next_seq -= events.len() as u64;
        events.append(&mut self.pending);
        self.pending = events;
    }

    /// Counts the events of lines that are in the file.
    pub(super) fn on_appended(&mut self, events: &[Event]) {
        for event in events {
            match event.op {
                Op::Retract => self.rows_out += 1,
                Op::Restore => self.rows_out -= 1,
                _ => {}
            }
        }
    }

    /// Makes the file durable where it grew since the mark of the last checkpoint, and returns its mark.
    pub(super) fn sync(&mut self, before: &LedgerMark) -> Result<LedgerMark, ExportError> {
        let is_grown = self.file.len_bytes() != before.file.len_bytes;
        let file: ExportMark = if is_grown {
            self.file.sync()?
        } else {
            before.file
        };
        Ok(LedgerMark {
            file,
            guard: self.file.guard(),
            export: self.id.0,
            next_seq: self.next_seq,
            rows_out: self.rows_out,
        })
    }

    /// Returns what the next checkpoint writes.
    pub(super) fn changes(&self) -> LedgerChanges {
        LedgerChanges {
            segments: self.file.finished_segments().to_vec(),
            ..self.changes.clone()
        }
    }

    /// The checkpoint has taken in all changes.
    pub(super) fn mark_applied(&mut self) {
        self.file.all_segments_applied();
        self.changes = LedgerChanges::default();
    }
}

/// Returns the line of an event, without the fields that depend on its batch, and the timestamp of its row.
fn line_of(
    event: &Event,
    row: Option<(u64, Vec<u8>)>,
) -> Result<(LedgerLine, Option<String>), EngineError> {
    let mut line = LedgerLine {
        seq: 0,
        op: event.op,
        export: ExportId([0; 8]),
        export_len: 0,
        row: None,
        row_hash: [0; 16],
        id: String::new(),
        source_run_id: event.run_id.clone(),
        cause: event.cause,
        day_file: event.day_file.to_string(),
        line_offset: event.line_offset,
        reason: event.reason.to_string(),
        at: String::new(),
    };
    let mut stamp = None;
    if let Some((offset, row)) = row {
        stamp = row::summary(&row)
            .ok()
            .map(|row| row.created_at.into_owned());
        let view = row::view(&row).map_err(|error| {
            let what = format!("no row starts at byte {offset} of the export: {error}");
            StateError::Damaged(what)
        })?;
        line.row = Some(RowSpan {
            offset,
            len_bytes: row.len() as u64,
        });
        line.row_hash = row_hash(&row);
        line.id = shortened_id(view.id.into_owned());
        line.source_run_id = shortened_id(view.source_run_id.into_owned());
    }
    Ok((line, stamp))
}

/// Returns an id that fits into a frame together with its row. The offset and the hash identify the row in any case.
pub(crate) fn shortened_id(mut id: String) -> String {
    if id.len() > ID_BYTES_MAX {
        let end = (0..=ID_BYTES_MAX).rev().find(|at| id.is_char_boundary(*at));
        id.truncate(end.unwrap_or(0));
        id.push('\u{2026}');
    }
    id
}
