//! The unmatched rows of a slice, and what one pair of day-files shows of them: the rows that its lines and evidence make.
//! Any thread can read a pair.
//!
//! **Work.** Both day-files of a pair are read once, however many rows are unmatched. A row has two parts: the scored
//! line determines its frame, the evidence its sample. Each line and each evidence record makes its part once; rows are
//! found by the digests of both. Comparing each row with each line and each evidence record would take cubic time for
//! a run id that many lines share.

use std::collections::{HashMap, HashSet};
use std::io;

use crate::batch::line_reader::LineSpan;
use crate::batch::pair::LakeReader;
use crate::batch::verify::day_file::{DayFile, Now};
use crate::batch::verify::fact::{RowFact, category_number};
use crate::batch::verify::parts_made::PartsMaker;
use crate::lake::path::{PairPath, Stream};
use crate::record::json::escape::Dialect;
use crate::record::keys::{LocalRowKey, LocalRunKey};
use crate::record::parse;
use crate::record::parse::{ScoredRun, trim};

/// The time of the last change of a file that is gone, or is being rewritten: later than every row.
pub(super) const ALWAYS: u64 = u64::MAX;

/// Ways in which evidence makes a sample, as bits.
pub(super) const NATIVE: u8 = 1;
pub(super) const OTHER_DIALECT: u8 = 2;
/// Only if the role of the evidence were not refused.
pub(super) const REFUSED_ROLE: u8 = 4;

/// The index and the category of a line or of a row. Rows of other categories than
/// [`ACCEPTED`](crate::record::firewall::ACCEPTED) are never compared.
pub(super) type Place = (u64, Option<u8>);
/// Ways to make each sample, by run.
type Samples = HashMap<LocalRunKey, HashMap<u64, u8>>;

/// The last lines of a pair's day-files that the daemon may not have taken yet.
#[derive(Debug, Default)]
pub(super) struct Settling {
    pub(super) scored: Option<LineSpan>,
    /// The run of the evidence.
    pub(super) run: Option<LocalRunKey>,
}

/// The scored lines of a key in one pair.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct LinesOfKey {
    pub(super) count: u64,
    /// The place of one of them, and its run.
    pub(super) place: Place,
    pub(super) run: Option<LocalRunKey>,
}

/// The scored lines of one pair that concern keys with unmatched rows or lines.
#[derive(Debug, Default)]
pub(super) struct LinesRead {
    pub(super) keys: HashMap<LocalRowKey, LinesOfKey>,
    /// The indices in [`Sought::places`] of the places that lines have.
    pub(super) places: Vec<usize>,
    /// The frames of unmatched rows that lines make in a dialect.
    pub(super) frames: Vec<(LocalRunKey, u64, Dialect)>,
}

/// What a pair shows of the unmatched rows and lines.
#[derive(Debug)]
pub(super) struct PairNotes {
    pub(super) settling: Settling,
    pub(super) lines: LinesRead,
    /// Rows that the pair makes, and the ways.
    pub(super) ways: Vec<(usize, u8)>,
    pub(super) scored_ms: u64,
    pub(super) evidence_ms: u64,
    /// Number of rows made.
    pub(super) made: u64,
}

/// The unmatched rows of a slice, and the keys of unmatched rows and lines.
#[derive(Debug, Default)]
pub(super) struct Sought<'f> {
    pub(super) rows: Vec<(LocalRowKey, &'f RowFact)>,
    /// Frame, sample and index of each row, sorted.
    pub(super) by_parts: Vec<(u64, u64, usize)>,
    /// The samples of the rows, sorted.
    pub(super) samples: Vec<u64>,
    /// The places of the rows, sorted.
    pub(super) places: Vec<(LocalRowKey, Place)>,
    /// Sorted.
    pub(super) keys: Vec<LocalRowKey>,
}

impl<'f> Sought<'f> {
    /// Returns what is sought: `keys` with unmatched rows or lines, and the unmatched `rows` of these.
    pub(super) fn new(
        mut keys: Vec<LocalRowKey>,
        rows: Vec<(LocalRowKey, &'f RowFact)>,
    ) -> Sought<'f> {
        keys.sort_unstable();
        let parts = rows.iter().enumerate();
        let parts = parts.filter_map(|(at, (_, row))| Some((row.parts?, at)));
        let by_parts = parts.map(|(parts, at)| (parts.frame, parts.sample, at));
        let mut by_parts: Vec<_> = by_parts.collect();
        by_parts.sort_unstable();
        let mut samples: Vec<u64> = by_parts.iter().map(|(_, sample, _)| *sample).collect();
        samples.sort_unstable();
        samples.dedup();
        let places = rows.iter();
        let places = places.filter_map(|(key, row)| Some((*key, place_of(row)?)));
        let mut places: Vec<_> = places.collect();
        places.sort_unstable();
        places.dedup();
        Sought {
            rows,
            by_parts,
            samples,
            places,
            keys,
        }
    }

