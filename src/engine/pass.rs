//! One pass: reads the queued pairs up to a limit, commits the rows that follow, and appends them to the export. And the
//! work that is due by the clock between passes.

use crate::engine::{Engine, EngineError};
use crate::lake::path::PairPath;
use crate::pair::verdict::LineTotals;
use crate::pair::verdict::VerdictKind;

/// Age at which a batch without rows is committed.
const QUIET_COMMIT_MS: u64 = 1_000;
/// Time without a change after which a checkpoint is written.
const QUIET_CHECKPOINT_MS: u64 = 30_000;
/// Time without a change after which the state is compacted.
const QUIET_COMPACTION_MS: u64 = 5_000;

/// Figures of one pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PassReport {
    /// Pairs read.
    pub pairs: u64,
    /// Rows made.
    pub rows: u64,
    /// Scored lines read.
    pub scored_lines: u64,
    /// Evidence lines read.
    pub evidence_lines: u64,
    /// Lines that became dead letters.
    pub malformed: u64,
    /// Bytes of sources that were read.
    pub source_bytes: u64,
}

impl Engine {
    /// Returns whether a pass has work to do now.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.queue.len() > 0 || !self.commits.all_appended()
    }

    /// Returns whether an unterminated line may still settle.
    #[must_use]
    pub fn may_settle(&self) -> bool {
        !self.queue.settling.is_empty()
    }

    /// Returns when [`Self::tick`] has work to do, monotonic milliseconds; `None` where it never has.
    #[must_use]
    pub fn due_ms(&self) -> Option<u64> {
        let due = [
            self.queue.settling.next_ms(),
            self.quiet_commit_due_ms(),
            self.quiet_checkpoint_due_ms(),
            self.scrub_due_ms(),
            self.compaction_due_ms(),
            self.commits.test_due_ms(),
            self.books.log.due_ms(),
        ];
        due.into_iter().flatten().min()
    }

    fn quiet_commit_due_ms(&self) -> Option<u64> {
        let since_ms = self.commits.pending_since_ms()?;
        Some(since_ms + QUIET_COMMIT_MS)
    }

    fn quiet_checkpoint_due_ms(&self) -> Option<u64> {
        let is_due = self.has_uncheckpointed();
        // A checkpoint would end the copy of the state, which takes seconds at most.
        (is_due && !self.commits.is_compacting() && !self.commits.is_checkpointing())
            .then(|| self.pairs.changed_at_ms() + QUIET_CHECKPOINT_MS)
    }

    /// Returns when the state is copied on or examined: after a short time without news, while no day-file waits.
    fn compaction_due_ms(&self) -> Option<u64> {
        if self.is_dirty() || self.commits.is_checkpointing() {
            return None;
        }
        if self.commits.is_compacting() {
            return Some(0);
        }
        let is_due = self.commits.may_compact();
        is_due.then(|| self.pairs.changed_at_ms() + QUIET_COMPACTION_MS)
    }

    /// Does the work that is due by the clock: queues settled lines, commits a batch without rows, writes a checkpoint
    /// after a quiet time, and scrubs a segment of the export.
    ///
    /// # Errors
    /// Errors of a commit or checkpoint; [`EngineError::Export`] where the export was tampered with.
    pub fn tick(&mut self) -> Result<(), EngineError> {
        let result = self.reopen_state_if_failed().and_then(|()| self.run_due());
        if result.is_err() {
            // It takes room on the disk.
            self.commits.end_compaction(&self.ctx);
        }
        self.flush_log();
        self.commits.mark_state_failed(result)
    }

    fn run_due(&mut self) -> Result<(), EngineError> {
        let now_ms = self.ctx.clock.monotonic_ms();
        let is_due = |at_ms: Option<u64>| at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        self.queue.push_settled(now_ms);
        if is_due(self.commits.test_due_ms()) {
            self.test_checkpoint(now_ms)?;
        }
        if is_due(self.quiet_commit_due_ms()) {
            self.commits.commit(&self.ctx, &mut self.books)?;
        }
        if is_due(self.quiet_checkpoint_due_ms()) {
            self.checkpoint()?;
            // An idle engine keeps no pairs in memory: the frequent scan visits only the newest days then.
            self.pairs.forget_idle(0);
        }
        if is_due(self.compaction_due_ms()) {
            self.compact_step()?;
        }
        self.scrub_if_due(now_ms)
    }

    fn compact_step(&mut self) -> Result<(), EngineError> {
        if !self.commits.is_compacting() {
            if self.commits.is_state_long(&self.ctx) {
                self.commits.begin_compaction(&self.ctx);
            }
            return Ok(());
        }
        let compacted = self.commits.compact(&self.ctx);
        if self.commits.mark_state_failed(compacted)? {
            self.renew_view()?;
        }
        Ok(())
    }

    /// Compacts the state at once if its file is longer than its entries need.
    ///
    /// # Errors
    /// As [`Self::compact`].
    pub fn compact_if_long(&mut self) -> Result<(), EngineError> {
        if self.commits.may_compact() && self.commits.is_state_long(&self.ctx) {
            self.compact()?;
        }
        Ok(())
    }

    /// Compacts the state at once, also a short one.
    ///
    /// # Errors
    /// It is unknown under which name the disk has the new file, or the file cannot be opened.
    pub fn compact(&mut self) -> Result<(), EngineError> {
        self.end_checkpoint()?;
        self.commits.begin_compaction(&self.ctx);
        while self.commits.is_compacting() {
            self.compact_step()?;
        }
        Ok(())
    }

    fn flush_log(&mut self) {
        let now_ms = self.ctx.clock.monotonic_ms();
        self.books.log.flush_pass(self.queue.has_backlog(), now_ms);
    }

    /// Logs the events that are kept for a later line, before the process ends.
    pub fn flush_log_now(&mut self) {
        self.books.log.flush(false);
    }

    /// Reads queued pairs up to the limit of a pass, hinted ones first; commits their rows and appends them to the export.
    /// Pairs with more to read are queued again.
    ///
    /// # Errors
    /// Errors of state, journal and export. What was merged until then is kept and tried again.
    pub fn pass(&mut self) -> Result<PassReport, EngineError> {
        let result = self.reopen_state_if_failed().and_then(|()| self.run_pass());
        self.finish_pass(result)
    }

    fn finish_pass<T>(&mut self, result: Result<T, EngineError>) -> Result<T, EngineError> {
        let result = result.map_err(|error| self.commits.abort_pass(error, &self.books));
        if self.queue.len() == 0 {
            self.commits.buffers.free();
        }
        if result.is_err() {
            // It takes room on the disk.
            self.commits.end_compaction(&self.ctx);
        }
        self.flush_log();
        self.commits.mark_state_failed(result)
    }

    /// Reads these pairs and merges them in their order, up to the first one of which more is to be read: the rows of a pair
    /// follow each other then. Returns the figures of the pass and the number of merged pairs, at least one.
    ///
    /// # Errors
    /// As [`Self::pass`]; the pairs must be read again.
    pub(crate) fn pass_in_order(
        &mut self,
        paths: &[PairPath],
    ) -> Result<(PassReport, usize), EngineError> {
        self.ends_pass_with_rest = true;
        let result = self
            .reopen_state_if_failed()
            .and_then(|()| self.run_pass_in_order(paths));
        self.ends_pass_with_rest = false;
        self.finish_pass(result)
    }

    fn run_pass_in_order(
        &mut self,
        paths: &[PairPath],
    ) -> Result<(PassReport, usize), EngineError> {
        self.begin_pass()?;
        let before = self.books.account.totals;
        let now_ms = self.ctx.clock.monotonic_ms();
        let requests = self.queue.begin_pass_over(paths, now_ms);
        let merged = self.read_pairs(&requests)?;
        Ok((self.end_pass(merged, &before)?, merged))
    }

    fn run_pass(&mut self) -> Result<PassReport, EngineError> {
        self.begin_pass()?;
        let before = self.books.account.totals;
        let now_ms = self.ctx.clock.monotonic_ms();
        let requests = self.queue.begin_pass(self.ctx.threads, now_ms);
        let pairs = match self.read_pairs(&requests) {
            Ok(pairs) => pairs,
            Err(error) => {
                // Pairs that were merged are read again too, which changes nothing.
                self.queue.put_back(&requests);
                return Err(error);
            }
        };
        self.queue.put_back(&requests[pairs..]);
        self.end_pass(pairs, &before)
    }

    fn begin_pass(&mut self) -> Result<(), EngineError> {
        self.pairs.begin_pass();
        self.commits.append_committed(&self.ctx, &mut self.books)?;
        self.commits.commit_rows(&self.ctx, &mut self.books)?;
        self.release_rows()
    }

    fn end_pass(&mut self, pairs: usize, before: &LineTotals) -> Result<PassReport, EngineError> {
        self.retract_rows_of_gone_lines()?;
        self.commits.finish_commit(&self.books)?;
        self.commits.append_committed(&self.ctx, &mut self.books)?;
        self.commits.commit_rows(&self.ctx, &mut self.books)?;
        self.checkpoint_if_due()?;
        let after = &self.books.account.totals;
        Ok(PassReport {
            pairs: pairs as u64,
            source_bytes: self.queue.pass_bytes(),
            rows: after.counts[VerdictKind::Exported]
                .saturating_sub(before.counts[VerdictKind::Exported]),
            scored_lines: after.scored_lines.saturating_sub(before.scored_lines),
            evidence_lines: (after.evidence_lines).saturating_sub(before.evidence_lines),
            malformed: (after.scored_malformed + after.evidence_malformed)
                .saturating_sub(before.scored_malformed + before.evidence_malformed),
        })
    }
}
