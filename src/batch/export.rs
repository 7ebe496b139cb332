//! Owns the stateless batch: the whole history, pair by pair in walk order, to rows and a result. Pairs are read by
//! several threads; their rows arrive in order and in parts, so that memory does not grow with the history. It keeps
//! no state, looks at none, and decides nothing of who may write where.
//!
//! With no rows nothing is written, as the exporter this replaces did.

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

pub use crate::batch::output::Output;
use crate::batch::output::Sink;
use crate::batch::pair::{
    BatchCounts, LakeReader, PairReadError, PairReading, PairTotals, read_pair,
};
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::walk;
use crate::pair::verdict::VerdictKind;
use crate::record::final_check::{ForbiddenRow, forbidden_in_dialect};
use crate::record::json::escape::Dialect;

/// Rows are passed on in parts of about this size.
const PART_BYTES: usize = 256 * 1024;
/// Parts of a pair that may wait for their turn: enough for an ordinary day-file, so that threads do not stop.
const PARTS_WAITING: usize = 16;
/// Pairs that may wait for their turn.
const PAIRS_WAITING: usize = 4;
/// More threads than this do not read faster.
const THREADS_MAX: usize = 8;

/// A part of a pair's rows. The last part of each pair says how it ended.
#[derive(Debug)]
pub struct PairRows<'p> {
    /// The pair.
    pub pair: &'p PairPath,
    /// Whole rows, each with its newline; may be none.
    pub rows: Vec<u8>,
    /// In the last part: the pair's totals, or why it could not be read.
    pub end: Option<Result<PairTotals, PairReadError>>,
}

struct Part {
    rows: Vec<u8>,
    end: Option<Result<PairTotals, PairReadError>>,
}

/// Reads pairs on all processors and calls `visit` on this thread with every row they make, in the order of `pairs`.
///
/// # Errors
/// What `visit` says; then no more is read. A pair that cannot be read is no error here: `visit` is told.
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
        for _ in 0..threads.min(pairs.len()) {
            let (queue, next) = (queue.clone(), &next);
            scope.spawn(move || {
                while let Some((pair, parts)) = claim_pair(pairs, next, &queue) {
                    send_pair(lake, pair, reading, &parts);
                }
            });
        }
        // Only the threads hold the queue from here on: it ends with them. And when this closure returns early, the
        // receiving ends are dropped, so that no thread waits for ever to send.
        drop(queue);
        for (pair, parts) in arrivals {
            for Part { rows, end } in parts {
                visit(PairRows { pair, rows, end })?;
            }
        }
        Ok(())
    })
}

type Arrival<'p> = (&'p PairPath, Receiver<Part>);

/// Takes the next pair and puts its receiving end in the queue, both in one step: the queue is in the order of pairs.
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

/// Sends a pair's rows. That nobody receives them any more ends the pair, and is no fault.
fn send_pair(
    lake: &LakeReader<'_>,
    pair: &PairPath,
    reading: &PairReading<'_>,
    parts: &SyncSender<Part>,
) {
    let mut rows = Vec::new();
    let end = read_pair(lake, pair, reading, &mut |line| {
        rows.extend_from_slice(line.row);
        if rows.len() < PART_BYTES {
            return ControlFlow::Continue(());
        }
        let full = Part {
            rows: std::mem::take(&mut rows),
            end: None,
        };
        match parts.send(full) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    let _nobody_listens = parts.send(Part {
        rows,
        end: Some(end),
    });
}

/// What a batch is to do.
#[derive(Debug, Clone, Copy)]
pub struct BatchOptions<'a> {
    /// Count, and write nothing.
    pub dry_run: bool,
    /// How pairs are read and rows are made.
    pub reading: PairReading<'a>,
}

/// What a batch prints: names and order are those of the exporter it replaces.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BatchResult {
    /// Scored day-files found by the walk, readable or not.
    pub scored_files_read: u64,
    /// Well-formed scored records.
    pub records_read: u64,
    /// Rows.
    pub records_exported: u64,
    /// Records stopped by the firewall.
    pub records_quarantined: u64,
    /// Where the rows are, or would be; `-` for a stream.
    pub output_path: String,
    /// `firewall=N, not-instructable=M`.
    pub quarantine_summary: String,
}

/// A batch that was done.
#[derive(Debug)]
pub struct BatchReport {
    /// What is printed.
    pub result: BatchResult,
    /// Verdicts of all pairs.
    pub counts: BatchCounts,
    /// Directories and day-files that were passed over, and why.
    pub unreadable: Vec<(PathBuf, io::Error)>,
    /// Bytes written; with none the output was not touched.
    pub written_bytes: u64,
}

/// How far a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Pairs done.
    pub pairs_done: usize,
    /// Pairs in all.
    pub pairs_total: usize,
    /// Bytes read of the pairs done.
    pub read_bytes: u64,
}

/// Why a batch failed. The file it was to replace is as it was.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The scored runs' own directory cannot be listed.
    #[error("cannot list {}: {source}", path.display())]
    Walk {
        /// The directory.
        path: PathBuf,
        /// What the storage said.
        source: io::Error,
    },
    /// A day-file failed when rows of it were already passed on.
    #[error(transparent)]
    Pair(PairReadError),
    /// The output cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The output.
        path: String,
        /// What the storage said.
        source: io::Error,
    },
    /// A row that must not be shown was made: a fault in this program.
    #[error("{0}; nothing of it was written")]
    Forbidden(ForbiddenRow),
}

/// Runs the batch over the whole history.
///
/// # Errors
/// See [`BatchError`]. A day-file that cannot be read is passed over and reported.
pub fn batch_export(
    lake: &LakeReader<'_>,
    options: &BatchOptions<'_>,
    output: Output<'_>,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<BatchReport, BatchError> {
    let walked = walk(lake.storage, &lake.root, Stream::Scored);
    let found = walked.map_err(|source| BatchError::Walk {
        path: Stream::Scored.base(&lake.root),
        source,
    })?;
    let mut batch = Batch {
        dialect: options.reading.synthesis.dialect,
        counts: BatchCounts::default(),
        unreadable: found.unreadable,
        progress: Progress {
            pairs_done: 0,
            pairs_total: found.day_files.len(),
            read_bytes: 0,
        },
        sink: Sink::new(lake.storage, output, options.dry_run),
    };
    let all = for_each_pair(lake, &found.day_files, &options.reading, &mut |part| {
        let is_end = part.end.is_some();
        batch.take(part)?;
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
    unreadable: Vec<(PathBuf, io::Error)>,
    progress: Progress,
    sink: Sink<'s, 'w>,
}

impl Batch<'_, '_> {
    fn take(&mut self, part: PairRows<'_>) -> Result<(), BatchError> {
        if let Some(forbidden) = forbidden_in_dialect(&part.rows, self.dialect) {
            return Err(BatchError::Forbidden(forbidden));
        }
        let taken = self.sink.append(&part.rows);
        taken.map_err(|source| self.write_fault(source))?;
        match part.end {
            None => return Ok(()),
            Some(Ok(totals)) => {
                self.counts += totals.counts;
                self.progress.read_bytes += totals.read_bytes;
            }
            Some(Err(fault)) if fault.is_partial => return Err(BatchError::Pair(fault)),
            Some(Err(fault)) => self.unreadable.push((fault.path, fault.source)),
        }
        self.progress.pairs_done += 1;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), BatchError> {
        let finished = self.sink.finish();
        finished.map_err(|source| self.write_fault(source))
    }

    fn write_fault(&self, source: io::Error) -> BatchError {
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
                records_exported: self.counts.verdicts[VerdictKind::Exported],
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
