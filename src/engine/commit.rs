//! Commits and checkpoints of the whole engine: a commit makes merged rows durable and appends them to the export; a
//! checkpoint writes the changed pairs into the state, so that the journal restarts empty.

use std::sync::Arc;

use crate::engine::committer::background::pair_write;
use crate::engine::gone_lines::RunsWithoutLines;
use crate::engine::{Engine, EngineError};
use crate::store::state::header::Header;

/// Rows and orders that the ledger changed at which a checkpoint is due: about 2 MiB of memory.
const LEDGER_CHANGES_MAX: usize = 64 << 10;
/// Changes of all pairs that wait for the state at which a checkpoint is due: about 8 MiB of memory.
const OVERLAY_ENTRIES_MAX: usize = 64 << 10;
/// Maximum pairs kept in memory between checkpoints.
const ACTIVE_PAIRS_MAX: usize = 2_048;

impl Engine {
    /// Commits all merged rows and appends them to the export.
    ///
    /// # Errors
    /// Violations of rules 3 and 4; errors of journal and export.
    pub fn commit(&mut self) -> Result<(), EngineError> {
        self.reopen_state_if_failed()?;
        self.commits.commit(&self.ctx, &mut self.books)
    }

    /// Writes all that the journal and memory hold into the state, and restarts the journal.
    ///
    /// # Errors
    /// Errors of a commit, of the sync of the export, and of the state.
    pub fn checkpoint(&mut self) -> Result<(), EngineError> {
        self.checkpoint_and(true)
    }

    /// Writes a checkpoint if the next start would not use the state: until then an adoption holds in memory the claims of
    /// lines that are not read yet.
    ///
    /// # Errors
    /// As [`Self::checkpoint`].
    pub fn complete_state(&mut self) -> Result<(), EngineError> {
        match self.commits.is_provisional() {
            true => self.checkpoint(),
            false => Ok(()),
        }
    }

    /// Writes a checkpoint. `completes` is whether the state gets the claims that only memory holds.
    fn checkpoint_and(&mut self, completes: bool) -> Result<(), EngineError> {
        let started_us = self.ctx.clock.monotonic_us();
        let result = self
            .reopen_state_if_failed()
            .and_then(|()| self.apply_journal(completes));
        if result.is_ok() {
            let took_us = self.ctx.clock.monotonic_us().saturating_sub(started_us);
            self.books.metrics.checkpointed(took_us);
        }
        self.commits.mark_state_failed(result)
    }

    fn apply_journal(&mut self, completes: bool) -> Result<(), EngineError> {
        self.end_checkpoint()?;
        self.commits.end_compaction(&self.ctx);
        self.commits.commit(&self.ctx, &mut self.books)?;
        let marks = self.commits.sync_export()?;
        let header = self.with_accounts(self.commits.next_header(marks));
        let changed = self.pairs.changed();
        let writes: Vec<_> = changed.map(|(_, pair)| pair_write(pair)).collect();
        self.commits.write_checkpoint(header, &writes, completes)?;
        drop(writes);
        self.pairs.mark_applied();
        self.pairs.forget_idle(ACTIVE_PAIRS_MAX);
        if completes {
            self.commits.publish_state(&self.ctx)?;
        }
        self.renew_view()
    }

    /// Writes a checkpoint if the journal or the memory of the changes is long enough, on another thread where day-files
    /// grow: their next rows need not wait for it. A history that is read needs the memory instead.
    pub(super) fn checkpoint_if_due(&mut self) -> Result<(), EngineError> {
        if self.commits.has_checkpointed() || self.is_checkpoint_due() {
            self.end_checkpoint()?;
        }
        if self.commits.is_checkpointing() || !self.is_checkpoint_due() {
            return Ok(());
        }
        if self.queue.follows_hints()
            && self.commits.may_checkpoint_aside(&self.ctx)
            && self.begin_checkpoint()?
        {
            return Ok(());
        }
        self.checkpoint_and(false)
    }

    /// Returns whether the journal or the changes that it holds are long enough for a checkpoint: twice as long while one
    /// is written.
    pub(super) fn is_checkpoint_due(&self) -> bool {
        let factor = 1 + u64::from(self.commits.is_checkpointing());
        self.commits.journal_bytes() >= self.ctx.checkpoint_bytes * factor || self.are_changes_due()
    }

