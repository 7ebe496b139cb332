//! A digest of the bytes that were read of a source, kept with its offset. It detects a day-file that is mended in place:
//! a copy that is restored over a damaged one may have the same inode, length, beginning, end and time of modification.
//!
//! The bytes are hashed in blocks, and the hashes are combined by XOR with their positions. So the digest grows with each
//! read at the cost of the new bytes, and a part of the blocks, the samples, can be compared alone. Up to 256 KiB every
//! block is a sample; of a longer day-file, every second, fourth and so on. The bytes after the last whole block are part
//! of the hash of the bytes before the offset. The hashes detect accidents, as those of the identity do.

use std::io;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::lake::search::is_zero;
use crate::platform::storage::{StorageFile, read_full_at};

/// Length of a block. The hash of the identity covers as many bytes before the offset.
pub(super) const BLOCK_LEN: u64 = 256;
/// Maximum number of samples.
const SAMPLES_MAX: u64 = 1_024;
/// Samples at most this many blocks apart are read with the bytes between them: calls that copy 1 MiB take a tenth of the
/// time of a call for each of 1,024 samples.
const APART_READ_WHOLE: u64 = 4;
/// Bytes read at a time.
const WINDOW_LEN: u64 = 256 << 10;
/// Bytes of a source that one step of a comparison reads, so that it delays new lines little.
const STEP_BLOCKS: u64 = (64 << 20) / BLOCK_LEN;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReadDigest {
    /// Of all whole blocks.
    whole: u64,
    /// Of the samples.
    samples: u64,
}

/// A comparison of all bytes that were read of a source, as far as it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Comparison {
    /// The next block.
    block: u64,
    /// The digest of the blocks before it.
    whole: u64,
}

/// The result of a step of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// All bytes are those that were read.
    Equal,
    /// Other bytes were read.
    Different,
    /// Blocks are left.
    Unfinished(Comparison),
}

/// Returns whether all bytes before an offset are in the samples.
#[must_use]
pub fn all_are_samples(offset: u64) -> bool {
    stride(offset) == 1
}

impl ReadDigest {
    /// Returns the digest of the bytes before `to`, where this is that of the bytes before `from`. `consumed` are the last
    /// of them as they were read; the others are read again.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn extended(
        self,
        file: &dyn StorageFile,
        (from, to): (u64, u64),
        consumed: &[u8],
    ) -> io::Result<Self> {
        let (known, first, end) = (stride(from), from / BLOCK_LEN, to / BLOCK_LEN);
        let apart = stride(to);
        let mut digest = self;
        if apart != known {
            for_blocks(file, (0, first), known, |block, bytes| {
                if !block.is_multiple_of(apart) {
                    digest.samples ^= hash(block, bytes);
                }
            })?;
        }
        let mut add = |block: u64, bytes: &[u8]| {
            let hash = hash(block, bytes);
            digest.whole ^= hash;
            if block.is_multiple_of(apart) {
                digest.samples ^= hash;
            }
        };
        let held_from = to - (consumed.len() as u64).min(to);
        let held = held_from.div_ceil(BLOCK_LEN).clamp(first, end.max(first));
        for_blocks(file, (first, held), 1, &mut add)?;
        for block in held..end {
            let start = (block * BLOCK_LEN - held_from) as usize;
            add(block, &consumed[start..start + BLOCK_LEN as usize]);
        }
        Ok(digest)
    }

    /// Returns whether the samples before an offset are those that were read.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn has_samples_of(self, file: &dyn StorageFile, offset: u64) -> io::Result<bool> {
        let mut samples = 0;
        let blocks = (0, offset / BLOCK_LEN);
        for_blocks(file, blocks, stride(offset), |block, bytes| {
            samples ^= hash(block, bytes);
        })?;
        Ok(samples == self.samples)
    }

    /// Continues the comparison of all blocks before an offset.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn compare(
        self,
        file: &dyn StorageFile,
        offset: u64,
        mut done: Comparison,
    ) -> io::Result<Compared> {
        let end = offset / BLOCK_LEN;
        let to = end.min(done.block + STEP_BLOCKS);
        for_blocks(file, (done.block, to), 1, |block, bytes| {
            done.whole ^= hash(block, bytes);
        })?;
        done.block = to;
        Ok(match to == end {
            false => Compared::Unfinished(done),
            true if done.whole == self.whole => Compared::Equal,
            true => Compared::Different,
        })
    }
}

/// Returns how many blocks apart the samples before an offset are: a power of two.
fn stride(offset: u64) -> u64 {
    let blocks = offset / BLOCK_LEN;
    blocks.div_ceil(SAMPLES_MAX).next_power_of_two()
}

