//! Owns the moment at which a batch counts: commit, then show; and the checkpoint that takes into the state what the
//! journal holds. It knows nothing of day-files.

use std::sync::Arc;

use crate::blocks::packed;
use crate::engine::{Engine, EngineError, OVERLAY_ENTRIES_MAX};
use crate::pair::{ActivePair, Overlay};
use crate::row;
use crate::state::{Header, PairWrite, State, StateError};

/// Pairs kept in memory between checkpoints.
const ACTIVE_PAIRS_MAX: usize = 2_048;
/// Pairs kept because something is wrong with their day-files.
const SAID_PAIRS_MAX: usize = 256;

impl Engine {
    /// Commits and shows all that was merged.
    ///
    /// # Errors
    /// Rules 3 and 4; the journal's and the export's.
    pub fn commit(&mut self) -> Result<(), EngineError> {
        self.show_unshown()?;
        if self.pending.delta.pairs.is_empty() {
            return Ok(());
        }
        self.heal_state()?;
        self.pending.delta.mark = self.state.header().export;
        self.pending.delta.export_from = self.export.len_bytes();
        if let Some(forbidden) = row::forbidden_in(&self.pending.rows) {
            return Err(EngineError::Forbidden(forbidden));
        }
        for delta in &self.pending.delta.pairs {
            delta.checkpoint.balance()?;
        }
        if !self.account.balanced() {
            return Err(EngineError::Totals(Box::new(self.account.clone())));
        }
        let began_us = self.setup.clock.monotonic_us();
        self.journal.append(&self.pending)?;
        let took_us = self.setup.clock.monotonic_us().saturating_sub(began_us);
        self.meters.committed(took_us);
        self.unshown = Some(std::mem::take(&mut self.pending));
        self.unshown_changed_ms = std::mem::take(&mut self.pending_changed_ms);
        self.show_unshown()
    }

    /// Takes all that the journal holds into the state, so that the journal starts anew.
    ///
    /// # Errors
    /// Those of a commit, of syncing the export, and of the state.
    pub fn checkpoint(&mut self) -> Result<(), EngineError> {
        let began_us = self.setup.clock.monotonic_us();
        let done = self.heal_state().and_then(|()| self.take_in_the_journal());
        if done.is_ok() {
            let took_us = self.setup.clock.monotonic_us().saturating_sub(began_us);
            self.meters.checkpointed(took_us);
        }
        self.note_state_failure(done)
    }

    fn take_in_the_journal(&mut self) -> Result<(), EngineError> {
        self.commit()?;
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

    pub(crate) fn checkpoint_if_due(&mut self) -> Result<(), EngineError> {
        let due = self.journal.len_bytes() >= self.setup.checkpoint_bytes
            || self.overlay_entries >= OVERLAY_ENTRIES_MAX;
        if due { self.checkpoint() } else { Ok(()) }
    }

    pub(crate) fn show_unshown(&mut self) -> Result<(), EngineError> {
        if let Some(batch) = &self.unshown {
            if !batch.rows.is_empty() {
                self.export.append(batch.delta.export_from, &batch.rows)?;
            }
            self.unshown = None;
            self.note_shown();
        }
        Ok(())
    }

    pub(crate) fn has_uncheckpointed(&self) -> bool {
        self.journal.len_bytes() > 0 || self.any_changed
    }

    /// Before anything is read or merged: a state that failed is opened anew.
    pub(crate) fn heal_state(&mut self) -> Result<(), EngineError> {
        if self.state_failed {
            self.reopen_state()
        } else {
            Ok(())
        }
    }

    /// The store refuses all more after one failed call, also of a read: it must be opened anew.
    pub(crate) fn note_state_failure<T>(
        &mut self,
        result: Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        self.state_failed |= matches!(result, Err(EngineError::State(StateError::Io(_))));
        result
    }

    /// After a call to it failed, redb refuses all more: open the same file again. What the journal holds is still
    /// in the overlays.
    pub(crate) fn reopen_state(&mut self) -> Result<(), EngineError> {
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
    pub(crate) fn forget_idle_pairs(&mut self, keep: usize) {
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

    pub(crate) fn renew_view(&mut self) -> Result<(), EngineError> {
        self.view = Arc::new(self.state.view()?);
        Ok(())
    }

    /// That the files it keeps open are still those under their paths.
    ///
    /// # Errors
    /// The export's; [`StateError::Damaged`] where state or journal are gone.
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
        checkpoint: &pair.checkpoint,
        evidence: pair
            .overlay
            .evidence_entries()
            .map(|entry| packed(&entry))
            .collect(),
        entries: pair.overlay.entries.values().map(packed).collect(),
        dead_letters: &pair.overlay.dead_letters,
        claims: &pair.overlay.claims,
    }
}
