//! The events of the retraction ledger that a run would write, as the engine would: those of a read, and those of the review
//! of a pair that is read to its end.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::gone_lines::{OverruledRow, overruled_rows};
use crate::pair::checkpoint::Review;
use crate::pair::index::{PairId, UnclaimedRow};
use crate::pair::orders::Orders;
use crate::pair::{ActivePair, JoinOutcome, Overlay};
use crate::query::plan::Planner;
use crate::record::ledger::{Cause, Op};
use crate::record::row;
use crate::store::export::row_at;
use crate::store::ledger::RowFlags;
use crate::store::snapshot::StateSnapshot;
use crate::store::state::error::StateError;

/// Where planned rows are placed: no export is as long, so that none has the offset of a row that exists.
const PLANNED_FROM: u64 = 1 << 62;

/// The rows' flags in the ledger after the events of the plan.
#[derive(Debug, Default)]
pub(super) struct PlannedLedger {
    flags: BTreeMap<u64, RowFlags>,
    /// Bytes of the planned rows.
    rows_len: u64,
}

impl PlannedLedger {
    /// Places the rows of a read and applies what it changes of rows. Returns the number of rows that leave the effective
    /// set.
    pub(super) fn retract(
        &mut self,
        state: &StateSnapshot,
        outcome: &mut JoinOutcome,
    ) -> Result<i64, StateError> {
        outcome.place_rows(PLANNED_FROM + self.rows_len);
        self.rows_len += outcome.rows.len() as u64;
        let mut retracted = 0;
        for change in &outcome.row_changes {
            let op = match change.cause {
                Cause::Superseded => Op::Note,
                _ => Op::Retract,
            };
            let before = self.flags_of(state, change.row_offset)?;
            let after = before.after(op, change.cause);
            retracted += i64::from(after.is_out() && !before.is_out());
            if after.is_out() != before.is_out() {
                self.flags.insert(change.row_offset, after);
            }
        }
        Ok(retracted)
    }

    /// Brings back the rows of a pair that neither a line nor an order keeps out. Returns their number.
    pub(super) fn restore(
        &mut self,
        state: &StateSnapshot,
        pair: &ActivePair,
        orders: &Orders,
    ) -> Result<i64, StateError> {
        let mut restored = 0;
        for row_offset in state.rows_in_force(pair, orders)? {
            if self.flags_of(state, row_offset)?.is_out() {
                self.flags.insert(row_offset, RowFlags::default());
                restored += 1;
            }
        }
        Ok(restored)
    }

    /// Takes a row out. Returns whether it was effective.
    fn take_out(&mut self, state: &StateSnapshot, row: OverruledRow) -> Result<bool, StateError> {
        let before = self.flags_of(state, row.row_offset)?;
        let after = before.after(Op::Retract, row.cause);
        self.flags.insert(row.row_offset, after);
        Ok(!before.is_out())
    }

    fn flags_of(&self, state: &StateSnapshot, row_offset: u64) -> Result<RowFlags, StateError> {
        match self.flags.get(&row_offset) {
            Some(flags) => Ok(*flags),
            None => state.row_flags(row_offset),
        }
    }
}

impl Planner<'_> {
    /// Returns what is to be examined of the rows of a pair after a read.
    pub(super) fn review_after(
        &mut self,
        pair: PairId,
        read: &Overlay,
    ) -> Result<Review, StateError> {
        let mut review = Review::default();
        if !read.claimed_rows.is_empty() {
            review.insert(Review::CLAIMED);
        }
        if !read.entries.is_empty() && self.has_unclaimed(pair)? {
            review.insert(Review::REREAD);
        }
        Ok(review)
    }

    /// Returns whether the state has rows of a pair that no line owns: a line that is appended may overrule them.
    fn has_unclaimed(&mut self, pair: PairId) -> Result<bool, StateError> {
        let pairs = match self.with_unclaimed.take() {
            Some(pairs) => pairs,
            None if self.context.state.claimable == 0 => BTreeSet::new(),
            None => self.context.state.view.pairs_with_unclaimed()?,
        };
        Ok(self.with_unclaimed.insert(pairs).contains(&pair))
    }

    /// Takes out the rows of a pair that was read again whose lines are gone, where other lines of their runs are there.
    /// Returns their number.
    pub(super) fn retract_rows_of_gone_lines(
        &mut self,
        pair: &ActivePair,
    ) -> Result<i64, StateError> {
        let context = self.context;
        let is_of_pair = |row: &UnclaimedRow| row.scope == pair.id && !self.claimed.contains(row);
        let known = match context.state.claimable {
            0 => Vec::new(),
            _ => (context.state.view).unclaimed_after(None, is_of_pair, usize::MAX)?,
        };
        let released = self.released.iter().filter(|row| is_of_pair(row));
        let rows: Vec<UnclaimedRow> = released.copied().chain(known).collect();
        let Ok(export) = context.storage.open_read(context.export_path) else {
            return Ok(0);
        };
        let run_of = |row_offset| {
            let row = row_at(&*export, row_offset)?;
            Some(row::view(&row).ok()?.run())
        };
        let disk = (context.storage, context.root);
        let mut retracted = 0;
        for row in overruled_rows(&context.state.view, disk, pair, &rows, run_of)? {
            retracted += i64::from(self.ledger.take_out(context.state, row)?);
        }
        Ok(retracted)
    }
}
