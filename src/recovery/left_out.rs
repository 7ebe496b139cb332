//! The rows that a rebuild leaves out on purpose.
//!
//! The batch finds the lines of a pair that later lines overrule, and the engine then reads the pair without their rows.
//! A day-file that is rewritten in between could lose rows that nothing overrules, so the fresh state is checked: each
//! line that it has as overruled must have a later line of its run that counts.
//!
//! Memory: about 40 bytes for each row that is left out.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::ControlFlow;

use crate::batch::overruled;
use crate::batch::pair::{LakeReader, PairReadError, PairReading, RowSelection, read_pair};
use crate::engine::Setup;
use crate::lake::path::{PairPath, Stream};
use crate::pair::orders::Orders;
use crate::pair::verdict::{Verdict, VerdictKind};
use crate::record::json::escape::Dialect;
use crate::record::keys::{RowKey, RunKey};
use crate::record::ledger::row_hash;
use crate::record::row;
use crate::record::synthesize::Synthesis;
use crate::recovery::old_ledger::{OldLedger, RowOut};
use crate::recovery::old_state::OldState;
use crate::recovery::rebuild::RebuildError;
use crate::store::snapshot::pair_path;

/// The lines of a pair that are overruled.
pub(super) enum Overruled {
    /// Their offsets.
    Lines(HashSet<u64>),
    /// A day-file cannot be read.
    Unknown,
}

impl Overruled {
    /// Returns the known offsets.
    pub(super) fn offsets(&self) -> HashSet<u64> {
        match self {
            Overruled::Lines(offsets) => offsets.clone(),
            Overruled::Unknown => HashSet::new(),
        }
    }
}

/// The rows of the old export that are left out.
pub(super) struct LeftOut {
    /// Whether any are: the rows that are not effective.
    is_effective: bool,
    /// The standing orders.
    orders: Orders,
    /// The rows that the old ledger has out, by offset.
    rows_out: HashMap<u64, RowOut>,
    /// The number of overruled lines by the key of their row.
    pub(super) overruled: HashMap<RowKey, u64>,
}

impl LeftOut {
    /// Takes what the old ledger has out.
    pub(super) fn new(old: OldLedger, is_effective: bool) -> Self {
        let mut orders = Orders::default();
        for (order, _reason) in &old.orders {
            orders.insert(RunKey::from_run_id(&order.run_id), &order.pair);
        }
        Self {
            is_effective,
            orders,
            rows_out: old.rows_out,
            overruled: HashMap::new(),
        }
    }

    /// Returns whether any rows may be left out.
    pub(super) fn is_effective(&self) -> bool {
        self.is_effective
    }

    /// Finds the overruled lines of a pair.
    pub(super) fn find(&mut self, stage: &Setup, pair: &PairPath) -> Overruled {
        if !self.is_effective || stage.exclude.matches(pair.as_path()) {
            return Overruled::Lines(HashSet::new());
        }
        match self.read(stage, pair) {
            Ok(lines) => Overruled::Lines(lines),
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => {
                Overruled::Lines(HashSet::new())
            }
            Err(error) => {
                tracing::warn!(%error, "cannot find the overruled rows: {error}");
                Overruled::Unknown
            }
        }
    }

    fn read(&mut self, stage: &Setup, pair: &PairPath) -> Result<HashSet<u64>, PairReadError> {
        let reading = PairReading {
            synthesis: Synthesis {
                dialect: Dialect::Native,
                include_partial: false,
                stamp: "",
            },
            max_line_bytes: usize::try_from(stage.limits.line_bytes_max).unwrap_or(usize::MAX),
            orders: &self.orders,
            selection: RowSelection::All,
            other_dialect: None,
        };
        let lake = LakeReader::new(&*stage.storage, &stage.root);
        let lake = lake.map_err(|source| PairReadError {
            path: pair.path(&stage.root, Stream::Scored),
            source,
            is_partial: false,
        })?;
        let name = pair.file_name();
        let mut overruled = overruled::Overruled::default();
        let mut keys = HashMap::new();
        read_pair(&lake, pair, &reading, &mut |line| {
            overruled.add(line);
            if let (Some(run), false) = (line.run, line.row.is_empty()) {
                keys.insert(line.span.offset, RowKey::from_scored(&name, run));
            }
            ControlFlow::Continue(())
        })?;
        for line in &overruled.lines {
            if let Some(key) = keys.get(line) {
                *self.overruled.entry(*key).or_default() += 1;
            }
        }
        Ok(overruled.lines)
    }

