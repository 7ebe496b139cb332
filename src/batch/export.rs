//! The stateless export of the whole history, pair by pair in walk order. Several threads read pairs; their rows
//! arrive in order and in parts, so that memory does not grow with the history. The state directory is neither read
//! nor written, and the caller checks that the output may be written.
//!
//! An export without rows writes nothing, like the exporter that this one replaces.

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

pub use crate::batch::kept_rows::RowsLost;
pub use crate::batch::output::Output;
use crate::batch::output::Sink;
use crate::batch::pair::{
    BatchCounts, JudgedLine, LakeReader, Overruled, PairReadError, PairReading, PairTotals,
    RowSelection, overruled_lines, read_pair,
};
use crate::lake::path::{PairPath, Stream};
use crate::pair::verdict::VerdictKind;
use crate::platform::background::spawn_in;
use crate::record::final_check::{ForbiddenRow, forbidden_in_dialect};
use crate::record::json::escape::Dialect;

/// Approximate size of a part of a pair's rows.
const PART_BYTES: usize = 256 * 1024;
/// Maximum number of queued parts per pair: enough for an ordinary day-file, so that threads do not block.
const PARTS_WAITING: usize = 16;
/// Maximum number of queued pairs.
const PAIRS_WAITING: usize = 4;
/// Maximum number of reader threads; more do not read faster.
const THREADS_MAX: usize = 8;

/// A part of a pair's rows. The last part of each pair carries its totals or its error.
#[derive(Debug)]
pub struct PairRows<'p> {
    /// The pair.
    pub pair: &'p PairPath,
    /// Complete rows, each with its newline; may be empty.
    pub rows: Vec<u8>,
    /// Of the rows of this and earlier parts, those that later lines overrule.
    pub overruled: Vec<u8>,
    /// The pair's totals or the error that ended it; `None` in all but the last part.
    pub end: Option<Result<PairTotals, PairReadError>>,
}

#[derive(Default)]
struct Part {
    rows: Vec<u8>,
    overruled: Vec<u8>,
    end: Option<Result<PairTotals, PairReadError>>,
}

/// Reads pairs on all processors and calls `visit` on this thread with their rows, in the order of `pairs`.
///
/// # Errors
/// Returns the first error of `visit` and stops reading. An unreadable pair is passed to `visit` in its last part.
pub fn for_each_pair<E>(
    lake: &LakeReader<'_>,
    pairs: &[PairPath],
    reading: &PairReading<'_>,
    visit: &mut dyn FnMut(PairRows<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let threads =
        thread::available_parallelism().map_or(1, |threads| threads.get().min(THREADS_MAX));
    let (queue, arrivals) = sync_channel(PAIRS_WAITING);
    let next = Mutex::new(0);
    thread::scope(|scope| {
        // A host may refuse some of the threads; each started one reads any pair.
        let started = (0..threads.min(pairs.len())).filter(|_| {
            let (queue, next) = (queue.clone(), &next);
            let read = move || {
                while let Some((pair, parts)) = claim_pair(pairs, next, &queue) {
                    // A failed send means that the receiver was dropped.
                    read_parts(lake, pair, reading, &mut |part| parts.send(part).is_ok());
                }
            };
            spawn_in(scope, "read", read).is_ok()
        });
        if started.count() == 0 {
            return read_on_this_thread(lake, pairs, reading, visit);
        }
        // Only the threads hold senders from here on, so the queue closes when they end. An early return of this
        // closure drops the receivers, so that no thread blocks in `send` indefinitely.
        drop(queue);
        for (pair, parts) in arrivals {
            for part in parts {
                visit(part.of(pair))?;
            }
        }
        Ok(())
    })
}

type Arrival<'p> = (&'p PairPath, Receiver<Part>);

/// Claims the next pair and queues its receiver under one lock, so that the queue is in the order of `pairs`.
fn claim_pair<'p>(
    pairs: &'p [PairPath],
    next: &Mutex<usize>,
    queue: &SyncSender<Arrival<'p>>,
) -> Option<(&'p PairPath, SyncSender<Part>)> {
    let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
    let pair = pairs.get(*next)?;
    let (parts, received) = sync_channel(PARTS_WAITING);
    queue.send((pair, received)).ok()?;
    *next += 1;
    Some((pair, parts))
}

fn read_on_this_thread<E>(
    lake: &LakeReader<'_>,
    pairs: &[PairPath],
    reading: &PairReading<'_>,
    visit: &mut dyn FnMut(PairRows<'_>) -> Result<(), E>,
) -> Result<(), E> {
    for pair in pairs {
        let mut visited = Ok(());
        read_parts(lake, pair, reading, &mut |part| {
            visited = visit(part.of(pair));
            visited.is_ok()
        });
        visited?;
    }
    Ok(())
}

impl Part {
    fn of(self, pair: &PairPath) -> PairRows<'_> {
        let Part {
            rows,
            overruled,
            end,
        } = self;
        PairRows {
            pair,
            rows,
            overruled,
            end,
        }
    }
}

