//! Reads rows of an export: their keys, their timestamps, and digests by which rows are compared. Accepts rows of other
//! exporters: keys in any order, any white space, escapes in any spelling.

mod parts;

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem;

use crate::record::json::scanner::{JsonError, Scanner};
use crate::record::keys::{LocalRowKey, RowKey, RunKey};
use crate::record::local_digest::Digest;
use crate::record::parse::{JsonText, Provenance};
use crate::record::timestamp::minute_of_stamp;
pub use parts::{ReadRow, RowParts, SampleFinder, made_parts, made_stamps, parts};

/// Length of the longest field name that is read.
const LONGEST_NAME: usize = "source_run_id".len();

/// The reason why a line of an export is not a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Not a JSON object.
    #[error("row is not a JSON object: {what} at byte {at_byte}")]
    Syntax {
        /// Offset in the row.
        at_byte: usize,
        /// The fault.
        what: &'static str,
    },
    /// A field is missing or of another type.
    #[error("row has no usable field {field}")]
    Missing {
        /// The field's name.
        field: &'static str,
    },
    /// Longer than any row.
    #[error("row is longer than {max_bytes} bytes")]
    TooLong {
        /// The limit, in bytes.
        max_bytes: usize,
    },
    /// The id does not end in a colon and an index.
    #[error("row id has no index")]
    NoIndex,
}

impl From<JsonError> for RowError {
    fn from(JsonError { at_byte, what }: JsonError) -> RowError {
        RowError::Syntax { at_byte, what }
    }
}

/// The fields of a row that are read. Of duplicate keys the last one counts.
#[derive(Default)]
struct RowFields<'a> {
    id: Option<JsonText<'a>>,
    source_run_id: Option<JsonText<'a>>,
    quality_score: Option<JsonText<'a>>,
    created_at: Option<JsonText<'a>>,
    provenance: Option<Provenance<'a>>,
    /// Spans of the timestamps in the row, quotes included, in order.
    stamps: Vec<(usize, usize)>,
}

impl RowKey {
    /// Makes the key of a row, with or without its newline.
    ///
    /// # Errors
    /// The row is not JSON, or lacks a field that the key includes.
    pub fn from_row(row: &[u8]) -> Result<RowKey, RowError> {
        keyed(&RowFields::read(row)?, RowKey::from_parts).map(|(key, _index)| key)
    }
}

/// Returns the key that `from_parts` makes, and the index after the day-file's name in the id.
fn keyed<K>(
    fields: &RowFields<'_>,
    from_parts: impl Fn(&str, &JsonText<'_>, &Provenance<'_>) -> K,
) -> Result<(K, Option<u64>), RowError> {
    let id = required(fields.id, "id")?.decode();
    let (day_file_name, index) = id.rsplit_once(':').ok_or(RowError::NoIndex)?;
    let run_id = required(fields.source_run_id, "source_run_id")?;
    let provenance = fields.provenance.ok_or(RowError::Missing {
        field: "provenance",
    })?;
    let key = from_parts(day_file_name, &run_id, &provenance);
    Ok((key, index.parse().ok()))
}

fn required<'a>(field: Option<JsonText<'a>>, name: &'static str) -> Result<JsonText<'a>, RowError> {
    field.ok_or(RowError::Missing { field: name })
}

