//! Lists rows that later lines of their runs overrule: they are not in the effective set. The state marks their lines and
//! holds no ids: those are read in the rows. Only pairs that count such rows are read. A row whose own line was rewritten
//! is found by the line that refuses the run now.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::lake::path::{PairPath, Stream};
use crate::lake::source::Source;
use crate::pair::ActivePair;
use crate::pair::index::{ClaimRight, ScoredLine, UnclaimedRow};
use crate::pair::verdict::Verdict;
use crate::platform::storage::StorageFile;
use crate::query::explain::{ExplainContext, RowRange, category_of};
use crate::record::keys::{RowKey, RunKey};
use crate::record::parse;
use crate::record::row;
use crate::store::export::row_at;
use crate::store::snapshot::pair_path;
use crate::store::state::error::StateError;

/// Some contradicted rows. Keys are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Contradictions {
    /// Number of contradicted rows in the account.
    pub counted: u64,
    /// The rows: by day-file in the order of their lines, then those whose line was rewritten.
    pub rows: Vec<ContradictedRow>,
    /// Whether more follow.
    pub more: bool,
    /// Rows of the examined day-files that are counted but that no readable line leads to.
    pub not_found: u64,
}

/// A row that a later line of its run overrules.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContradictedRow {
    /// Its pair, `YYYY/MM/DD/NAME.jsonl`.
    pub day_file: String,
    /// The run's id; `None` where its row cannot be read.
    pub run_id: Option<String>,
    /// Offset of the line that earned it in the scored day-file, bytes; `None` if that line was rewritten.
    pub line_offset: Option<u64>,
    /// Offset of the first later line that overrules the row, bytes.
    pub refused_offset: Option<u64>,
    /// Category of that line; `None` if it cannot be read.
    pub category: Option<String>,
    /// The row.
    pub row: RowRange,
}

/// Which of them are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Page {
    /// Number of results to skip.
    pub skip: usize,
    /// Maximum number of results.
    pub limit: usize,
}

/// The rows that are contradicted.
///
/// # Errors
/// The state's. What cannot be read of sources or export makes the answer poorer.
pub fn contradictions(
    page: Page,
    context: &ExplainContext<'_>,
) -> Result<Contradictions, StateError> {
    let mut pairs: Vec<(PairPath, u64)> = Vec::new();
    context.state.for_each_pair(|_, checkpoint| {
        let counted = checkpoint.counts.contradicted;
        if counted > 0 {
            pairs.extend(pair_path(checkpoint).map(|path| (path, counted)));
        }
    })?;
    pairs.sort();
    let export = context.storage.open_read(context.export_path).ok();
    let mut result = Contradictions {
        counted: pairs.iter().map(|(_, counted)| counted).sum(),
        ..Contradictions::default()
    };
    let mut skip = page.skip as u64;
    for (path, counted) in pairs {
        if skip >= counted {
            skip -= counted;
            continue;
        }
        let room = page.limit - result.rows.len();
        if room == 0 {
            result.more = true;
            break;
        }
        let Some(pair) = context.state.pair(&path)? else {
            continue;
        };
        let one = PairExplainer {
            pair: &pair,
            path: &path,
            source: Source::open(context.storage, context.root, Stream::Scored, &path)
                .ok()
                .flatten(),
            export: export.as_deref(),
            context,
        };
        let found = one.find(counted, skip.saturating_add(room as u64))?;
        result.not_found += counted.saturating_sub(found.all);
        result.more |= found.all > skip.saturating_add(room as u64);
        for row in found.first.iter().skip(skip as usize) {
            result.rows.push(one.row_info(row)?);
        }
        skip = 0;
    }
    Ok(result)
}

/// A row in the order of the list. One that no line claims has the highest offset for its line's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    line_offset: u64,
    row_offset: u64,
    run: Option<RunKey>,
    /// The line that refused it: offset, length.
    refused: Option<(u64, u32)>,
}

const NO_LINE: u64 = u64::MAX;

#[derive(Debug, Default)]
struct FoundInPair {
    first: BTreeSet<Found>,
    all: u64,
}

impl FoundInPair {
    /// Keeps the first ones and counts all.
    fn note(&mut self, found: Found, keep: u64) {
        self.all += 1;
        self.first.insert(found);
        if self.first.len() as u64 > keep {
            self.first.pop_last();
        }
    }
}

