//! Owns what the engine tells of itself to who asks: sums, the last day, one moment of all that it remembers.

use std::sync::Arc;

use crate::engine::Engine;
use crate::engine::merge::GONE;
use crate::lake::path::{PairPath, Stream};
use crate::pair::accounting::Account;
use crate::pair::history::Recent;
use crate::pair::verdict::LineTotals;
use crate::store::snapshot::StateSnapshot;

impl Engine {
    /// Sums over all pairs, the batch that is not committed yet included.
    #[must_use]
    pub fn totals(&self) -> &LineTotals {
        &self.account.totals
    }

    /// Length of the export, bytes.
    #[must_use]
    pub fn export_bytes(&self) -> u64 {
        self.export.len_bytes()
    }

    /// Rows in the export that no line has claimed.
    #[must_use]
    pub fn claimable(&self) -> u64 {
        self.claimable
    }

    /// The totals, the same per source class, and the rows of today.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// What came in the last day, minute by minute.
    #[must_use]
    pub fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Goes on with the last day as an earlier process kept it.
    pub fn resume_recent(&mut self, kept: Recent) {
        self.recent = Recent::resume(kept, self.setup.clock.wall_ms());
    }

    /// All that is remembered at this moment, for readers on other threads.
    #[must_use]
    pub fn figures(&self) -> StateSnapshot {
        let changed = self.slots.iter().filter(|(_, slot)| slot.changed);
        StateSnapshot {
            view: Arc::clone(&self.view),
            changed: changed
                .map(|(path, slot)| (path.clone(), Arc::clone(&slot.pair)))
                .collect(),
            claimed: Arc::clone(&self.claimed),
            claimable: self.claimable,
        }
    }

    /// The first of the pairs that are still to be looked at, those that were hinted at before the newest history.
    #[must_use]
    pub fn unread_pairs(&self, pairs_max: usize) -> Vec<PairPath> {
        let unread = self.hinted.iter().chain(self.backlog.iter().rev());
        unread.take(pairs_max).cloned().collect()
    }

    /// Day-files that could not be read when they were last looked at, and why; the pair of each waits for it.
    pub fn passed_over(&self) -> impl Iterator<Item = (&PairPath, Stream, &str)> {
        self.slots.iter().flat_map(|(path, slot)| {
            let unreadable = slot.said.iter().filter(|(_, problem)| problem != GONE);
            unreadable.map(move |(stream, problem)| (path, *stream, problem.as_str()))
        })
    }

    /// Whether a pair is still to be looked at.
    #[must_use]
    pub fn is_unread(&self, path: &PairPath) -> bool {
        self.hinted.contains(path) || self.backlog.contains(path)
    }
}