impl<'a> RowFields<'a> {
    fn read(row: &'a [u8]) -> Result<RowFields<'a>, RowError> {
        let mut fields = RowFields::default();
        let mut scanner = Scanner::new(row);
        if scanner.peek() != Some(b'{') {
            return Err(RowError::Syntax {
                at_byte: 0,
                what: "an object is missing",
            });
        }
        scanner.object(LONGEST_NAME, |scanner, name| fields.field(scanner, name))?;
        scanner.end()?;
        Ok(fields)
    }

    fn field(&mut self, scanner: &mut Scanner<'a>, name: &[u8]) -> Result<(), RowError> {
        match (name, scanner.peek()) {
            (b"id", Some(b'"')) => self.id = Some(scanner.string()?),
            (b"source_run_id", Some(b'"')) => self.source_run_id = Some(scanner.string()?),
            (b"quality_score", Some(b'"')) => self.quality_score = Some(scanner.string()?),
            (b"created_at", Some(b'"')) => self.created_at = Some(self.stamp(scanner)?),
            (b"provenance", Some(b'{')) => self.provenance(scanner)?,
            _ => scanner.skip_value()?,
        }
        Ok(())
    }

    /// Reads the provenance; each of its fields is required.
    fn provenance(&mut self, scanner: &mut Scanner<'a>) -> Result<(), RowError> {
        let (mut source_file, mut line_offset, mut sig_hash) = (None, None, None);
        scanner.object(LONGEST_NAME, |scanner, name| -> Result<(), RowError> {
            match (name, scanner.peek()) {
                (b"source_file", Some(b'"')) => source_file = Some(scanner.string()?),
                (b"line_offset", Some(b'-' | b'0'..=b'9')) => {
                    line_offset = scanner.number()?.as_i64();
                }
                (b"sig_hash", Some(b'"')) => sig_hash = Some(scanner.string()?),
                (b"recorded_at", Some(b'"')) => {
                    self.stamp(scanner)?;
                }
                _ => scanner.skip_value()?,
            }
            Ok(())
        })?;
        self.provenance = Some(Provenance {
            source_file: required(source_file, "provenance.source_file")?,
            line_offset: line_offset.ok_or(RowError::Missing {
                field: "provenance.line_offset",
            })?,
            sig_hash: required(sig_hash, "provenance.sig_hash")?,
            recorded_at: JsonText::EMPTY,
        });
        Ok(())
    }

    fn stamp(&mut self, scanner: &mut Scanner<'a>) -> Result<JsonText<'a>, RowError> {
        let start = scanner.at();
        let stamp = scanner.string()?;
        self.stamps.push((start, scanner.at()));
        Ok(stamp)
    }
}

/// The day-file of a row's scored line and the time of the row, as far as the row has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowOrigin<'a> {
    /// The name of the day-file.
    pub day_file_name: Cow<'a, str>,
    /// The minute of its timestamp, since 1970.
    pub minute: u64,
}

/// Returns the origin of a row; `None` where the line is no row or has no valid timestamp.
#[must_use]
pub fn origin(row: &[u8]) -> Option<RowOrigin<'_>> {
    origin_of(&RowFields::read(row).ok()?)
}

/// What an adoption reads of a row, in one pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExistingRow<'a> {
    /// The key of its origin.
    pub key: RowKey,
    /// Its origin, where it has a valid timestamp.
    pub origin: Option<RowOrigin<'a>>,
    /// The run it was made from.
    pub source_run_id: Cow<'a, str>,
    /// The category, if it has one.
    pub quality_score: Option<Cow<'a, str>>,
}

/// Reads a row that exists.
///
/// # Errors
/// Those of [`RowKey::from_row`].
pub fn existing(row: &[u8]) -> Result<ExistingRow<'_>, RowError> {
    let fields = RowFields::read(row)?;
    let (key, _index) = keyed(&fields, RowKey::from_parts)?;
    Ok(ExistingRow {
        key,
        origin: origin_of(&fields),
        source_run_id: required(fields.source_run_id, "source_run_id")?.decode(),
        quality_score: fields.quality_score.map(|category| category.decode()),
    })
}

fn origin_of<'a>(fields: &RowFields<'a>) -> Option<RowOrigin<'a>> {
    let minute = minute_of_stamp(&fields.created_at?.decode())?;
    let day_file_name = match fields.id?.decode() {
        Cow::Borrowed(id) => Cow::Borrowed(id.rsplit_once(':')?.0),
        Cow::Owned(id) => Cow::Owned(id.rsplit_once(':')?.0.to_owned()),
    };
    Some(RowOrigin {
        day_file_name,
        minute,
    })
}

/// Returns whether two rows have equal instruction, context and response, however they are written. A line that is
/// not a row counts as equal.
#[must_use]
pub fn same_sample(row: &[u8], other: &[u8]) -> bool {
    if sample_bytes(row).is_some_and(|part| Some(part) == sample_bytes(other)) {
        return true;
    }
    match (sample(row), sample(other)) {
        (Ok(one), Ok(two)) => one == two,
        _ => true,
    }
}

/// Returns whether two rows are equal but for their timestamps, however they are written.
#[must_use]
pub fn same_row(row: &[u8], other: &[u8]) -> bool {
    let (Ok(one), Ok(two)) = (summary(row), summary(other)) else {
        return false;
    };
    if one.digest == two.digest {
        return true;
    }
    let are_of_one_line = one.index.is_some()
        && (one.key, one.index, one.quality_score) == (two.key, two.index, two.quality_score);
    are_of_one_line && matches!((sample(row), sample(other)), (Ok(one), Ok(two)) if one == two)
}

