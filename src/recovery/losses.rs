//! Compares the export with the fresh one that a rebuild made: how many rows stay, and why the others do not. Changes
//! nothing.
//!
//! Memory: 8 bytes for each row of the fresh export, and about 40 for each row that only one of the two has.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::engine::{EngineError, Setup};
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::open_day_file;
use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::index::PairId;
use crate::pair::orders::Orders;
use crate::platform::storage::{exists, read_full_at};
use crate::record::firewall::FIREWALL;
use crate::record::kept_stamps::{self, KeptStamps};
use crate::record::keys::{RowKey, RunKey};
use crate::record::parse;
use crate::record::row;
use crate::recovery::availability::{Availability, Obstacles, availability};
use crate::recovery::dropped::{DropReason, DroppedRows, day_of, reason_of};
use crate::recovery::left_out::LeftOut;
use crate::recovery::lost_rows::LostRows;
use crate::recovery::old_state::{EarningLine, OldState, find_rows};
use crate::store::export::{Export, ExportError};
use crate::store::snapshot::pair_path;

/// The rows that are not in both exports.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Rows that are equal in both but for their timestamps.
    pub(super) kept: u64,
    /// Rows with other bytes, of the same origin.
    pub(super) replaced: u64,
    /// Rows that are left out on purpose.
    pub(super) left_out: u64,
    pub(super) dropped: Vec<DroppedRows>,
}

/// The rows of the old export without a row of the same origin in the fresh one, in order of their offsets.
#[derive(Debug, Default)]
struct Unmatched {
    offsets: Vec<u64>,
    forbidden: Vec<u64>,
    replaced: u64,
    left_out: u64,
}

/// Finds the rows that the fresh export lacks, and why. `after` holds the digests of the fresh one, sorted.
///
/// # Errors
/// One of the exports cannot be read.
pub(super) fn find_losses(
    setup: &Setup,
    stage: &Setup,
    (before, after): (&KeptStamps, &[u64]),
    obstacles: Obstacles,
    mut left_out: LeftOut,
) -> Result<Losses, EngineError> {
    let old = open(setup, &setup.export_path)?;
    let old_bytes = old.as_ref().map_or(0, Export::len_bytes);
    let (lost, added) = differences(before, after);
    let kept = before.len() as u64 - lost.values().sum::<u64>();
    let mut added_keys = HashMap::new();
    let unmatched = match &old {
        Some(old) if !lost.is_empty() => {
            added_keys = keys_of(stage, added)?;
            unmatched_rows(old, lost, &mut added_keys, &mut left_out)?
        }
        _ => Unmatched::default(),
    };
    let known = OldState::open(setup);
    let tail_is_lost = known
        .as_ref()
        .is_some_and(|known| known.export_bytes > old_bytes);
    if unmatched.offsets.is_empty() && unmatched.forbidden.is_empty() && !tail_is_lost {
        return Ok(Losses {
            kept,
            replaced: unmatched.replaced,
            left_out: unmatched.left_out,
            dropped: Vec::new(),
        });
    }
    let mut sorter = Sorter {
        setup,
        obstacles,
        old: old.as_ref(),
        added_keys,
        replaced: unmatched.replaced,
        by_pair: HashMap::new(),
        groups: BTreeMap::new(),
        orders: orders_of(stage),
        left_out,
    };
    let lines = match &known {
        Some(known) => sorter.lines_of(known, &unmatched.offsets, old_bytes)?,
        None => vec![None; unmatched.offsets.len()],
    };
    if lines.contains(&None) {
        sorter.obstacles.add_unknown(setup);
    }
    for (offset, line) in unmatched.offsets.iter().zip(lines) {
        sorter.add_row(*offset, line)?;
    }
    for offset in unmatched.forbidden {
        sorter.add(None, DropReason::Forbidden, (1, Some(offset)), None)?;
    }
    Ok(Losses {
        kept,
        replaced: sorter.replaced,
        left_out: unmatched.left_out,
        dropped: sorter.groups.into_values().collect(),
    })
}

fn open(setup: &Setup, path: &Path) -> Result<Option<Export>, EngineError> {
    let is_there = exists(&*setup.storage, path).map_err(|source| ExportError::Io {
        path: path.to_owned(),
        source,
    })?;
    is_there
        .then(|| Export::open_or_create(setup.storage.clone(), path))
        .transpose()
        .map_err(EngineError::from)
}