struct PairExplainer<'a> {
    pair: &'a ActivePair,
    path: &'a PairPath,
    source: Option<Source>,
    export: Option<&'a dyn StorageFile>,
    context: &'a ExplainContext<'a>,
}

impl PairExplainer<'_> {
    /// Returns the first `keep` contradicted rows of the pair, of which it has `counted`.
    fn find(&self, counted: u64, keep: u64) -> Result<FoundInPair, StateError> {
        let mut found = FoundInPair::default();
        self.context.state.for_each_scored(self.pair, |entry| {
            if let Verdict::Exported {
                row_offset,
                contradicted: true,
                ..
            } = entry.verdict
            {
                let row = Found {
                    line_offset: entry.offset,
                    row_offset,
                    run: Some(entry.run),
                    refused: None,
                };
                found.note(row, keep);
            }
        })?;
        if found.all < counted {
            self.find_without_line(counted - found.all, keep, &mut found)?;
        }
        Ok(found)
    }

    /// Returns rows that no line claims any more, found by the lines that refuse their runs.
    fn find_without_line(
        &self,
        wanted: u64,
        keep: u64,
        found: &mut FoundInPair,
    ) -> Result<(), StateError> {
        let Some(source) = &self.source else {
            return Ok(());
        };
        let state = self.context.state;
        let mut seen: BTreeSet<UnclaimedRow> = BTreeSet::new();
        let mut failed = None;
        state.for_each_scored(self.pair, |entry| {
            let enough = seen.len() as u64 >= wanted || failed.is_some();
            if enough || !entry.verdict.is_refused_category() {
                return;
            }
            let Some(key) = self.key_of(source, &entry) else {
                return;
            };
            match self.claimable(key) {
                Ok(claims) => {
                    for claim in claims.into_iter().filter(|claim| seen.insert(*claim)) {
                        let row = Found {
                            line_offset: NO_LINE,
                            row_offset: claim.row_offset,
                            run: None,
                            refused: Some((entry.offset, entry.len_bytes)),
                        };
                        found.note(row, keep);
                    }
                }
                Err(error) => failed = Some(error),
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// The key of the rows that a scored line would give.
    fn key_of(&self, source: &Source, entry: &ScoredLine) -> Option<RowKey> {
        let line = source.line(entry.offset, entry.len_bytes).ok()?;
        let run = parse::scored_run(parse::trim(&line)).ok()?;
        let is_of_run = RunKey::from_text(&run.evidence_run_id) == entry.run;
        let name = self.path.to_string();
        let name = name.rsplit('/').next().unwrap_or_default();
        is_of_run.then(|| RowKey::from_scored(name, &run))
    }

    fn claimable(&self, key: RowKey) -> Result<Vec<UnclaimedRow>, StateError> {
        let state = self.context.state;
        let mut claims = state.view.claimable(key)?;
        claims.retain(|claim| {
            claim.right_of(self.pair.id) < ClaimRight::IfEqual && !state.claimed.contains(claim)
        });
        Ok(claims)
    }

    fn row_info(&self, found: &Found) -> Result<ContradictedRow, StateError> {
        let row = self
            .export
            .and_then(|export| row_at(export, found.row_offset));
        let view = row.as_deref().and_then(|row| row::view(row).ok());
        let run_id = view.map(|view| view.source_run_id.into_owned());
        let refused = match (found.refused, found.run) {
            (None, Some(run)) => self.refused_behind(run, found.line_offset)?,
            (refused, _) => refused,
        };
        let category = match (&self.source, &run_id, refused) {
            (Some(source), Some(run_id), Some((offset, len_bytes))) => {
                category_of(source, offset, len_bytes, run_id)
                    .ok()
                    .flatten()
            }
            _ => None,
        };
        Ok(ContradictedRow {
            day_file: self.path.to_string(),
            run_id,
            line_offset: (found.line_offset != NO_LINE).then_some(found.line_offset),
            refused_offset: refused.map(|(offset, _)| offset),
            category,
            row: RowRange {
                offset: found.row_offset,
                len_bytes: row.map(|row| row.len() as u64 + 1),
            },
        })
    }

    /// Returns the first line after an offset that overrules the earlier rows of a run.
    fn refused_behind(&self, run: RunKey, offset: u64) -> Result<Option<(u64, u32)>, StateError> {
        let entries = self.context.state.entries_of(self.pair, run)?;
        let refused = entries
            .iter()
            .find(|entry| entry.offset > offset && entry.verdict.overrules());
        Ok(refused.map(|entry| (entry.offset, entry.len_bytes)))
    }
}