/// Returns the hash of a block at its position: of two blocks that change places the digest differs. That of zero bytes is
/// 0, so that holes need not be read.
fn hash(block: u64, bytes: &[u8]) -> u64 {
    if is_zero(bytes) {
        return 0;
    }
    let mixed = xxh3_64(bytes) ^ (block + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ (mixed >> 32)
}

/// Visits every block of a range whose number is a multiple of `apart`, except those in a hole of the file.
fn for_blocks(
    file: &dyn StorageFile,
    (first, end): (u64, u64),
    apart: u64,
    mut visit: impl FnMut(u64, &[u8]),
) -> io::Result<()> {
    let per_read = match apart <= APART_READ_WHOLE {
        true => WINDOW_LEN / BLOCK_LEN,
        false => 1,
    };
    let mut block = first.next_multiple_of(apart);
    let mut window = Vec::new();
    while block < end {
        let blocks = per_read.min(end - block);
        window.resize((blocks * BLOCK_LEN) as usize, 0);
        let read = read_full_at(file, &mut window, block * BLOCK_LEN)?;
        for n in (0..blocks).step_by(apart as usize) {
            let start = (n * BLOCK_LEN) as usize;
            let bytes = start.min(read)..(start + BLOCK_LEN as usize).min(read);
            visit(block + n, &window[bytes]);
        }
        let mut next = block + blocks;
        // Zero bytes may be in a hole. The search for its end takes as long as a read of a block, so that it follows no other.
        if next < end && is_zero(&window[..read]) {
            match file.next_data(next * BLOCK_LEN) {
                Some(data) => next = data / BLOCK_LEN,
                None => break,
            }
        }
        block = next.next_multiple_of(apart);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::storage::{OsStorage, Storage as _, write_all_at};

    fn compare_all(digest: ReadDigest, file: &dyn StorageFile, offset: u64) -> Compared {
        let mut done = Comparison::default();
        loop {
            match digest.compare(file, offset, done).unwrap() {
                Compared::Unfinished(more) => done = more,
                compared => return compared,
            }
        }
    }

    /// Random bytes, read in random pieces, of which a random part was kept.
    #[test]
    fn a_digest_does_not_depend_on_the_pieces_that_were_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut rng = fastrand::Rng::with_seed(5);
        for case in 0..60 {
            let file = OsStorage
                .create(&dir.path().join(format!("{case}")))
                .unwrap();
            let len = [100, 3_000, 300_000, 2_000_000][case % 4] + rng.usize(..5_000);
            let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(len).collect();
            write_all_at(&*file, &bytes, 0).unwrap();
            let (mut digest, mut at) = (ReadDigest::default(), 0);
            while at < len {
                let to = len.min(at + 1 + rng.usize(..len / 3 + 400));
                let held = if rng.bool() { at } else { rng.usize(at..=to) };
                let range = (at as u64, to as u64);
                digest = digest.extended(&*file, range, &bytes[held..to]).unwrap();
                at = to;
            }
            let len = len as u64;
            let at_once = ReadDigest::default();
            let at_once = at_once.extended(&*file, (0, len), &bytes).unwrap();
            assert_eq!(digest, at_once, "{case}");
            assert!(digest.has_samples_of(&*file, len).unwrap());
            assert_eq!(compare_all(digest, &*file, len), Compared::Equal);
        }
    }

    #[test]
    fn a_hole_costs_no_read_and_lines_in_it_are_noticed() {
        const HOLE_END: u64 = 40 << 30;
        let dir = tempfile::tempdir().unwrap();
        let file = OsStorage.create(&dir.path().join("sparse")).unwrap();
        for at in [0, HOLE_END] {
            write_all_at(&*file, &[7; 5_000], at).unwrap();
        }
        let end = HOLE_END + 5_000;
        let digest = ReadDigest::default();
        let digest = digest.extended(&*file, (0, end), &[7; 100]).unwrap();
        assert!(digest.has_samples_of(&*file, end).unwrap());
        assert_eq!(compare_all(digest, &*file, end), Compared::Equal);
        write_all_at(&*file, b"line", HOLE_END / 2).unwrap();
        assert_eq!(compare_all(digest, &*file, end), Compared::Different);
    }

    #[test]
    fn samples_find_a_page_that_was_zero_and_a_comparison_finds_every_byte() {
        let dir = tempfile::tempdir().unwrap();
        let mut rng = fastrand::Rng::with_seed(6);
        for (case, len) in [4_096_u64, 250_000, 4 << 20].into_iter().enumerate() {
            let file = OsStorage
                .create(&dir.path().join(format!("{case}")))
                .unwrap();
            let whole: Vec<u8> = std::iter::repeat_with(|| rng.u8(1..))
                .take(len as usize)
                .collect();
            write_all_at(&*file, &whole, 0).unwrap();
            let digest = ReadDigest::default();
            let digest = digest.extended(&*file, (0, len), &whole).unwrap();
            for _ in 0..20 {
                let at = rng.u64(..len / 4_096) * 4_096;
                write_all_at(&*file, &[0; 4_096], at).unwrap();
                assert!(!digest.has_samples_of(&*file, len).unwrap(), "{len}: {at}");
                write_all_at(&*file, &whole[at as usize..][..4_096], at).unwrap();
                let byte = rng.u64(..len / BLOCK_LEN * BLOCK_LEN);
                write_all_at(&*file, &[0], byte).unwrap();
                assert_eq!(compare_all(digest, &*file, len), Compared::Different);
                write_all_at(&*file, &[whole[byte as usize]], byte).unwrap();
            }
            assert_eq!(compare_all(digest, &*file, len), Compared::Equal);
            assert_eq!(all_are_samples(len), len < 300_000);
        }
    }
}
