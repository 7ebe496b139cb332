//! The first pass of a verification: sums the rows of the sources and of the export.

use crate::batch::parts::for_each_pair;
use crate::batch::verify::error::VerifyError;
use crate::batch::verify::ledger::{Ledger, Standing};
use crate::batch::verify::rows::{ExportLine, ExportReader, Sums};
use crate::batch::verify::tally::Kind;
use crate::batch::verify::{LINES_PER_STEP, Steps, Verification, export_bytes};
use crate::lake::path::export_path;
use crate::lake::walk::pair_bytes;
use crate::record::row::summary;

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
        let elsewhere = &mut self.elsewhere;
        for_each_pair(self.lake, &pairs, &self.reading, &mut |part| {
            for row in part.rows.split_inclusive(|byte| *byte == b'\n') {
                let row = summary(row).expect("a row that was just made can be read");
                sums.all.add(&row);
                sums.effective.add_key(&row);
            }
            if !part.runs.is_empty() {
                elsewhere.add(part.pair, part.runs);
            }
            for row in part.overruled.split_inclusive(|byte| *byte == b'\n') {
                let row = summary(row).expect("a row that was just made can be read");
                sums.effective.remove_key(&row);
                sums.out.add(&row);
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
        export.read_appended(&mut |offset, bytes, line| {
            lines += 1;
            if lines.is_multiple_of(LINES_PER_STEP) {
                steps.step("verifying", sources_bytes + offset, total_bytes);
            }
            let at = format_args!("at byte {offset} of {}", path.display());
            match line {
                ExportLine::Row(row) => {
                    match ledger.standing(self.reading.orders, offset, bytes) {
                        Standing::OrderedOut => {
                            self.result.ordered += 1;
                            return;
                        }
                        Standing::NotOrderedOut => {
                            return self.fail_at(Kind::Unretracted, offset, || {
                                format!(
                                    "unretracted: a standing order is on the run of the row {at}"
                                )
                            });
                        }
                        Standing::Effective => {
                            self.elsewhere.on_effective_row(bytes);
                            sums.effective.add_key(&row);
                        }
                        Standing::Out => sums.out.add(&row),
                    }
                    sums.all.add(&row);
                }
                ExportLine::Forbidden(row) => self.fail_at(Kind::Forbidden, offset, || {
                    let category = row.quality_score;
                    format!("forbidden: the row {at} has the quality_score {category:?}")
                }),
                ExportLine::Unreadable(fault) => {
                    self.fail_at(Kind::Unreadable, offset, || {
                        format!("unreadable: the line {at} is not a row: {fault}")
                    });
                }
            }
        })?;
        self.result.torn_bytes = export.torn_bytes;
        Ok(sums)
    }
}
