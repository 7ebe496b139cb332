//! Copies the effective rows of a dataset: the export without the ranges of its retracted rows. Rows that are copied as
//! they are are not parsed, so that this takes the time of a copy.

use std::io::Write;
use std::ops::ControlFlow;

use crate::dataset::error::DatasetError;
use crate::dataset::files::Files;
use crate::dataset::shape::Shape;
use crate::dataset::snapshot::Snapshot;
use crate::record::ledger::RowSpan;

/// Bytes of one read, and about of one write. More does not fit the cache of a core, and is slower.
const COPY_BYTES: usize = 256 << 10;

/// Writes the rows of a snapshot from an offset on: the effective ones, or all.
///
/// # Errors
/// A row does not start or end where the ledger has it, or a file cannot be read or written. Rows before that one are
/// written.
pub fn copy_rows(
    snapshot: &Snapshot,
    from: u64,
    all: bool,
    shape: Shape,
    out: &mut dyn Write,
) -> Result<(), DatasetError> {
    let retracted = match all {
        true => &[][..],
        false => &snapshot.retracted,
    };
    let (files, to) = (&snapshot.files, snapshot.export_len);
    let first = retracted.partition_point(|row| row.offset < from);
    let (before, retracted) = retracted.split_at(first);
    if let Some(row) = before.last().filter(|row| row.end() > from) {
        return Err(Snapshot::foreign(
            files,
            "a row starts within one that the ledger has",
            row.offset,
        ));
    }
    match shape.is_plain() {
        true => Copy::new(files, retracted).run(from, to, out),
        false => shape_rows(files, retracted, (from, to), shape, out),
    }
}

/// A copy without the ranges of some rows.
struct Copy<'s> {
    files: &'s Files,
    /// The ranges that are left.
    skipped: &'s [RowSpan],
    /// The copy is within the first of them.
    inside: bool,
    /// The last byte that was read.
    last: u8,
}

impl<'s> Copy<'s> {
    fn new(files: &'s Files, skipped: &'s [RowSpan]) -> Copy<'s> {
        Copy {
            files,
            skipped,
            inside: false,
            last: b'\n',
        }
    }

    fn run(mut self, mut at: u64, to: u64, out: &mut dyn Write) -> Result<(), DatasetError> {
        let mut buf = vec![0; COPY_BYTES];
        while at < to {
            let wanted = usize::try_from(to - at).unwrap_or(usize::MAX);
            let part = &mut buf[..wanted.min(COPY_BYTES)];
            let read = self.files.read(part, at)?;
            if read == 0 {
                return Err(ended(self.files, at));
            }
            let kept = self.close_gaps(&mut part[..read], at)?;
            out.write_all(&part[..kept]).map_err(DatasetError::Output)?;
            at += read as u64;
        }
        out.flush().map_err(DatasetError::Output)
    }

    /// Moves the bytes of `part` that are kept to its front and returns their number.
    fn close_gaps(&mut self, part: &mut [u8], at: u64) -> Result<usize, DatasetError> {
        let end = at + part.len() as u64;
        let last = part.last().copied().unwrap_or(self.last);
        let (mut kept, mut done) = (0, 0);
        while let Some(row) = self.skipped.first().filter(|row| row.offset < end) {
            if !self.inside {
                let start = within(row.offset, at, part.len());
                let before = start
                    .checked_sub(1)
                    .map_or(self.last, |before| part[before]);
                if before != b'\n' {
                    return Err(Snapshot::foreign(
                        self.files,
                        "no row starts where the ledger has one",
                        row.offset,
                    ));
                }
                part.copy_within(done..start, kept);
                kept += start - done;
                self.inside = true;
            }
            done = within(row.end(), at, part.len());
            if row.end() > end {
                break;
            }
            if done == 0 || part[done - 1] != b'\n' {
                return Err(Snapshot::foreign(
                    self.files,
                    "no row ends where the ledger has its end",
                    row.offset,
                ));
            }
            self.inside = false;
            self.skipped = &self.skipped[1..];
        }
        if kept < done {
            part.copy_within(done.., kept);
        }
        self.last = last;
        Ok(kept + part.len() - done)
    }
}

