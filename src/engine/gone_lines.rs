//! Rows whose own lines are gone from a day-file that was read again, while it holds other lines of their runs: the last one
//! of these counts, and the row is taken out. Without any line of its run in the pair a row stays as it is: absence is no
//! verdict.
//!
//! Such rows are found by one search of all unclaimed rows for many pairs, once no pair waits for its turn: the rows of a
//! pair are not next to each other.
//!
//! A day-file that is written again may be read while it is still short. A line of the run that is appended later counts too:
//! its pair is searched again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::engine::concerned::Concerned;
use crate::engine::ledger::Event;
use crate::engine::{Engine, EngineError};
use crate::lake::path::{PairPath, Stream};
use crate::lake::source::Source;
use crate::pair::checkpoint::Review;
use crate::pair::index::{PairId, ScoredLine, UnclaimedRow};
use crate::pair::overrule::{LineSeen, RunLines};
use crate::pair::{ActivePair, Overlay, day_file_name};
use crate::platform::storage::Storage;
use crate::record::keys::RunKey;
use crate::record::ledger::{Cause, Op};
use crate::record::row;
use crate::store::snapshot::{entries_in, pair_path};
use crate::store::state::StateView;
use crate::store::state::error::StateError;

/// Rows that are examined at a time, 64 bytes each.
const ROWS_AT_ONCE: usize = 4_096;
/// Pairs after which a checkpoint is written.
const PAIRS_AT_ONCE: usize = 2_048;
/// Time after which rows are looked for although pairs wait for their turn.
const PATIENCE_MS: u64 = 10_000;

/// Pairs that are read to their end and may have such rows.
#[derive(Debug, Default)]
pub(super) struct Reread {
    pairs: BTreeMap<PairPath, PairId>,
    /// Since when there are any, monotonic milliseconds.
    since_ms: u64,
}

impl Reread {
    pub(super) fn insert(&mut self, id: PairId, path: &PairPath, now_ms: u64) {
        if self.pairs.is_empty() {
            self.since_ms = now_ms;
        }
        self.pairs.insert(path.clone(), id);
    }

    pub(super) fn contains(&self, path: &PairPath) -> bool {
        self.pairs.contains_key(path)
    }
}

/// Maximum runs that are remembered, 12 bytes each.
const RUNS_MAX: usize = 1 << 16;

/// The runs of rows whose lines are gone, where the pair had no other line of the run when it was searched.
#[derive(Debug, Default)]
pub(super) struct RunsWithoutLines {
    /// By pair; without runs where the pair was not searched by this process. `None` until the pairs are known.
    pairs: Option<BTreeMap<PairId, Option<BTreeSet<RunKey>>>>,
}

impl RunsWithoutLines {
    /// Takes note of a pair whose rows were released, or that received rows of another one.
    pub(super) fn on_released(&mut self, pair: PairId) {
        if let Some(pairs) = &mut self.pairs {
            pairs.insert(pair, None);
        }
    }

    /// Takes note of what a search has found: pairs that are not in `without_lines` have no such rows any more.
    fn on_searched(
        &mut self,
        searched: impl Iterator<Item = PairId>,
        mut without_lines: BTreeMap<PairId, BTreeSet<RunKey>>,
    ) {
        let Some(pairs) = &mut self.pairs else {
            return;
        };
        for pair in searched {
            pairs.remove(&pair);
        }
        without_lines.retain(|_, runs| !runs.is_empty());
        let mut remembered: usize = pairs.values().flatten().map(BTreeSet::len).sum();
        for (pair, runs) in without_lines {
            let fits = remembered + runs.len() <= RUNS_MAX;
            remembered += if fits { runs.len() } else { 0 };
            pairs.insert(pair, fits.then_some(runs));
        }
    }

