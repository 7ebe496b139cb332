//! What the cache keeps of the pairs after a checkpoint, also after one during which they changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::engine::committer::background::CheckpointPairs;
use crate::engine::pairs::PairCache;
use crate::pair::{ActivePair, Overlay};

impl PairCache {
    /// Removes the overlays, which are part of the state after a checkpoint.
    pub(in crate::engine) fn mark_applied(&mut self) {
        self.claimed = Arc::default();
        self.claimed_in_pass.clear();
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
    }

    /// Removes the changes that the state has: all of a pair that has not changed since the checkpoint began, and of
    /// another one those that are as they were.
    pub(in crate::engine) fn mark_written(&mut self, written: CheckpointPairs) {
        // Without this copy the pairs that are as they were would be copied to be changed.
        let written = Arc::try_unwrap(written).unwrap_or_else(|shared| (*shared).clone());
        for (path, before) in written {
            let Some(slot) = self.slots.get_mut(&path) else {
                continue;
            };
            slot.changed = !Arc::ptr_eq(&slot.pair, &before);
            if slot.changed {
                let pair = Arc::make_mut(&mut slot.pair);
                pair.persisted = true;
                remove_written(pair, &before);
            } else {
                drop(before);
                let pair = Arc::make_mut(&mut slot.pair);
                pair.persisted = true;
                pair.overlay = Overlay::default();
            }
        }
        self.recount_changes();
    }

    fn recount_changes(&mut self) {
        self.inodes.clear();
        self.overlay_entries = 0;
        self.any_changed = false;
        // Those of this pass are in the overlays too.
        self.claimed_in_pass.clear();
        let mut claimed = BTreeSet::new();
        for (path, slot) in self.slots.iter().filter(|(_, slot)| slot.changed) {
            self.inodes.insert(path, &slot.pair.checkpoint);
            self.overlay_entries += slot.pair.overlay.len();
            self.any_changed = true;
            claimed.extend(slot.pair.overlay.claimed_rows.iter().copied());
        }
        self.claimed = Arc::new(claimed);
    }
}

/// Removes the changes of a pair that a checkpoint has written.
fn remove_written(pair: &mut ActivePair, written: &ActivePair) {
    let (overlay, written) = (&mut pair.overlay, &written.overlay);
    overlay
        .evidence
        .retain(|run, place| written.evidence.get(run) != Some(place));
    overlay
        .entries
        .retain(|key, line| written.entries.get(key) != Some(line));
    overlay.dead_letters.drain(..written.dead_letters.len());
    overlay.claimed_rows.drain(..written.claimed_rows.len());
}
