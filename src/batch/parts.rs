//! The rows of many pairs: several threads read them, and the rows arrive in order and in parts, so that memory does not
//! grow with the history.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::batch::overruled::{OrderedLine, OrderedLines, Overruled, PairRuns, overruled_lines};
use crate::batch::pair::{
    JudgedLine, LakeReader, PairReadError, PairReading, PairTotals, RowSelection, read_pair,
};
use crate::lake::path::PairPath;
use crate::platform::background::spawn_in;
use crate::platform::map_in_order::reader_threads;

/// Approximate size of a part of a pair's rows.
const PART_BYTES: usize = 256 * 1024;
/// Maximum number of queued parts per pair: enough for an ordinary day-file, so that threads do not block.
const PARTS_WAITING: usize = 16;
/// Maximum number of queued pairs.
const PAIRS_WAITING: usize = 4;

/// A part of a pair's rows. The last part of each pair carries its totals or its error.
#[derive(Debug)]
pub struct PairRows<'p> {
    /// The pair.
    pub pair: &'p PairPath,
    /// Complete rows, each with its newline; may be empty.
    pub rows: Vec<u8>,
    /// Of the rows of this and earlier parts, those that later lines overrule.
    pub overruled: Vec<u8>,
    /// The runs of the pair that other pairs may concern, in the last part; only with
    /// [`RowSelection::AllThenOverruled`].
    pub runs: PairRuns,
    /// The lines of its runs with a standing order, in the same part.
    pub ordered: Vec<OrderedLine>,
    /// The pair's totals or the error that ended it; `None` in all but the last part.
    pub end: Option<Result<PairTotals, PairReadError>>,
}

#[derive(Default)]
struct Part {
    rows: Vec<u8>,
    overruled: Vec<u8>,
    runs: PairRuns,
    ordered: Vec<OrderedLine>,
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
    for_each_pair_mapped(lake, pairs, reading, &|part| part, visit)
}

/// As [`for_each_pair`]; the threads that read the pairs map the parts.
///
/// # Errors
/// As [`for_each_pair`].
pub(in crate::batch) fn for_each_pair_mapped<'p, T: Send, E>(
    lake: &LakeReader<'_>,
    pairs: &'p [PairPath],
    reading: &PairReading<'_>,
    map: &(impl Fn(PairRows<'p>) -> T + Sync),
    visit: &mut dyn FnMut(T) -> Result<(), E>,
) -> Result<(), E> {
    let read = |pair: &'p PairPath, send: &mut dyn FnMut(T) -> bool| {
        read_parts(lake, pair, reading, &mut |part| send(map(part.of(pair))));
    };
    read_in_order(pairs, &read, visit)
}

/// Calls `read` for each item on several threads, and `visit` on this thread with what it sends, in the order of `items`. A
/// send returns false when no more is wanted.
///
/// # Errors
/// Returns the first error of `visit` and stops reading.
pub(in crate::batch) fn read_in_order<'p, I: Sync, T: Send, E>(
    items: &'p [I],
    read: &(impl Fn(&'p I, &mut dyn FnMut(T) -> bool) + Sync),
    visit: &mut dyn FnMut(T) -> Result<(), E>,
) -> Result<(), E> {
    let threads = reader_threads();
    let (queue, arrivals) = sync_channel(PAIRS_WAITING);
    let next = Mutex::new(0);
    thread::scope(|scope| {
        // A host may refuse some of the threads; each started one reads any pair.
        let started = (0..threads.min(items.len())).filter(|_| {
            let (queue, next) = (queue.clone(), &next);
            let read = move || {
                while let Some((item, parts)) = claim(items, next, &queue) {
                    // A failed send means that the receiver was dropped.
                    read(item, &mut |part| parts.send(part).is_ok());
                }
            };
            spawn_in(scope, "read", read).is_ok()
        });
        if started.count() == 0 {
            return read_on_this_thread(items, read, visit);
        }
        // Only the threads hold senders from here on, so the queue closes when they end. An early return of this
        // closure drops the receivers, so that no thread blocks in `send` indefinitely.
        drop(queue);
        for parts in arrivals {
            for part in parts {
                visit(part)?;
            }
        }
        Ok(())
    })
}

/// Claims the next item and queues its receiver under one lock, so that the queue is in the order of `items`.
fn claim<'p, I, T>(
    items: &'p [I],
    next: &Mutex<usize>,
    queue: &SyncSender<Receiver<T>>,
) -> Option<(&'p I, SyncSender<T>)> {
    let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
    let item = items.get(*next)?;
    let (parts, received) = sync_channel(PARTS_WAITING);
    queue.send(received).ok()?;
    *next += 1;
    Some((item, parts))
}

fn read_on_this_thread<'p, I, T, E>(
    items: &'p [I],
    read: &impl Fn(&'p I, &mut dyn FnMut(T) -> bool),
    visit: &mut dyn FnMut(T) -> Result<(), E>,
) -> Result<(), E> {
    for item in items {
        let mut visited = Ok(());
        read(item, &mut |part| {
            visited = visit(part);
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
            runs,
            ordered,
            end,
        } = self;
        PairRows {
            pair,
            rows,
            overruled,
            runs,
            ordered,
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
    let (rows, end, runs, ordered) = match reading.selection {
        RowSelection::All => {
            let (rows, end) = read_judged(lake, pair, reading, send, &mut |_| true);
            (rows, end, PairRuns::default(), Vec::new())
        }
        RowSelection::Effective => {
            let (rows, end) = read_effective(lake, pair, reading, send);
            (rows, end, PairRuns::default(), Vec::new())
        }
        RowSelection::AllThenOverruled => {
            let mut overruled = Overruled::default();
            let mut ordered = OrderedLines::new(pair.file_name().into_owned());
            let (rows, end) = read_judged(lake, pair, reading, send, &mut |line| {
                overruled.add(line);
                ordered.add(line);
                true
            });
            let ordered = ordered.lines;
            let lines = std::mem::take(&mut overruled.lines);
            let runs = overruled.into_runs();
            if matches!(end, Some(Ok(_))) && !lines.is_empty() {
                // The rows so far are passed on first: the second read has parts of its own.
                let part = Part {
                    rows,
                    runs,
                    ordered,
                    ..Part::default()
                };
                if send(part) {
                    send_overruled(lake, pair, reading, &lines, end, send);
                }
                return;
            }
            (rows, end, runs, ordered)
        }
    };
    if end.is_some() {
        send(Part {
            rows,
            runs,
            ordered,
            end,
            ..Part::default()
        });
    }
}

/// Reads a pair twice, and passes on the rows that no later line overrules.
fn read_effective(
    lake: &LakeReader<'_>,
    pair: &PairPath,
    reading: &PairReading<'_>,
    send: &mut dyn FnMut(Part) -> bool,
) -> (Vec<u8>, PairEnd) {
    let lines = match overruled_lines(lake, pair, reading) {
        Ok(lines) => lines,
        Err(error) => return (Vec::new(), Some(Err(error))),
    };
    let (rows, end) = read_judged(lake, pair, reading, send, &mut |line| {
        !lines.contains(&line.span.offset)
    });
    (rows, with_overruled(end, lines.len() as u64))
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
