//! Reads the rows of an export that another process appends to, continuing where the last read ended, and sums rows
//! by key. Skips a last row without a newline.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::line_reader::{LineReader, Source};
use crate::batch::pair::MAX_LINE_BYTES;
use crate::batch::verify::dialect::DifferingBuckets;
use crate::batch::verify::error::VerifyError;
use crate::lake::path::PairPath;
use crate::platform::storage::{Storage, StorageFile};
use crate::record::firewall::ACCEPTED;
use crate::record::keys::LocalRowKey;
use crate::record::row::{ReadRow, RowError};
use crate::store::export::{RowBlock, RowBlocks, map_blocks};

/// One line of the export.
#[derive(Debug)]
pub(super) enum ExportLine<'a> {
    /// A row of an accepted category.
    Row(ReadRow<'a>),
    /// A row of any other category.
    Forbidden(ReadRow<'a>),
    /// A line that is not a row.
    Unreadable(RowError),
}

/// A reader of the export that remembers its position.
#[derive(Debug)]
pub(super) struct ExportReader<'s> {
    storage: &'s dyn Storage,
    path: PathBuf,
    max_row_bytes: usize,
    /// Device and inode of the file; `None` until it exists.
    identity: Option<(u64, u64)>,
    /// Offset of the next row.
    offset: u64,
    /// Number of bytes after the last newline at the last read.
    pub torn_bytes: u64,
}

impl<'s> ExportReader<'s> {
    /// Creates a reader of the export of a lake whose lines have up to `max_line_bytes`.
    pub(super) fn new(
        storage: &'s dyn Storage,
        path: &Path,
        max_line_bytes: usize,
    ) -> ExportReader<'s> {
        ExportReader {
            storage,
            path: path.to_owned(),
            max_row_bytes: max_row_bytes(max_line_bytes),
            identity: None,
            offset: 0,
            torn_bytes: 0,
        }
    }

    /// Calls `map` on several threads with the offset, the bytes and the content of each complete line since the last call,
    /// and `visit` on this thread with the offset and what `map` made, in order. Returns whether there was any line.
    pub(super) fn read_appended<T: Send>(
        &mut self,
        map: &(impl Fn(u64, &[u8], ExportLine<'_>) -> Option<T> + Sync),
        visit: &mut dyn FnMut(u64, T),
    ) -> Result<bool, VerifyError> {
        let Some(file) = self.open().map_err(|source| self.error(source))? else {
            return Ok(false);
        };
        let stat = file.stat().map_err(|source| self.error(source))?;
        let identity = (stat.device, stat.inode);
        if self.identity.is_some_and(|known| known != identity) || stat.len_bytes < self.offset {
            return Err(VerifyError::Replaced {
                path: self.path.clone(),
            });
        }
        self.identity = Some(identity);
        let (from, max_bytes) = (self.offset, self.max_row_bytes);
        let mut blocks = RowBlocks::new(&*file, from, stat.len_bytes, max_bytes);
        let map_block = |block: &RowBlock| {
            let mut mapped = Vec::new();
            let mut add = |offset: u64, bytes: &[u8], line: ExportLine<'_>| {
                mapped.extend(map(offset, bytes, line).map(|made| (offset, made)));
            };
            let too_long = || ExportLine::Unreadable(RowError::TooLong { max_bytes });
            block.for_each(|offset, bytes| match bytes.len() > max_bytes {
                true => add(offset, &[], too_long()),
                false => add(offset, bytes, read_row(bytes)),
            });
            if block.rows.is_none() {
                add(block.offset, &[], too_long());
            }
            mapped
        };
        map_blocks(
            &mut blocks,
            map_block,
            |source| self.error(source),
            |_, mapped| {
                mapped
                    .into_iter()
                    .for_each(|(offset, made)| visit(offset, made));
                Ok(())
            },
        )?;
        (self.offset, self.torn_bytes) = blocks.position();
        Ok(self.offset > from)
    }

    /// Returns the row that starts at `offset`.
    pub(super) fn row_at(&self, offset: u64) -> Result<Vec<u8>, VerifyError> {
        let file = self.open().map_err(|source| self.error(source))?;
        let Some(file) = file else {
            return Ok(Vec::new());
        };
        let source = Source::File(file);
        let mut lines = LineReader::new(&source, u64::MAX, self.max_row_bytes).starting_at(offset);
        let line = lines.next_line().map_err(|source| self.error(source))?;
        Ok(line.and_then(|line| line.bytes).unwrap_or_default().into())
    }

    fn open(&self) -> io::Result<Option<Arc<dyn StorageFile>>> {
        let opened = self
            .storage
            .canonicalize(&self.path)
            .and_then(|path| self.storage.open_read(&path));
        match opened {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match self.identity {
                None => Ok(None),
                Some(_) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    fn error(&self, source: io::Error) -> VerifyError {
        VerifyError::Export {
            path: self.path.clone(),
            source,
        }
    }
}

/// Returns the length of the longest row: each byte of its two lines becomes at most an escape of six bytes. Not less
/// than for the default limit, since older rows may be of lines that were allowed then.
pub(in crate::batch) fn max_row_bytes(max_line_bytes: usize) -> usize {
    let lines = max_line_bytes.max(MAX_LINE_BYTES).saturating_mul(2);
    lines.saturating_mul(6).saturating_add(4_096)
}

fn read_row(row: &[u8]) -> ExportLine<'_> {
    match ReadRow::read(row) {
        Ok(row) if ACCEPTED.contains(&&*row.quality_score) => ExportLine::Row(row),
        Ok(row) => ExportLine::Forbidden(row),
        Err(fault) => ExportLine::Unreadable(fault),
    }
}

/// What is summed of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowSum {
    pub key: LocalRowKey,
    pub digest: u128,
}

impl From<&ReadRow<'_>> for RowSum {
    fn from(row: &ReadRow<'_>) -> RowSum {
        RowSum {
            key: row.key,
            digest: row.digest(),
        }
    }
}

