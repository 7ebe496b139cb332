//! Runs that another day's file concerns: a run with an effective row whose last line in another pair is refused for its
//! category, and a waiting run whose evidence is in another pair. Lines are never joined across pairs, so this breaks no
//! promise: it is information for an operator, who may order such runs out.
//!
//! While the ledger lags, a row is effective there although a line of its own pair overrules it. No order is needed on its
//! run, and one would outlive the reason. So a row counts only if it is effective by the sources too: of the rows of its key
//! the export has more than the sources overrule, or its run has a row after an overruled one. After `rebuild --effective`
//! the export has fewer: there a run may be missed whose rows in two day-files have the same key.
//!
//! Memory: about 20 bytes for each refused or waiting run, of at most [`RUNS_MAX`] each; further ones are counted as not
//! examined. About 20 bytes for each overruled row.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Serialize;

use crate::batch::line_reader::LineReader;
use crate::batch::overruled::PairRuns;
use crate::batch::verify::Verification;
use crate::batch::verify::error::VerifyError;
use crate::lake::path::{PairPath, Stream};
use crate::record::keys::{LocalRowKey, RunKey};
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
    /// The rows that the sources overrule.
    overruled: HashMap<LocalRowKey, OverruledRows>,
    /// Runs with an overruled row and a later one that counts.
    rescored: HashSet<RunKey>,
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

/// The rows of a key of which the sources overrule some.
#[derive(Debug, Default)]
struct OverruledRows {
    overruled: u32,
    in_export: AtomicU32,
}

/// A run that a pair refuses, of a row that is effective by the ledger.
pub(super) struct RefusedRun {
    run_id: String,
    key: LocalRowKey,
    /// The pair.
    pair: u32,
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
        self.rescored.extend(runs.rescored);
        for run in runs.waiting {
            if self.waiting.len() < RUNS_MAX || self.waiting.contains(&run) {
                self.waiting.insert(run);
            } else {
                self.unexamined += 1;
            }
        }
    }

    /// Adds a row that a later line of its own pair overrules.
    pub(super) fn add_overruled(&mut self, key: LocalRowKey) {
        self.overruled.entry(key).or_default().overruled += 1;
    }

    /// Counts a row of the export. All rows of the sources were added before.
    pub(super) fn count(&self, key: LocalRowKey) {
        if let Some(rows) = self.overruled.get(&key) {
            rows.in_export.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the run of a row that is effective by the ledger, if a pair refuses it.
    pub(super) fn refusal_of(&self, key: LocalRowKey, row: &[u8]) -> Option<RefusedRun> {
        if self.refused.is_empty() {
            return None;
        }
        let view = row::view(row).ok()?;
        let pair = self.refused.get(&view.run())?;
        Some(RefusedRun {
            run_id: view.source_run_id.into_owned(),
            key,
            pair: *pair,
        })
    }

    /// Adds a run that [`Self::refusal_of`] found, if its row is effective by the sources too. All rows of the export were
    /// counted before.
    pub(super) fn add_rejected(&mut self, run: RefusedRun) {
        let is_effective = self.overruled.get(&run.key).is_none_or(|rows| {
            rows.in_export.load(Ordering::Relaxed) > rows.overruled
                || self.rescored.contains(&RunKey::from_run_id(&run.run_id))
        });
        if is_effective && self.rejected.len() < RUNS_MAX {
            self.keep_first("rejected", &run.run_id, run.pair);
            self.rejected.insert(run.run_id, run.pair);
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
