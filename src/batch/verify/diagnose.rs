//! Explains unmatched rows from the sources: whether evidence in a file makes the row, whether the day-files changed
//! after it was written, and whether the daemon may not have taken a line without a row yet. Sums what the pairs show.

use std::collections::HashMap;
use std::sync::Arc;

use crate::batch::verify::compare::LineFact;
use crate::batch::verify::sought::{
    ALWAYS, LinesRead, NATIVE, OTHER_DIALECT, PairNotes, Place, REFUSED_ROLE, Settling, Sought,
    place_of,
};
use crate::batch::verify::stamps::Stamps;
use crate::batch::verify::tally::Explanation;
use crate::lake::path::PairPath;
use crate::record::keys::{LocalRowKey, LocalRunKey};

/// The last change of files that have tags, so that it can be determined for the files of all tags but one.
#[derive(Debug)]
struct LastChange<T> {
    latest: Option<(u64, T)>,
    /// The latest with another tag than `latest`.
    second: Option<(u64, T)>,
}

impl<T> Default for LastChange<T> {
    fn default() -> Self {
        Self {
            latest: None,
            second: None,
        }
    }
}

impl<T: Copy + Ord> LastChange<T> {
    fn add(&mut self, changed_ms: u64, tag: T) {
        let new = Some((changed_ms, tag));
        match self.latest {
            Some((known, same)) if same == tag => self.latest = Some((known.max(changed_ms), tag)),
            Some((known, _)) if known >= changed_ms => self.second = self.second.max(new),
            _ => self.second = std::mem::replace(&mut self.latest, new),
        }
    }

    /// Returns the last change of a file with another tag.
    fn except(&self, tag: Option<T>) -> Option<u64> {
        let others = [self.latest, self.second].into_iter().flatten();
        let others = others.filter(|(_, other)| Some(*other) != tag);
        others.map(|(ms, _)| ms).max()
    }
}

/// What the sources show of a key.
#[derive(Debug, Default)]
struct KeyNotes {
    run: Option<LocalRunKey>,
    /// The last change of a file with several lines of the key, of which at most one can have the place of a row.
    several_changed_ms: Option<u64>,
    /// The last changes of the other files, by the place of their only line.
    changed: LastChange<Place>,
}

/// What the sources show of the unmatched rows and lines of a slice.
#[derive(Debug)]
pub(super) struct Diagnosis<'s> {
    sought: &'s Sought<'s>,
    stamps: &'s Stamps,
    /// One for each place: the last changes of the evidence of lines with this place, by number of the pair.
    places: Vec<LastChange<u32>>,
    /// One for each key.
    keys: Vec<KeyNotes>,
    /// One for each row: the ways in which the sources make it.
    ways: Vec<u8>,
    /// The number of the pair whose evidence makes a row but for its role; `None` for several pairs.
    refused_in: HashMap<usize, Option<u32>>,
    pairs_read: u32,
    settling: HashMap<Arc<PairPath>, Settling>,
    /// Number of rows that were made of lines and evidence.
    pub(super) rows_made: u64,
}

