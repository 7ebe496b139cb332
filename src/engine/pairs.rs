//! The pair cache: checkpoints and overlays of pairs, in memory or in the state. It opens no day-file and writes nothing.

mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::engine::problems::Problems;
use crate::engine::read::{PairMemory, is_gone};
use crate::engine::relocate::Inodes;
use crate::engine::{Engine, EngineError};
use crate::lake::identity::{SourceState, StatFingerprint};
use crate::lake::path::{PairPath, Stream};
use crate::pair::checkpoint::{PairCheckpoint, Review};
use crate::pair::index::{PairId, UnclaimedRow};
use crate::pair::orders::Orders;
use crate::pair::{ActivePair, Overlay};
use crate::store::journal::batch::PairDelta;
use crate::store::replay::Replay;
use crate::store::snapshot::{StateSnapshot, pair_path};
use crate::store::state::StateView;
use crate::store::state::error::StateError;
use crate::store::state::header::Header;

/// Maximum pairs of which an idle engine keeps the problems; more would fill the memory.
const PAIRS_WITH_PROBLEMS_MAX: usize = 256;

/// A pair in memory.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) pair: Arc<ActivePair>,
    pub(super) memory: PairMemory,
    /// Whether a checkpoint would write it.
    changed: bool,
}

/// All pairs, those in memory over those in the state.
#[derive(Debug)]
pub(crate) struct PairCache {
    view: Arc<StateView>,
    slots: BTreeMap<PairPath, Slot>,
    /// The problems of the last reads, of pairs that have any. They are kept when a pair is loaded again: no other place
    /// knows that its day-files cannot be read.
    pub(super) problems: BTreeMap<PairPath, Problems>,
    next_id: u32,
    /// Number of rows in the export that no line owns.
    claimable: u64,
    /// Rows that were claimed since the last checkpoint; the state still lists them as unclaimed.
    claimed: Arc<BTreeSet<UnclaimedRow>>,
    /// Further ones, of merges while reads had `claimed`, which would be copied for each. The next pass adds them; until
    /// then a merge finds that a read claimed one of them too.
    claimed_in_pass: Vec<UnclaimedRow>,
    inodes: Inodes,
    /// Whether a pair changed since the last checkpoint.
    any_changed: bool,
    /// Time of the last change that a checkpoint would write, monotonic milliseconds.
    changed_at_ms: u64,
    /// Entries of all overlays.
    overlay_entries: usize,
}

impl PairCache {
    pub(super) fn new(view: Arc<StateView>, header: &Header, now_ms: u64) -> Self {
        Self {
            view,
            slots: BTreeMap::new(),
            problems: BTreeMap::new(),
            next_id: header.pair_next,
            claimable: header.claimable,
            claimed: Arc::default(),
            claimed_in_pass: Vec::new(),
            inodes: Inodes::default(),
            any_changed: false,
            changed_at_ms: now_ms,
            overlay_entries: 0,
        }
    }

    pub(super) fn view(&self) -> &Arc<StateView> {
        &self.view
    }

    pub(super) fn set_view(&mut self, view: Arc<StateView>) {
        self.view = view;
    }

    pub(super) fn next_id(&self) -> u32 {
        self.next_id
    }

    pub(super) fn claimable(&self) -> u64 {
        self.claimable
    }

    pub(super) fn claimed(&self) -> &Arc<BTreeSet<UnclaimedRow>> {
        &self.claimed
    }

    /// Makes the reads of the next pass know all claims.
    pub(super) fn begin_pass(&mut self) {
        let claimed = std::mem::take(&mut self.claimed_in_pass);
        if !claimed.is_empty() {
            Arc::make_mut(&mut self.claimed).extend(claimed);
        }
    }

    pub(super) fn any_changed(&self) -> bool {
        self.any_changed
    }

    pub(super) fn changed_at_ms(&self) -> u64 {
        self.changed_at_ms
    }

    /// Returns the number of changes that the state does not have.
    pub(super) fn overlay_entries(&self) -> usize {
        self.overlay_entries
    }

