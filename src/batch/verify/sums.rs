//! The first pass of a verification: sums the rows of the sources and of the export.

use std::sync::Arc;

use crate::batch::overruled::{OrderedLine, PairRuns};
use crate::batch::pair::{PairReadError, PairTotals};
use crate::batch::parts::{PairRows, for_each_pair_mapped};
use crate::batch::verify::elsewhere::{Elsewhere, RefusedRun};
use crate::batch::verify::error::VerifyError;
use crate::batch::verify::fact::{Stamp, utc_stamp};
use crate::batch::verify::ledger::{Ledger, Standing};
use crate::batch::verify::ordered::{OrderedRow, OrderedRuns};
use crate::batch::verify::rows::{ExportLine, ExportReader, RowSum, Sums};
use crate::batch::verify::stamps::Stamps;
use crate::batch::verify::tally::Kind;
use crate::batch::verify::{LINES_PER_STEP, Steps, Verification, export_bytes};
use crate::lake::path::{PairPath, export_path};
use crate::lake::walk::pair_bytes;
use crate::record::row::{ReadRow, RowError};

/// The rows of the batch or of the export, summed.
pub(super) struct SideSums {
    pub(super) all: Sums,
    /// The effective rows, by their keys.
    pub(super) effective: Sums,
    /// The rows that are not effective.
    pub(super) out: Sums,
}

impl SideSums {
    fn new() -> SideSums {
        SideSums {
            all: Sums::new(),
            effective: Sums::new(),
            out: Sums::new(),
        }
    }
}

/// A part of a pair's rows, summed.
struct SummedPart<'p> {
    pair: &'p PairPath,
    rows: Vec<RowSum>,
    overruled: Vec<RowSum>,
    runs: PairRuns,
    ordered: Vec<OrderedLine>,
    end: Option<Result<PairTotals, PairReadError>>,
}

impl<'p> SummedPart<'p> {
    fn of(part: PairRows<'p>) -> Self {
        Self {
            pair: part.pair,
            rows: RowSum::of_all(&part.rows),
            overruled: RowSum::of_all(&part.overruled),
            runs: part.runs,
            ordered: part.ordered,
            end: part.end,
        }
    }
}

/// What is summed of a line of the export.
enum Summed {
    /// A row with its timestamp, and its run, if a pair refuses that.
    Row(RowSum, Standing, Option<Stamp>, Option<RefusedRun>),
    /// A row that an order has out.
    OrderedOut(Option<OrderedRow>),
    /// A row of this category.
    Forbidden(String),
    Unreadable(RowError),
}

impl Summed {
    fn row(row: &ReadRow<'_>, bytes: &[u8], standing: Standing, elsewhere: &Elsewhere) -> Self {
        let stamp = utc_stamp(row.created_at.as_bytes());
        let row = RowSum::from(row);
        if matches!(standing, Standing::Effective | Standing::Out) {
            elsewhere.count(row.key);
        }
        match standing {
            Standing::OrderedOut => Summed::OrderedOut(OrderedRuns::row_of(row.key, bytes)),
            Standing::Effective => {
                let refused = elsewhere.refusal_of(row.key, bytes);
                Summed::Row(row, standing, stamp, refused)
            }
            _ => Summed::Row(row, standing, stamp, None),
        }
    }
}

