//! The points of the history of a dataset: how many bytes of export and ledger belong to a version, a length or a time.

use std::ops::ControlFlow;

use crate::dataset::error::DatasetError;
use crate::dataset::files::Files;
use crate::dataset::ledger_reader::LedgerReader;
use crate::dataset::rows::for_each_row;
use crate::dataset::snapshot::identity;
use crate::dataset::version::{At, Version, utc_ms};
use crate::platform::clock::{Clock as _, HostClock};
use crate::record::row::summary;

/// Returns how many bytes of export and ledger belong to a point of the history; `None` for now.
pub(super) fn point(files: &Files, at: Option<At>) -> Result<Option<(u64, u64)>, DatasetError> {
    Ok(match at {
        None => None,
        Some(At::Version(version)) => {
            fits(files, &version)?;
            Some((version.export_len, version.ledger_len))
        }
        Some(At::Len(len)) => {
            let mut ledger = LedgerReader::new(files);
            let ledger_len = ledger_len_at(files, &mut ledger, len)?;
            Some((len, not_before(files, &ledger, ledger_len)?))
        }
        Some(At::Time(ms)) => Some(lens_at(files, ms)?),
    })
}

/// Checks that a version is one of these files, without its digest.
pub(super) fn fits(files: &Files, version: &Version) -> Result<(), DatasetError> {
    let mut ledger = LedgerReader::new(files);
    ledger.read_first()?;
    let now = identity(files, &ledger)?;
    if now != version.export {
        let reason = ledger.begin.map(|begin| begin.reason).unwrap_or_default();
        return Err(DatasetError::Rebuilt {
            path: files.export_path.clone(),
            version: *version,
            now,
            reason: match reason.as_str() {
                "" => String::new(),
                reason => format!(" ({reason})"),
            },
        });
    }
    for (path, len_bytes, needed) in [
        (&files.export_path, files.export_len()?, version.export_len),
        (&files.ledger_path, files.ledger_len()?, version.ledger_len),
    ] {
        if len_bytes < needed {
            return Err(DatasetError::ShorterThanVersion {
                path: path.clone(),
                len_bytes,
                needed,
            });
        }
    }
    Ok(())
}

/// Returns the length of the ledger before the first event that was not yet known when the export had a length. The writer
/// gives an event of a row that was never effective the length at the end of that row, so a length within a commit has no
/// such row.
fn ledger_len_at(
    files: &Files,
    ledger: &mut LedgerReader,
    export_len: u64,
) -> Result<u64, DatasetError> {
    let mut first_later = None;
    ledger.read_all(files, &mut |offset, event| {
        if first_later.is_none() && event.export_len > export_len {
            first_later = Some(offset);
        }
    })?;
    Ok(first_later.unwrap_or(ledger.len_bytes()))
}

/// Checks that a length of the ledger has its first line.
fn not_before(files: &Files, ledger: &LedgerReader, len: u64) -> Result<u64, DatasetError> {
    match (len, &ledger.begin) {
        (0, Some(begin)) => Err(DatasetError::BeforeLedger {
            path: files.export_path.clone(),
            begin: format!("{} with {} bytes of the export", begin.at, begin.export_len),
        }),
        _ => Ok(len),
    }
}

/// What was known of a file at a time, by the times of its rows or events in their order.
#[derive(Debug)]
struct KnownAt {
    time_ms: u64,
    /// A later stamp is that of a clock that was ahead.
    now_ms: u64,
    /// End of the last item that was known, bytes.
    len: u64,
    /// Whether the item that was added last was known: it ends where the next one starts.
    is_open: bool,
    /// Start of the first item with a later stamp, bytes, and that stamp, milliseconds.
    first_later: Option<(u64, u64)>,
}

impl KnownAt {
    fn new(time_ms: u64, now_ms: u64) -> Self {
        Self {
            time_ms,
            now_ms,
            len: 0,
            is_open: false,
            first_later: None,
        }
    }

    /// Adds the next item. One without a stamp, or with a stamp in the future, is as old as those around it. Returns
    /// whether it was known by its stamp.
    fn add(&mut self, start: u64, at_ms: Option<u64>) -> bool {
        self.end(start);
        if let Some(at_ms) = at_ms.filter(|at| *at <= self.now_ms) {
            self.is_open = at_ms <= self.time_ms;
            if !self.is_open {
                self.first_later.get_or_insert((start, at_ms));
            }
        }
        self.is_open
    }

    fn end(&mut self, at: u64) {
        if std::mem::take(&mut self.is_open) {
            self.len = at;
        }
    }

    /// Returns whether an item before `len` has a clearly later stamp: the clock went back in between, and which of the
    /// stamps are wrong is not known.
    fn contradicts(&self, len: u64) -> bool {
        self.first_later
            .is_some_and(|(start, at_ms)| start < len && at_ms > self.time_ms + JITTER_MS)
    }
}

/// Difference of the stamps of two threads, or of a clock before and after a small correction.
const JITTER_MS: u64 = 1_000;

/// Returns how many bytes of export and ledger were there at a time: up to the last row and the last event that have no
/// later stamp. Of the rows only those count that were appended since the ledger began: the rows before keep their stamps
/// over a rebuild, and need not be in their order.
fn lens_at(files: &Files, time_ms: u64) -> Result<(u64, u64), DatasetError> {
    let now_ms = HostClock::new().wall_ms().max(time_ms);
    let head_len = files.rows_len()?;
    let mut ledger = LedgerReader::new(files);
    let (mut events, mut event_export_len) = (KnownAt::new(time_ms, now_ms), 0);
    ledger.read_all(files, &mut |offset, event| {
        if events.add(offset, utc_ms(&event.at)) {
            event_export_len = event.export_len;
        }
    })?;
    events.end(ledger.len_bytes());
    identity(files, &ledger)?;
    let from = ledger.begin.as_ref().map_or(0, |begin| begin.export_len);
    let (mut rows, mut end) = (KnownAt::new(time_ms, now_ms), from);
    for_each_row(files, from, head_len, &mut |offset, row| {
        end = offset + row.len() as u64;
        rows.add(
            offset,
            summary(row).ok().and_then(|row| utc_ms(&row.created_at)),
        );
        Ok(ControlFlow::Continue(()))
    })?;
    rows.end(end);
    let len = rows.len.max(from).max(event_export_len.min(head_len));
    if rows.contradicts(len) || events.contradicts(events.len) {
        return Err(DatasetError::ClockWentBack {
            path: files.export_path.clone(),
        });
    }
    let by_len = ledger_len_at(files, &mut LedgerReader::new(files), len)?;
    let by_time = events.first_later.map_or(by_len, |(start, _)| start);
    let ledger_len = by_len.min(by_time).max(events.len);
    Ok((len, not_before(files, &ledger, ledger_len)?))
}
