//! Reads an export in blocks of whole rows, which several threads can examine.

use std::io;

use crate::platform::map_in_order::map_in_order;
use crate::platform::storage::{StorageFile, retry_interrupted};

/// Bytes per read, and of most blocks.
const BLOCK_LEN: usize = 256 << 10;
/// Blocks from this length on are of a long row.
const LARGE_LEN: usize = 2 << 20;

/// Whole rows that follow each other in an export.
#[derive(Debug)]
pub struct RowBlock {
    /// Start of the first row, bytes.
    pub offset: u64,
    /// The rows with their newlines; `None` for a single row that is longer than any may be.
    pub rows: Option<Vec<u8>>,
}

impl RowBlock {
    /// Calls `visit` with the offset and the bytes, without newline, of each row.
    pub fn for_each(&self, mut visit: impl FnMut(u64, &[u8])) {
        let (mut offset, mut rest) = (self.offset, self.rows.as_deref().unwrap_or_default());
        while let Some(end) = memchr::memchr(b'\n', rest) {
            visit(offset, &rest[..end]);
            offset += end as u64 + 1;
            rest = &rest[end + 1..];
        }
    }

    /// Returns the end of the last row that is held, bytes.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + self.rows.as_ref().map_or(0, |rows| rows.len() as u64)
    }

    /// Returns whether few of such blocks should be in memory.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.rows
            .as_ref()
            .is_some_and(|rows| rows.len() >= LARGE_LEN)
    }
}

/// The blocks of an export that another process may be writing, up to an end.
#[derive(Debug)]
pub struct RowBlocks<'f> {
    file: &'f dyn StorageFile,
    end: u64,
    row_len_max: usize,
    /// Start of the next row.
    offset: u64,
    /// Offset up to which the file was read.
    read_to: u64,
    /// The last bytes that were read, from the next row on; fewer of a row that is too long.
    pending: Vec<u8>,
    spare: Vec<Vec<u8>>,
}