    /// Returns the pairs in memory.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&PairPath, &Slot)> {
        self.slots.iter()
    }

    /// Returns the pairs that a checkpoint would write.
    pub(super) fn changed(&self) -> impl Iterator<Item = (&PairPath, &Arc<ActivePair>)> {
        let changed = self.slots.iter().filter(|(_, slot)| slot.changed);
        changed.map(|(path, slot)| (path, &slot.pair))
    }

    /// Returns the checkpoint of a pair; `None` where it was never read.
    pub(super) fn checkpoint(&self, path: &PairPath) -> Result<Option<PairCheckpoint>, StateError> {
        if let Some(slot) = self.slots.get(path) {
            return Ok(Some(slot.pair.checkpoint.clone()));
        }
        let id = self.view.pair_id(path.as_bytes())?;
        id.map(|id| self.view.checkpoint(id)).transpose()
    }

    /// Returns the paths at which scored day-files with this inode were read.
    pub(super) fn paths_with_inode(&self, inode: u64) -> Result<Vec<PairPath>, StateError> {
        let mut paths = self.inodes.paths(inode);
        for id in self.view.pairs_with_inode(inode)? {
            paths.extend(pair_path(&self.view.checkpoint(id)?));
        }
        Ok(paths)
    }

    /// Returns the pair at a path, loaded from the state where it is not in memory, or new.
    pub(super) fn slot(&mut self, path: &PairPath) -> Result<&mut Slot, StateError> {
        if !self.slots.contains_key(path) {
            let stored_id = self.view.pair_id(path.as_bytes())?;
            let id = stored_id.unwrap_or(PairId(self.next_id));
            self.load(path, id, stored_id.is_some())?;
        }
        Ok(self.slots.get_mut(path).expect("it was just inserted"))
    }

    /// Returns the number of the pair at a path. The next checkpoint writes the pair, also one that was never read, so that
    /// the number stays the same.
    pub(super) fn keep_id(&mut self, path: &PairPath) -> Result<PairId, StateError> {
        let slot = self.slot(path)?;
        let (id, is_new) = (slot.pair.id, !slot.pair.persisted);
        slot.changed |= is_new;
        self.any_changed |= is_new;
        Ok(id)
    }

    /// Changes what the next checkpoint writes of a source. It is lost if there is none: the caller can find it again.
    pub(super) fn change_source(
        &mut self,
        path: &PairPath,
        stream: Stream,
        change: impl FnOnce(&mut SourceState),
    ) -> Result<(), StateError> {
        let slot = self.slot(path)?;
        change(Arc::make_mut(&mut slot.pair).checkpoint.source_mut(stream));
        slot.changed = true;
        self.any_changed = true;
        Ok(())
    }

    fn load(&mut self, path: &PairPath, id: PairId, persisted: bool) -> Result<(), StateError> {
        let checkpoint = if persisted {
            self.view.checkpoint(id)?
        } else {
            PairCheckpoint::new(path.as_bytes().to_vec())
        };
        self.next_id = self.next_id.max(id.0 + 1);
        let pair = ActivePair {
            id,
            checkpoint,
            overlay: Overlay::default(),
            persisted,
        };
        let slot = Slot {
            pair: Arc::new(pair),
            memory: PairMemory::default(),
            changed: false,
        };
        self.slots.insert(path.clone(), slot);
        Ok(())
    }

    /// Applies the outcome of a read to its pair, which is in memory. Returns what the journal has to hold of it, `None`
    /// where that is nothing: a mere change of a stat costs one more read if it is lost.
    pub(super) fn apply(
        &mut self,
        path: &PairPath,
        checkpoint: PairCheckpoint,
        overlay: Overlay,
        now_ms: u64,
    ) -> Option<PairDelta> {
        let slot = self.slots.get_mut(path).expect("the pair was just read");
        let before = &slot.pair.checkpoint;
        let is_journaled = !overlay.is_empty() || bytes_read(before, &checkpoint) > 0;
        self.changed_at_ms = now_ms;
        let pair = self.put(path, checkpoint, &overlay);
        let delta = is_journaled.then(|| PairDelta::new(pair.id, &pair.checkpoint, &overlay));
        pair.overlay.extend(overlay);
        delta
    }

    /// Takes over the pairs that the replayed journal changed, and the sums over all pairs.
    pub(crate) fn restore(&mut self, replay: Replay) {
        self.claimed = Arc::new(replay.claimed());
        self.claimable = replay.claimable;
        self.next_id = replay.pair_next;
        self.any_changed = !replay.pairs.is_empty();
        for (path, pair) in replay.pairs {
            self.inodes.insert(&path, &pair.checkpoint);
            self.overlay_entries += pair.overlay.len();
            let slot = Slot {
                pair: Arc::new(pair),
                memory: PairMemory::default(),
                changed: true,
            };
            self.slots.insert(path, slot);
        }
    }

    /// Replaces the checkpoint of a pair in memory, and counts the overlay that the caller adds to the returned pair.
    fn put(
        &mut self,
        path: &PairPath,
        checkpoint: PairCheckpoint,
        overlay: &Overlay,
    ) -> &mut ActivePair {
        self.inodes.insert(path, &checkpoint);
        self.claimable -= overlay.claimed_rows.len() as u64;
        match Arc::get_mut(&mut self.claimed) {
            Some(claimed) => claimed.extend(&overlay.claimed_rows),
            None => self.claimed_in_pass.extend(&overlay.claimed_rows),
        }
        self.overlay_entries += overlay.len();
        self.any_changed = true;
        let slot = self.slots.get_mut(path).expect("the caller loaded it");
        slot.changed = true;
        let pair = Arc::make_mut(&mut slot.pair);
        pair.checkpoint = checkpoint;
        pair
    }

    /// Removes a pair that was reset in the state, whose header then lists this many claimable rows.
    pub(super) fn remove_reset(&mut self, path: &PairPath, claimable: u64) {
        self.slots.remove(path);
        self.claimable = claimable;
    }

    /// Forgets all pairs and continues from the state. Nothing may have changed since the last checkpoint.
    pub(super) fn reload(&mut self, header: &Header) {
        self.slots.clear();
        self.next_id = header.pair_next;
        self.claimable = header.claimable;
    }

    /// Removes pairs from memory until at most `keep` are left. Pairs with anything that only the memory holds stay; the
    /// others are loaded again at their next read.
    pub(super) fn forget_idle(&mut self, keep: usize) {
        let mut surplus = self.slots.len().saturating_sub(keep);
        while surplus > 0 && self.problems.len() > PAIRS_WITH_PROBLEMS_MAX {
            self.problems.pop_last();
        }
        self.slots.retain(|_, slot| {
            let keep = surplus == 0 || slot.changed || slot.memory.may_settle();
            surplus -= usize::from(!keep);
            keep
        });
    }

    /// Forgets how far each source was searched for a newline, which depends on the maximum line length.
    pub(super) fn reset_scan_positions(&mut self) {
        for slot in self.slots.values_mut() {
            slot.memory.scored.scanned_to = 0;
            slot.memory.evidence.scanned_to = 0;
        }
    }

    /// Returns a snapshot of all pairs, for readers on other threads.
    pub(super) fn snapshot(&self, orders: &Arc<Orders>) -> StateSnapshot {
        let mut claimed = Arc::clone(&self.claimed);
        if !self.claimed_in_pass.is_empty() {
            Arc::make_mut(&mut claimed).extend(&self.claimed_in_pass);
        }
        let changed = self.changed();
        StateSnapshot {
            view: Arc::clone(&self.view),
            changed: changed
                .map(|(path, pair)| (path.clone(), Arc::clone(pair)))
                .collect(),
            claimed,
            claimable: self.claimable,
            orders: Arc::clone(orders),
            recent_flags: Arc::default(),
        }
    }
}