impl RowSum {
    /// Reads a row that was just made.
    pub(super) fn of(row: &[u8]) -> RowSum {
        RowSum::from(&ReadRow::read(row).expect("a row that was just made can be read"))
    }

    /// Reads rows that were just made.
    pub(super) fn of_all(rows: &[u8]) -> Vec<RowSum> {
        let rows = rows.split_inclusive(|byte| *byte == b'\n');
        rows.map(RowSum::of).collect()
    }

    pub(super) fn bucket(self) -> usize {
        bucket_of(self.key)
    }
}

/// The number of rows and the sum of their digests per bucket, independent of the order of rows.
#[derive(Debug, Clone)]
pub(super) struct Sums(Vec<(u64, u128)>);

/// Number of bits at the beginning of a key that number its bucket.
const BUCKET_BITS: u32 = 14;
/// Number of buckets. All rows of a key are in one bucket, and a bucket has rows of one group of day-file names.
pub(super) const BUCKETS: usize = 1 << BUCKET_BITS;

impl Sums {
    pub(super) fn new() -> Sums {
        Sums(vec![(0, 0); BUCKETS])
    }

    pub(super) fn add(&mut self, row: RowSum) {
        let (count, sum) = &mut self.0[bucket_of(row.key)];
        *count += 1;
        *sum = sum.wrapping_add(row.digest);
    }

    /// Adds a row by its key alone.
    pub(super) fn add_key(&mut self, row: RowSum) {
        let (count, sum) = &mut self.0[bucket_of(row.key)];
        *count += 1;
        *sum = sum.wrapping_add(row.key.0);
    }

    /// Removes a row that [`Sums::add_key`] added.
    pub(super) fn remove_key(&mut self, row: RowSum) {
        let (count, sum) = &mut self.0[bucket_of(row.key)];
        *count = count.saturating_sub(1);
        *sum = sum.wrapping_sub(row.key.0);
    }