impl<'s> Diagnosis<'s> {
    /// Returns a diagnosis without any pair.
    pub(super) fn new(sought: &'s Sought<'s>, stamps: &'s Stamps) -> Diagnosis<'s> {
        Diagnosis {
            places: sought
                .places
                .iter()
                .map(|_| LastChange::default())
                .collect(),
            keys: sought.keys.iter().map(|_| KeyNotes::default()).collect(),
            ways: vec![0; sought.rows.len()],
            refused_in: HashMap::new(),
            pairs_read: 0,
            settling: HashMap::new(),
            rows_made: 0,
            stamps,
            sought,
        }
    }

    /// Adds what a pair shows. `expected`: the number of lines of each key in it.
    pub(super) fn add_pair(
        &mut self,
        pair: &Arc<PairPath>,
        notes: PairNotes,
        expected: &[(LocalRowKey, u64)],
    ) {
        for (row, ways) in notes.ways {
            self.add_ways(row, ways);
        }
        self.note_changes(expected, &notes.lines, notes.scored_ms);
        for place in notes.lines.places {
            self.places[place].add(notes.evidence_ms, self.pairs_read);
        }
        self.pairs_read += 1;
        self.rows_made += notes.made;
        if notes.settling.scored.is_some() || notes.settling.run.is_some() {
            self.settling.insert(Arc::clone(pair), notes.settling);
        }
    }

    fn add_ways(&mut self, row: usize, ways: u8) {
        self.ways[row] |= ways;
        if ways & REFUSED_ROLE != 0 {
            let pair = Some(self.pairs_read);
            let known = self.refused_in.entry(row).or_insert(pair);
            *known = known.filter(|known| Some(*known) == pair);
        }
    }

    fn note_changes(
        &mut self,
        expected: &[(LocalRowKey, u64)],
        lines: &LinesRead,
        changed_ms: u64,
    ) {
        for (key, expected) in expected {
            let Ok(at) = self.sought.keys.binary_search(key) else {
                continue;
            };
            let notes = &mut self.keys[at];
            let found = lines.keys.get(key).copied().unwrap_or_default();
            notes.run = notes.run.or(found.run);
            match found.count {
                // Lines that were there are not any more: the file is being rewritten at this moment.
                count if count < *expected => notes.several_changed_ms = Some(ALWAYS),
                1 => notes.changed.add(changed_ms, found.place),
                _ => notes.several_changed_ms = notes.several_changed_ms.max(Some(changed_ms)),
            }
        }
    }

    fn notes_of(&self, key: LocalRowKey) -> Option<&KeyNotes> {
        let at = self.sought.keys.binary_search(&key).ok()?;
        self.keys.get(at)
    }

    /// Returns the explanation of a row, by its position among the rows that are sought.
    pub(super) fn explanation(&self, row: usize) -> Explanation {
        let ((key, fact), ways) = (self.sought.rows[row], self.ways[row]);
        if ways & NATIVE != 0 {
            return Explanation::Proven;
        }
        if ways & OTHER_DIALECT != 0 {
            return Explanation::OtherDialect;
        }
        let place = place_of(fact);
        let refused_in = self.refused_in.get(&row);
        let scored_ms = self.notes_of(key).and_then(|notes| {
            // The line of the row's place is as it was, but its day-file may have taken the place of another one, whose
            // evidence it has now. That evidence would not be of a refused role that makes the row.
            let changed_ms = notes.changed.except(place.filter(|_| refused_in.is_some()));
            changed_ms.max(notes.several_changed_ms)
        });
        let place = place.and_then(|place| self.sought.places.binary_search(&(key, place)).ok());
        let evidence = place.map(|place| &self.places[place]);
        let evidence_ms = match refused_in {
            None => evidence.and_then(|changed| changed.except(None)),
            Some(Some(pair)) => evidence.and_then(|changed| changed.except(Some(*pair))),
            Some(None) => None,
        };
        let is_mistimed = |stamp| self.stamps.is_too_late(fact.last_offset, stamp);
        let is_older = |changed_ms| {
            changed_ms == ALWAYS
                || fact.is_older_than(changed_ms)
                || fact.created_at.as_ref().is_some_and(is_mistimed)
        };
        match scored_ms.max(evidence_ms).is_some_and(is_older) {
            true => Explanation::SourceChange,
            false => Explanation::Impossible,
        }
    }

    /// Returns whether the daemon may not have taken a line of the key, or its evidence, yet.
    pub(super) fn is_settling(&self, key: LocalRowKey, line: &LineFact) -> bool {
        (self.settling.get(&line.pair)).is_some_and(|settling| {
            let run = || self.notes_of(key).and_then(|notes| notes.run);
            settling.scored == Some(line.span)
                || settling.run.is_some_and(|settling| run() == Some(settling))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_change_is_that_of_a_file_with_another_tag() {
        let places: [Place; 3] = [(0, Some(0)), (1, Some(0)), (1, None)];
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..2_000 {
            let mut change = LastChange::default();
            let mut lines = Vec::new();
            for _ in 0..random.usize(0..6) {
                let line = (random.u64(0..4), *random.choice(&places).unwrap());
                change.add(line.0, line.1);
                lines.push(line);
            }
            for place in places.into_iter().map(Some).chain([None]) {
                let others = lines.iter().filter(|(_, other)| Some(*other) != place);
                let expected = others.map(|(ms, _)| *ms).max();
                assert_eq!(change.except(place), expected, "{lines:?} {place:?}");
            }
        }
    }
}