/// Returns the bytes of a sample, as rows of one exporter write them: most are equal byte by byte. Neither pattern
/// can be inside a string, where a quote has a backslash.
fn sample_bytes(row: &[u8]) -> Option<&[u8]> {
    let (from, to) = sample_span(row)?;
    Some(&row[from..to])
}

fn sample_span(row: &[u8]) -> Option<(usize, usize)> {
    /// To prepare a search takes as long as to search a short row.
    static ENDS: LazyLock<[memmem::Finder<'static>; 2]> =
        LazyLock::new(|| [",\"instruction\":\"", ",\"source_run_id\":\""].map(memmem::Finder::new));
    let from = ENDS[0].find(row)?;
    let len = ENDS[1].find(&row[from..])?;
    Some((from, from + len))
}

/// Returns the fields of a row that are made from evidence.
fn sample(row: &[u8]) -> Result<[Option<Cow<'_, str>>; 3], RowError> {
    let mut scanner = Scanner::new(row);
    let mut texts = [const { None }; 3];
    scanner.object(LONGEST_NAME, |scanner, name| -> Result<(), RowError> {
        let at = [&b"instruction"[..], b"context", b"response"]
            .iter()
            .position(|known| *known == name);
        match (at, scanner.peek()) {
            (Some(at), Some(b'"')) => texts[at] = Some(scanner.string()?.decode()),
            _ => scanner.skip_value()?,
        }
        Ok(())
    })?;
    Ok(texts)
}

/// The fields of a row that `explain` shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowView<'a> {
    /// `NAME.jsonl:index`.
    pub id: Cow<'a, str>,
    /// The run it was made from.
    pub source_run_id: Cow<'a, str>,
    /// The category.
    pub quality_score: Cow<'a, str>,
}

impl RowView<'_> {
    /// Returns the key of the row's run.
    #[must_use]
    pub fn run(&self) -> RunKey {
        RunKey::from_run_id(&self.source_run_id)
    }

    /// Returns the name of the row's day-file.
    #[must_use]
    pub fn day_file_name(&self) -> &str {
        let parts = self.id.rsplit_once(':');
        parts.map_or(&self.id, |(name, _index)| name)
    }
}

/// Reads the fields of a row that `explain` shows.
///
/// # Errors
/// The row is not JSON, or lacks one of the fields.
pub fn view(row: &[u8]) -> Result<RowView<'_>, RowError> {
    let fields = RowFields::read(row)?;
    Ok(RowView {
        id: required(fields.id, "id")?.decode(),
        source_run_id: required(fields.source_run_id, "source_run_id")?.decode(),
        quality_score: required(fields.quality_score, "quality_score")?.decode(),
    })
}

/// Returns the digest of the row without its newline and the values of its two timestamps: equal for rows that differ only
/// in their time. All other bytes count, including the order of the keys.
///
/// # Errors
/// The row is not a JSON object.
pub fn digest_without_stamps(row: &[u8]) -> Result<u128, RowError> {
    let row = row.strip_suffix(b"\n").unwrap_or(row);
    Ok(digest_between(row, &RowFields::read(row)?.stamps))
}

/// The timestamps of a row, and the digest of all other bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowStamps {
    /// The digest that [`digest_without_stamps`] returns.
    pub digest: u128,
    /// Start and end of each stamp in the row, quotes included, in order.
    pub spans: Vec<(usize, usize)>,
}

/// Reads the timestamps of a row, without its newline.
///
/// # Errors
/// The row is not a JSON object.
pub fn stamps(row: &[u8]) -> Result<RowStamps, RowError> {
    let spans = RowFields::read(row)?.stamps;
    Ok(RowStamps {
        digest: digest_between(row, &spans),
        spans,
    })
}

fn digest_between(row: &[u8], left_out: &[(usize, usize)]) -> u128 {
    let mut hash = Digest::new();
    let mut hashed = 0;
    for (start, end) in left_out {
        hash.update(&row[hashed..*start]);
        hashed = *end;
    }
    hash.update(&row[hashed..]);
    hash.finish()
}

/// The fields that identify a row, read in one pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowSummary<'a> {
    /// Key of its origin.
    pub key: LocalRowKey,
    /// The digest that [`digest_without_stamps`] returns.
    pub digest: u128,
    /// The index in its id; `None` if that is not a number.
    pub index: Option<u64>,
    /// The category.
    pub quality_score: Cow<'a, str>,
    /// Its timestamp; empty if it has none.
    pub created_at: Cow<'a, str>,
}

