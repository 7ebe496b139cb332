//! Checksums of a file whose layout belongs to the store. Every block of 4 KiB that is read is compared with what was
//! written, so that a flipped bit, a lost sector or a bad copy is an error and never a wrong answer. The store has
//! checksums of its own, but checks them only after a crash.
//!
//! On the disk each 512 blocks follow one block with their 512 sums (xxh3-64, little-endian; 0: never written, all
//! zeros). Sums are written by the sync that makes their blocks durable. A crash in between leaves blocks that do not
//! match their sums; the store does not reach those, because it writes new pages and points at them only after a
//! sync. Its header is the one place that it overwrites: the first block has no sum, and the store checks it itself.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use crate::platform::storage::{FileStat, StorageFile, read_full_at, write_all_at};

const BLOCK_LEN: usize = 4_096;
/// Blocks whose sums fill one block.
const GROUP_BLOCKS: u64 = 512;
/// A group on the disk: its sums and its blocks.
const GROUP_LEN: u64 = (GROUP_BLOCKS + 1) * BLOCK_LEN as u64;

/// A file whose blocks are checked when they are read.
#[derive(Debug)]
pub struct CheckedFile {
    inner: Arc<dyn StorageFile>,
    groups: Mutex<BTreeMap<u64, Group>>,
}

#[derive(Debug)]
struct Group {
    sums: Vec<u64>,
    dirty: bool,
}

impl CheckedFile {
    /// Reads and writes `inner` through checksums.
    #[must_use]
    pub fn new(inner: Arc<dyn StorageFile>) -> Self {
        Self {
            inner,
            groups: Mutex::default(),
        }
    }

    fn groups(&self) -> MutexGuard<'_, BTreeMap<u64, Group>> {
        // A panic while it was held leaves sums that are at worst missing: then a block does not fit.
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn group<'g>(
        &self,
        groups: &'g mut BTreeMap<u64, Group>,
        number: u64,
    ) -> io::Result<&'g mut Group> {
        if let std::collections::btree_map::Entry::Vacant(vacant) = groups.entry(number) {
            let mut block = vec![0; BLOCK_LEN];
            read_full_at(&*self.inner, &mut block, number * GROUP_LEN)?;
            let sums = block.chunks_exact(8).map(|sum| {
                sum.iter()
                    .rev()
                    .fold(0, |all, byte| all << 8 | u64::from(*byte))
            });
            vacant.insert(Group {
                sums: sums.collect(),
                dirty: false,
            });
        }
        Ok(groups.get_mut(&number).expect("it was just put there"))
    }

    /// Reads one whole block, zeros where it was never written, and checks it.
    fn read_block(
        &self,
        groups: &mut BTreeMap<u64, Group>,
        number: u64,
        block: &mut [u8],
    ) -> io::Result<()> {
        let read = read_full_at(&*self.inner, block, place(number))?;
        block[read..].fill(0);
        let sum = self.group(groups, number / GROUP_BLOCKS)?.sums[(number % GROUP_BLOCKS) as usize];
        if number == 0 || sum == sum_of(block) {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("block {number} is not what was written there"),
        ))
    }

    fn write_block(
        &self,
        groups: &mut BTreeMap<u64, Group>,
        number: u64,
        block: &[u8],
    ) -> io::Result<()> {
        if number > 0 {
            let group = self.group(groups, number / GROUP_BLOCKS)?;
            group.sums[(number % GROUP_BLOCKS) as usize] = sum_of(block);
            group.dirty = true;
        }
        Ok(())
    }

    fn write_sums(&self) -> io::Result<()> {
        for (number, group) in self.groups().iter_mut().filter(|(_, group)| group.dirty) {
            let block: Vec<u8> = group
                .sums
                .iter()
                .flat_map(|sum| sum.to_le_bytes())
                .collect();
            write_all_at(&*self.inner, &block, number * GROUP_LEN)?;
            group.dirty = false;
        }
        Ok(())
    }
}

