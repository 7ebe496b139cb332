//! Owns the moment at which a batch counts: commit, then show; and the checkpoint that takes into the state what the
//! journal holds. It knows nothing of day-files.

use std::sync::Arc;

use crate::engine::sealed_batch::{Committing, Durable, Sealed};
use crate::engine::{Engine, EngineError, OVERLAY_ENTRIES_MAX};
use crate::pair::{ActivePair, Overlay};
use crate::platform::background::Beside;
use crate::store::state::blocks::packed;
use crate::store::state::header::Header;
use crate::store::state::{PairWrite, State};

/// Pairs kept in memory between checkpoints.
const ACTIVE_PAIRS_MAX: usize = 2_048;
/// Pairs kept because something is wrong with their day-files.
const SAID_PAIRS_MAX: usize = 256;
/// Rows that are committed on another thread at most. More are of a long text, and of those few may be in memory at once.
const BESIDE_BYTES_MAX: usize = 12 << 20;

impl Engine {
    /// Commits and shows all that was merged.
    ///
    /// # Errors
    /// Rules 3 and 4; the journal's and the export's.
    pub fn commit(&mut self) -> Result<(), EngineError> {
        self.finish_commit()?;
        self.append_committed()?;
        if self.pending.delta.pairs.is_empty() {
            return Ok(());
        }
        let sealed = self.seal()?;
        self.commit_here(sealed)?;
        self.append_committed()
    }

    fn commit_here(&mut self, sealed: Arc<Sealed>) -> Result<(), EngineError> {
        let durable = sealed.make_durable(&self.journal.next_frame(), &*self.setup.clock);
        self.note_durable(sealed, durable)
    }

    /// Commits what was merged on another thread, and shows meanwhile what was committed before: while a disk syncs, rows
    /// are made. With one thread, and with long texts, all is done in order.
    ///
    /// # Errors
    /// Those of [`Self::commit`], also of the commit before.
    pub(super) fn begin_commit(&mut self) -> Result<(), EngineError> {
        if self.setup.threads == 1 || self.pending.rows.len_bytes() > BESIDE_BYTES_MAX {
            return self.commit();
        }
        self.finish_commit()?;
        if self.pending.delta.pairs.is_empty() {
            return self.append_committed();
        }
        let sealed = self.seal()?;
        let clock = Arc::clone(&self.setup.clock);
        match Committing::begin(&sealed, self.journal.next_frame(), clock) {
            Ok(committing) => self.committing = Some(committing),
            // No thread is to be had.
            Err(_) => self.commit_here(sealed)?,
        }
        self.append_committed()
    }

    /// Waits for the commit that another thread makes, if there is one.
    ///
    /// # Errors
    /// Its own: then nothing of it counts, and it is merged as if it had never begun.
    pub(super) fn finish_commit(&mut self) -> Result<(), EngineError> {
        let Some(committing) = self.committing.take() else {
            return Ok(());
        };
        let Committing { sealed, durable } = committing;
        let durable = durable.finish();
        self.note_durable(sealed, durable)
    }

    /// A pass failed. The commit that runs besides must not: what it says may be worse.
    pub(super) fn abort_pass(&mut self, error: EngineError) -> EngineError {
        self.state_failed |= error.is_of_the_store();
        match self.finish_commit() {
            Err(of_commit) if error.is_transient() => of_commit,
            _ => error,
        }
    }

    /// What was merged, as a batch that is to be committed. Rule 4 is asserted here.
    fn seal(&mut self) -> Result<Arc<Sealed>, EngineError> {
        self.reopen_state_if_failed()?;
        // Once the journal holds a batch the next start writes it where it belongs, over whatever others appended there.
        self.export.check()?;
        for delta in &self.pending.delta.pairs {
            delta.checkpoint.balance()?;
        }
        if !self.account.balanced() {
            return Err(EngineError::LineTotals(Box::new(self.account.clone())));
        }
        self.pending.delta.mark = self.state.header().export;
        self.pending.delta.export_from = self.committed_bytes();
        Ok(Arc::new(Sealed {
            batch: std::mem::take(&mut self.pending),
            changed_ms: std::mem::take(&mut self.pending_changed_ms),
        }))
    }

