//! What the cache keeps of the pairs after a checkpoint, also after one during which they changed.

use std::collections::{BTreeMap, BTreeSet};
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
    if overlay.dead_letters.starts_with(&written.dead_letters) {
        overlay.dead_letters.drain(..written.dead_letters.len());
    } else {
        // The source is being read again, and its dead letters replace those of the earlier reading.
        let letters = written.dead_letters.iter();
        let known: BTreeMap<_, _> = letters.map(|letter| (letter.place(), letter)).collect();
        overlay
            .dead_letters
            .retain(|letter| known.get(&letter.place()) != Some(&letter));
    }
    overlay.claimed_rows.drain(..written.claimed_rows.len());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::checkpoint::PairCheckpoint;
    use crate::pair::index::{DeadLetter, PairId};

    /// The source was read again during the checkpoint, which wrote the dead letters of the earlier reading.
    #[test]
    fn dead_letters_of_a_second_reading_stay_unless_they_were_written() {
        let letter = |offset, reason: &str| DeadLetter {
            in_evidence: true,
            offset,
            len_bytes: 1,
            reason: reason.to_owned(),
        };
        let pair = |dead_letters| ActivePair {
            id: PairId(1),
            checkpoint: PairCheckpoint::new(Vec::new()),
            overlay: Overlay {
                dead_letters,
                ..Overlay::default()
            },
            persisted: true,
        };
        let written = pair(vec![letter(0, "a"), letter(5, "a"), letter(9, "a")]);
        let mut again = pair(vec![letter(0, "a"), letter(5, "b")]);
        remove_written(&mut again, &written);
        assert_eq!(again.overlay.dead_letters, [letter(5, "b")]);
        let mut further = written.clone();
        further.overlay.dead_letters.push(letter(11, "a"));
        remove_written(&mut further, &written);
        assert_eq!(further.overlay.dead_letters, [letter(11, "a")]);
    }
}
