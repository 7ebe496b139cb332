//! Explains unmatched rows from the sources: whether evidence in a file makes the row, whether the day-files changed
//! after it was written, and whether the daemon may not have taken a line without a row yet.
//!
//! **Work.** Both day-files of a pair are read once, however many rows are unmatched. A row has two parts: the scored
//! line determines its frame, the evidence its sample. Each line and each evidence record makes its part once; rows are
//! found by the digests of both. Comparing each row with each line and each evidence record would take cubic time for
//! a run id that many lines share.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use crate::batch::line_reader::LineSpan;
use crate::batch::pair::LakeReader;
use crate::batch::verify::compare::LineFact;
use crate::batch::verify::day_file::{DayFile, Now};
use crate::batch::verify::parts_made::PartsMaker;
use crate::batch::verify::rows::RowFact;
use crate::batch::verify::tally::Explanation;
use crate::lake::path::{PairPath, Stream};
use crate::record::firewall::ACCEPTED;
use crate::record::json::escape::Dialect;
use crate::record::keys::{LocalRowKey, LocalRunKey};
use crate::record::parse;
use crate::record::parse::{ScoredRun, trim};

/// The time of the last change of a file that is gone, or is being rewritten: later than every row.
const ALWAYS: u64 = u64::MAX;

/// Ways in which evidence makes a sample, as bits.
const NATIVE: u8 = 1;
const OTHER_DIALECT: u8 = 2;
/// Only if the role of the evidence were not refused.
const REFUSED_ROLE: u8 = 4;

/// The index and the category of a line or of a row. Rows of other categories than [`ACCEPTED`] are never compared.
type Place = (u64, Option<usize>);
/// Ways to make each sample, by run.
type Samples = HashMap<LocalRunKey, HashMap<u128, u8>>;

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

/// The last lines of a pair's day-files that the daemon may not have taken yet.
#[derive(Debug, Default)]
struct Settling {
    scored: Option<LineSpan>,
    /// The run of the evidence.
    run: Option<LocalRunKey>,
}

/// The scored lines of one pair that concern keys with unmatched rows or lines.
#[derive(Debug, Default)]
struct LinesRead {
    /// Number of lines by key, and the place of one.
    keys: HashMap<LocalRowKey, (u64, Place)>,
    /// The places of unmatched rows that lines have.
    places: Vec<(LocalRowKey, Place)>,
    /// The frames of unmatched rows that lines make in a dialect.
    frames: Vec<(LocalRunKey, u128, Dialect)>,
}

/// The unmatched rows of a slice and what the sources show of them.
#[derive(Debug, Default)]
pub(super) struct Diagnosis<'f> {
    rows: Vec<(LocalRowKey, &'f RowFact)>,
    /// Frame, sample and index of each row, sorted.
    by_parts: Vec<(u128, u128, usize)>,
    samples: HashSet<u128>,
    /// By place of a row: the last changes of the evidence of lines with this place, by number of the pair.
    places: HashMap<(LocalRowKey, Place), LastChange<usize>>,
    keys: HashMap<LocalRowKey, KeyNotes>,
    /// One for each row: the ways in which the sources make it.
    ways: Vec<u8>,
    /// The number of the pair whose evidence makes a row but for its role; `None` for several pairs.
    refused_in: HashMap<usize, Option<usize>>,
    pairs_read: usize,
    settling: HashMap<Arc<PairPath>, Settling>,
    maker: PartsMaker,
}

impl<'f> Diagnosis<'f> {
    /// Adds a key with unmatched rows or lines.
    pub(super) fn add_key(&mut self, key: LocalRowKey) {
        self.keys.entry(key).or_default();
    }

    /// Adds an unmatched row of a key that was added.
    pub(super) fn add_row(&mut self, key: LocalRowKey, row: &'f RowFact) {
        if let Some(parts) = row.parts {
            let at = self.rows.len();
            self.by_parts.push((parts.frame, parts.sample, at));
            self.samples.insert(parts.sample);
        }
        if let Some(place) = place_of(row) {
            self.places.entry((key, place)).or_default();
        }
        self.rows.push((key, row));
        self.ways.push(0);
    }

    /// Returns the number of rows that were made of lines and evidence.
    pub(super) fn rows_made(&self) -> u64 {
        self.maker.made
    }

