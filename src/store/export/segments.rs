//! Owns the hashes by which the bytes of the export are known again, segment by segment: each is hashed while its rows
//! are written, so that none has to be read for it. Pure.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Bytes of a segment of a fresh state.
pub const SEGMENT_BYTES: u64 = 1 << 20;

/// A complete segment of the export with the hash of its bytes when they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its number, from 0.
    pub number: u64,
    /// xxh3-64 of its bytes.
    pub hash: u64,
}

/// The segments of an export that grows.
pub struct Segments {
    segment_bytes: u64,
    /// Whole ones that the state has not taken in yet.
    finished: Vec<Segment>,
    /// Hash of the last segment, which is not whole.
    open: Xxh3,
    len_bytes: u64,
}

impl std::fmt::Debug for Segments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segments")
            .field("segment_bytes", &self.segment_bytes)
            .field("len_bytes", &self.len_bytes)
            .finish_non_exhaustive()
    }
}

impl Segments {
    /// Returns the segments of an export of which nothing is hashed yet, each of this many bytes.
    #[must_use]
    pub fn new(segment_bytes: u64) -> Self {
        Self {
            segment_bytes: segment_bytes.max(1),
            finished: Vec::new(),
            open: Xxh3::new(),
            len_bytes: 0,
        }
    }

    /// Resumes at `len_bytes`, where `open` is the bytes since the end of the last segment.
    #[must_use]
    pub fn resume(segment_bytes: u64, len_bytes: u64, open: &[u8]) -> Self {
        let mut segments = Self::new(segment_bytes);
        segments.open.update(open);
        segments.len_bytes = len_bytes;
        segments
    }

    /// Adds bytes that were written after all those added before.
    pub fn extend(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.segment_bytes - self.len_bytes % self.segment_bytes;
            let (here, rest) = bytes.split_at(bytes.len().min(room as usize));
            self.open.update(here);
            self.len_bytes += here.len() as u64;
            if self.len_bytes.is_multiple_of(self.segment_bytes) {
                self.finished.push(Segment {
                    number: self.len_bytes / self.segment_bytes - 1,
                    hash: self.open.digest(),
                });
                self.open.reset();
            }
            bytes = rest;
        }
    }

    /// Returns the number of bytes added, including those before the start.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Returns the start of the last segment, which is not whole, and the hash of its bytes.
    #[must_use]
    pub fn open(&self) -> (u64, u64) {
        (
            self.len_bytes - self.len_bytes % self.segment_bytes,
            self.open.digest(),
        )
    }

    /// Bytes of a segment.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Whole segments that the state has not taken in yet.
    #[must_use]
    pub fn finished(&self) -> &[Segment] {
        &self.finished
    }

    /// The state has taken in the first `count` that are whole.
    pub fn taken_in(&mut self, count: usize) {
        self.finished.drain(..count);
    }
}

/// The hash of a segment's bytes.
#[must_use]
pub fn hash_of(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_bytes_come_their_segments_are_the_same() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let bytes: Vec<u8> = (0..rng.usize(..2_000)).map(|_| rng.u8(..)).collect();
            let size = rng.u64(1..300);
            let resume_at = rng.usize(..=bytes.len());
            let mut segments = Segments::new(size);
            let mut at = 0;
            while at < bytes.len() {
                let next = rng.usize(at..=bytes.len());
                segments.extend(&bytes[at..next]);
                at = next;
                if rng.u8(..4) == 0 && at >= resume_at {
                    let taken = std::mem::take(&mut segments.finished);
                    let (start, hash) = segments.open();
                    let open = &bytes[start as usize..at];
                    assert_eq!(hash, hash_of(open));
                    segments = Segments::resume(size, at as u64, open);
                    segments.finished = taken;
                }
            }
            let whole = bytes.chunks_exact(size as usize);
            let expected: Vec<Segment> = (0..)
                .zip(whole)
                .map(|(number, bytes)| Segment {
                    number,
                    hash: hash_of(bytes),
                })
                .collect();
            assert_eq!(segments.finished(), expected);
            assert_eq!(segments.len_bytes(), bytes.len() as u64);
        }
    }
}