    /// Returns the sums without `removable` in the buckets in which `present` has no row.
    pub(super) fn without_absent(&self, removable: &Sums, present: &Sums) -> Sums {
        let buckets = self.0.iter().zip(&removable.0).zip(&present.0);
        let rest = buckets.map(|((all, removable), present)| match present.0 {
            0 => (
                all.0.saturating_sub(removable.0),
                all.1.wrapping_sub(removable.1),
            ),
            _ => *all,
        });
        Sums(rest.collect())
    }

    /// Returns the total number of rows.
    pub(super) fn rows(&self) -> u64 {
        self.0.iter().map(|(count, _)| count).sum()
    }

    /// Returns the buckets that differ.
    pub(super) fn differing_buckets(&self, other: &Sums) -> DifferingBuckets {
        let both = self.0.iter().zip(&other.0);
        let rows = both.clone().filter(|(ours, theirs)| ours != theirs);
        DifferingBuckets {
            buckets: both.map(|(ours, theirs)| ours != theirs).collect(),
            rows: rows.map(|(ours, theirs)| ours.0 + theirs.0).sum(),
        }
    }

    /// Returns the sums with those of `other` in some buckets.
    pub(super) fn replaced_in(mut self, buckets: &[bool], other: &Sums) -> Sums {
        let both = self.0.iter_mut().zip(&other.0).zip(buckets);
        both.filter(|(_, replaced)| **replaced)
            .for_each(|((ours, theirs), _)| *ours = *theirs);
        self
    }

    /// Returns the buckets that differ, in groups of at most `rows_max` rows, both sides together. A larger bucket is a
    /// group of its own, in several parts.
    pub(super) fn differing(&self, other: &Sums, rows_max: u64) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let mut rows_in_group = rows_max;
        for (bucket, (ours, theirs)) in self.0.iter().zip(&other.0).enumerate() {
            if ours == theirs {
                continue;
            }
            let rows = ours.0 + theirs.0;
            if groups.is_empty() || rows_in_group + rows > rows_max {
                groups.push(Group {
                    buckets: vec![false; BUCKETS],
                    parts: rows.div_ceil(rows_max.max(1)).max(1),
                });
                rows_in_group = 0;
            }
            rows_in_group += rows;
            if let Some(group) = groups.last_mut() {
                group.buckets[bucket] = true;
            }
        }
        groups
    }
}

/// Buckets that are compared together.
#[derive(Debug)]
pub(super) struct Group {
    /// A flag per bucket.
    pub buckets: Vec<bool>,
    /// Number of parts of their rows, by digest; more than 1 only for a single bucket.
    pub parts: u64,
}

/// One part of the rows in a group of buckets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slice<'g> {
    pub group: &'g Group,
    /// From 0.
    pub part: u64,
}

impl Slice<'_> {
    /// Returns whether the key is in the group.
    pub(super) fn has_key(&self, key: LocalRowKey) -> bool {
        self.group.buckets[bucket_of(key)]
    }

    /// Returns whether a pair may have keys of the group.
    pub(super) fn may_have_keys_of(&self, pair: &PairPath) -> bool {
        const BUCKETS_OF_NAME: usize = BUCKETS >> LocalRowKey::GROUP_BITS;
        let first = LocalRowKey::group_of(&pair.file_name()) * BUCKETS_OF_NAME;
        self.group.buckets[first..first + BUCKETS_OF_NAME].contains(&true)
    }

    /// Returns whether a row of such a key is in the part: equal rows are in the same one.
    pub(super) fn has_digest(&self, digest: u128) -> bool {
        digest % u128::from(self.group.parts) == u128::from(self.part)
    }
}

