//! The lines and rows that a standing order concerns.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::engine::{Engine, EngineError};
use crate::lake::path::PairPath;
use crate::pair::index::{PairId, ScoredLine, UnclaimedRow};
use crate::pair::orders::Orders;
use crate::record::keys::RunKey;
use crate::record::row;
use crate::store::snapshot::pair_path;

/// A line or a row of one of the runs of a request.
pub(super) struct Concerned {
    pub(super) run: RunKey,
    /// The pair of the line, or the one whose lines may claim the row; `None` where that is not known.
    pub(super) pair: Option<Arc<PairPath>>,
    pub(super) found: Found,
}

pub(super) enum Found {
    Line(ScoredLine),
    /// A row that no line owns: its line was rewritten or is gone, or has yet to be read.
    Unclaimed {
        row: UnclaimedRow,
        /// The name of its day-file.
        day_file_name: String,
    },
}

/// What is known of the runs of a request, by run.
pub(super) type ByRun = BTreeMap<RunKey, Vec<Concerned>>;

impl Concerned {
    /// Returns the path of the pair, if that is known.
    pub(super) fn day_file(&self) -> Option<Arc<str>> {
        let pair = self.pair.as_ref()?;
        Some(String::from_utf8_lossy(pair.as_bytes()).into())
    }

    /// Returns whether an order keeps it out, or may do so: of which day an unclaimed row is may not be known.
    pub(super) fn is_ordered(&self, orders: &Orders) -> bool {
        match (&self.pair, &self.found) {
            (None, Found::Unclaimed { day_file_name, .. }) => {
                orders.may_apply_to(self.run, day_file_name)
            }
            (pair, _) => {
                let pair = pair.as_ref().map_or(&b""[..], |pair| pair.as_bytes());
                orders.apply_to(self.run, pair)
            }
        }
    }

    /// Returns whether it is a line that is refused for its category.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self.found, Found::Line(line) if line.verdict.is_refused_category())
    }
}

impl Engine {
    /// Returns the lines and unclaimed rows of these runs, of all pairs or of one. An unclaimed row whose pair is not known
    /// may be of that one if its day-file has the same name: then also the lines of pairs of this name are returned that
    /// refuse its run.
    pub(super) fn concerned(
        &self,
        runs: &BTreeSet<RunKey>,
        only: Option<&PairPath>,
    ) -> Result<ByRun, EngineError> {
        let view = self.pairs.view();
        let mut paths = BTreeMap::new();
        view.for_each_pair(|id, checkpoint| {
            let path = pair_path(&checkpoint);
            let may_concern = |path: &PairPath| only.is_none_or(|only| path.has_name_of(only));
            if let Some(path) = path.filter(may_concern) {
                paths.insert(id, Arc::new(path));
            }
        })?;
        let is_only = |path: &PairPath| only.is_none_or(|only| path == only);
        let mut by_run = self.unclaimed(runs, only, &paths)?;
        let is_unknown = |concerned: &Concerned| concerned.pair.is_none();
        let of_unknown = by_run
            .iter()
            .filter(|(_, of_run)| of_run.iter().any(is_unknown));
        let of_unknown: BTreeSet<RunKey> = of_unknown.map(|(run, _)| *run).collect();
        for (id, path) in &paths {
            let runs = if is_only(path) { runs } else { &of_unknown };
            if runs.is_empty() {
                continue;
            }
            view.for_each_entry(*id, |line: ScoredLine| {
                let is_wanted = is_only(path) || line.verdict.is_refused_category();
                if is_wanted && runs.contains(&line.run) {
                    by_run.entry(line.run).or_default().push(Concerned {
                        run: line.run,
                        pair: Some(Arc::clone(path)),
                        found: Found::Line(line),
                    });
                }
            })?;
        }
        Ok(by_run)
    }

    /// Returns the unclaimed rows of these runs that may be of one of the pairs.
    fn unclaimed(
        &self,
        runs: &BTreeSet<RunKey>,
        only: Option<&PairPath>,
        paths: &BTreeMap<PairId, Arc<PairPath>>,
    ) -> Result<ByRun, EngineError> {
        let mut by_run = ByRun::new();
        for claim in self.pairs.view().unclaimed_rows()? {
            let pair = paths.get(&claim.scope);
            let is_unknown = claim.scope == PairId::ANY;
            let is_of_pair = pair.is_some_and(|pair| only.is_none_or(|only| **pair == *only));
            if !is_of_pair && !is_unknown && only.is_some() {
                continue;
            }
            let row = self.commits.export.row_at(claim.row_offset)?;
            let Ok(row) = row::view(&row) else {
                continue;
            };
            let run = row.run();
            let day_file_name = row.day_file_name();
            let is_named = is_of_pair || only.is_none_or(|only| only.file_name() == day_file_name);
            if is_named && runs.contains(&run) {
                by_run.entry(run).or_default().push(Concerned {
                    run,
                    pair: pair.cloned(),
                    found: Found::Unclaimed {
                        row: claim,
                        day_file_name: day_file_name.to_owned(),
                    },
                });
            }
        }
        Ok(by_run)
    }
}