    fn note_durable(
        &mut self,
        sealed: Arc<Sealed>,
        durable: Result<Durable, EngineError>,
    ) -> Result<(), EngineError> {
        match durable {
            Ok(Durable { frame, took_us }) => {
                self.journal.wrote(&frame);
                self.meters.committed(took_us);
                self.unappended.push(sealed);
                Ok(())
            }
            Err(error) => {
                self.unseal(Arc::unwrap_or_clone(sealed));
                Err(error)
            }
        }
    }

    /// A batch was not committed: its rows stand at the same place in the next one.
    fn unseal(&mut self, sealed: Sealed) {
        let Sealed {
            mut batch,
            mut changed_ms,
        } = sealed;
        let merged_since = std::mem::take(&mut self.pending);
        batch.delta.pairs.extend(merged_since.delta.pairs);
        batch.rows.extend([merged_since.rows]);
        changed_ms.append(&mut self.pending_changed_ms);
        self.pending = batch;
        self.pending_changed_ms = changed_ms;
    }

    /// Where the export will end when all is shown that is sealed.
    pub(crate) fn committed_bytes(&self) -> u64 {
        let committing = self
            .committing
            .as_ref()
            .map(|committing| &committing.sealed);
        match committing.or(self.unappended.last()) {
            Some(last) => last.batch.export_to(),
            None => self.export.len_bytes(),
        }
    }

    /// Whether all rows that were made are in the export.
    pub(super) fn nothing_is_unshown(&self) -> bool {
        self.pending.rows.is_empty() && self.committing.is_none() && self.unappended.is_empty()
    }

    /// Takes all that the journal holds into the state, so that the journal starts anew.
    ///
    /// # Errors
    /// Those of a commit, of syncing the export, and of the state.
    pub fn checkpoint(&mut self) -> Result<(), EngineError> {
        let began_us = self.setup.clock.monotonic_us();
        let done = self
            .reopen_state_if_failed()
            .and_then(|()| self.apply_journal());
        if done.is_ok() {
            let took_us = self.setup.clock.monotonic_us().saturating_sub(began_us);
            self.meters.checkpointed(took_us);
        }
        self.mark_state_failed(done)
    }

    fn apply_journal(&mut self) -> Result<(), EngineError> {
        self.commit()?;
        self.finish_sync()?;
        let export = self.export.sync()?;
        let header = Header {
            seq_applied: self.journal.seq(),
            journal_epoch: self.journal.epoch() + 1,
            export,
            guard: self.export.guard(),
            ..self.header()
        };
        let writes: Vec<_> = self
            .slots
            .values()
            .filter(|slot| slot.changed)
            .map(|slot| pair_write(&slot.pair))
            .collect();
        let journal_epoch = header.journal_epoch;
        self.state.note_segments(self.export.finished_segments());
        self.state
            .checkpoint(header, &writes)
            .inspect_err(|_| self.state_failed = true)?;
        drop(writes);
        self.export.segments_taken_in();
        self.journal.restart(journal_epoch);
        self.claimed = Arc::default();
        self.inodes.clear();
        self.overlay_entries = 0;
        self.any_changed = false;
        for slot in self.slots.values_mut() {
            if slot.changed {
                let pair = Arc::make_mut(&mut slot.pair);
                pair.overlay = Overlay::default();
                pair.persisted = true;
                slot.changed = false;
            }
        }
        self.forget_idle_pairs(ACTIVE_PAIRS_MAX);
        self.renew_view()
    }

    pub(super) fn checkpoint_if_due(&mut self) -> Result<(), EngineError> {
        let due = self.journal.len_bytes() >= self.setup.checkpoint_bytes
            || self.overlay_entries >= OVERLAY_ENTRIES_MAX;
        if due { self.checkpoint() } else { Ok(()) }
    }

    pub(super) fn append_committed(&mut self) -> Result<(), EngineError> {
        while let Some(sealed) = self.unappended.first() {
            let batch = &sealed.batch;
            if !batch.rows.is_empty() {
                self.export.append(batch.delta.export_from, &batch.rows)?;
            }
            let shown = self.unappended.remove(0);
            self.on_appended(&shown.changed_ms);
            if let Some(shown) = Arc::into_inner(shown) {
                let pieces = shown.batch.rows.into_pieces();
                pieces.for_each(|rows| self.buffers.rows_shown(rows));
            }
        }
        self.sync_early()
    }