    /// Reads a pair. `expected`: the keys that have lines in it.
    pub(super) fn read_pair(
        &self,
        lake: &LakeReader<'_>,
        pair: &PairPath,
        max_line_bytes: usize,
        now: Now,
        expected: &[(LocalRowKey, u64)],
    ) -> io::Result<PairNotes> {
        let mut maker = PartsMaker::default();
        let mut lines = LinesRead::default();
        for (key, _) in expected {
            lines.keys.insert(*key, LinesOfKey::default());
        }
        let (mut settling, mut ways) = (Settling::default(), Vec::new());
        let scored = DayFile::open(lake, Stream::Scored, pair, now)?;
        let evidence = DayFile::open(lake, Stream::Evidence, pair, now)?;
        if let Some(scored) = &scored {
            settling.scored =
                self.read_scored(scored, pair, max_line_bytes, (&mut lines, &mut maker))?;
        }
        if let Some(evidence) = &evidence {
            let runs = lines.keys.values().filter_map(|lines| lines.run).collect();
            let (samples, run) = self.read_evidence(evidence, max_line_bytes, &runs, &mut maker)?;
            settling.run = run;
            ways = self.find_rows(&lines.frames, &samples);
        }
        Ok(PairNotes {
            settling,
            lines,
            ways,
            scored_ms: scored.map_or(ALWAYS, |scored| scored.changed_ms()),
            evidence_ms: evidence.map_or(ALWAYS, |evidence| evidence.changed_ms()),
            made: maker.made,
        })
    }

    /// Makes the frames of the lines of unmatched rows. Returns a settling last line.
    fn read_scored(
        &self,
        scored: &DayFile,
        pair: &PairPath,
        max_line_bytes: usize,
        (found, maker): (&mut LinesRead, &mut PartsMaker),
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
            let Ok((run, differs)) = parse::compared_scored_run(bytes) else {
                continue;
            };
            let place = (index, category_of(&run));
            index += 1;
            let key = LocalRowKey::from_scored(&day_file_name, &run);
            let Some(lines_of_key) = found.keys.get_mut(&key) else {
                continue;
            };
            let run_key = LocalRunKey::from_text(&run.evidence_run_id);
            *lines_of_key = LinesOfKey {
                count: lines_of_key.count + 1,
                place,
                run: Some(run_key),
            };
            let Ok(at) = self.places.binary_search(&(key, place)) else {
                continue;
            };
            found.places.push(at);
            for dialect in [Dialect::Native, Dialect::Go] {
                let run = match dialect {
                    Dialect::Go if differs => parse::scored_run_in(bytes, dialect),
                    _ => Ok(run),
                };
                let Ok(run) = run else { continue };
                let frame = maker.frame(&run, pair.name_bytes(), place.0, dialect);
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
        &self,
        evidence: &DayFile,
        max_line_bytes: usize,
        runs: &HashSet<LocalRunKey>,
        maker: &mut PartsMaker,
    ) -> io::Result<(Samples, Option<LocalRunKey>)> {
        let mut samples = Samples::new();
        let mut settling = None;
        let mut lines = evidence.lines(max_line_bytes);
        while let Some(line) = lines.next_line()? {
            let bytes = line.bytes.map(trim).unwrap_or_default();
            let Ok((record, differs)) = parse::compared_evidence(bytes) else {
                continue;
            };
            let run = LocalRunKey::from_text(&record.run_id);
            if evidence.is_settling(line.span) {
                settling = Some(run);
            }
            if self.samples.is_empty() || !runs.contains(&run) {
                continue;
            }
            let made = match maker.samples(bytes, &record, differs) {
                Some((native, go)) => [(Some(native), NATIVE), (go, OTHER_DIALECT)],
                None => [(maker.sample_of_any_role(&record), REFUSED_ROLE), (None, 0)],
            };
            for (sample, way) in made {
                let sample = sample.filter(|sample| self.samples.binary_search(sample).is_ok());
                if let Some(sample) = sample {
                    *samples.entry(run).or_default().entry(sample).or_default() |= way;
                }
            }
        }
        Ok((samples, settling))
    }

    /// Finds the rows that have a frame and a sample of the same run. Searches the shorter side for each frame: many
    /// rows may have one frame, and many evidence records one run.
    fn find_rows(
        &self,
        frames: &[(LocalRunKey, u64, Dialect)],
        samples: &Samples,
    ) -> Vec<(usize, u8)> {
        let mut found = Vec::new();
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
                    let ways = samples.get(&sample).map_or(0, |ways| ways & usable);
                    found.extend((ways != 0).then_some((row, ways)));
                }
                continue;
            }
            for (sample, ways) in samples {
                let rows = &self.by_parts[from..to];
                let same = rows.partition_point(|(_, other, _)| other < sample)
                    ..rows.partition_point(|(_, other, _)| other <= sample);
                let rows = rows[same].iter().map(|(.., row)| *row);
                found.extend(
                    rows.filter(|_| ways & usable != 0)
                        .map(|row| (row, ways & usable)),
                );
            }
        }
        found
    }
}

pub(super) fn place_of(row: &RowFact) -> Option<Place> {
    Some((row.index?, row.category))
}

fn category_of(run: &ScoredRun<'_>) -> Option<u8> {
    category_number(|known| run.category.eq_str(known))
}
