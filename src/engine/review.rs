//! Turns the changes of rows that a read found into events of the retraction ledger, and restores rows that no line
//! overrules any more.
//!
//! Only a row that a line has can be restored. Absence is no verdict: where the own line of a row is gone, with its
//! day-file or in a rewritten one, the row stays out if it was out, and effective if it was effective.

use std::sync::Arc;

use crate::engine::ledger::Event;
use crate::engine::{Engine, EngineError};
use crate::lake::path::PairPath;
use crate::pair::checkpoint::Review;
use crate::pair::overrule::RowChange;
use crate::pair::{ActivePair, Overlay};
use crate::record::ledger::{Cause, Op};
use crate::store::ledger::RowFlags;

/// Rows that are restored before the pending batch is examined: a frame of the journal is bounded.
const RESTORED_AT_ONCE: usize = 4_096;

impl Engine {
    /// Adds the events of rows that a merged read changes. Rows from `rows_from` on are of that read: the ledger
    /// has no event of them yet.
    pub(super) fn record_row_changes(
        &mut self,
        path: &PairPath,
        changes: &[RowChange],
        rows_from: u64,
    ) -> Result<(), EngineError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.commits.begin_pending(self.ctx.clock.monotonic_ms());
        let day_file = Arc::<str>::from(path.as_path().to_string_lossy());
        for change in changes {
            let op = match change.cause {
                Cause::Superseded => Op::Note,
                _ => Op::Retract,
            };
            let event = Event {
                op,
                cause: change.cause,
                row_offset: Some(change.row_offset),
                run_id: String::new(),
                day_file: Arc::clone(&day_file),
                line_offset: Some(change.line_offset),
                reason: Arc::from(""),
            };
            let is_known = change.row_offset < rows_from;
            self.push_row_event(event, change.row_offset, is_known)?;
        }
        Ok(())
    }

    /// Adds an event of a row. `is_known` is whether the ledger may have an event of it.
    pub(super) fn push_row_event(
        &mut self,
        event: Event,
        row_offset: u64,
        is_known: bool,
    ) -> Result<(), EngineError> {
        let ledger = &mut self.commits.ledger;
        let before = match ledger.recent_flags(row_offset) {
            Some(recent) => recent,
            None if is_known => self.pairs.view().row_flags(row_offset)?,
            None => RowFlags::default(),
        };
        ledger.push_row(event, row_offset, before);
        Ok(())
    }

    /// Examines the rows of a pair that is read to its end, where that is needed.
    pub(super) fn review(&mut self, path: &PairPath) -> Result<(), EngineError> {
        let pair = Arc::clone(&self.pairs.slot(path)?.pair);
        let (review, now_ms) = (pair.checkpoint.review, self.ctx.clock.monotonic_ms());
        if review.contains(Review::CLAIMED) {
            self.restore_claimed(path, &pair)?;
            self.reviewed(path, Review::CLAIMED)?;
        }
        if review.contains(Review::REREAD) {
            match self.pairs.claimable() {
                0 => self.reviewed(path, Review::REREAD)?,
                _ => self.reread.insert(pair.id, path, now_ms),
            }
        }
        Ok(())
    }

    /// Records that the rows of a pair were examined. Not in the journal: if this is lost, the next read of the pair examines
    /// them again and finds nothing.
    pub(super) fn reviewed(&mut self, path: &PairPath, review: Review) -> Result<(), EngineError> {
        let mut checkpoint = self.pairs.slot(path)?.pair.checkpoint.clone();
        checkpoint.review.remove(review);
        let now_ms = self.ctx.clock.monotonic_ms();
        self.pairs
            .apply(path, checkpoint, Overlay::default(), now_ms);
        Ok(())
    }

    /// Restores the rows of a pair whose lines claimed rows again: those that are out, and that neither a line nor an order
    /// keeps out.
    fn restore_claimed(&mut self, path: &PairPath, pair: &ActivePair) -> Result<(), EngineError> {
        let orders = Arc::clone(&self.commits.ledger.orders);
        let snapshot = self.pairs.snapshot(&orders);
        let mut effective = snapshot.rows_in_force(pair, &orders)?;
        effective.sort_unstable();
        let day_file = path.as_path().to_string_lossy().into();
        for rows in effective.chunks(RESTORED_AT_ONCE) {
            self.restore_rows(&day_file, rows, &Arc::from(""))?;
            self.commit_if_full()?;
        }
        Ok(())
    }

    /// Adds an event for each of these rows that is out. Returns how many were.
    pub(super) fn restore_rows(
        &mut self,
        day_file: &Arc<str>,
        row_offsets: &[u64],
        reason: &Arc<str>,
    ) -> Result<u64, EngineError> {
        let mut restored = 0;
        for row_offset in row_offsets {
            let before = self.commits.ledger.flags(self.pairs.view(), *row_offset)?;
            let Some(cause) = before.cause() else {
                continue;
            };
            let event = Event {
                op: Op::Restore,
                cause,
                row_offset: Some(*row_offset),
                run_id: String::new(),
                day_file: Arc::clone(day_file),
                line_offset: None,
                reason: Arc::clone(reason),
            };
            self.commits.begin_pending(self.ctx.clock.monotonic_ms());
            self.commits.ledger.push_row(event, *row_offset, before);
            restored += 1;
        }
        Ok(restored)
    }
}
