//! Reads a write log (the format of Linux's `dm-log-writes`) and computes what a power cut leaves: everything that was
//! flushed, and any part of the rest in units of a sector. Independent of the meaning of the writes.

use std::ops::Range;

use fastrand::Rng;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const SECTOR: usize = 512;
/// Where the superblocks of ext4 and xfs, and the two of btrfs are.
const SUPERBLOCKS: [Range<usize>; 3] = [
    0..2_048,
    64 << 10..68 << 10,
    64 << 20..(64 << 20) + (4 << 10),
];
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;
const MARK: u64 = 8;
/// Number of partly surviving unflushed writes per torn one.
const TORN_ONE_IN: u32 = 8;

/// All writes to a device, in order.
#[derive(Debug)]
pub struct WriteLog {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Offset in the log.
    at: usize,
    /// Offset on the device, in bytes.
    offset: usize,
    data: Range<usize>,
    is_flush: bool,
}

impl WriteLog {
    /// Reads the log of a device that has ended.
    pub fn new(bytes: Vec<u8>) -> Self {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!(word(0), MAGIC, "not a write log");
        let mut entries = Vec::new();
        let mut at = SECTOR;
        for _ in 0..word(16) {
            let [sector, sectors, flags] = [0, 8, 16].map(|field| word(at + field));
            let has_data = flags & (DISCARD | MARK) == 0;
            let len = if has_data {
                sectors as usize * SECTOR
            } else {
                0
            };
            let data = at + SECTOR..at + SECTOR + len;
            entries.push(Entry {
                at,
                offset: sector as usize * SECTOR,
                is_flush: flags & FLUSH != 0,
                data: data.clone(),
            });
            at = data.end;
        }
        assert!(at <= bytes.len(), "the log ends inside an entry");
        Self { bytes, entries }
    }

    /// Returns the number of entries that start before this length of the log.
    pub fn entries_within(&self, len_bytes: u64) -> usize {
        self.entries
            .partition_point(|entry| (entry.at as u64) < len_bytes)
    }

    /// Returns cuts as numbers of entries: half at random, half just before a flush, when most can be lost.
    pub fn cuts(&self, count: usize, entries_max: usize, rng: &mut Rng) -> Vec<usize> {
        let entries = &self.entries[..entries_max];
        let flushes: Vec<usize> = (0..entries.len())
            .filter(|at| entries[*at].is_flush)
            .collect();
        let mut cut = |number: usize| match rng.choice(&flushes) {
            Some(flush) if number.is_multiple_of(2) => *flush,
            _ => rng.usize(0..=entries.len()),
        };
        let mut cuts: Vec<usize> = (0..count).map(&mut cut).collect();
        cuts.sort_unstable();
        cuts
    }

    /// Returns the disk's content after a power cut after `cut` entries, and the number of lost writes.
    pub fn disk_after(&self, base: &[u8], cut: usize, rng: &mut Rng) -> (Vec<u8>, usize) {
        let entries = &self.entries[..cut];
        let flushed = entries
            .iter()
            .rposition(|entry| entry.is_flush)
            .map_or(0, |flush| flush + 1);
        let mut disk = base.to_vec();
        for entry in &entries[..flushed] {
            self.apply(entry, 0..entry.data.len(), &mut disk);
        }
        let kept_percent = *rng.choice(&[0, 0, 20, 50, 80, 100]).unwrap();
        let mut lost = 0;
        for entry in &entries[flushed..] {
            if entry.data.is_empty() {
            } else if rng.u32(..100) >= kept_percent {
                lost += 1;
            } else if rng.u32(..TORN_ONE_IN) > 0 || kept_percent == 100 || is_superblock(entry) {
                self.apply(entry, 0..entry.data.len(), &mut disk);
            } else {
                lost += 1;
                self.tear(entry, &mut disk, rng);
            }
        }
        (disk, lost)
    }

    fn tear(&self, entry: &Entry, disk: &mut [u8], rng: &mut Rng) {
        for start in (0..entry.data.len()).step_by(SECTOR) {
            if rng.bool() {
                self.apply(entry, start..start + SECTOR, disk);
            }
        }
    }

    fn apply(&self, entry: &Entry, part: Range<usize>, disk: &mut [u8]) {
        let from = &self.bytes[entry.data.clone()][part.clone()];
        disk[entry.offset..][part].copy_from_slice(from);
    }
}

/// Returns whether an entry writes to the superblock, which is never torn: mounting would then need a repair of the file
/// system, which tests nothing of distilld.
fn is_superblock(entry: &Entry) -> bool {
    let end = entry.offset + entry.data.len();
    let meets = |at: &Range<usize>| entry.offset < at.end && at.start < end;
    SUPERBLOCKS.iter().any(meets)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates a log of writes of one sector each, and flushes.
    fn log_of(steps: &[Option<(u64, u8)>]) -> WriteLog {
        let mut bytes = vec![0; SECTOR];
        bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[16..24].copy_from_slice(&(steps.len() as u64).to_le_bytes());
        for step in steps {
            let (sector, sectors, flags) = step.map_or((0, 0, FLUSH), |(sector, _)| (sector, 1, 0));
            let mut header = vec![0; SECTOR];
            for (field, value) in [sector, sectors, flags].into_iter().enumerate() {
                header[8 * field..8 * field + 8].copy_from_slice(&value.to_le_bytes());
            }
            bytes.extend(header);
            bytes.extend(step.iter().flat_map(|(_, value)| [*value; SECTOR]));
        }
        WriteLog::new(bytes)
    }

    #[test]
    fn flushed_writes_survive_and_unflushed_writes_may() {
        let log = log_of(&[Some((0, 1)), None, Some((1, 2)), Some((0, 3))]);
        let base = [0; 2 * SECTOR];
        let mut found = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let (disk, _) = log.disk_after(&base, 4, &mut Rng::with_seed(seed));
            found.insert((disk[0], disk[SECTOR]));
        }
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [(1, 0), (1, 2), (3, 0), (3, 2)]
        );
        let (disk, lost) = log.disk_after(&base, 2, &mut Rng::with_seed(1));
        assert_eq!((disk[0], disk[SECTOR], lost), (1, 0, 0));
    }

    #[test]
    fn a_log_length_determines_its_entries() {
        let log = log_of(&[Some((0, 1)), None]);
        let ends = [0, SECTOR, SECTOR + 1, 3 * SECTOR, 3 * SECTOR + 1];
        assert_eq!(
            ends.map(|len| log.entries_within(len as u64)),
            [0, 0, 1, 1, 2]
        );
    }
}