impl StorageFile for CheckedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let end = self.stat()?.len_bytes;
        let wanted = (end.saturating_sub(offset)).min(buf.len() as u64) as usize;
        let mut groups = self.groups();
        let mut block = vec![0; BLOCK_LEN];
        let mut filled = 0;
        while filled < wanted {
            let at = offset + filled as u64;
            let (number, inside) = (at / BLOCK_LEN as u64, (at % BLOCK_LEN as u64) as usize);
            self.read_block(&mut groups, number, &mut block)?;
            let len = (BLOCK_LEN - inside).min(wanted - filled);
            buf[filled..filled + len].copy_from_slice(&block[inside..inside + len]);
            filled += len;
        }
        Ok(wanted)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let mut groups = self.groups();
        let mut block = vec![0; BLOCK_LEN];
        let mut written = 0;
        while written < buf.len() {
            let at = offset + written as u64;
            let (number, inside) = (at / BLOCK_LEN as u64, (at % BLOCK_LEN as u64) as usize);
            let len = (BLOCK_LEN - inside).min(buf.len() - written);
            if len < BLOCK_LEN {
                self.read_block(&mut groups, number, &mut block)?;
            }
            block[inside..inside + len].copy_from_slice(&buf[written..written + len]);
            write_all_at(
                &*self.inner,
                &block[inside..inside + len],
                place(number) + inside as u64,
            )?;
            self.write_block(&mut groups, number, &block)?;
            written += len;
        }
        Ok(written)
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        let mut groups = self.groups();
        let keep = len_bytes.div_ceil(BLOCK_LEN as u64);
        let old = self.stat()?.len_bytes.div_ceil(BLOCK_LEN as u64);
        // Truncated bytes read as zeros when the file grows again; their sums are removed with them.
        groups.retain(|number, _| number * GROUP_BLOCKS < keep);
        for number in (keep..old).take_while(|number| number % GROUP_BLOCKS != 0) {
            let group = self.group(&mut groups, number / GROUP_BLOCKS)?;
            group.sums[(number % GROUP_BLOCKS) as usize] = 0;
            group.dirty = true;
        }
        let inside = len_bytes % BLOCK_LEN as u64;
        if inside > 0 && keep <= old {
            let mut block = vec![0; BLOCK_LEN];
            self.read_block(&mut groups, keep - 1, &mut block)?;
            block[inside as usize..].fill(0);
            self.write_block(&mut groups, keep - 1, &block)?;
        }
        drop(groups);
        self.inner.set_len(len_on_disk(len_bytes))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.write_sums()?;
        self.inner.sync_data()
    }

    fn stat(&self) -> io::Result<FileStat> {
        let stat = self.inner.stat()?;
        let (groups, rest) = (stat.len_bytes / GROUP_LEN, stat.len_bytes % GROUP_LEN);
        let blocks_len = GROUP_BLOCKS * BLOCK_LEN as u64;
        Ok(FileStat {
            len_bytes: groups * blocks_len + rest.saturating_sub(BLOCK_LEN as u64),
            ..stat
        })
    }
}

/// Returns the offset of a block on the disk.
fn place(number: u64) -> u64 {
    number / GROUP_BLOCKS * GROUP_LEN + (1 + number % GROUP_BLOCKS) * BLOCK_LEN as u64
}

fn len_on_disk(len_bytes: u64) -> u64 {
    match len_bytes.checked_sub(1) {
        None => 0,
        Some(last) => place(last / BLOCK_LEN as u64) + last % BLOCK_LEN as u64 + 1,
    }
}

/// 0 for a block of zeros, which may never have been written.
fn sum_of(block: &[u8]) -> u64 {
    if block.iter().all(|byte| *byte == 0) {
        0
    } else {
        xxh3_64(block).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::storage::{OsStorage, Storage as _};

    #[test]
    fn it_reads_what_was_written_like_a_plain_file() {
        let dir = tempfile::tempdir().unwrap();
        for seed in 0..20 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let path = dir.path().join(seed.to_string());
            let mut file = CheckedFile::new(OsStorage.create(&path).unwrap());
            let mut model: Vec<u8> = Vec::new();
            for _ in 0..40 {
                let offset = rng.usize(..3_000_000);
                match rng.u8(..4) {
                    0 => {
                        let len = rng.usize(..3_000_000);
                        file.set_len(len as u64).unwrap();
                        model.resize(len, 0);
                    }
                    1 => {
                        file.sync_data().unwrap();
                        file = CheckedFile::new(OsStorage.open_write(&path).unwrap());
                    }
                    _ => {
                        let bytes = vec![rng.u8(..); rng.usize(..20_000)];
                        if model.len() < offset + bytes.len() {
                            file.set_len((offset + bytes.len()) as u64).unwrap();
                            model.resize(offset + bytes.len(), 0);
                        }
                        assert_eq!(file.write_at(&bytes, offset as u64).unwrap(), bytes.len());
                        model[offset..offset + bytes.len()].copy_from_slice(&bytes);
                    }
                }
                assert_eq!(
                    file.stat().unwrap().len_bytes,
                    model.len() as u64,
                    "seed {seed}"
                );
                let mut read = vec![1; rng.usize(..30_000)];
                let len = file.read_at(&mut read, offset as u64).unwrap();
                let expected = model.get(offset..).unwrap_or_default();
                assert_eq!(
                    read[..len],
                    expected[..read.len().min(expected.len())],
                    "seed {seed}"
                );
            }
        }
    }

    #[test]
    fn every_flipped_bit_behind_the_first_block_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = CheckedFile::new(OsStorage.create(&path).unwrap());
        let bytes: Vec<u8> = (0..5 * BLOCK_LEN).map(|n| (n / 7) as u8).collect();
        file.write_at(&bytes, 0).unwrap();
        file.sync_data().unwrap();
        let sound = std::fs::read(&path).unwrap();
        for byte in (2 * BLOCK_LEN..sound.len()).step_by(97).chain([16, 36]) {
            let mut flipped = sound.clone();
            flipped[byte] ^= 4;
            std::fs::write(&path, &flipped).unwrap();
            let file = CheckedFile::new(OsStorage.open_write(&path).unwrap());
            let error = file.read_at(&mut vec![0; bytes.len()], 0).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "byte {byte}");
        }
    }
}