/// Counts by digest the lines that only one of two exports has.
fn differences(before: &KeptStamps, after: &[u64]) -> (HashMap<u64, u64>, HashMap<u64, u64>) {
    let (mut lost, mut added) = (HashMap::new(), HashMap::new());
    let mut before = before.digests().peekable();
    let mut after = after.iter().copied().peekable();
    loop {
        let (left, right) = (before.peek().copied(), after.peek().copied());
        match (left, right) {
            (None, None) => return (lost, added),
            (Some(left), Some(right)) if left == right => {
                before.next();
                after.next();
            }
            (Some(left), right) if right.is_none_or(|right| left < right) => {
                *lost.entry(left).or_default() += 1;
                before.next();
            }
            (_, right) => {
                *added.entry(right.unwrap_or_default()).or_default() += 1;
                after.next();
            }
        }
    }
}

/// Takes one of the rows with this digest; returns whether there was one.
pub(super) fn take<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u64>, key: &K) -> bool {
    match counts.get_mut(key) {
        Some(left) if *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    }
}

/// Returns the keys of the rows that only the fresh export has.
fn keys_of(
    stage: &Setup,
    mut added: HashMap<u64, u64>,
) -> Result<HashMap<RowKey, u64>, EngineError> {
    let mut keys = HashMap::new();
    let Some(fresh) = open(stage, &stage.export_path)? else {
        return Ok(keys);
    };
    fresh.for_each_row(|_, line| -> Result<(), EngineError> {
        if take(&mut added, &kept_stamps::digest(line))
            && let Ok(key) = RowKey::from_row(line)
        {
            *keys.entry(key).or_default() += 1;
        }
        Ok(())
    })?;
    Ok(keys)
}

fn unmatched_rows(
    old: &Export,
    lost: HashMap<u64, u64>,
    added: &mut HashMap<RowKey, u64>,
    left_out: &mut LeftOut,
) -> Result<Unmatched, EngineError> {
    let mut unmatched = Unmatched::default();
    let mut lost = LostRows::new(old, lost, left_out)?;
    old.for_each_row(|offset, line| -> Result<(), EngineError> {
        if !lost.take(offset, line, left_out) {
            return Ok(());
        }
        let is_forbidden =
            row::view(line).is_ok_and(|row| FIREWALL.contains(&row.quality_score.as_ref()));
        let key = RowKey::from_row(line).ok();
        let is_overruled = key.is_some_and(|key| take(&mut left_out.overruled, &key));
        if is_overruled || left_out.was_out(offset, line) {
            unmatched.left_out += 1;
        } else if key.is_some_and(|key| take(added, &key)) {
            unmatched.replaced += 1;
        } else if is_forbidden {
            unmatched.forbidden.push(offset);
        } else {
            unmatched.offsets.push(offset);
        }
        Ok(())
    })?;
    Ok(unmatched)
}

/// A pair that had rows, and whether it can be read now.
struct Origin {
    path: PairPath,
    availability: Availability,
}

/// Sorts dropped rows by day and reason.
struct Sorter<'a> {
    setup: &'a Setup,
    obstacles: Obstacles,
    old: Option<&'a Export>,
    /// The keys of fresh rows without one in the old export.
    added_keys: HashMap<RowKey, u64>,
    replaced: u64,
    by_pair: HashMap<PairId, Origin>,
    groups: BTreeMap<(Option<String>, DropReason), DroppedRows>,
    /// The standing orders that are carried over.
    orders: Orders,
    left_out: LeftOut,
}

/// Returns the standing orders of the fresh export.
fn orders_of(stage: &Setup) -> Orders {
    let mut orders = Orders::default();
    for (order, _reason) in &stage.ledger_origin.orders {
        orders.insert(RunKey::from_run_id(&order.run_id), &order.pair);
    }
    orders
}

