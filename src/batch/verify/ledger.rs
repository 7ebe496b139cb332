//! Holds the retraction ledger against the sources: the rows that it has out are those that later lines overrule, and those
//! of runs with a standing order.
//!
//! Effective rows are counted by key on both sides, in the buckets of the first pass. Where a bucket differs its keys are
//! compared one by one, in slices of bounded size, until the difference has been the same for the patience. Keys whose
//! rows differ in number are left to the comparison of the rows.
//!
//! Memory: 16 bytes for each row that is out, and the keys of a slice.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::batch::parts::for_each_pair;
use crate::batch::verify::error::VerifyError;
use crate::batch::verify::ledger_rows::fault_of_rows;
use crate::batch::verify::rows::{ExportLine, ExportReader, RowSum, Slice, Sums};
use crate::batch::verify::tally::Kind;
use crate::batch::verify::{Steps, Verification};
use crate::lake::path::{export_path, ledger_path};
use crate::pair::orders::Orders;
use crate::platform::root_lock;
use crate::platform::storage::Storage;
use crate::record::keys::LocalRowKey;
use crate::record::ledger::fold::Fold;
use crate::record::row;
use crate::store::export::rows_between;

/// The pause between two reads of a difference.
const PAUSE: Duration = Duration::from_millis(200);

/// The ledger as it was at one moment.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    fold: Fold,
    /// Whether there is one with a line.
    pub(super) is_there: bool,
    /// Whether a rebuild began it that left out the rows that were not effective.
    pub(super) is_of_effective_rows: bool,
    /// The first line that breaks a rule.
    pub(super) fault: Option<String>,
}

impl Ledger {
    /// Reads the whole lines of the ledger of a lake.
    pub(super) fn read(storage: &dyn Storage, path: &Path) -> io::Result<Ledger> {
        let mut ledger = Ledger::default();
        let file = match storage.open_read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ledger),
            opened => opened?,
        };
        let end = file.stat()?.len_bytes;
        let mut whole = Vec::new();
        rows_between(&*file, 0, end, |line| {
            whole.clear();
            whole.extend_from_slice(line);
            whole.push(b'\n');
            ledger.is_there = true;
            match ledger.fold.read(&whole) {
                Ok(event) => ledger.is_of_effective_rows |= event.is_of_effective_rows(),
                Err(error) => drop(ledger.fault.get_or_insert(error.to_string())),
            }
        })?;
        Ok(ledger)
    }

    /// Returns whether a row is out.
    pub(super) fn is_out(&self, offset: u64) -> bool {
        self.fold.is_retracted(offset)
    }

    /// Returns the number of rows that are out.
    pub(super) fn rows_out(&mut self) -> u64 {
        self.fold.retracted().len() as u64
    }
}

/// The part of a row in the effective set of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It counts.
    Effective,
    /// A line overrules it.
    Out,
    /// It is out, and a standing order is on its run.
    OrderedOut,
    /// A standing order is on its run, and it is not out.
    NotOrderedOut,
}

impl Ledger {
    /// Returns the part of the row at an offset.
    pub(super) fn standing(&self, orders: &Orders, offset: u64, row: &[u8]) -> Standing {
        let is_out = self.fold.is_retracted(offset);
        if !orders.is_empty()
            && let Ok(view) = row::view(row)
        {
            let run = view.run();
            if is_out && orders.has_run(run) {
                return Standing::OrderedOut;
            }
            if !is_out && orders.contains(run, b"") {
                return Standing::NotOrderedOut;
            }
        }
        match is_out {
            true => Standing::Out,
            false => Standing::Effective,
        }
    }
}

/// The rows of a key on both sides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct KeyCounts {
    earned: u64,
    earned_effective: u64,
    /// Rows that the export may lack, because later lines overrule them.
    dispensable: u64,
    rows: u64,
    rows_effective: u64,
    /// Offset of the first row that is effective, and of the first that is out.
    example: [Option<u64>; 2],
}

type Differences = BTreeMap<LocalRowKey, (Kind, u64, u64)>;

impl KeyCounts {
    /// Returns the difference of the effective rows, if it is not explained by missing or surplus rows: its kind, the number
    /// of rows, and the offset of the first one.
    fn difference(&self) -> Option<(Kind, u64, u64)> {
        if self.rows > self.earned || self.rows + self.dispensable < self.earned {
            return None;
        }
        let [effective, out] = self.example.map(|offset| offset.unwrap_or(0));
        let unretracted = self.rows_effective.saturating_sub(self.earned_effective);
        let unfounded = self.earned_effective.saturating_sub(self.rows_effective);
        match (unretracted, unfounded) {
            (0, 0) => None,
            (0, count) => Some((Kind::Unfounded, count, out)),
            (count, _) => Some((Kind::Unretracted, count, effective)),
        }
    }
}