fn bucket_of(key: LocalRowKey) -> usize {
    (key.0 >> (u128::BITS - BUCKET_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::storage::OsStorage;
    use std::fs;

    fn row(run: u32, category: &str) -> String {
        format!(
            r#"{{"id":"n.jsonl:{run}","source_run_id":"r{run}","quality_score":"{category}","created_at":"t","provenance":{{"source_file":"","line_offset":0,"sig_hash":""}}}}"#
        ) + "\n"
    }

    fn summed(rows: &[String]) -> Sums {
        let mut sums = Sums::new();
        for row in rows {
            sums.add(RowSum::from(&ReadRow::read(row.as_bytes()).unwrap()));
        }
        sums
    }

    #[test]
    fn sums_are_independent_of_order_and_count_a_repeated_row() {
        let rows: Vec<String> = (0..50).map(|run| row(run, "accepted")).collect();
        let mut reversed = rows.clone();
        reversed.reverse();
        assert!(summed(&rows).differing(&summed(&reversed), 10).is_empty());
        reversed.push(rows[7].clone());
        let groups = summed(&rows).differing(&summed(&reversed), 10);
        let expected = bucket_of(ReadRow::read(rows[7].as_bytes()).unwrap().key);
        assert_eq!(groups.len(), 1);
        assert!((0..BUCKETS).all(|bucket| groups[0].buckets[bucket] == (bucket == expected)));
    }

    #[test]
    fn each_differing_bucket_is_in_one_group_of_bounded_size() {
        let rows: Vec<String> = (0..500).map(|run| row(run, "accepted")).collect();
        let groups = summed(&rows).differing(&Sums::new(), 100);
        assert!(groups.len() >= 5, "{}", groups.len());
        for row in &rows {
            let bucket = bucket_of(ReadRow::read(row.as_bytes()).unwrap().key);
            assert_eq!(
                groups.iter().filter(|group| group.buckets[bucket]).count(),
                1
            );
        }
    }

    #[test]
    fn a_line_longer_than_any_row_is_unreadable_and_not_held() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("export");
        fs::write(
            &path,
            format!("{}\n{}", "x".repeat(2 << 20), row(1, "accepted")),
        )
        .unwrap();
        let mut export = ExportReader::new(&OsStorage, &path, MAX_LINE_BYTES);
        assert!(export.max_row_bytes > 12 * MAX_LINE_BYTES);
        export.max_row_bytes = 1_000;
        let mut lengths = Vec::new();
        let any = export.read_appended(
            &|_, bytes, line| {
                let is_long = matches!(line, ExportLine::Unreadable(RowError::TooLong { .. }));
                Some((bytes.len(), is_long))
            },
            &mut |_, length| lengths.push(length),
        );
        assert!(any.unwrap());
        assert_eq!(lengths, [(0, true), (row(1, "accepted").len() - 1, false)]);
    }

    #[test]
    fn reading_continues_after_the_last_complete_row() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("export");
        let mut export = ExportReader::new(&OsStorage, &path, MAX_LINE_BYTES);
        let read = |export: &mut ExportReader<'_>| {
            let mut seen = Vec::new();
            export
                .read_appended(
                    &|_, _, line| {
                        Some(match line {
                            ExportLine::Row(_) => "row",
                            ExportLine::Forbidden(_) => "forbidden",
                            ExportLine::Unreadable(_) => "unreadable",
                        })
                    },
                    &mut |offset, what| seen.push((offset, what)),
                )
                .map(|_| seen)
        };
        assert_eq!(read(&mut export).unwrap(), []);
        let (first, second) = (row(1, "accepted"), row(2, "rejected"));
        fs::write(&path, format!("{first}{}", &second[..9])).unwrap();
        assert_eq!(read(&mut export).unwrap(), [(0, "row")]);
        assert_eq!(export.torn_bytes, 9);
        fs::write(&path, format!("{first}{second}\n")).unwrap();
        let at = first.len() as u64;
        let after = at + second.len() as u64;
        assert_eq!(
            read(&mut export).unwrap(),
            [(at, "forbidden"), (after, "unreadable")]
        );
        assert_eq!(export.torn_bytes, 0);
        assert_eq!(export.row_at(at).unwrap(), second.trim_end().as_bytes());
        fs::write(&path, &first).unwrap();
        assert!(matches!(
            read(&mut export),
            Err(VerifyError::Replaced { .. })
        ));
        fs::remove_file(&path).unwrap();
        assert!(matches!(read(&mut export), Err(VerifyError::Export { .. })));
    }
}