    /// Returns whether a line of one of these runs may overrule a row whose line is gone.
    fn may_have(
        &mut self,
        pair: PairId,
        view: &StateView,
        mut runs: impl Iterator<Item = RunKey>,
    ) -> Result<bool, StateError> {
        let pairs = match &mut self.pairs {
            Some(pairs) => pairs,
            None => {
                let pairs = view.pairs_with_unclaimed()?;
                (self.pairs).insert(pairs.into_iter().map(|pair| (pair, None)).collect())
            }
        };
        Ok(match pairs.get(&pair) {
            None => false,
            Some(None) => runs.next().is_some(),
            Some(Some(without_lines)) => runs.any(|run| without_lines.contains(&run)),
        })
    }
}

/// A row that the last line of its run overrules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverruledRow {
    /// Start of the row in the export, bytes.
    pub row_offset: u64,
    /// Why.
    pub cause: Cause,
    /// Start of that line, bytes.
    pub line_offset: u64,
}

/// Returns which of the unclaimed rows of a pair the lines of their runs overrule. `run_of` returns the run of a row, if that
/// can be read.
///
/// # Errors
/// The state cannot be read. Where the day-file cannot be read, none is.
pub fn overruled_rows(
    view: &StateView,
    (storage, root): (&dyn Storage, &Path),
    pair: &ActivePair,
    rows: &[UnclaimedRow],
    run_of: impl Fn(u64) -> Option<RunKey>,
) -> Result<Vec<OverruledRow>, StateError> {
    let Some(path) = pair_path(&pair.checkpoint) else {
        return Ok(Vec::new());
    };
    let name = day_file_name(&pair.checkpoint.path);
    let mut runs = BTreeMap::new();
    for row in rows {
        if let Some(run) = run_of(row.row_offset) {
            runs.entry(run).or_insert_with(Vec::new).push(*row);
        }
    }
    let mut source = None;
    let mut overruled = Vec::new();
    for (run, rows) in runs {
        let lines = entries_in(view, pair, run, pair.persisted)?;
        let see = |line: &ScoredLine| -> io::Result<Option<LineSeen>> {
            let source = match &mut source {
                Some(source) => source,
                None => source.insert(Source::open(storage, root, Stream::Scored, &path)?),
            };
            let Some(source) = source else {
                return Ok(None);
            };
            let bytes = source.line(line.offset, line.len_bytes)?;
            Ok(LineSeen::parse(&name, &bytes))
        };
        // The next change of a day-file that cannot be read lets its pair be read again.
        let Ok(lines) = RunLines::new(&lines, see) else {
            return Ok(Vec::new());
        };
        let of_run = rows.iter().filter_map(|row| {
            let (cause, line_offset) = lines.overruler_of(row.row)?;
            Some(OverruledRow {
                row_offset: row.row_offset,
                cause,
                line_offset,
            })
        });
        overruled.extend(of_run);
    }
    Ok(overruled)
}

impl Engine {
    /// Returns whether scored lines that a read of a pair found may be of runs with rows whose lines are gone.
    pub(super) fn may_overrule_gone(
        &mut self,
        path: &PairPath,
        read: &Overlay,
    ) -> Result<bool, EngineError> {
        if self.pairs.claimable() == 0 || read.entries.is_empty() {
            return Ok(false);
        }
        let pair = self.pairs.slot(path)?.pair.id;
        let runs = read.entries.keys().map(|(run, _)| *run);
        Ok(self
            .runs_without_lines
            .may_have(pair, self.pairs.view(), runs)?)
    }