/// Returns the bytes of both sources that were read between two checkpoints of a pair.
pub(super) fn bytes_read(before: &PairCheckpoint, after: &PairCheckpoint) -> u64 {
    after.scored.offset - before.scored.offset + after.evidence.offset - before.evidence.offset
}

impl Engine {
    /// Returns whether a day-file may have unread bytes, by its stat, and records their number as lag.
    ///
    /// # Errors
    /// [`EngineError::State`] where the state cannot be read.
    pub fn has_changed(
        &mut self,
        path: &PairPath,
        stream: Stream,
        seen: StatFingerprint,
    ) -> Result<bool, EngineError> {
        let checkpoint = self.known_checkpoint(path)?;
        let source = checkpoint.as_ref().map(|known| known.source(stream));
        // Only the process that ended before could have examined its rows.
        let is_unreviewed = checkpoint.as_ref().is_some_and(|known| {
            known.review.contains(Review::REREAD) && !self.reread.contains(path)
        });
        // A day-file that could not be read is read again, also if it is as it was when it could.
        let is_due = is_unreviewed || self.pairs.is_unreadable(path, stream);
        if !is_due && source.is_some_and(|source| source.seen == seen) {
            return Ok(false);
        }
        let offset = source.map_or(0, |source| source.offset);
        let bytes = seen.len_bytes.saturating_sub(offset);
        let now_ms = self.ctx.clock.monotonic_ms();
        self.books.backlog.on_measured(path, stream, bytes, now_ms);
        Ok(true)
    }

    /// Returns the number of unread bytes of a day-file that is `len_bytes` long.
    ///
    /// # Errors
    /// [`EngineError::State`] where the state cannot be read.
    pub fn unread_bytes(
        &mut self,
        path: &PairPath,
        stream: Stream,
        len_bytes: u64,
    ) -> Result<u64, EngineError> {
        let checkpoint = self.known_checkpoint(path)?;
        let read_bytes = checkpoint.map_or(0, |checkpoint| checkpoint.source(stream).offset);
        Ok(len_bytes.saturating_sub(read_bytes))
    }

    /// Returns whether a day-file that does not exist now existed at the last read of its pair.
    ///
    /// # Errors
    /// [`EngineError::State`] where the state cannot be read.
    pub fn has_disappeared(
        &mut self,
        path: &PairPath,
        stream: Stream,
    ) -> Result<bool, EngineError> {
        // The state does not know a day-file that holds nothing but an unterminated line, or could not be read.
        if self.books.partial_lines.is_in(path, stream) || self.pairs.is_unreadable(path, stream) {
            return Ok(true);
        }
        let checkpoint = self.known_checkpoint(path)?;
        Ok(checkpoint.is_some_and(|checkpoint| {
            let source = checkpoint.source(stream);
            source.identity.is_some() && !is_gone(source)
        }))
    }

    /// Returns the checkpoint of a pair; `None` where it was never read.
    ///
    /// # Errors
    /// [`EngineError::State`] where the state cannot be read.
    pub(crate) fn known_checkpoint(
        &mut self,
        path: &PairPath,
    ) -> Result<Option<PairCheckpoint>, EngineError> {
        let checkpoint = self.pairs.checkpoint(path).map_err(EngineError::from);
        self.commits.mark_state_failed(checkpoint)
    }
}