/// Reads the fields that identify a row.
///
/// # Errors
/// The row is not JSON, or lacks one of the fields.
pub fn summary(row: &[u8]) -> Result<RowSummary<'_>, RowError> {
    let read = ReadRow::read(row)?;
    Ok(RowSummary {
        key: read.key,
        digest: read.digest(),
        index: read.index,
        quality_score: read.quality_score,
        created_at: read.created_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::keys::{RunKey, first_bytes};
    use crate::record::parse::scored_run;

    const ROW: &str = r#"{"schema_version":1,"id":"a:b.jsonl:12","instruction":"i","context":"","response":",\"quality_score\":\"rejected\"","source_run_id":"r","quality_score":"accepted","created_at":"then","provenance":{"source_file":"f","line_offset":-3,"sig_hash":"s","recorded_at":"then"}}"#;

    #[test]
    fn a_row_has_an_origin_if_its_timestamp_is_valid() {
        let row = |stamp: &str| ROW.replace("\"then\"", &format!("\"{stamp}\"")) + "\n";
        for (row, minute) in [
            (row("2026-05-01T23:59:59.999Z"), Some(20_575 * 1_440 - 1)),
            (row("2026-05-02T00:00:00Z"), Some(20_575 * 1_440)),
            (row("then"), None),
            (row("2026-05-02T24:00:00Z"), None),
            ("{}".to_owned(), None),
        ] {
            let origin = origin(row.as_bytes());
            assert_eq!(origin.as_ref().map(|origin| origin.minute), minute, "{row}");
            assert!(origin.is_none_or(|origin| origin.day_file_name == "a:b.jsonl"));
        }
    }

    #[test]
    fn keys_have_the_bytes_that_states_on_disk_hold() {
        assert_eq!(
            format!("{:?}", RunKey::from_run_id("")),
            "af1349b9f5f9a1a6a0404dea"
        );
        assert_eq!(
            format!("{:?}", RunKey::from_run_id("run-1")),
            "c82087babf08a39cf680a880"
        );
        assert_eq!(
            format!("{:?}", RowKey::from_row(ROW.as_bytes()).unwrap()),
            "a7186cba40790d65839594dd"
        );
        let mut bytes = Vec::new();
        for text in ["a:b.jsonl", "r", "f", "s"] {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text.as_bytes());
        }
        bytes.extend((-3_i64).to_le_bytes());
        let key = RowKey(first_bytes(blake3::hash(&bytes)));
        assert_eq!(RowKey::from_row(ROW.as_bytes()), Ok(key));
    }

    #[test]
    fn the_key_of_a_row_does_not_depend_on_how_it_is_written() {
        let line = br#"{"evidence_run_id":"r","category":"x","provenance":{"line_offset":-3,"sig_hash":"s","source_file":"f"}}"#;
        let key = RowKey::from_scored("a:b.jsonl", &scored_run(line).unwrap());
        let other = r#" { "provenance": {"line_offset":-3,"x":[{}],"sig_hash":"\u0073","source_file":"f"}, "source_run_id":"r",
            "extra":"\ud83d", "id":"a:b.jsonl:99" } "#;
        for row in [ROW, other] {
            assert_eq!(RowKey::from_row(row.as_bytes()), Ok(key));
        }
        for (from, to) in [
            ("\"r\"", "\"q\""),
            ("a:b", "ab"),
            ("-3", "3"),
            ("\"f\"", "\"fs\""),
            ("\"s\"", "\"\""),
            (":12", "1:2"),
        ] {
            assert_ne!(
                RowKey::from_row(ROW.replacen(from, to, 1).as_bytes()),
                Ok(key),
                "{to}"
            );
        }
    }

    #[test]
    fn a_line_that_is_not_a_row_has_no_key() {
        for (row, fault) in [
            (
                "",
                "row is not a JSON object: an object is missing at byte 0",
            ),
            (
                "[]",
                "row is not a JSON object: an object is missing at byte 0",
            ),
            (
                "{",
                "row is not a JSON object: a string is missing at byte 1",
            ),
            ("{}", "row has no usable field id"),
            (r#"{"id":5}"#, "row has no usable field id"),
            (r#"{"id":"x"}"#, "row id has no index"),
            (
                r#"{"id":"x:1","source_run_id":"r"}"#,
                "row has no usable field provenance",
            ),
            (
                r#"{"provenance":{"source_file":"f","line_offset":1.5,"sig_hash":""}}"#,
                "row has no usable field provenance.line_offset",
            ),
        ] {
            assert_eq!(
                RowKey::from_row(row.as_bytes()).unwrap_err().to_string(),
                fault,
                "{row}"
            );
        }
    }

    #[test]
    fn the_digest_leaves_out_the_stamps_and_nothing_else() {
        let digest = |row: &str| digest_without_stamps(row.as_bytes()).unwrap();
        assert_eq!(digest(ROW), digest(&format!("{ROW}\n")));
        assert_eq!(
            digest(ROW),
            digest(&ROW.replace("\"then\"", "\"2027-01-01\""))
        );
        for (from, to) in [
            (":12", ":13"),
            ("\"i\"", "\"then\""),
            ("-3", "-4"),
            ("\"s\"", "\"t\""),
        ] {
            assert_ne!(digest(ROW), digest(&ROW.replacen(from, to, 1)), "{to}");
        }
    }

    #[test]
    fn both_parts_of_a_row_are_equal_exactly_if_its_digest_is() {
        let own = ROW.replace("\"response\":\",", "\"response\":\"x,");
        let of = |row: &str| parts(row.as_bytes()).unwrap();
        assert_eq!(of(&own), of(&format!("{}\n", own.replace("then", "now"))));
        for (from, to, is_sample) in [
            (":12", ":13", false),
            ("\"i\"", "\"j\"", true),
            ("x,", "y,", true),
            ("\"r\"", "\"q\"", false),
            ("-3", "-4", false),
        ] {
            let (one, other) = (of(&own), of(&own.replacen(from, to, 1)));
            assert_eq!(one.sample != other.sample, is_sample, "{to}");
            assert_eq!(one.frame != other.frame, !is_sample, "{to}");
        }
        let stamp_inside = own.replace("\"context\"", "\"created_at\":\"now\",\"context\"");
        for row in [&*stamp_inside, "{}", "no row", ""] {
            assert_eq!(parts(row.as_bytes()), None, "{row}");
        }
    }

    #[test]
    fn a_sample_is_the_same_however_it_is_written() {
        let same = |row: &str| same_sample(ROW.as_bytes(), row.as_bytes());
        assert!(same(ROW));
        let other = r#"{ "response":"\u002c\"quality_score\":\"rejected\"", "context": "", "instruction":"\u0069","id":5}"#;
        assert!(same(other));
        for (from, to) in [
            ("\\u0069", "j"),
            ("\"context\": \"\"", "\"context\": \"c\""),
            ("rejected", "r"),
        ] {
            assert!(!same(&other.replacen(from, to, 1)), "{to}");
        }
        assert!(!same("{}"));
        assert!(same("no row"));
    }

    #[test]
    fn a_row_is_the_same_however_it_is_written_and_whenever() {
        let same = |row: &str| same_row(ROW.as_bytes(), row.as_bytes());
        let later = ROW.replace("\"then\"", "\"later\"");
        let escaped = later.replacen("\"i\"", "\"\\u0069\"", 1);
        for row in [ROW, &later, &escaped] {
            assert!(same(row), "{row}");
        }
        for (from, to) in [
            (":12", ":13"),
            ("\\u0069", "j"),
            ("accepted", "partially_accepted"),
            ("\"f\"", "\"g\""),
            ("-3", "3"),
        ] {
            assert!(!same(&escaped.replacen(from, to, 1)), "{to}");
        }
        assert!(!same("no row"));
    }

    #[test]
    fn a_summary_agrees_with_the_single_readers() {
        let line = format!("{ROW}\n");
        let read = summary(line.as_bytes()).unwrap();
        let row = ROW.as_bytes();
        let scored = br#"{"evidence_run_id":"r","provenance":{"line_offset":-3,"sig_hash":"s","source_file":"f"}}"#;
        let run = scored_run(scored).unwrap();
        assert_eq!(read.key, LocalRowKey::from_scored("a:b.jsonl", &run));
        assert_eq!(Ok(read.digest), digest_without_stamps(row));
        assert_eq!(read.index, Some(12));
        assert_eq!(
            (&*read.quality_score, &*read.created_at),
            ("accepted", "then")
        );
        let odd = ROW.replacen(":12", ":x", 1);
        assert_eq!(summary(odd.as_bytes()).unwrap().index, None);
        summary(b"{}").unwrap_err();
    }
}
