//! The two parts of a row, by whose digests rows are compared with what lines and evidence make.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem;

use crate::record::json::escape::add_escapes_of_go;
use crate::record::keys::LocalRowKey;
use crate::record::local_digest::digest;
use crate::record::parse::JsonText;
use crate::record::row::{
    RowError, RowFields, RowStamps, digest_between, keyed, required, sample_span,
};

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

/// As [`parts`], of a row that was just made: it need not be read to find its timestamps.
#[must_use]
pub fn made_parts(row: &[u8]) -> Option<RowParts> {
    let row = row.strip_suffix(b"\n").unwrap_or(row);
    parts_between(row, made_spans(row)?.to_vec())
}

/// As [`stamps`](crate::record::row::stamps), of a row that was just made; `None` if it was not.
#[must_use]
pub fn made_stamps(row: &[u8]) -> Option<RowStamps> {
    let spans = made_spans(row)?.to_vec();
    Some(RowStamps {
        digest: digest_between(row, &spans),
        spans,
    })
}

/// Finds the timestamps after the sample. Neither pattern can be inside a string, where a quote has a backslash.
fn made_spans(row: &[u8]) -> Option<[(usize, usize); 2]> {
    static KEYS: LazyLock<[memmem::Finder<'static>; 2]> =
        LazyLock::new(|| [",\"created_at\":\"", ",\"recorded_at\":\""].map(memmem::Finder::new));
    let span = |key: &memmem::Finder<'_>, from: usize| {
        let start = from + key.find(&row[from..])? + key.needle().len() - 1;
        let len = memchr::memchr(b'"', &row[start + 1..])?;
        Some((start, start + len + 2))
    };
    let (_, sample_end) = sample_span(row)?;
    let created = span(&KEYS[0], sample_end)?;
    let recorded = span(&KEYS[1], created.1)?;
    Some([created, recorded])
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
        digest(self.sample(row))
    }

    /// Returns the digest of the sample of such a native row in the Go dialect, which has further escapes. `copy`: memory for
    /// it.
    #[must_use]
    pub fn digest_in_go(&self, row: &[u8], copy: &mut Vec<u8>) -> u128 {
        copy.clear();
        add_escapes_of_go(self.sample(row), copy);
        digest(copy)
    }

    fn sample<'r>(&self, row: &'r [u8]) -> &'r [u8] {
        &row[self.before..row.len() - self.after]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::row::{stamps, summary};

    const ROW: &str = r#"{"schema_version":1,"id":"b.jsonl:12","instruction":"i","context":"","response":"<a>\",\"source_run_id\":\"","source_run_id":"r","quality_score":"accepted","created_at":"then","provenance":{"source_file":"f","line_offset":-3,"sig_hash":"s","recorded_at":"then"}}"#;

    #[test]
    fn a_row_is_compared_by_what_one_reading_of_it_finds() {
        let rows = [
            (ROW.to_owned(), true),
            (ROW.replace("then", "2026-05-02T00:00:00Z"), true),
            (ROW.replace("\"i\"", "\"j\""), false),
            (ROW.replace("\"r\"", "\"q\""), false),
            (ROW.replace("then", ""), true),
            (ROW.replace("\"f\"", r#"",\"recorded_at\":\",""#), false),
        ];
        let whole = |row: &str| parts(row.as_bytes()).unwrap().whole();
        for (row, is_equal) in rows {
            assert_eq!(whole(&row) == whole(ROW), is_equal, "{row}");
            let read = ReadRow::read(row.as_bytes()).unwrap();
            assert_eq!(read.digest(), summary(row.as_bytes()).unwrap().digest);
            assert_eq!(read.parts(), parts(row.as_bytes()), "{row}");
            assert_eq!(made_parts(row.as_bytes()), parts(row.as_bytes()), "{row}");
            assert_eq!(made_stamps(row.as_bytes()), stamps(row.as_bytes()).ok());
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