    /// Reads a pair, after all keys and rows were added. `expected`: the number of lines of each key.
    pub(super) fn read_pair(
        &mut self,
        lake: &LakeReader<'_>,
        pair: &Arc<PairPath>,
        max_line_bytes: usize,
        now: Now,
        expected: &[(LocalRowKey, u64)],
    ) -> io::Result<()> {
        self.by_parts.sort_unstable();
        let mut lines = LinesRead::default();
        for (key, _) in expected {
            lines.keys.insert(*key, (0, (0, None)));
        }
        let mut settling = Settling::default();
        let scored = DayFile::open(lake, Stream::Scored, pair, now)?;
        let evidence = DayFile::open(lake, Stream::Evidence, pair, now)?;
        if let Some(scored) = &scored {
            settling.scored = self.read_scored(scored, pair, max_line_bytes, &mut lines)?;
        }
        if let Some(evidence) = &evidence {
            let runs = lines.keys.keys().filter_map(|key| self.keys.get(key)?.run);
            let runs: HashSet<LocalRunKey> = runs.collect();
            let (samples, run) = self.read_evidence(evidence, max_line_bytes, &runs)?;
            settling.run = run;
            self.find_rows(&lines.frames, &samples);
        }
        let changed_ms = scored.map_or(ALWAYS, |scored| scored.changed_ms());
        self.note_changes(expected, &lines, changed_ms);
        let evidence_ms = evidence.map_or(ALWAYS, |evidence| evidence.changed_ms());
        for place in &lines.places {
            if let Some(changed) = self.places.get_mut(place) {
                changed.add(evidence_ms, self.pairs_read);
            }
        }
        self.pairs_read += 1;
        self.settling.insert(Arc::clone(pair), settling);
        Ok(())
    }

    /// Makes the frames of the lines of unmatched rows. Returns a settling last line.
    fn read_scored(
        &mut self,
        scored: &DayFile,
        pair: &PairPath,
        max_line_bytes: usize,
        found: &mut LinesRead,
    ) -> io::Result<Option<LineSpan>> {
        let mut settling = None;
        let mut lines = scored.lines(max_line_bytes);
        let day_file_name = pair.file_name();
        let mut index = 0;
        while let Some(line) = lines.next_line()? {
            if scored.is_settling(line.span) {
                settling = Some(line.span);
            }
            let bytes = line.bytes.map(trim).unwrap_or_default();
            let Ok(run) = parse::scored_run(bytes) else {
                continue;
            };
            let place = (index, category_of(&run));
            index += 1;
            let key = LocalRowKey::from_scored(&day_file_name, &run);
            let Some((count, known_place)) = found.keys.get_mut(&key) else {
                continue;
            };
            *count += 1;
            *known_place = place;
            let run_key = LocalRunKey::from_text(&run.evidence_run_id);
            self.keys.entry(key).or_default().run = Some(run_key);
            if !self.places.contains_key(&(key, place)) {
                continue;
            }
            found.places.push((key, place));
            for dialect in [Dialect::Native, Dialect::Go] {
                let Ok(run) = parse::scored_run_in(bytes, dialect) else {
                    continue;
                };
                let frame = self.maker.frame(&run, pair.name_bytes(), place.0, dialect);
                found
                    .frames
                    .extend(frame.map(|frame| (run_key, frame, dialect)));
            }
        }
        Ok(settling)
    }

    /// Makes the samples of all evidence of the runs, not only the last of each run, and returns those that unmatched
    /// rows have, with the run of a settling last line.
    fn read_evidence(
        &mut self,
        evidence: &DayFile,
        max_line_bytes: usize,
        runs: &HashSet<LocalRunKey>,
    ) -> io::Result<(Samples, Option<LocalRunKey>)> {
        let mut samples = Samples::new();
        let mut settling = None;
        let mut lines = evidence.lines(max_line_bytes);
        while let Some(line) = lines.next_line()? {
            let bytes = line.bytes.map(trim).unwrap_or_default();
            let Ok(record) = parse::evidence(bytes) else {
                continue;
            };
            let run = LocalRunKey::from_text(&record.run_id);
            if evidence.is_settling(line.span) {
                settling = Some(run);
            }
            if self.samples.is_empty() || !runs.contains(&run) {
                continue;
            }
            let native = self.maker.sample(&record, Dialect::Native, false);
            let made = match native {
                Some(_) => {
                    let other = parse::evidence_in(bytes, Dialect::Go).ok();
                    let other =
                        other.and_then(|other| self.maker.sample(&other, Dialect::Go, false));
                    [(native, NATIVE), (other, OTHER_DIALECT)]
                }
                None => {
                    let refused = self.maker.sample(&record, Dialect::Native, true);
                    [(refused, REFUSED_ROLE), (None, 0)]
                }
            };
            for (sample, way) in made {
                if let Some(sample) = sample.filter(|sample| self.samples.contains(sample)) {
                    *samples.entry(run).or_default().entry(sample).or_default() |= way;
                }
            }
        }
        Ok((samples, settling))
    }