impl<'f> RowBlocks<'f> {
    /// Reads the rows between two offsets, of which the first must be that of a row. A row of more than `row_len_max` bytes
    /// is not held.
    #[must_use]
    pub fn new(file: &'f dyn StorageFile, from: u64, end: u64, row_len_max: usize) -> Self {
        Self {
            file,
            end,
            row_len_max,
            offset: from,
            read_to: from,
            pending: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Returns the next rows, `None` at the end.
    ///
    /// # Errors
    /// The export cannot be read.
    pub fn next_block(&mut self) -> io::Result<Option<RowBlock>> {
        // Only a skipped row leaves a newline in what is pending.
        let mut searched = 0;
        loop {
            if let Some(at) = memchr::memrchr(b'\n', &self.pending[searched..]) {
                return Ok(Some(self.take(searched + at + 1)));
            }
            if self.pending.len() > self.row_len_max {
                return self.skip_row();
            }
            searched = self.pending.len();
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    /// Returns the offset of the next row, and the number of bytes of it that were read.
    #[must_use]
    pub fn position(&self) -> (u64, u64) {
        (self.offset, self.read_to - self.offset)
    }

    /// Takes the memory of a block that is no longer needed.
    pub fn recycle(&mut self, block: RowBlock) {
        if let Some(mut rows) = block.rows.filter(|rows| rows.capacity() < LARGE_LEN) {
            rows.clear();
            self.spare.push(rows);
        }
    }

    fn take(&mut self, len: usize) -> RowBlock {
        let mut rest = self.spare.pop().unwrap_or_default();
        rest.extend_from_slice(&self.pending[len..]);
        let mut rows = std::mem::replace(&mut self.pending, rest);
        rows.truncate(len);
        let offset = self.offset;
        self.offset += len as u64;
        RowBlock {
            offset,
            rows: Some(rows),
        }
    }

    /// Reads to the end of a row that is too long; `None` if the file ends before it.
    fn skip_row(&mut self) -> io::Result<Option<RowBlock>> {
        loop {
            if self.pending.iter().all(|byte| *byte == 0) && self.read_to < self.end {
                // No newline is in a hole, which may be larger than all data of the lake.
                let data = self.file.next_data(self.read_to);
                self.read_to = data.map_or(self.end, |data| data.clamp(self.read_to, self.end));
            }
            self.pending.clear();
            if self.fill()? == 0 {
                return Ok(None);
            }
            if let Some(at) = memchr::memchr(b'\n', &self.pending) {
                self.pending.drain(..=at);
                let offset = self.offset;
                self.offset = self.read_to - self.pending.len() as u64;
                return Ok(Some(RowBlock { offset, rows: None }));
            }
        }
    }

    /// Appends the next bytes to `pending` and returns their number, 0 at the end.
    fn fill(&mut self) -> io::Result<usize> {
        let held = self.pending.len();
        let left = self.end.saturating_sub(self.read_to);
        let len = left.min(BLOCK_LEN as u64) as usize;
        self.pending.resize(held + len, 0);
        let space = &mut self.pending[held..];
        let read = retry_interrupted(|| self.file.read_at(space, self.read_to))?;
        self.pending.truncate(held + read);
        self.read_to += read as u64;
        Ok(read)
    }
}

/// Maps the blocks on several threads, and calls `visit` on this thread with each block and what was made of it, in order.
///
/// # Errors
/// Those of `visit`; an error of a read, as `error` makes it.
pub fn map_blocks<T: Send, E>(
    blocks: &mut RowBlocks<'_>,
    map: impl Fn(&RowBlock) -> T + Sync,
    error: impl Fn(io::Error) -> E,
    mut visit: impl FnMut(&RowBlock, T) -> Result<(), E>,
) -> Result<(), E> {
    map_in_order(
        blocks,
        |blocks| blocks.next_block().map_err(&error),
        RowBlock::is_large,
        |block| {
            let made = map(&block);
            (block, made)
        },
        |blocks, (block, made)| {
            visit(&block, made)?;
            blocks.recycle(block);
            Ok(())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::storage::{OsStorage, Storage as _};

    /// The offset and length of a row, `None` for one that is too long.
    type Row = (u64, Option<usize>);

    /// Returns the rows, and the position after the last one.
    fn read(bytes: &[u8], from: u64, end: u64, max: usize) -> (Vec<Row>, (u64, u64)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("export");
        std::fs::write(&path, bytes).unwrap();
        let file = OsStorage.open_read(&path).unwrap();
        let mut blocks = RowBlocks::new(&*file, from, end, max);
        let mut rows = Vec::new();
        map_blocks(
            &mut blocks,
            |block| {
                let mut rows = Vec::new();
                block.for_each(|offset, row| rows.push((offset, Some(row.len()))));
                rows
            },
            |error| error,
            |block, of_block| {
                assert_eq!(block.rows.is_none(), of_block.is_empty());
                rows.extend(of_block);
                rows.extend(block.rows.is_none().then_some((block.offset, None)));
                Ok(())
            },
        )
        .unwrap();
        (rows, blocks.position())
    }

    #[test]
    fn all_rows_are_in_blocks_whatever_their_length() {
        let mut rng = fastrand::Rng::with_seed(3);
        for max in [usize::MAX, 3 * BLOCK_LEN] {
            for _ in 0..20 {
                let (mut bytes, mut expected) = (Vec::new(), Vec::new());
                for _ in 0..rng.usize(..60) {
                    let len = match rng.u8(..10) {
                        0 => rng.usize(..5 * BLOCK_LEN),
                        _ => rng.usize(..9_000),
                    };
                    let is_long = len > max.saturating_add(BLOCK_LEN);
                    if is_long || len <= max {
                        expected.push((bytes.len() as u64, (!is_long).then_some(len)));
                        bytes.resize(bytes.len() + len, b'x');
                        bytes.push(b'\n');
                    }
                }
                let end = bytes.len() as u64;
                let torn = rng.usize(..2 * BLOCK_LEN);
                bytes.resize(bytes.len() + torn, b'x');
                let all = bytes.len() as u64;
                assert_eq!(
                    read(&bytes, 0, all, max),
                    (expected.clone(), (end, torn as u64))
                );
                let from = expected
                    .get(expected.len() / 2)
                    .map_or(end, |(offset, _)| *offset);
                expected.retain(|(offset, _)| *offset >= from);
                assert_eq!(
                    read(&bytes, from, u64::MAX, max),
                    (expected, (end, torn as u64))
                );
            }
        }
    }

    #[test]
    fn a_hole_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("export");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(1 << 40).unwrap();
        let file = OsStorage.open_read(&path).unwrap();
        let mut blocks = RowBlocks::new(&*file, 0, 1 << 40, BLOCK_LEN);
        assert!(blocks.next_block().unwrap().is_none());
        assert_eq!(blocks.position(), (0, 1 << 40));
    }
}