    /// Returns whether the changes that the journal holds are enough for a checkpoint.
    pub(super) fn are_changes_due(&self) -> bool {
        let factor = 1 + usize::from(self.commits.is_checkpointing());
        self.pairs.overlay_entries() >= OVERLAY_ENTRIES_MAX * factor
            || self.commits.ledger.changes_len() >= LEDGER_CHANGES_MAX * factor
    }

    /// Begins to write all that the journal holds into the state, on another thread. Returns false where none can be
    /// started.
    fn begin_checkpoint(&mut self) -> Result<bool, EngineError> {
        self.commits.end_compaction(&self.ctx);
        self.commits.commit(&self.ctx, &mut self.books)?;
        let header = self.with_accounts(self.commits.next_header_aside()?);
        let changed = self.pairs.changed();
        let pairs = changed.map(|(path, pair)| (path.clone(), Arc::clone(pair)));
        let pairs = pairs.collect();
        Ok(self.commits.begin_checkpoint(&self.ctx, header, pairs))
    }

    /// Waits for the checkpoint that another thread writes, if one does, and takes it over.
    pub(super) fn end_checkpoint(&mut self) -> Result<(), EngineError> {
        let Some(written) = self.commits.end_checkpoint()? else {
            return Ok(());
        };
        self.pairs.mark_written(written.pairs);
        self.pairs.forget_idle(ACTIVE_PAIRS_MAX);
        let now_us = self.ctx.clock.monotonic_us();
        let took_us = now_us.saturating_sub(written.started_us);
        self.books.metrics.checkpointed(took_us);
        self.renew_view()
    }

    /// Takes over the checkpoint that another thread has written, if it is written.
    pub(super) fn test_checkpoint(&mut self, now_ms: u64) -> Result<(), EngineError> {
        match self.commits.has_checkpointed() {
            true => self.end_checkpoint(),
            false => {
                self.commits.test_later(now_ms);
                Ok(())
            }
        }
    }

    /// Returns whether a checkpoint would write anything.
    pub(super) fn has_uncheckpointed(&self) -> bool {
        self.commits.journal_bytes() > 0
            || self.pairs.any_changed()
            || self.commits.ledger.has_changes()
    }

    /// Returns a header with the accounts of this moment.
    pub(super) fn with_accounts(&self, header: Header) -> Header {
        Header {
            account: self.books.account.clone(),
            pair_next: self.pairs.next_id(),
            claimable: self.pairs.claimable(),
            ..header
        }
    }

    /// Reopens the state if a call to it failed, on any thread, before anything is read or merged. The overlays still
    /// hold what the journal holds.
    ///
    /// # Errors
    /// The state cannot be reopened, or is damaged.
    pub fn reopen_state_if_failed(&mut self) -> Result<(), EngineError> {
        if !self.commits.has_state_failed()? {
            return Ok(());
        }
        // It may have failed too, and holds the file.
        self.end_checkpoint().or_else(|error| {
            if error.is_transient() {
                Ok(())
            } else {
                Err(error)
            }
        })?;
        self.commits.reopen_state(&self.ctx)?;
        if !self.has_uncheckpointed() {
            let header = self.commits.state.header();
            self.pairs.reload(header);
            self.runs_without_lines = RunsWithoutLines::default();
            self.books.account = header.account.clone();
            self.queue.settling.stop_all();
        }
        self.commits.mark_state_reopened();
        self.renew_view()
    }

    pub(super) fn renew_view(&mut self) -> Result<(), EngineError> {
        self.pairs.set_view(self.commits.state_view()?);
        Ok(())
    }

    /// Verifies that the open export, state and journal still match their paths.
    ///
    /// # Errors
    /// Errors of the export; [`crate::store::state::error::StateError::Damaged`] where state or journal were removed or
    /// replaced.
    pub fn check_files(&mut self) -> Result<(), EngineError> {
        self.commits.check_files(&self.ctx)
    }
}

#[cfg(test)]
mod tests;