    /// Has another thread make durable what the export has gained, now and then: a checkpoint would have to wait for all of
    /// it at once, and everybody for the checkpoint.
    fn sync_early(&mut self) -> Result<(), EngineError> {
        if self.syncing.as_ref().is_some_and(|it| !it.is_done()) {
            return Ok(());
        }
        // One that failed is told with the next row, and not when much has come.
        self.finish_sync()?;
        let is_much = self.export.unsynced_bytes() >= self.setup.batch_bytes as u64;
        if self.setup.threads == 1 || !is_much {
            return Ok(());
        }
        let sync = self.export.begin_sync();
        // Where no thread is to be had the checkpoint waits.
        self.syncing = Beside::begin("sync", move || sync.sync()).ok();
        Ok(())
    }

    fn finish_sync(&mut self) -> Result<(), EngineError> {
        match self.syncing.take() {
            Some(syncing) => Ok(syncing.finish()?),
            None => Ok(()),
        }
    }

    pub(super) fn has_uncheckpointed(&self) -> bool {
        self.journal.len_bytes() > 0 || self.any_changed
    }

    /// Before anything is read or merged: a state that failed is opened anew.
    pub(crate) fn reopen_state_if_failed(&mut self) -> Result<(), EngineError> {
        if self.state_failed {
            self.reopen_state()
        } else {
            Ok(())
        }
    }

    /// The store refuses all more after one failed call, also of a read: it must be opened anew.
    pub(crate) fn mark_state_failed<T>(
        &mut self,
        result: Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        self.state_failed |= result.as_ref().is_err_and(EngineError::is_of_the_store);
        result
    }

    /// After a call to it failed, redb refuses all more: open the same file again. What the journal holds is still
    /// in the overlays.
    pub(super) fn reopen_state(&mut self) -> Result<(), EngineError> {
        self.state = State::open(&*self.setup.storage, &self.state_path)?;
        let header = self.state.header().clone();
        // The transaction that was said to have failed may have reached the disk. Then the state holds the frames
        // of the old epoch; the next frame must be of the new one, or no recovery would look at it.
        if header.journal_epoch > self.journal.epoch() {
            self.journal.restart(header.journal_epoch);
        }
        if !self.has_uncheckpointed() {
            self.slots.clear();
            self.settling.clear();
            self.account = header.account;
            self.pair_next = header.pair_next;
            self.claimable = header.claimable;
        }
        self.state_failed = false;
        self.renew_view()
    }

    /// Pairs leave the memory until at most `keep` are left, or those with something that only the memory knows; they
    /// are loaded again when somebody writes to them.
    pub(super) fn forget_idle_pairs(&mut self, keep: usize) {
        let mut surplus = self.slots.len().saturating_sub(keep);
        let mut said = 0;
        self.slots.retain(|_, slot| {
            // What was said of a day-file is remembered, so that it is said once; of many not of all.
            let is_said = !slot.said.is_empty() && said < SAID_PAIRS_MAX;
            said += usize::from(is_said);
            let keep = surplus == 0 || slot.changed || slot.memory.may_settle() || is_said;
            surplus -= usize::from(!keep);
            keep
        });
    }

    pub(crate) fn header(&self) -> Header {
        Header {
            account: self.account.clone(),
            pair_next: self.pair_next,
            claimable: self.claimable,
            ..self.state.header().clone()
        }
    }

    pub(super) fn renew_view(&mut self) -> Result<(), EngineError> {
        self.view = Arc::new(self.state.view()?);
        Ok(())
    }

    /// That the files it keeps open are still those under their paths.
    ///
    /// # Errors
    /// The export's; [`crate::store::state::error::StateError::Damaged`] where state or journal are gone.
    pub fn check_files(&mut self) -> Result<(), EngineError> {
        self.export.check()?;
        for kept in &self.kept_files {
            kept.check(&*self.setup.storage)?;
        }
        Ok(())
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