    /// Returns whether the old ledger has a row out, without its newline, and the rebuild leaves it out for that.
    pub(super) fn was_out(&self, offset: u64, line: &[u8]) -> bool {
        self.is_effective && self.row_out(offset, line).is_some()
    }

    /// Returns whether the fresh export has no row for one of the old export, without its newline, because that is out:
    /// every such row if they are left out, and otherwise one that a standing order keeps out.
    pub(super) fn row_goes(&self, offset: u64, line: &[u8]) -> bool {
        self.row_out(offset, line).is_some_and(|out| {
            let run = || row::view(line).map(|row| row.run());
            let is_ordered = |run| self.orders.apply_to(run, out.pair.as_bytes());
            self.is_effective || run().is_ok_and(is_ordered)
        })
    }

    /// Returns whether there may be any row of which [`Self::row_goes`] is true.
    pub(super) fn any_row_goes(&self) -> bool {
        !self.rows_out.is_empty() && (self.is_effective || !self.orders.is_empty())
    }

    /// Returns the pair of a row that the old ledger has out; empty where that is not known.
    pub(super) fn pair_of(&self, offset: u64, line: &[u8]) -> &str {
        self.row_out(offset, line).map_or("", |row| &row.pair)
    }

    fn row_out(&self, offset: u64, line: &[u8]) -> Option<&RowOut> {
        let row = self.rows_out.get(&offset);
        // The ledger may be of another export; a row without a hash is one of a state that is of this one.
        let is_hashed = |hash: [u8; 16]| hash == row_hash(&[line, b"\n"].concat());
        row.filter(|row| row.hash.is_none_or(is_hashed))
    }
}

/// Checks that each line whose row was left out has a later line that overrules it.
///
/// # Errors
/// [`RebuildError::Rewritten`]; the fresh state cannot be read.
pub(super) fn check_left_out(stage: &Setup, left_out: &LeftOut) -> Result<(), RebuildError> {
    if !left_out.is_effective {
        return Ok(());
    }
    let Some(fresh) = OldState::open(stage) else {
        return Err(RebuildError::Replaced(stage.state_dir.clone()));
    };
    let mut pairs = Vec::new();
    let snapshot = &fresh.snapshot;
    snapshot
        .for_each_pair(|_, checkpoint| {
            if checkpoint.counts[VerdictKind::Overruled] > 0 {
                pairs.extend(pair_path(checkpoint));
            }
        })
        .map_err(crate::engine::EngineError::from)?;
    for path in pairs {
        let pair = snapshot.pair(&path);
        let Some(pair) = pair.map_err(crate::engine::EngineError::from)? else {
            continue;
        };
        let mut last = HashMap::<RunKey, (u64, bool)>::new();
        snapshot
            .for_each_scored(&pair, |line| {
                let newest = last.entry(line.run).or_default();
                if line.verdict.overrules() && line.offset >= newest.0 {
                    *newest = (line.offset, line.verdict == Verdict::Overruled);
                }
            })
            .map_err(crate::engine::EngineError::from)?;
        if last.values().any(|(_, is_left_out)| *is_left_out) {
            return Err(RebuildError::Rewritten {
                path: path.path(&stage.root, Stream::Scored),
            });
        }
    }
    Ok(())
}