impl Verification<'_> {
    /// Reads the ledger as it is now.
    pub(super) fn current_ledger(&self) -> Result<Ledger, VerifyError> {
        let path = ledger_path(&export_path(&self.lake.root));
        let read = Ledger::read(self.lake.storage, &path);
        read.map_err(|source| VerifyError::Ledger { path, source })
    }

    /// Reads the ledger, and counts it as a failure if it is damaged, lacks what was written to it, or is missing where a
    /// daemon wrote the export.
    pub(super) fn read_ledger(&mut self) -> Result<Ledger, VerifyError> {
        let path = ledger_path(&export_path(&self.lake.root));
        let mut ledger = self.current_ledger()?;
        self.result.retracted = ledger.rows_out();
        if let Some(fault) = ledger.fault.take() {
            let what = format!("ledger: {} is damaged: {fault}", path.display());
            self.fail_at(Kind::Ledger, 0, || what);
        } else if let Some(fault) = self.fault_of_rows(&path)? {
            let what = format!("ledger: {} is damaged: {fault}", path.display());
            self.fail_at(Kind::Ledger, 0, || what);
        } else if !ledger.is_there && self.ledger_is_due() {
            let what = format!("ledger: {} is missing, or has no line", path.display());
            self.fail_at(Kind::Ledger, 0, || what);
        } else if let Some(fault) = (self.known.ledger)() {
            // An older copy of the ledger is whole in itself.
            self.fail_at(Kind::Ledger, 0, || format!("ledger: {fault}"));
        }
        Ok(ledger)
    }

    /// Returns whether a daemon wrote the export, or is adopting it: it makes a ledger before anything else of it can be
    /// read.
    fn ledger_is_due(&self) -> bool {
        let root = &self.lake.root;
        let has_export = self.lake.storage.stat(&export_path(root)).is_ok();
        has_export && matches!(root_lock::last_holder(root), Ok(Some(_)))
    }

    fn fault_of_rows(&self, ledger: &Path) -> Result<Option<String>, VerifyError> {
        let root = &self.lake.root;
        fault_of_rows(self.lake.storage, root, &export_path(root)).map_err(|source| {
            VerifyError::Ledger {
                path: ledger.to_owned(),
                source,
            }
        })
    }

    /// Compares the effective rows of buckets that differ, key by key.
    pub(super) fn recheck_ledger(
        &mut self,
        expected: &Sums,
        existing: &Sums,
        steps: &mut Steps<'_>,
    ) -> Result<(), VerifyError> {
        for group in expected.differing(existing, self.options.rows_held_max) {
            for part in 0..group.parts {
                let slice = Slice {
                    group: &group,
                    part,
                };
                let differences = self.lasting_differences(slice, steps)?;
                for (kind, count, offset) in differences.into_values() {
                    let what = match kind {
                        Kind::Unretracted => "unretracted: a later line of its run overrules",
                        _ => "unfounded: no line and no order overrules",
                    };
                    let path = export_path(&self.lake.root);
                    for _ in 0..count {
                        self.fail_at(kind, offset, || {
                            format!("{what} the row at byte {offset} of {}", path.display())
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads both sides until the differences of a slice are the same for the patience, or no daemon runs.
    fn lasting_differences(
        &self,
        slice: Slice<'_>,
        steps: &mut Steps<'_>,
    ) -> Result<Differences, VerifyError> {
        let mut since = Instant::now();
        let mut before = self.differences(slice, steps)?;
        loop {
            if before.is_empty() || !root_lock::is_held(&self.lake.root) {
                return Ok(before);
            }
            thread::sleep(PAUSE.min(self.options.patience));
            let now = self.differences(slice, &mut Steps::silent())?;
            if now != before {
                since = Instant::now();
            } else if since.elapsed() >= self.options.patience {
                return Ok(now);
            }
            before = now;
        }
    }

    fn differences(
        &self,
        slice: Slice<'_>,
        steps: &mut Steps<'_>,
    ) -> Result<Differences, VerifyError> {
        let mut keys = HashMap::<LocalRowKey, KeyCounts>::new();
        let in_slice = |key: LocalRowKey| slice.has_key(key) && slice.has_digest(key.0);
        let walked = self.lake.walk().map_err(|source| self.walk_error(source))?;
        let mut pairs = walked.day_files;
        pairs.retain(|pair| slice.may_have_keys_of(pair));
        for_each_pair(self.lake, &pairs, &self.reading, &mut |part| {
            for (rows, is_overruled) in [(&part.rows, false), (&part.overruled, true)] {
                for row in RowSum::of_all(rows) {
                    if in_slice(row.key) {
                        let counts = keys.entry(row.key).or_default();
                        counts.earned += u64::from(!is_overruled);
                        if is_overruled {
                            counts.earned_effective = counts.earned_effective.saturating_sub(1);
                            counts.dispensable += u64::from(self.without_overruled);
                        } else {
                            counts.earned_effective += 1;
                        }
                    }
                }
            }
            match part.end {
                Some(Err(fault)) if fault.is_partial => Err(VerifyError::Pair(fault)),
                _ => Ok(()),
            }
        })?;
        let path = export_path(&self.lake.root);
        let ledger = self.current_ledger()?;
        let mut export = ExportReader::new(self.lake.storage, &path, self.options.max_line_bytes);
        let map = |offset: u64, bytes: &[u8], line: ExportLine<'_>| match line {
            ExportLine::Row(row) if in_slice(row.key) => {
                match ledger.standing(self.reading.orders, offset, bytes) {
                    Standing::OrderedOut | Standing::NotOrderedOut => None,
                    standing => Some((row.key, standing == Standing::Effective)),
                }
            }
            _ => None,
        };
        export.read_appended(&map, &mut |offset, (key, is_effective)| {
            let counts = keys.entry(key).or_default();
            counts.rows += 1;
            counts.rows_effective += u64::from(is_effective);
            counts.example[usize::from(!is_effective)].get_or_insert(offset);
        })?;
        steps.step("verifying the ledger", 1, 1);
        let differences = keys.iter();
        Ok(differences
            .filter_map(|(key, counts)| Some((*key, counts.difference()?)))
            .collect())
    }
}
