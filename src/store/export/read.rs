//! Owns the reading of rows that are there, one or all of them.

use std::io;

use crate::platform::storage::{StorageFile, read_full_at};
use crate::store::export::{Export, ExportError, RowBlock, RowBlocks, map_blocks};

/// Bytes per read during a full scan of the export.
const SCAN_LEN: usize = 1 << 20;
/// Bytes per read of a single row.
const ROW_WINDOW_LEN: usize = 16 << 10;

impl Export {
    /// Calls `visit` with the offset and the bytes, without newline, of every whole row. Returns the offset after the
    /// last one. Memory is bounded by the longest row.
    ///
    /// # Errors
    /// [`ExportError::Io`], or the error of `visit`.
    pub fn for_each_row<E: From<ExportError>>(
        &self,
        visit: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<u64, E> {
        let read = |chunk: &mut [u8], at| -> Result<usize, E> {
            read_full_at(&*self.file, chunk, at).map_err(|source| self.io_error(source).into())
        };
        for_each_row_from(0, read, visit)
    }

    /// Maps the whole rows, many at a time, on several threads, and calls `visit` on this thread with them and what was made
    /// of them, in order. Returns the offset after the last one.
    ///
    /// # Errors
    /// [`ExportError::Io`], or the error of `visit`.
    pub fn map_rows<T: Send, E: From<ExportError>>(
        &self,
        map: impl Fn(&RowBlock) -> T + Sync,
        visit: impl FnMut(&RowBlock, T) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut blocks = RowBlocks::new(&*self.file, 0, self.len_bytes(), usize::MAX);
        map_blocks(
            &mut blocks,
            map,
            |source| self.io_error(source).into(),
            visit,
        )?;
        Ok(blocks.position().0)
    }

    /// Reads `buf.len()` bytes at `offset`; fewer only at the end.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize, ExportError> {
        read_full_at(&*self.file, buf, offset).map_err(|source| self.io_error(source))
    }

    /// Returns the length of the whole rows, bytes: a torn one may follow.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn whole_rows_len(&self) -> Result<u64, ExportError> {
        whole_lines_len(&*self.file, self.len_bytes()).map_err(|source| self.io_error(source))
    }

    /// The row that starts at `offset`, without its newline.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn row_at(&self, offset: u64) -> Result<Vec<u8>, ExportError> {
        let (row, _is_whole) = read_row(
            |bytes, at| self.read_at(bytes, at),
            offset,
            ROW_WINDOW_LEN,
            usize::MAX,
        )?;
        Ok(row)
    }
}

/// Calls `visit` with the bytes, without newline, of every whole row between two offsets of an export that another process
/// may be writing. The first offset need not be that of a row.
///
/// # Errors
/// The export cannot be read.
pub fn rows_between(
    export: &dyn StorageFile,
    from: u64,
    to: u64,
    mut visit: impl FnMut(&[u8]),
) -> io::Result<()> {
    let read = |chunk: &mut [u8], at: u64| {
        let len = (to.saturating_sub(at)).min(chunk.len() as u64) as usize;
        read_full_at(export, &mut chunk[..len], at)
    };
    let visit = |_, row: &[u8]| -> io::Result<()> {
        visit(row);
        Ok(())
    };
    for_each_row_from(from, read, visit).map(drop)
}

/// Returns the length of the whole lines among the first `len_bytes` of a file, bytes. Reads backwards from there.
///
/// # Errors
/// The file cannot be read.
pub fn whole_lines_len(file: &dyn StorageFile, len_bytes: u64) -> io::Result<u64> {
    let mut end = len_bytes;
    let mut window = vec![0; ROW_WINDOW_LEN];
    while end > 0 {
        let start = end.saturating_sub(ROW_WINDOW_LEN as u64);
        let read = read_full_at(file, &mut window[..(end - start) as usize], start)?;
        if let Some(newline) = memchr::memrchr(b'\n', &window[..read]) {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Calls `visit` with each whole row after an offset until `read` fills less than a chunk; returns the offset after the
/// last one.
fn for_each_row_from<E>(
    from: u64,
    read: impl Fn(&mut [u8], u64) -> Result<usize, E>,
    mut visit: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<u64, E> {
    let mut pending = Vec::new();
    let mut row_offset = from;
    let mut chunk = vec![0; SCAN_LEN];
    loop {
        let read = read(&mut chunk, row_offset + pending.len() as u64)?;
        let mut rest = &chunk[..read];
        while let Some(end) = memchr::memchr(b'\n', rest) {
            pending.extend_from_slice(&rest[..end]);
            visit(row_offset, &pending)?;
            row_offset += pending.len() as u64 + 1;
            pending.clear();
            rest = &rest[end + 1..];
        }
        pending.extend_from_slice(rest);
        if read < chunk.len() {
            return Ok(row_offset);
        }
    }
}

/// Returns the row at an offset of an export that another process may be writing, without its newline, or `None` if
/// it cannot be read.
#[must_use]
pub fn row_at(export: &dyn StorageFile, offset: u64) -> Option<Vec<u8>> {
    short_row_at(export, offset, ROW_WINDOW_LEN, usize::MAX)
}

/// As [`row_at`], `len_likely` bytes at a time; `None` also for a row that is longer than `len_max`, of which little more
/// than that is read.
#[must_use]
pub fn short_row_at(
    export: &dyn StorageFile,
    offset: u64,
    len_likely: usize,
    len_max: usize,
) -> Option<Vec<u8>> {
    let read = |bytes: &mut [u8], at| read_full_at(export, bytes, at);
    let (row, is_whole) = read_row(read, offset, len_likely.max(1), len_max).ok()?;
    (is_whole && row.len() <= len_max).then_some(row)
}

/// Reads up to a newline, or little more than `len_max`, or to the end: the row without its newline, and whether one was met.
fn read_row<E>(
    read: impl Fn(&mut [u8], u64) -> Result<usize, E>,
    offset: u64,
    window_len: usize,
    len_max: usize,
) -> Result<(Vec<u8>, bool), E> {
    let mut row = Vec::new();
    let mut window = vec![0; window_len];
    loop {
        let read = read(&mut window, offset + row.len() as u64)?;
        let newline = memchr::memchr(b'\n', &window[..read]);
        if row.is_empty()
            && let Some(len) = newline
        {
            window.truncate(len);
            return Ok((window, true));
        }
        row.extend_from_slice(&window[..newline.unwrap_or(read)]);
        if newline.is_some() || row.len() > len_max || read < window.len() {
            return Ok((row, newline.is_some()));
        }
    }
}
