//! The committer's writes to the state: checkpoints, resets of a pair, and reopening it after a failed call.

use std::sync::Arc;

use crate::engine::committer::Committer;
use crate::engine::{EngineError, Setup};
use crate::store::export::ExportMark;
use crate::store::files::{BUILDING_FILE, STATE_FILE};
use crate::store::state::error::StateError;
use crate::store::state::header::{Header, LedgerMark};
use crate::store::state::{PairReset, PairWrite, State, StateView};

impl Committer {
    /// Makes all of the export and the ledger durable, and returns their marks.
    pub(in crate::engine) fn sync_export(
        &mut self,
    ) -> Result<(ExportMark, LedgerMark), EngineError> {
        self.finish_sync()?;
        let ledger = self.ledger.sync(&self.state.header().ledger)?;
        Ok((self.export.sync()?, ledger))
    }

    /// Returns the header of the next checkpoint, whose accounts the caller fills in.
    pub(in crate::engine) fn next_header(
        &self,
        (export, ledger): (ExportMark, LedgerMark),
    ) -> Header {
        Header {
            ledger,
            seq_applied: self.journal.seq(),
            journal_epoch: self.journal.epoch() + 1,
            export,
            guard: self.export.guard(),
            ..self.state.header().clone()
        }
    }

    /// Writes a checkpoint and restarts the journal. `completes` is whether the state gets the claims that only memory
    /// holds.
    pub(in crate::engine) fn write_checkpoint(
        &mut self,
        header: Header,
        pairs: &[PairWrite<'_>],
        completes: bool,
    ) -> Result<(), EngineError> {
        let journal_epoch = header.journal_epoch;
        self.state.record_segments(self.export.finished_segments());
        self.state.record_ledger(self.ledger.changes());
        let written = match completes {
            true => self.state.complete(header, pairs),
            false => self.state.checkpoint(header, pairs),
        };
        written.inspect_err(|_| self.state_failed = true)?;
        self.export.all_segments_applied();
        self.ledger.mark_applied();
        self.journal.restart(journal_epoch);
        Ok(())
    }

    /// Returns whether the next start would not use the state, but adopt the export again.
    pub(in crate::engine) fn is_provisional(&self) -> bool {
        self.state_path.ends_with(BUILDING_FILE)
    }

    /// Gives a provisional state, which is complete, the name by which the next start finds it.
    pub(in crate::engine) fn publish_state(&mut self, ctx: &Setup) -> Result<(), StateError> {
        if !self.is_provisional() {
            return Ok(());
        }
        let path = ctx.state_dir.join(STATE_FILE);
        let renamed = ctx.storage.rename(&self.state_path, &path);
        renamed.map_err(StateError::Io)?;
        self.open_files[0].renamed(&path);
        self.state_path = path;
        // Without this name the next start adopts the export again, and loses no row that was committed since.
        let synced = ctx.storage.sync_dir(&ctx.state_dir);
        synced.map_err(|error| StateError::Sync(error.to_string()))
    }

    /// Resets pairs in the state.
    pub(in crate::engine) fn reset_pairs(
        &mut self,
        header: Header,
        pairs: &[PairReset],
    ) -> Result<(), EngineError> {
        self.state
            .reset(header, pairs)
            .inspect_err(|_| self.state_failed = true)?;
        Ok(())
    }

    /// Returns whether a call to the state failed, so that it refuses all further ones. A query or a read on another thread
    /// may have made that call; a checkpoint in progress reports its own error when it ends.
    ///
    /// # Errors
    /// The failure, unless the state can be opened again after it.
    pub(in crate::engine) fn has_state_failed(&self) -> Result<bool, StateError> {
        match self.state.failure() {
            _ if self.state_failed => Ok(true),
            Some(StateError::Io(_)) => Ok(!self.is_checkpointing()),
            Some(failure) => Err(failure),
            None => Ok(false),
        }
    }

    /// Records whether a result is a failed call to the state.
    pub(crate) fn mark_state_failed<T>(
        &mut self,
        result: Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        self.state_failed |= result.as_ref().is_err_and(EngineError::is_store_failure);
        result
    }

    /// Opens the file of the failed state again.
    pub(in crate::engine) fn reopen_state(&mut self, ctx: &Setup) -> Result<(), EngineError> {
        let mut state = State::open(&*ctx.storage, &self.state_path)?;
        state.inherit_claims(&self.state);
        self.state = state;
        let journal_epoch = self.state.header().journal_epoch;
        // A transaction that was reported as failed may have reached the disk. The state holds the frames of the old epoch
        // then, and a recovery would ignore further frames of it: the next one must belong to the new epoch.
        if journal_epoch > self.journal.epoch() {
            self.journal.restart(journal_epoch);
        }
        Ok(())
    }

    pub(in crate::engine) fn mark_state_reopened(&mut self) {
        self.state_failed = false;
    }

    /// Opens a view of the state as it is now.
    pub(in crate::engine) fn state_view(&self) -> Result<Arc<StateView>, EngineError> {
        Ok(Arc::new(self.state.view()?))
    }

    /// Verifies that the open export, state and journal still match their paths.
    ///
    /// # Errors
    /// Errors of the export; [`crate::store::state::error::StateError::Damaged`] where state or journal were removed or
    /// replaced.
    pub(in crate::engine) fn check_files(&mut self, ctx: &Setup) -> Result<(), EngineError> {
        self.export.check()?;
        self.ledger.file.check()?;
        for file in &self.open_files {
            file.check(&*ctx.storage)?;
        }
        Ok(())
    }
}