impl Sorter<'_> {
    /// Returns the line of the row at each offset, as the old state knows it. Counts the rows that the state knows at
    /// `old_bytes` and later, which the export has lost, if their sources cannot be read or are gone.
    fn lines_of(
        &mut self,
        known: &OldState,
        offsets: &[u64],
        old_bytes: u64,
    ) -> Result<Vec<Option<EarningLine>>, EngineError> {
        let mut lines = vec![None; offsets.len()];
        let snapshot = &known.snapshot;
        let mut all = Vec::new();
        snapshot.for_each_pair(|id, checkpoint| all.push((id, checkpoint.clone())))?;
        for (id, checkpoint) in all {
            let Some(path) = pair_path(&checkpoint) else {
                continue;
            };
            let Some(pair) = snapshot.pair(&path)? else {
                continue;
            };
            let lost = find_rows(snapshot, &pair, offsets, old_bytes, &mut lines)?;
            if lost.in_export > 0 || lost.beyond > 0 {
                self.add_pair(id, path, &checkpoint, lost.beyond)?;
            }
        }
        Ok(lines)
    }

    fn add_pair(
        &mut self,
        id: PairId,
        path: PairPath,
        checkpoint: &PairCheckpoint,
        beyond: u64,
    ) -> Result<(), EngineError> {
        let availability = availability(self.setup, &self.obstacles, &path, checkpoint);
        if beyond > 0 && availability != Availability::Readable {
            let (reason, at) = reason_of(&availability);
            self.add(day_of(&path), reason, (beyond, None), at)?;
        }
        self.by_pair.insert(id, Origin { path, availability });
        Ok(())
    }

    /// Adds a row of the old export.
    fn add_row(&mut self, offset: u64, line: Option<EarningLine>) -> Result<(), EngineError> {
        let origin = line.and_then(|line| Some((line, self.by_pair.get(&line.pair)?)));
        if let Some((line, origin)) = origin {
            if let Some(key) = self.key_of(&origin.path, line)
                && take(&mut self.added_keys, &key)
            {
                self.replaced += 1;
                return Ok(());
            }
            let day = day_of(&origin.path);
            let pair = origin.path.as_bytes();
            let (reason, at) = match self.is_ordered(offset, pair)? {
                true => (DropReason::Ordered, None),
                false => reason_of(&origin.availability),
            };
            return self.add(day, reason, (1, Some(offset)), at);
        }
        let line = match self.old {
            Some(old) => old.row_at(offset)?,
            None => Vec::new(),
        };
        // No state knows the line. The ledger names the day-file of a row that is out.
        if self.is_ordered(offset, self.left_out.pair_of(offset, &line).as_bytes())? {
            return self.add(None, DropReason::Ordered, (1, Some(offset)), None);
        }
        // A line that is not a row has no source that could be away.
        let name = row::view(&line).ok().and_then(|row| {
            let (name, _index) = row.id.rsplit_once(':')?;
            Some(name.to_owned())
        });
        let hidden = name.and_then(|name| self.obstacles.may_hide(&self.setup.root, &name));
        let reason = match hidden {
            Some(_) => DropReason::Unreadable,
            None => DropReason::LineGone,
        };
        let at = hidden.map(|(path, error)| (path.display().to_string(), Some(error)));
        self.add(None, reason, (1, Some(offset)), at)
    }

    /// Returns whether a standing order is on the run of a row, in a pair or, with an empty path, in all of them.
    fn is_ordered(&self, offset: u64, pair: &[u8]) -> Result<bool, EngineError> {
        let Some(old) = self.old.filter(|_| !self.orders.is_empty()) else {
            return Ok(false);
        };
        let line = old.row_at(offset)?;
        let run = row::view(&line).map(|row| RunKey::from_run_id(&row.source_run_id));
        Ok(run.is_ok_and(|run| self.orders.apply_to(run, pair)))
    }

    /// Returns the key of a line if it can be read. A row that was edited in the export is not lost: its line earns it
    /// again.
    fn key_of(&self, pair: &PairPath, line: EarningLine) -> Option<RowKey> {
        if self.added_keys.is_empty() {
            return None;
        }
        let (storage, root) = (&*self.setup.storage, &self.setup.root);
        let day_file = open_day_file(storage, root, root, Stream::Scored, pair).ok()?;
        let mut bytes = vec![0; line.len_bytes as usize];
        let read = read_full_at(&*day_file, &mut bytes, line.offset).ok()?;
        let run = parse::scored_run(parse::trim(&bytes[..read])).ok()?;
        Some(RowKey::from_scored(&pair.file_name(), &run))
    }

    fn add(
        &mut self,
        day: Option<String>,
        reason: DropReason,
        (rows, offset): (u64, Option<u64>),
        at: Option<(String, Option<String>)>,
    ) -> Result<(), EngineError> {
        if let Some(group) = self.groups.get_mut(&(day.clone(), reason)) {
            group.rows += rows;
            return Ok(());
        }
        let line = match (self.old, offset) {
            (Some(old), Some(offset)) => old.row_at(offset)?,
            _ => Vec::new(),
        };
        let first_run =
            row::view(&line).map_or_else(|_| String::new(), |row| row.source_run_id.into_owned());
        let (path, error) = at.unzip();
        let group = DroppedRows {
            day: day.clone(),
            reason,
            rows,
            first_run,
            path,
            error: error.flatten(),
        };
        self.groups.insert((day, reason), group);
        Ok(())
    }
}