/// Reads a pair and passes its rows to `send`, until that returns false.
fn read_parts(
    lake: &LakeReader<'_>,
    pair: &PairPath,
    reading: &PairReading<'_>,
    send: &mut dyn FnMut(Part) -> bool,
) {
    let read = match reading.selection {
        RowSelection::All => read_rows(lake, pair, reading, None, send),
        RowSelection::Effective => overruled_lines(lake, pair, reading).map_or_else(
            |error| (Vec::new(), Some(Err(error))),
            |lines| {
                let (rows, end) = read_rows(lake, pair, reading, Some(&lines), send);
                let overruled = lines.len() as u64;
                (rows, with_overruled(end, overruled))
            },
        ),
        RowSelection::AllThenOverruled => {
            let mut overruled = Overruled::default();
            let (rows, end) = read_judged(lake, pair, reading, send, &mut |line| {
                overruled.add(line);
                true
            });
            let is_whole = matches!(end, Some(Ok(_)));
            if is_whole && !overruled.lines.is_empty() {
                let lines = &overruled.lines;
                // The rows so far are passed on first: the second read has parts of its own.
                let part = Part {
                    rows,
                    ..Part::default()
                };
                if send(part) {
                    send_overruled(lake, pair, reading, lines, end, send);
                }
                return;
            }
            (rows, end)
        }
    };
    if let (rows, Some(end)) = read {
        send(Part {
            rows,
            end: Some(end),
            ..Part::default()
        });
    }
}

type PairEnd = Option<Result<PairTotals, PairReadError>>;

fn with_overruled(end: PairEnd, overruled: u64) -> PairEnd {
    end.map(|end| {
        end.map(|totals| PairTotals {
            overruled,
            ..totals
        })
    })
}

/// Reads a pair again and passes on the rows of these lines.
fn send_overruled(
    lake: &LakeReader<'_>,
    pair: &PairPath,
    reading: &PairReading<'_>,
    lines: &HashSet<u64>,
    end: PairEnd,
    send: &mut dyn FnMut(Part) -> bool,
) {
    let mut send_as_overruled = |part: Part| {
        send(Part {
            overruled: part.rows,
            ..Part::default()
        })
    };
    let read = read_judged(lake, pair, reading, &mut send_as_overruled, &mut |line| {
        lines.contains(&line.span.offset)
    });
    let (overruled, second) = match read {
        (_, None) => return,
        (rows, Some(second)) => (rows, second),
    };
    let end = match second {
        Ok(_) => with_overruled(end, lines.len() as u64),
        // Its rows were passed on already.
        Err(error) => Some(Err(PairReadError {
            is_partial: true,
            ..error
        })),
    };
    send(Part {
        overruled,
        end,
        ..Part::default()
    });
}

/// Reads a pair, without the rows of some lines.
fn read_rows(
    lake: &LakeReader<'_>,
    pair: &PairPath,
    reading: &PairReading<'_>,
    without: Option<&HashSet<u64>>,
    send: &mut dyn FnMut(Part) -> bool,
) -> (Vec<u8>, PairEnd) {
    read_judged(lake, pair, reading, send, &mut |line| {
        without.is_none_or(|lines| !lines.contains(&line.span.offset))
    })
}

/// Reads a pair and passes the rows that `is_selected` accepts to `send`, in parts. Returns the last rows and the end of
/// the pair, which is `None` if `send` returned false.
fn read_judged(
    lake: &LakeReader<'_>,
    pair: &PairPath,
    reading: &PairReading<'_>,
    send: &mut dyn FnMut(Part) -> bool,
    is_selected: &mut dyn FnMut(&JudgedLine<'_>) -> bool,
) -> (Vec<u8>, PairEnd) {
    let mut is_stopped = false;
    let mut rows = Vec::new();
    let end = read_pair(lake, pair, reading, &mut |line| {
        if is_selected(line) {
            rows.extend_from_slice(line.row);
        }
        if rows.len() < PART_BYTES {
            return ControlFlow::Continue(());
        }
        is_stopped = !send(Part {
            rows: std::mem::take(&mut rows),
            ..Part::default()
        });
        match is_stopped {
            false => ControlFlow::Continue(()),
            true => ControlFlow::Break(()),
        }
    });
    (rows, (!is_stopped).then_some(end))
}

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
                self.progress.read_bytes += totals.read_bytes;
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
