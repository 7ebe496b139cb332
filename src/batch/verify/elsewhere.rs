//! Runs that another day's file concerns: a run with an effective row whose last line in another pair is refused for its
//! category, and a waiting run whose evidence is in another pair. Lines are never joined across pairs, so this breaks no
//! promise: it is information for an operator, who may order such runs out.
//!
//! Memory: about 20 bytes for each refused or waiting run, of at most [`RUNS_MAX`] each; further ones are counted as not
//! examined.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use crate::batch::line_reader::LineReader;
use crate::batch::overruled::PairRuns;
use crate::batch::verify::Verification;
use crate::batch::verify::error::VerifyError;
use crate::lake::path::{PairPath, Stream};
use crate::record::keys::RunKey;
use crate::record::parse::{self, trim};
use crate::record::row;

/// Maximum runs of each kind that are examined.
const RUNS_MAX: usize = 1 << 20;
/// Maximum days of which the first run is named.
const DAYS_MAX: usize = 1_000;

/// The first run of a day that another day's file concerns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ElsewhereRun {
    /// `rejected` or `accepted`.
    pub kind: &'static str,
    /// The day of the other pair, `YYYY/MM/DD`.
    pub day: String,
    /// The run.
    pub run_id: String,
    /// The other pair: where the run is refused, or where its evidence is.
    pub day_file: String,
}

/// The runs that are looked for in other pairs.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    /// Refused runs, and the pair in which the first of their refusals is.
    refused: HashMap<RunKey, u32>,
    waiting: HashSet<RunKey>,
    pairs: Vec<PairPath>,
    /// Runs past the bound.
    pub(super) unexamined: u64,
    /// The ids of the runs that are rejected elsewhere, with a row that is effective.
    pub(super) rejected: BTreeMap<String, u32>,
    /// Waiting runs whose evidence was found.
    accepted: HashSet<RunKey>,
    /// The first run of each kind and day.
    first: BTreeMap<(&'static str, String), ElsewhereRun>,
}

impl Elsewhere {
    /// Adds the runs of a pair.
    pub(super) fn add(&mut self, pair: &PairPath, runs: PairRuns) {
        let number = u32::try_from(self.pairs.len()).unwrap_or(u32::MAX);
        self.pairs.push(pair.clone());
        for run in runs.refused {
            if self.refused.len() < RUNS_MAX || self.refused.contains_key(&run) {
                self.refused.entry(run).or_insert(number);
            } else {
                self.unexamined += 1;
            }
        }
        for run in runs.waiting {
            if self.waiting.len() < RUNS_MAX || self.waiting.contains(&run) {
                self.waiting.insert(run);
            } else {
                self.unexamined += 1;
            }
        }
    }

    /// Returns the run of an effective row and the pair that refuses it, if one does. A refusal after the row in its own pair
    /// would have it out.
    pub(super) fn refusal_of(&self, row: &[u8]) -> Option<(String, u32)> {
        if self.refused.is_empty() {
            return None;
        }
        let view = row::view(row).ok()?;
        let pair = self
            .refused
            .get(&RunKey::from_run_id(&view.source_run_id))?;
        Some((view.source_run_id.into_owned(), *pair))
    }

    /// Adds a run that [`Self::refusal_of`] found.
    pub(super) fn add_rejected(&mut self, run_id: String, pair: u32) {
        if self.rejected.len() < RUNS_MAX {
            self.keep_first("rejected", &run_id, pair);
            self.rejected.insert(run_id, pair);
        }
    }

    fn keep_first(&mut self, kind: &'static str, run_id: &str, pair: u32) {
        let Some(path) = self.pairs.get(pair as usize) else {
            return;
        };
        let path = path.to_string();
        let day = path
            .rsplit_once('/')
            .map_or("", |(day, _name)| day)
            .to_owned();
        if self.first.len() < DAYS_MAX {
            let run = ElsewhereRun {
                kind,
                day: day.clone(),
                run_id: run_id.to_owned(),
                day_file: path,
            };
            self.first.entry((kind, day)).or_insert(run);
        }
    }

    /// Returns the first run of each day, and the numbers of runs that are rejected and accepted elsewhere.
    pub(super) fn into_result(self) -> (Vec<ElsewhereRun>, u64, u64) {
        let counts = (self.rejected.len() as u64, self.accepted.len() as u64);
        (self.first.into_values().collect(), counts.0, counts.1)
    }
}

impl Verification<'_> {
    /// Looks for the evidence of waiting runs in the evidence of all pairs. Their own pairs have none.
    pub(super) fn find_evidence_elsewhere(&mut self) -> Result<(), VerifyError> {
        if self.elsewhere.waiting.is_empty() {
            return Ok(());
        }
        for number in 0..self.elsewhere.pairs.len() {
            let pair = self.elsewhere.pairs[number].clone();
            // What cannot be read was named when the pair was read.
            let Ok((source, end)) = self.lake.open(Stream::Evidence, &pair) else {
                continue;
            };
            let mut lines = LineReader::new(&source, end, self.options.max_line_bytes);
            while let Ok(Some(line)) = lines.next_line() {
                let Some(Ok(evidence)) = line.bytes.map(|bytes| parse::evidence(trim(bytes)))
                else {
                    continue;
                };
                let run = RunKey::from_text(&evidence.run_id);
                if self.elsewhere.waiting.contains(&run) && self.elsewhere.accepted.insert(run) {
                    let number = u32::try_from(number).unwrap_or(u32::MAX);
                    let run_id = evidence.run_id.decode().into_owned();
                    self.elsewhere.keep_first("accepted", &run_id, number);
                }
            }
        }
        Ok(())
    }
}
