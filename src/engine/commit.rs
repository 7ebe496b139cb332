//! Commits and checkpoints of the whole engine: a commit makes merged rows durable and appends them to the export; a
//! checkpoint writes the changed pairs into the state, so that the journal restarts empty.

use crate::engine::{Engine, EngineError};
use crate::pair::ActivePair;
use crate::store::state::PairWrite;
use crate::store::state::blocks::packed;
use crate::store::state::header::Header;

/// Rows and orders that the ledger changed at which a checkpoint is due: about 2 MiB of memory.
const LEDGER_CHANGES_MAX: usize = 64 << 10;
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

    /// Writes all that the journal holds into the state, and restarts the journal.
    ///
    /// # Errors
    /// Errors of a commit, of the sync of the export, and of the state.
    pub fn checkpoint(&mut self) -> Result<(), EngineError> {
        let started_us = self.ctx.clock.monotonic_us();
        let result = self
            .reopen_state_if_failed()
            .and_then(|()| self.apply_journal());
        if result.is_ok() {
            let took_us = self.ctx.clock.monotonic_us().saturating_sub(started_us);
            self.books.metrics.checkpointed(took_us);
        }
        self.commits.mark_state_failed(result)
    }

    fn apply_journal(&mut self) -> Result<(), EngineError> {
        self.commits.end_compaction(&self.ctx);
        self.commits.commit(&self.ctx, &mut self.books)?;
        let marks = self.commits.sync_export()?;
        let header = self.with_accounts(self.commits.next_header(marks));
        let changed = self.pairs.changed();
        let writes: Vec<_> = changed.map(|(_, pair)| pair_write(pair)).collect();
        self.commits.write_checkpoint(header, &writes)?;
        drop(writes);
        self.pairs.mark_applied();
        self.pairs.forget_idle(ACTIVE_PAIRS_MAX);
        self.renew_view()
    }

    pub(super) fn checkpoint_if_due(&mut self) -> Result<(), EngineError> {
        let is_due = self.commits.journal_bytes() >= self.ctx.checkpoint_bytes
            || self.pairs.overlay_is_full()
            || self.commits.ledger.changes_len() >= LEDGER_CHANGES_MAX;
        if is_due { self.checkpoint() } else { Ok(()) }
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

    /// Reopens the state if a call to it failed, before anything is read or merged. The overlays still hold what the
    /// journal holds.
    pub(crate) fn reopen_state_if_failed(&mut self) -> Result<(), EngineError> {
        if !self.commits.state_failed() {
            return Ok(());
        }
        self.commits.reopen_state(&self.ctx)?;
        if !self.has_uncheckpointed() {
            let header = self.commits.state.header();
            self.pairs.reload(header);
            self.books.account = header.account.clone();
            self.queue.stop_all_settling();
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

fn pair_write(pair: &ActivePair) -> PairWrite<'_> {
    PairWrite {
        id: pair.id,
        is_new: !pair.persisted,
        checkpoint: &pair.checkpoint,
        evidence: packed(pair.overlay.evidence_entries()),
        entries: packed(pair.overlay.entries.values().copied()),
        dead_letters: &pair.overlay.dead_letters,
        claims: &pair.overlay.claimed_rows,
    }
}

#[cfg(test)]
mod tests;