impl Verification<'_> {
    /// Sums the batch's rows. Returns the sums and the size of the sources in bytes.
    pub(super) fn sum_sources(
        &mut self,
        steps: &mut Steps<'_>,
    ) -> Result<(SideSums, u64), VerifyError> {
        let walked = self.lake.walk().map_err(|source| self.walk_error(source))?;
        self.skipped.extend(walked.unreadable);
        let pairs = walked.day_files;
        let mut sums = SideSums::new();
        let lake = self.lake;
        let sizes = pairs
            .iter()
            .map(|pair| pair_bytes(lake.storage, &lake.root, pair));
        let sources_bytes: u64 = sizes.sum();
        let total_bytes = sources_bytes + export_bytes(lake);
        let mut done_bytes = 0;
        let (skipped, result) = (&mut self.skipped, &mut self.result);
        let (elsewhere, ordered) = (&mut self.elsewhere, &mut self.ordered);
        for_each_pair_mapped(lake, &pairs, &self.reading, &SummedPart::of, &mut |part| {
            for row in part.rows {
                sums.all.add(row);
                sums.effective.add_key(row);
            }
            if !part.runs.is_empty() {
                elsewhere.add(part.pair, part.runs);
            }
            ordered.add_pair(part.ordered);
            for row in part.overruled {
                elsewhere.add_overruled(row.key);
                sums.effective.remove_key(row);
                sums.out.add(row);
            }
            match part.end {
                None => return Ok(()),
                Some(Ok(totals)) => {
                    done_bytes += totals.read_bytes();
                    result.overruled += totals.overruled;
                }
                Some(Err(fault)) if fault.is_partial => return Err(VerifyError::Pair(fault)),
                Some(Err(fault)) => drop(skipped.insert(fault.path, fault.source)),
            }
            steps.step("verifying", done_bytes, total_bytes);
            Ok(())
        })?;
        Ok((sums, sources_bytes))
    }

    pub(super) fn sum_export(
        &mut self,
        sources_bytes: u64,
        ledger: &Ledger,
        steps: &mut Steps<'_>,
    ) -> Result<SideSums, VerifyError> {
        let mut sums = SideSums::new();
        let path = export_path(&self.lake.root);
        let total_bytes = sources_bytes + export_bytes(self.lake);
        let mut lines = 0_u64;
        let mut export = ExportReader::new(self.lake.storage, &path, self.options.max_line_bytes);
        // Its refused runs are complete, and its rejected ones are found here.
        let mut elsewhere = std::mem::take(&mut self.elsewhere);
        let orders = self.reading.orders;
        let map = |offset: u64, bytes: &[u8], line: ExportLine<'_>| {
            Some(match line {
                ExportLine::Row(row) => {
                    let standing = ledger.standing(orders, offset, bytes);
                    Summed::row(&row, bytes, standing, &elsewhere)
                }
                ExportLine::Forbidden(row) => Summed::Forbidden(row.quality_score.into_owned()),
                ExportLine::Unreadable(fault) => Summed::Unreadable(fault),
            })
        };
        let (mut rejected_runs, mut stamps) = (Vec::new(), Stamps::default());
        export.read_appended(&map, &mut |offset, line| {
            lines += 1;
            if lines.is_multiple_of(LINES_PER_STEP) {
                steps.step("verifying", sources_bytes + offset, total_bytes);
            }
            let at = format_args!("at byte {offset} of {}", path.display());
            match line {
                Summed::OrderedOut(row) => {
                    self.result.ordered += 1;
                    row.into_iter().for_each(|row| self.ordered.add_row(row));
                }
                Summed::Row(row, standing, stamp, rejected) => {
                    stamps.add(offset, stamp);
                    match standing {
                        Standing::OrderedOut => return,
                        Standing::NotOrderedOut => {
                            return self.fail_at(Kind::Unretracted, offset, || {
                                format!(
                                    "unretracted: a standing order is on the run of the row {at}"
                                )
                            });
                        }
                        Standing::Effective => sums.effective.add_key(row),
                        Standing::Out => sums.out.add(row),
                    }
                    rejected_runs.extend(rejected);
                    sums.all.add(row);
                }
                Summed::Forbidden(category) => self.fail_at(Kind::Forbidden, offset, || {
                    format!("forbidden: the row {at} has the quality_score {category:?}")
                }),
                Summed::Unreadable(fault) => self.fail_at(Kind::Unreadable, offset, || {
                    format!("unreadable: the line {at} is not a row: {fault}")
                }),
            }
        })?;
        for run in rejected_runs {
            elsewhere.add_rejected(run);
        }
        self.elsewhere = elsewhere;
        self.result.torn_bytes = export.torn_bytes;
        if let Ok(stat) = self.lake.storage.stat(&path) {
            let changed_ms = stat.changed_ns / 1_000_000;
            stamps.set_export_changed(u64::try_from(changed_ms).unwrap_or_default());
        }
        self.stamps = Arc::new(stamps);
        Ok(sums)
    }
}
