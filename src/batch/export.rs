//! The stateless export of the whole history, pair by pair in walk order, in memory that does not grow with the history.
//! The state directory is neither read nor written, and the caller checks that the output may be written.
//!
//! An export without rows writes nothing, like the exporter that this one replaces.

use std::io;
use std::path::PathBuf;

pub use crate::batch::kept_rows::RowsLost;
pub use crate::batch::output::Output;
use crate::batch::output::Sink;
use crate::batch::pair::{BatchCounts, LakeReader, PairReadError, PairReading};
use crate::batch::parts::{PairRows, for_each_pair};
use crate::lake::path::Stream;
use crate::pair::verdict::VerdictKind;
use crate::record::final_check::{ForbiddenRow, forbidden_in_dialect};
use crate::record::json::escape::Dialect;

/// The options of a batch export.
#[derive(Debug, Clone, Copy)]
pub struct BatchOptions<'a> {
    /// Counts without writing.
    pub dry_run: bool,
    /// Limits for reading pairs and options for making rows.
    pub reading: PairReading<'a>,
}

/// The printed result. Field names and order are those of the exporter that this one replaces.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BatchResult {
    /// Scored day-files found by the walk, readable or not.
    pub scored_files_read: u64,
    /// Well-formed scored records.
    pub records_read: u64,
    /// Rows made.
    pub records_exported: u64,
    /// Firewalled records.
    pub records_quarantined: u64,
    /// Path of the output, also in a dry run; `-` for a stream.
    pub output_path: String,
    /// `firewall=N, not-instructable=M`.
    pub quarantine_summary: String,
}

/// A completed batch.
#[derive(Debug)]
pub struct BatchReport {
    /// The printed result.
    pub result: BatchResult,
    /// Verdict counts of all pairs.
    pub counts: BatchCounts,
    /// Skipped directories and day-files with their errors.
    pub unreadable: Vec<(PathBuf, io::Error)>,
    /// Bytes written; 0 if the output was not touched.
    pub written_bytes: u64,
}

/// The progress of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Number of pairs read.
    pub pairs_done: usize,
    /// Number of pairs found.
    pub pairs_total: usize,
    /// Bytes of the pairs read.
    pub read_bytes: u64,
}

/// An error of a batch. The output file keeps its old content.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The directory of the scored runs cannot be listed.
    #[error("cannot list {}: {source}", path.display())]
    Walk {
        /// The directory.
        path: PathBuf,
        /// The error of the storage.
        source: io::Error,
    },
    /// Reading a day-file failed after some of its rows had been passed on.
    #[error(transparent)]
    Pair(PairReadError),
    /// The output cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The output.
        path: String,
        /// The error of the storage.
        source: io::Error,
    },
    /// The root's own export has rows that the batch did not make again.
    #[error(
        "a new {path} would lack {} of its {} rows, the first at byte {}{}; the export is unchanged",
        lost.rows, lost.of, lost.offset, unreadable_text(unreadable.as_ref())
    )]
    WouldDrop {
        /// The export.
        path: String,
        /// The rows.
        lost: RowsLost,
        /// The first directory or day-file that could not be read, with its error.
        unreadable: Option<(PathBuf, String)>,
    },
    /// A forbidden row was made, which is a bug in this program.
    #[error(
        "refusing to write a forbidden row ({0}); the output is unchanged; please report this bug"
    )]
    Forbidden(ForbiddenRow),
}

fn unreadable_text(unreadable: Option<&(PathBuf, String)>) -> String {
    unreadable.map_or_else(String::new, |(path, error)| {
        format!("; cannot read {} ({error})", path.display())
    })
}

/// Exports the whole history.
///
/// # Errors
/// Returns a [`BatchError`]. An unreadable day-file is skipped and reported.
pub fn batch_export(
    lake: &LakeReader<'_>,
    options: &BatchOptions<'_>,
    output: Output<'_>,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<BatchReport, BatchError> {
    let walked = lake.walk();
    let lake_files = walked.map_err(|source| BatchError::Walk {
        path: Stream::Scored.base(&lake.root),
        source,
    })?;
    let mut batch = Batch {
        dialect: options.reading.synthesis.dialect,
        counts: BatchCounts::default(),
        overruled: 0,
        unreadable: lake_files.unreadable,
        progress: Progress {
            pairs_done: 0,
            pairs_total: lake_files.day_files.len(),
            read_bytes: 0,
        },
        sink: Sink::new(lake.storage, output, options.dry_run),
    };
    let all = for_each_pair(lake, &lake_files.day_files, &options.reading, &mut |part| {
        let is_end = part.end.is_some();
        batch.append(part)?;
        if is_end {
            on_progress(batch.progress);
        }
        Ok(())
    });
    match all.and_then(|()| batch.finish()) {
        Ok(()) => Ok(batch.report()),
        Err(error) => {
            batch.sink.abandon();
            Err(error)
        }
    }
}

struct Batch<'s, 'w> {
    dialect: Dialect,
    counts: BatchCounts,
    /// Rows that were left out because later lines overrule them.
    overruled: u64,
    unreadable: Vec<(PathBuf, io::Error)>,
    progress: Progress,
    sink: Sink<'s, 'w>,
}

impl Batch<'_, '_> {
    fn append(&mut self, part: PairRows<'_>) -> Result<(), BatchError> {
        if let Some(forbidden) = forbidden_in_dialect(&part.rows, self.dialect) {
            return Err(BatchError::Forbidden(forbidden));
        }
        let appended = self.sink.append(&part.rows);
        appended.map_err(|source| self.write_error(source))?;
        match part.end {
            None => return Ok(()),
            Some(Ok(totals)) => {
                self.counts += totals.counts;
                self.overruled += totals.overruled;
                self.progress.read_bytes += totals.read_bytes();
            }
            Some(Err(fault)) if fault.is_partial => return Err(BatchError::Pair(fault)),
            Some(Err(fault)) => self.unreadable.push((fault.path, fault.source)),
        }
        self.progress.pairs_done += 1;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), BatchError> {
        if let Some(lost) = self.sink.rows_lost() {
            let unreadable = self.unreadable.first();
            return Err(BatchError::WouldDrop {
                path: self.sink.name(),
                lost,
                unreadable: unreadable.map(|(path, error)| (path.clone(), error.to_string())),
            });
        }
        let finished = self.sink.finish();
        finished.map_err(|source| self.write_error(source))
    }

    fn write_error(&self, source: io::Error) -> BatchError {
        BatchError::Write {
            path: self.sink.name(),
            source,
        }
    }

    fn report(self) -> BatchReport {
        let firewalled = self.counts.verdicts[VerdictKind::Firewalled];
        let not_instructable = self.counts.not_instructable();
        BatchReport {
            result: BatchResult {
                scored_files_read: self.progress.pairs_total as u64,
                records_read: self.counts.records_read(),
                records_exported: self.counts.verdicts[VerdictKind::Exported] - self.overruled,
                records_quarantined: firewalled,
                output_path: self.sink.name(),
                quarantine_summary: format!(
                    "firewall={firewalled}, not-instructable={not_instructable}"
                ),
            },
            counts: self.counts,
            unreadable: self.unreadable,
            written_bytes: self.sink.written_bytes,
        }
    }
}
