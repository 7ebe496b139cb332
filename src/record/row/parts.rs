//! The two parts of a row, by whose digests rows are compared with what lines and evidence make.

use std::borrow::Cow;

use crate::record::keys::LocalRowKey;
use crate::record::local_digest::digest;
use crate::record::parse::JsonText;
use crate::record::row::{RowError, RowFields, digest_between, keyed, required, sample_span};

/// The digests of the two parts of a row. Both parts of two rows are equal exactly if
/// [`digest_without_stamps`](crate::record::row::digest_without_stamps) is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowParts {
    /// Digest of the bytes that the scored line determines: all but the sample and the timestamps.
    pub frame: u128,
    /// Digest of the bytes that the evidence determines: instruction, context and response.
    pub sample: u128,
}

impl RowParts {
    /// Returns a digest of both parts: equal for rows that differ only in their time.
    #[must_use]
    pub fn whole(&self) -> u128 {
        let [frame, sample] = [self.frame, self.sample].map(u128::to_ne_bytes);
        digest([frame, sample].as_flattened())
    }
}

/// Returns the digests of the two parts of a row; `None` for a line that no exporter of ours writes.
#[must_use]
pub fn parts(row: &[u8]) -> Option<RowParts> {
    let row = row.strip_suffix(b"\n").unwrap_or(row);
    parts_between(row, RowFields::read(row).ok()?.stamps)
}

fn parts_between(row: &[u8], stamps: Vec<(usize, usize)>) -> Option<RowParts> {
    let (from, to) = sample_span(row)?;
    if stamps.iter().any(|(start, end)| *start < to && from < *end) {
        return None;
    }
    let mut left_out = stamps;
    left_out.push((from, to));
    left_out.sort_unstable();
    Some(RowParts {
        frame: digest_between(row, &left_out),
        sample: digest(&row[from..to]),
    })
}

/// A row whose fields are read and none of whose bytes is digested yet.
#[derive(Debug)]
pub struct ReadRow<'a> {
    /// Key of its origin.
    pub key: LocalRowKey,
    /// The index in its id; `None` if that is not a number.
    pub index: Option<u64>,
    /// The category.
    pub quality_score: Cow<'a, str>,
    /// Its timestamp; empty if it has none.
    pub created_at: Cow<'a, str>,
    row: &'a [u8],
    stamps: Vec<(usize, usize)>,
}

impl<'a> ReadRow<'a> {
    /// Reads the fields of a row.
    ///
    /// # Errors
    /// The row is not JSON, or lacks one of the fields.
    pub fn read(row: &'a [u8]) -> Result<ReadRow<'a>, RowError> {
        let row = row.strip_suffix(b"\n").unwrap_or(row);
        let fields = RowFields::read(row)?;
        let (key, index) = keyed(&fields, LocalRowKey::from_parts)?;
        Ok(ReadRow {
            key,
            index,
            quality_score: required(fields.quality_score, "quality_score")?.decode(),
            created_at: fields.created_at.unwrap_or(JsonText::EMPTY).decode(),
            row,
            stamps: fields.stamps,
        })
    }

    /// Returns the digest that [`digest_without_stamps`](crate::record::row::digest_without_stamps) returns.
    #[must_use]
    pub fn digest(&self) -> u128 {
        digest_between(self.row, &self.stamps)
    }

    /// Returns what [`parts`] returns.
    #[must_use]
    pub fn parts(&self) -> Option<RowParts> {
        parts_between(self.row, self.stamps.clone())
    }
}

/// Finds the sample of rows that differ in their samples alone, without a search in each of them.
#[derive(Debug, Clone, Copy)]
pub struct SampleFinder {
    /// Length of the bytes before the sample.
    before: usize,
    /// Length of the bytes after it.
    after: usize,
}

impl SampleFinder {
    /// Returns the finder of rows that are like this one; `None` for a line that no exporter of ours writes.
    #[must_use]
    pub fn of(row: &[u8]) -> Option<SampleFinder> {
        let (before, to) = sample_span(row)?;
        Some(SampleFinder {
            before,
            after: row.len() - to,
        })
    }

    /// Returns the digest of the sample of such a row, as [`parts`] does.
    #[must_use]
    pub fn digest(&self, row: &[u8]) -> u128 {
        digest(&row[self.before..row.len() - self.after])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::row::summary;

    const ROW: &str = r#"{"schema_version":1,"id":"b.jsonl:12","instruction":"i","context":"","response":"<a>\",\"source_run_id\":\"","source_run_id":"r","quality_score":"accepted","created_at":"then","provenance":{"source_file":"f","line_offset":-3,"sig_hash":"s","recorded_at":"then"}}"#;

    #[test]
    fn a_row_is_compared_by_what_one_reading_of_it_finds() {
        let rows = [
            (ROW.to_owned(), true),
            (ROW.replace("then", "2026-05-02T00:00:00Z"), true),
            (ROW.replace("\"i\"", "\"j\""), false),
            (ROW.replace("\"r\"", "\"q\""), false),
        ];
        let whole = |row: &str| parts(row.as_bytes()).unwrap().whole();
        for (row, is_equal) in rows {
            assert_eq!(whole(&row) == whole(ROW), is_equal, "{row}");
            let read = ReadRow::read(row.as_bytes()).unwrap();
            assert_eq!(read.digest(), summary(row.as_bytes()).unwrap().digest);
            assert_eq!(read.parts(), parts(row.as_bytes()), "{row}");
        }
    }

    #[test]
    fn the_sample_is_found_in_rows_of_one_frame() {
        let finder = SampleFinder::of(ROW.as_bytes()).unwrap();
        for row in [ROW.to_owned(), ROW.replace("\"i\"", "\"longer \\\" text\"")] {
            let expected = parts(row.as_bytes()).unwrap().sample;
            assert_eq!(finder.digest(row.as_bytes()), expected, "{row}");
        }
        assert!(SampleFinder::of(b"{}").is_none());
    }
}
