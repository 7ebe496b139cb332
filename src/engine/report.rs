//! Read-only accessors: totals, the queue, skipped day-files, and a snapshot of all pairs.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::engine::Engine;
use crate::engine::merge::SourceProblem;
use crate::engine::metrics::Metrics;
use crate::lake::path::{PairPath, Stream};
use crate::pair::accounting::Account;
use crate::pair::orders::Orders;
use crate::pair::verdict::{LineTotals, VerdictKind};
use crate::store::snapshot::StateSnapshot;

impl Engine {
    /// Returns the sums over all pairs, merged and uncommitted lines included.
    #[must_use]
    pub fn totals(&self) -> &LineTotals {
        &self.books.account.totals
    }

    /// Returns the length of the rows in the export, bytes.
    #[must_use]
    pub fn export_bytes(&self) -> u64 {
        self.commits.export.shown_bytes()
    }

    /// Returns the length of the lines in the retraction ledger, bytes.
    #[must_use]
    pub fn ledger_bytes(&self) -> u64 {
        self.commits.ledger.file.shown_bytes()
    }

    /// Returns the number of rows in the export that the ledger has out of the effective set.
    #[must_use]
    pub fn rows_out(&self) -> u64 {
        self.commits.ledger.rows_out()
    }

    /// Returns the standing orders.
    #[must_use]
    pub fn orders(&self) -> &Orders {
        &self.commits.ledger.orders
    }

    /// Returns the number of rows that are merged and not in the export yet.
    #[must_use]
    pub fn rows_pending(&self) -> u64 {
        self.commits.rows_pending()
    }

    /// Returns the number of rows that this process appended to the export.
    #[must_use]
    pub fn rows_appended(&self) -> u64 {
        self.books.rows_appended
    }

    /// Returns the number of rows in the export.
    #[must_use]
    pub fn export_rows(&self) -> u64 {
        let exported = self.totals().counts[VerdictKind::Exported];
        (exported + self.claimable()).saturating_sub(self.rows_pending())
    }

    /// Returns the number of rows in the export that no line owns.
    #[must_use]
    pub fn claimable(&self) -> u64 {
        self.pairs.claimable()
    }

    /// Returns the totals, and the same per source class.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.books.account
    }

    /// Returns the metrics registry.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.books.metrics
    }

    /// Returns a snapshot of all pairs, for readers on other threads.
    #[must_use]
    pub fn state_snapshot(&self) -> StateSnapshot {
        StateSnapshot {
            recent_flags: Arc::new(self.commits.ledger.all_recent_flags().clone()),
            ..self.pairs.snapshot(&self.commits.ledger.orders)
        }
    }

    /// Returns the pairs in memory, and those with a problem.
    #[must_use]
    pub fn active_paths(&self) -> Vec<PairPath> {
        let in_memory = self.pairs.iter().map(|(path, _)| path);
        let paths = in_memory.chain(self.pairs.problems().keys());
        let paths: BTreeSet<&PairPath> = paths.collect();
        paths.into_iter().cloned().collect()
    }

    /// Returns the number of queued pairs.
    #[must_use]
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// Returns the first queued pairs, at most `pairs_max`: hinted ones first, then the backlog from its newest day.
    #[must_use]
    pub fn unread_pairs(&self, pairs_max: usize) -> Vec<PairPath> {
        self.queue.iter().take(pairs_max).cloned().collect()
    }

    /// Returns whether a pair is queued.
    #[must_use]
    pub fn is_unread(&self, path: &PairPath) -> bool {
        self.queue.contains(path)
    }

    /// Returns the pairs that are queued, or have an unterminated line that may settle.
    #[must_use]
    pub fn unsettled_pairs(&self) -> BTreeSet<PairPath> {
        let queued = self.queue.iter().chain(self.queue.settling.pairs());
        queued.cloned().collect()
    }

    /// Returns whether a pair is queued, or has an unterminated line that may settle.
    #[must_use]
    pub fn is_unsettled(&self, path: &PairPath) -> bool {
        self.queue.contains(path) || self.queue.settling.contains(path)
    }

    /// Returns whether a pair is queued and was not read since [`Self::await_reads`].
    #[must_use]
    pub fn awaits_read(&self, path: &PairPath) -> bool {
        self.queue.contains(path) && self.queue.awaits_read(path)
    }

    /// Returns whether all merged rows are in the export, and all events in the ledger.
    #[must_use]
    pub fn all_appended(&self) -> bool {
        self.commits.all_appended()
    }

    /// Returns the day-files that could not be read at the last attempt, and the errors. The pair of each is skipped until
    /// both of its day-files can be read.
    pub fn skipped(&self) -> impl Iterator<Item = (&PairPath, Stream, &str)> {
        self.pairs.problems().iter().flat_map(|(path, problems)| {
            problems
                .iter()
                .filter_map(move |(stream, problem)| match problem {
                    SourceProblem::Unreadable { error, .. } => {
                        Some((path, *stream, error.as_str()))
                    }
                    SourceProblem::Deleted => None,
                })
        })
    }

    /// Returns whether a regular file could not be read at the last attempt.
    pub fn has_unreadable_file(&self) -> bool {
        let problems = self.pairs.problems().values().flatten();
        let mut problems = problems.map(|(_, problem)| problem);
        problems.any(|problem| matches!(problem, SourceProblem::Unreadable { is_file: true, .. }))
    }

    /// Returns whether the last read of a pair met a problem.
    pub(crate) fn was_skipped(&self, path: &PairPath) -> bool {
        self.pairs.problems().contains_key(path)
    }
}