/// Returns an offset of the export as one within a part that begins at `at`.
fn within(offset: u64, at: u64, len: usize) -> usize {
    usize::try_from(offset.saturating_sub(at)).map_or(len, |offset| offset.min(len))
}

fn ended(files: &Files, at: u64) -> DatasetError {
    DatasetError::Cut {
        path: files.export_path.clone(),
        at_byte: at,
    }
}

fn shape_rows(
    files: &Files,
    retracted: &[RowSpan],
    (from, to): (u64, u64),
    shape: Shape,
    out: &mut dyn Write,
) -> Result<(), DatasetError> {
    let mut shaped = Vec::with_capacity(2 * COPY_BYTES);
    let mut skip = Skip::new(files, retracted);
    for_each_row(files, from, to, &mut |offset, row| {
        if !skip.is_retracted(offset, row)? {
            write_shaped(files, offset, row, shape, &mut shaped)?;
        }
        if shaped.len() >= COPY_BYTES {
            out.write_all(&shaped).map_err(DatasetError::Output)?;
            shaped.clear();
        }
        Ok(ControlFlow::Continue(()))
    })?;
    out.write_all(&shaped).map_err(DatasetError::Output)?;
    out.flush().map_err(DatasetError::Output)
}

/// Appends a row in its shape.
pub(super) fn write_shaped(
    files: &Files,
    offset: u64,
    row: &[u8],
    shape: Shape,
    out: &mut Vec<u8>,
) -> Result<(), DatasetError> {
    shape
        .write(offset, row, out)
        .map_err(|error| DatasetError::NoRow {
            path: files.export_path.clone(),
            at_byte: offset,
            error,
        })
}

/// Finds the retracted rows among rows that are read in order.
pub(super) struct Skip<'s> {
    files: &'s Files,
    left: &'s [RowSpan],
}

impl<'s> Skip<'s> {
    pub fn new(files: &'s Files, retracted: &'s [RowSpan]) -> Skip<'s> {
        Skip {
            files,
            left: retracted,
        }
    }

    /// Returns whether the next row is retracted. The ledger must have it with its offset and length.
    pub fn is_retracted(&mut self, offset: u64, row: &[u8]) -> Result<bool, DatasetError> {
        let end = offset + row.len() as u64;
        let Some(next) = self.left.first().filter(|next| next.offset < end) else {
            return Ok(false);
        };
        if next.offset != offset || next.end() != end {
            return Err(Snapshot::foreign(
                self.files,
                "a row is not where the ledger has it",
                next.offset,
            ));
        }
        self.left = &self.left[1..];
        Ok(true)
    }
}

/// What is done with a row: its offset and its bytes.
pub(super) type EachRow<'e> = dyn FnMut(u64, &[u8]) -> Result<ControlFlow<()>, DatasetError> + 'e;

/// Calls `each` with the offset and the bytes of each row, its newline included, until it breaks.
pub(super) fn for_each_row(
    files: &Files,
    from: u64,
    to: u64,
    each: &mut EachRow<'_>,
) -> Result<(), DatasetError> {
    let mut buf = vec![0; 2 * COPY_BYTES];
    let (mut at, mut held) = (from, 0);
    while at + (held as u64) < to {
        if held == buf.len() {
            buf.resize(2 * buf.len(), 0);
        }
        let wanted = usize::try_from(to - at).map_or(buf.len(), |left| left.min(buf.len()));
        let read = files.read(&mut buf[held..wanted], at + held as u64)?;
        if read == 0 {
            return Err(ended(files, at + held as u64));
        }
        let filled = held + read;
        let mut done = 0;
        for newline in memchr::memchr_iter(b'\n', &buf[..filled]) {
            let row = &buf[done..=newline];
            if each(at + done as u64, row)?.is_break() {
                return Ok(());
            }
            done = newline + 1;
        }
        buf.copy_within(done..filled, 0);
        at += done as u64;
        held = filled - done;
    }
    Ok(())
}