    /// Notes the rows that have a frame and a sample of the same run. Searches the shorter side for each frame: many
    /// rows may have one frame, and many evidence records one run.
    fn find_rows(&mut self, frames: &[(LocalRunKey, u128, Dialect)], samples: &Samples) {
        for (run, frame, dialect) in frames {
            let Some(samples) = samples.get(run) else {
                continue;
            };
            let usable = match dialect {
                Dialect::Native => NATIVE | REFUSED_ROLE,
                Dialect::Go => OTHER_DIALECT,
            };
            let from = (self.by_parts).partition_point(|(other, ..)| other < frame);
            let to = (self.by_parts).partition_point(|(other, ..)| other <= frame);
            if to - from <= samples.len() {
                for at in from..to {
                    let (_, sample, row) = self.by_parts[at];
                    self.add_ways(row, samples.get(&sample).map_or(0, |ways| ways & usable));
                }
                continue;
            }
            for (sample, ways) in samples {
                let rows = &self.by_parts[from..to];
                let same = rows.partition_point(|(_, other, _)| other < sample)
                    ..rows.partition_point(|(_, other, _)| other <= sample);
                for at in same {
                    let (.., row) = self.by_parts[from + at];
                    self.add_ways(row, ways & usable);
                }
            }
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
            let Some(notes) = self.keys.get_mut(key) else {
                continue;
            };
            match lines.keys.get(key) {
                Some((count, place)) if count >= expected && *count == 1 => {
                    notes.changed.add(changed_ms, *place);
                }
                Some((count, _)) if count >= expected => {
                    notes.several_changed_ms = notes.several_changed_ms.max(Some(changed_ms));
                }
                // Lines that were there are not any more: the file is being rewritten at this moment.
                _ => notes.several_changed_ms = Some(ALWAYS),
            }
        }
    }

    /// Returns the explanation of a row, by its position in the order in which rows were added.
    pub(super) fn explanation(&self, row: usize) -> Explanation {
        let ((key, fact), ways) = (self.rows[row], self.ways[row]);
        if ways & NATIVE != 0 {
            return Explanation::Proven;
        }
        if ways & OTHER_DIALECT != 0 {
            return Explanation::OtherDialect;
        }
        let place = place_of(fact);
        let scored_ms = self.keys.get(&key).and_then(|notes| {
            let changed_ms = notes.changed.except(place);
            changed_ms.max(notes.several_changed_ms)
        });
        let evidence = place.and_then(|place| self.places.get(&(key, place)));
        let evidence_ms = match self.refused_in.get(&row) {
            None => evidence.and_then(|changed| changed.except(None)),
            Some(Some(pair)) => evidence.and_then(|changed| changed.except(Some(*pair))),
            Some(None) => None,
        };
        let is_older = |changed_ms| changed_ms == ALWAYS || fact.is_older_than(changed_ms);
        match scored_ms.max(evidence_ms).is_some_and(is_older) {
            true => Explanation::SourceChange,
            false => Explanation::Impossible,
        }
    }

    /// Returns whether the daemon may not have taken a line of the key, or its evidence, yet.
    pub(super) fn is_settling(&self, key: LocalRowKey, line: &LineFact) -> bool {
        let run = self.keys.get(&key).and_then(|notes| notes.run);
        (self.settling.get(&line.pair)).is_some_and(|settling| {
            settling.scored == Some(line.span) || (run.is_some() && settling.run == run)
        })
    }
}

fn place_of(row: &RowFact) -> Option<Place> {
    Some((row.index?, row.category))
}

fn category_of(run: &ScoredRun<'_>) -> Option<usize> {
    ACCEPTED.iter().position(|known| run.category.eq_str(known))
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
