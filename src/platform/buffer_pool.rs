//! Owns memory that is used again while there is a backlog: of chunks that were worked, of rows that are shown. Threads
//! come and go with each pass, and rows are made by one and dropped by another; left to the allocator, that took a fifth of
//! the time of a long backfill. An idle daemon keeps none of it.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of chunks that are kept at most: the threads work few at a time.
const CHUNKS_BYTES_MAX: usize = 8 << 20;
/// Bytes of rows that are kept at most: a batch returns its rows at once, while those of the next ones are made.
const ROWS_BYTES_MAX: usize = 16 << 20;
/// One that is smaller or larger is not kept: the one costs nothing, the other was of a long text.
const BUFFER_BYTES: std::ops::RangeInclusive<usize> = (64 << 10)..=(8 << 20);
/// Buffers are as long as a multiple of this, so that one serves day-files of nearly one length.
const STEP_BYTES: usize = 256 << 10;

/// Memory for chunks and for rows.
#[derive(Debug, Default)]
pub struct Buffers {
    chunks: Pool,
    rows: Pool,
}

impl Buffers {
    /// Returns a buffer of `len` bytes with arbitrary content.
    pub(crate) fn chunk(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.chunks.take(len);
        buffer.resize(len, 0);
        buffer
    }

    /// A chunk is worked.
    pub(crate) fn recycle_chunk(&self, chunk: Vec<u8>) {
        self.chunks.give(chunk, CHUNKS_BYTES_MAX);
    }

    /// An empty buffer for rows of about `len` bytes.
    pub(crate) fn rows(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.rows.take(len);
        buffer.clear();
        buffer
    }

    /// Rows are shown.
    pub(crate) fn rows_shown(&self, rows: Vec<u8>) {
        self.rows.give(rows, ROWS_BYTES_MAX);
    }

    /// Frees all buffers that are not in use.
    pub(crate) fn free(&self) {
        *self.chunks.lock() = Vec::new();
        *self.rows.lock() = Vec::new();
    }
}

#[derive(Debug, Default)]
struct Pool(Mutex<Vec<Vec<u8>>>);

impl Pool {
    /// Takes the smallest buffer that is long enough, uncleared, or creates one: growing a buffer would copy and
    /// clear bytes that are overwritten anyway.
    fn take(&self, len: usize) -> Vec<u8> {
        if !BUFFER_BYTES.contains(&len) {
            return Vec::new();
        }
        let mut kept = self.lock();
        let fitting = (0..kept.len()).filter(|n| kept[*n].capacity() >= len);
        match fitting.min_by_key(|n| kept[*n].capacity()) {
            Some(n) => kept.swap_remove(n),
            None => Vec::with_capacity(len.next_multiple_of(STEP_BYTES)),
        }
    }

    fn give(&self, buffer: Vec<u8>, bytes_max: usize) {
        let mut kept = self.lock();
        let bytes: usize = kept.iter().map(Vec::capacity).sum();
        if BUFFER_BYTES.contains(&buffer.capacity()) && bytes + buffer.capacity() <= bytes_max {
            kept.push(buffer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        // Each change is complete, so that a panic elsewhere leaves no inconsistent pool.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_that_fits_is_used_again_and_no_more_is_kept_than_agreed() {
        let buffers = Buffers::default();
        let (small, large) = (100 << 10, 300 << 10);
        for len in [large, small, 10, 9 << 20] {
            buffers.rows_shown(vec![b'x'; len]);
        }
        let again = buffers.rows(small);
        assert_eq!((again.len(), again.capacity()), (0, small));
        assert_eq!(buffers.rows(small).capacity(), large);
        let new = buffers.rows(small);
        assert_eq!(new.capacity(), STEP_BYTES, "nothing else was kept");
        buffers.rows_shown(new);
        assert_eq!(buffers.rows(small + 1).capacity(), STEP_BYTES);
        assert_eq!(buffers.rows(10).capacity(), 0);
        assert_eq!(buffers.rows(9 << 20).capacity(), 0);

        buffers.recycle_chunk(vec![b'x'; large]);
        assert_eq!(buffers.chunk(small).len(), small);
        for _ in 0..10 {
            buffers.recycle_chunk(vec![b'x'; 4 << 20]);
        }
        let kept: usize = buffers.chunks.lock().iter().map(Vec::capacity).sum();
        assert_eq!(kept, CHUNKS_BYTES_MAX);
        buffers.free();
        assert_eq!(buffers.chunk(large), vec![0; large]);
    }
}