    /// Takes out the rows of pairs that were read again whose lines are gone, where other lines of their runs are there.
    pub(super) fn retract_rows_of_gone_lines(&mut self) -> Result<(), EngineError> {
        let now_ms = self.ctx.clock.monotonic_ms();
        let is_due = self.queue_len() == 0 || now_ms >= self.reread.since_ms + PATIENCE_MS;
        if self.reread.pairs.is_empty() || !is_due {
            return Ok(());
        }
        let reread = self.reread.pairs.iter();
        let pairs: BTreeMap<PairId, PairPath> =
            reread.map(|(path, id)| (*id, path.clone())).collect();
        // Claims of this pass count too.
        self.pairs.begin_pass();
        let mut after = None;
        let mut without_lines = BTreeMap::new();
        loop {
            let claimed = Arc::clone(self.pairs.claimed());
            let is_wanted =
                |row: &UnclaimedRow| pairs.contains_key(&row.scope) && !claimed.contains(row);
            let rows = self
                .pairs
                .view()
                .unclaimed_after(after, is_wanted, ROWS_AT_ONCE)?;
            drop(claimed);
            after = rows.last().copied();
            let is_last = rows.len() < ROWS_AT_ONCE;
            self.retract_overruled(&pairs, rows, &mut without_lines)?;
            if is_last {
                break;
            }
        }
        let searched = pairs.keys().copied();
        self.runs_without_lines.on_searched(searched, without_lines);
        for paths in pairs.values().collect::<Vec<_>>().chunks(PAIRS_AT_ONCE) {
            for path in paths {
                self.reviewed(path, Review::REREAD)?;
            }
            // Changed pairs stay in memory until a checkpoint.
            if paths.len() == PAIRS_AT_ONCE {
                self.checkpoint()?;
            }
        }
        self.reread = Reread::default();
        Ok(())
    }

    /// Returns whether lines of its run in its pair, as far as that is known, overrule an unclaimed row.
    pub(super) fn is_overruled(
        &mut self,
        concerned: &Concerned,
        row: &UnclaimedRow,
    ) -> Result<bool, EngineError> {
        let Some(path) = &concerned.pair else {
            return Ok(false);
        };
        let pair = Arc::clone(&self.pairs.slot(path)?.pair);
        let disk = (&*self.ctx.storage, &*self.ctx.root);
        let run_of = |_| Some(concerned.run);
        let overruled = overruled_rows(self.pairs.view(), disk, &pair, &[*row], run_of)?;
        Ok(!overruled.is_empty())
    }

    fn retract_overruled(
        &mut self,
        pairs: &BTreeMap<PairId, PairPath>,
        mut rows: Vec<UnclaimedRow>,
        without_lines: &mut BTreeMap<PairId, BTreeSet<RunKey>>,
    ) -> Result<(), EngineError> {
        rows.sort_unstable_by_key(|row| (row.scope, row.row_offset));
        for rows in rows.chunk_by(|row, next| row.scope == next.scope) {
            let Some(path) = pairs.get(&rows[0].scope) else {
                continue;
            };
            let pair = Arc::clone(&self.pairs.slot(path)?.pair);
            let disk = (&*self.ctx.storage, &*self.ctx.root);
            let export = &self.commits.export;
            let run_of = |row: &UnclaimedRow| {
                let bytes = export.row_at(row.row_offset).ok()?;
                Some((row.row_offset, row::view(&bytes).ok()?.run()))
            };
            let mut runs: BTreeMap<u64, RunKey> = rows.iter().filter_map(run_of).collect();
            let run_of = |row_offset| runs.get(&row_offset).copied();
            let overruled = overruled_rows(self.pairs.view(), disk, &pair, rows, run_of)?;
            for row in &overruled {
                runs.remove(&row.row_offset);
            }
            let remaining = without_lines.entry(rows[0].scope).or_default();
            remaining.extend(runs.into_values());
            let day_file = Arc::<str>::from(path.as_path().to_string_lossy());
            for row in overruled {
                let event = Event {
                    op: Op::Retract,
                    cause: row.cause,
                    row_offset: Some(row.row_offset),
                    run_id: String::new(),
                    day_file: Arc::clone(&day_file),
                    line_offset: Some(row.line_offset),
                    reason: Arc::from(""),
                };
                self.commits.begin_pending(self.ctx.clock.monotonic_ms());
                self.push_row_event(event, row.row_offset, true)?;
            }
            self.commit_if_full()?;
        }
        Ok(())
    }
}
