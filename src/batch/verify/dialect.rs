//! Recognizes an export of the other dialect by a sample of its rows, before rows are compared one by one: the sources are
//! then summed once more in that dialect, and where the sums are those of the export its rows need no other explanation.
//!
//! Memory: the sums, and 16 bytes for each pair.

use std::ops::ControlFlow;

use crate::batch::pair::{JudgedLine, PairReading, read_pair};
use crate::batch::parts::read_in_order;
use crate::batch::verify::error::VerifyError;
use crate::batch::verify::rows::{BUCKETS, RowSum, Sums};
use crate::batch::verify::tally::Kind;
use crate::batch::verify::{Steps, Verification};
use crate::lake::path::{PairPath, export_path};
use crate::record::json::escape::{Dialect, has_escape_of_go};
use crate::store::export::rows_between;

/// Fraction of the rows that are held at once from which more differing rows are examined together.
const ROWS_MIN_FRACTION: u64 = 16;
/// Places of the export from which rows are taken, and the bytes of each.
const SAMPLES: u64 = 16;
const SAMPLE_BYTES: u64 = 64 << 10;
/// Rows of a part of a pair.
const ROWS_AT_ONCE: usize = 1_024;

/// Rows of a part of a pair in the other dialect.
struct OtherRows {
    /// The rows, and whether each of them is another one in the native dialect.
    rows: Vec<(RowSum, bool)>,
    is_end: bool,
}

/// The rows of the sources in the other dialect.
struct OtherSums {
    sums: Sums,
    /// The number of rows of each pair, by its position, that are others in the native dialect; of some buckets.
    differing: Vec<(usize, u64)>,
}

impl Verification<'_> {
    /// Counts the rows of the other dialect in the buckets in which all rows are of it, if many rows differ and the
    /// export seems to be of that dialect. Returns the sums that are due, which then are those of the export.
    pub(super) fn settle_other_dialect(
        &mut self,
        due: Sums,
        existing: &Sums,
        steps: &mut Steps<'_>,
    ) -> Result<Sums, VerifyError> {
        let differing = due.differing_buckets(existing);
        let rows_min = self.options.rows_held_max / ROWS_MIN_FRACTION;
        // The other exporter knows no orders, and rows that may be absent do not add up.
        let is_plain = !self.without_overruled && self.reading.orders.is_empty();
        if !is_plain || differing.rows <= rows_min || !self.is_sample_of_go() {
            return Ok(due);
        }
        let pairs = self.lake.walk().map_err(|source| self.walk_error(source))?;
        let pairs = pairs.day_files;
        let mut other = self.sum_other(&pairs, &differing.buckets, steps)?;
        let settled = differing.settled_by(&other.sums, existing);
        if settled != differing.buckets {
            if !settled.contains(&true) {
                return Ok(due);
            }
            other = self.sum_other(&pairs, &settled, &mut Steps::silent())?;
            if differing.settled_by(&other.sums, existing) != settled {
                return Ok(due);
            }
        }
        for (pair, rows) in other.differing {
            self.result.count(Kind::OtherDialect, rows);
            self.days
                .count(Some(&pairs[pair]), Kind::OtherDialect, rows);
        }
        Ok(due.replaced_in(&settled, existing))
    }

    /// Returns whether rows of the export have the escapes of the other dialect.
    fn is_sample_of_go(&self) -> bool {
        let opened = (self
            .lake
            .storage
            .canonicalize(&export_path(&self.lake.root)))
        .and_then(|path| self.lake.storage.open_read(&path));
        let Ok((file, stat)) = opened.and_then(|file| file.stat().map(|stat| (file, stat))) else {
            return false;
        };
        (0..SAMPLES).any(|number| {
            let from = stat.len_bytes / SAMPLES * number;
            // The first row may lack its beginning.
            let mut is_whole = from == 0;
            let mut is_of_go = false;
            let read = rows_between(&*file, from, from + SAMPLE_BYTES, |row| {
                is_of_go |= std::mem::replace(&mut is_whole, true) && has_escape_of_go(row);
            });
            read.is_ok() && is_of_go
        })
    }

    /// Sums the rows that both exporters make, in the other dialect, and counts the differing rows of some buckets.
    fn sum_other(
        &self,
        pairs: &[PairPath],
        buckets: &[bool],
        steps: &mut Steps<'_>,
    ) -> Result<OtherSums, VerifyError> {
        let reading = PairReading {
            other_dialect: Some(Dialect::Go),
            ..self.reading
        };
        let read = |pair: &PairPath, send: &mut dyn FnMut(OtherRows) -> bool| {
            let mut rows = Vec::with_capacity(ROWS_AT_ONCE);
            let read = read_pair(self.lake, pair, &reading, &mut |line| {
                rows.extend(row_of(line));
                let is_wanted = rows.len() < ROWS_AT_ONCE || {
                    let rows = std::mem::take(&mut rows);
                    send(OtherRows {
                        rows,
                        is_end: false,
                    })
                };
                match is_wanted {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                }
            });
            // The rows of a pair that cannot be read do not add up, and are compared one by one.
            drop(read);
            send(OtherRows { rows, is_end: true });
        };
        let mut other = OtherSums {
            sums: Sums::new(),
            differing: Vec::new(),
        };
        let (mut at, mut count) = (0, 0);
        read_in_order(pairs, &read, &mut |part: OtherRows| {
            for (row, is_other) in part.rows {
                other.sums.add(row);
                count += u64::from(is_other && buckets[row.bucket()]);
            }
            if part.is_end {
                other.differing.extend((count > 0).then_some((at, count)));
                (at, count) = (at + 1, 0);
                steps.step("comparing the dialect", at as u64, pairs.len() as u64);
            }
            Ok(())
        })?;
        Ok(other)
    }
}

/// Returns the row of a line in the other dialect, and whether it is another one in the native dialect.
fn row_of(line: &JudgedLine<'_>) -> Option<(RowSum, bool)> {
    (!line.other_row.is_empty()).then(|| (RowSum::of(line.other_row), line.other_row != line.row))
}

/// Buckets that differ.
pub(super) struct DifferingBuckets {
    /// A flag for each bucket.
    pub(super) buckets: Vec<bool>,
    /// Rows of both sides in them.
    pub(super) rows: u64,
}

impl DifferingBuckets {
    /// Returns the buckets among these in which other sums are those of the export.
    fn settled_by(&self, other: &Sums, existing: &Sums) -> Vec<bool> {
        let equal = other.differing_buckets(existing).buckets;
        let settled = (0..BUCKETS).map(|bucket| self.buckets[bucket] && !equal[bucket]);
        settled.collect()
    }
}
