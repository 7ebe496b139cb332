//! The lines of the ledger of retractions, `sft_retractions.jsonl`: one JSON object for each event of a row, with every
//! key in one order. [`fold`] derives from them the rows that are retracted.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::record::keys::write_hex;

pub mod begin;
pub mod fold;

/// The value of `schema_version` of each line.
pub const SCHEMA_VERSION: u64 = 1;

/// The identity of an export: random, created with the file, and replaced by `rebuild`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExportId(pub [u8; 8]);

impl ExportId {
    /// Parses 16 lowercase hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<ExportId> {
        from_hex(text).map(ExportId)
    }
}

impl fmt::Display for ExportId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, formatter)
    }
}

impl fmt::Debug for ExportId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, formatter)
    }
}

/// Returns bytes as lowercase hexadecimal digits.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

/// Parses exactly `2 * N` lowercase hexadecimal digits.
#[must_use]
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 2 * N || !text.bytes().all(is_hex) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// The first line of a ledger: it names the export.
    Begin,
    /// The row leaves the effective set.
    Retract,
    /// The row returns to the effective set.
    Restore,
    /// A fact about the row that changes nothing: its evidence is superseded.
    Note,
    /// An operator orders a run out of the effective set.
    Order,
    /// An operator takes such an order back.
    Revoke,
}

impl Op {
    /// All kinds.
    pub const ALL: [Op; 6] = [
        Op::Begin,
        Op::Retract,
        Op::Restore,
        Op::Note,
        Op::Order,
        Op::Revoke,
    ];

    /// Returns the value of `op`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Op::Begin => "begin",
            Op::Retract => "retract",
            Op::Restore => "restore",
            Op::Note => "note",
            Op::Order => "order",
            Op::Revoke => "revoke",
        }
    }

    /// Parses a value of `op`.
    #[must_use]
    pub fn parse(code: &str) -> Option<Op> {
        Op::ALL.into_iter().find(|op| op.code() == code)
    }

    /// Returns whether an event of this kind names a row.
    #[must_use]
    pub fn has_row(self) -> bool {
        matches!(self, Op::Retract | Op::Restore | Op::Note)
    }
}

/// The reason of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A later line of the run is `rejected`.
    Rejected,
    /// A later line of the run is `needs_human_review`.
    NeedsHumanReview,
    /// A later line of the run has an unknown category.
    UnknownCategory,
    /// A later line of the run has a row of its own.
    Rescored,
    /// An operator's order.
    Operator,
    /// Later evidence of the run differs.
    Superseded,
    /// The export was created.
    Created,
    /// The export was there without a ledger.
    Adopted,
    /// `rebuild` replaced the export.
    Rebuild,
}

impl Cause {
    /// All causes.
    pub const ALL: [Cause; 9] = [
        Cause::Rejected,
        Cause::NeedsHumanReview,
        Cause::UnknownCategory,
        Cause::Rescored,
        Cause::Operator,
        Cause::Superseded,
        Cause::Created,
        Cause::Adopted,
        Cause::Rebuild,
    ];

    /// Returns the value of `cause`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Cause::Rejected => "rejected",
            Cause::NeedsHumanReview => "needs_human_review",
            Cause::UnknownCategory => "unknown_category",
            Cause::Rescored => "rescored",
            Cause::Operator => "operator",
            Cause::Superseded => "superseded",
            Cause::Created => "created",
            Cause::Adopted => "adopted",
            Cause::Rebuild => "rebuild",
        }
    }

    /// Parses a value of `cause`.
    #[must_use]
    pub fn parse(code: &str) -> Option<Cause> {
        Cause::ALL.into_iter().find(|cause| cause.code() == code)
    }

    /// Returns whether the cause is one of `begin`.
    fn is_of_begin(self) -> bool {
        matches!(self, Cause::Created | Cause::Adopted | Cause::Rebuild)
    }
}

/// The bytes of a row in the export, its newline included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowSpan {
    /// Offset in the export.
    pub offset: u64,
    /// Length, bytes.
    pub len_bytes: u64,
}

impl RowSpan {
    /// Returns the offset after the row.
    #[must_use]
    pub fn end(self) -> u64 {
        self.offset.saturating_add(self.len_bytes)
    }
}

/// Returns the first 16 bytes of SHA-256 of a row with its newline.
#[must_use]
pub fn row_hash(row_with_newline: &[u8]) -> [u8; 16] {
    let digest: [u8; 32] = Sha256::digest(row_with_newline).into();
    let mut hash = [0; 16];
    hash.copy_from_slice(&digest[..16]);
    hash
}

/// One event of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerLine {
    /// Number of the line, from 0.
    pub seq: u64,
    /// Kind of the event.
    pub op: Op,
    /// The export that the ledger belongs to.
    pub export: ExportId,
    /// Committed length of the export at the event, the rows of the same commit included.
    pub export_len: u64,
    /// The row, for the kinds that name one.
    pub row: Option<RowSpan>,
    /// [`row_hash`] of the row; zero without a row.
    pub row_hash: [u8; 16],
    /// The row's `id`.
    pub id: String,
    /// The run.
    pub source_run_id: String,
    /// Reason of the event.
    pub cause: Cause,
    /// Day-file of the line that is the reason.
    pub day_file: String,
    /// Offset of that line.
    pub line_offset: Option<u64>,
    /// An operator's words; in `begin` the identity and lengths that it replaces.
    pub reason: String,
    /// Time of the event, as the stamp of a row.
    pub at: String,
}

/// The reason why a line is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Not a JSON object with exactly the keys of an event, each with its type.
    #[error("the line is not an event of a ledger: {0}")]
    Syntax(String),
    /// Written by a later version.
    #[error("schema_version is {0}, and this version of distilld reads {SCHEMA_VERSION}")]
    SchemaVersion(u64),
    /// A value that its key does not have.
    #[error("{key} has a value that it never has: {value:?}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
    },
}

fn value_error(key: &'static str, value: impl ToString) -> LedgerError {
    LedgerError::Value {
        key,
        value: value.to_string(),
    }
}

/// A line as JSON. The order of the fields is that of the keys.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonLine<'a> {
    schema_version: u64,
    seq: u64,
    #[serde(borrow)]
    op: Cow<'a, str>,
    #[serde(borrow)]
    export: Cow<'a, str>,
    export_len: u64,
    row_offset: i64,
    row_len: i64,
    #[serde(borrow)]
    row_hash: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    source_run_id: Cow<'a, str>,
    #[serde(borrow)]
    cause: Cow<'a, str>,
    #[serde(borrow)]
    day_file: Cow<'a, str>,
    line_offset: i64,
    #[serde(borrow)]
    reason: Cow<'a, str>,
    #[serde(borrow)]
    at: Cow<'a, str>,
}

/// Returns a number as JSON has it: -1 for none. No file is as long as the largest `i64`.
fn or_minus_one(number: Option<u64>) -> i64 {
    number.map_or(-1, |number| i64::try_from(number).unwrap_or(i64::MAX))
}

/// Returns the number that [`or_minus_one`] wrote.
fn number(key: &'static str, written: i64) -> Result<Option<u64>, LedgerError> {
    match written {
        -1 => Ok(None),
        _ => u64::try_from(written)
            .map(Some)
            .map_err(|_negative| value_error(key, written)),
    }
}

impl LedgerLine {
    /// Appends the line with its newline.
    pub fn write(&self, out: &mut Vec<u8>) {
        let row_hash = self.row.map(|_row| to_hex(&self.row_hash));
        let line = JsonLine {
            schema_version: SCHEMA_VERSION,
            seq: self.seq,
            op: self.op.code().into(),
            export: self.export.to_string().into(),
            export_len: self.export_len,
            row_offset: or_minus_one(self.row.map(|row| row.offset)),
            row_len: or_minus_one(self.row.map(|row| row.len_bytes)),
            row_hash: row_hash.unwrap_or_default().into(),
            id: (&self.id).into(),
            source_run_id: (&self.source_run_id).into(),
            cause: self.cause.code().into(),
            day_file: (&self.day_file).into(),
            line_offset: or_minus_one(self.line_offset),
            reason: (&self.reason).into(),
            at: (&self.at).into(),
        };
        // Texts and numbers into memory: the writer has no reason to fail.
        let _written = serde_json::to_writer(&mut *out, &line);
        out.push(b'\n');
    }

    /// Parses a line, with or without its newline.
    ///
    /// # Errors
    /// A key is missing, unknown, repeated or of another type, or has a value that no writer gives it.
    pub fn parse(line: &[u8]) -> Result<LedgerLine, LedgerError> {
        let json: JsonLine<'_> =
            serde_json::from_slice(line).map_err(|error| LedgerError::Syntax(error.to_string()))?;
        if json.schema_version != SCHEMA_VERSION {
            return Err(LedgerError::SchemaVersion(json.schema_version));
        }
        let op = Op::parse(&json.op).ok_or_else(|| value_error("op", &json.op))?;
        let cause = Cause::parse(&json.cause)
            .filter(|cause| cause.is_of_begin() == (op == Op::Begin))
            .ok_or_else(|| value_error("cause", &json.cause))?;
        let (row, row_hash) = json.row(op)?;
        Ok(LedgerLine {
            seq: json.seq,
            op,
            export: ExportId::parse(&json.export)
                .ok_or_else(|| value_error("export", &json.export))?,
            export_len: json.export_len,
            row,
            row_hash,
            id: json.id.into_owned(),
            source_run_id: json.source_run_id.into_owned(),
            cause,
            day_file: json.day_file.into_owned(),
            line_offset: number("line_offset", json.line_offset)?,
            reason: json.reason.into_owned(),
            at: json.at.into_owned(),
        })
    }
}

impl JsonLine<'_> {
    /// Returns the row and its hash; a row ends at or before the committed length of its event.
    fn row(&self, op: Op) -> Result<(Option<RowSpan>, [u8; 16]), LedgerError> {
        let offset = number("row_offset", self.row_offset)?;
        if offset.is_some() != op.has_row() {
            return Err(value_error("row_offset", self.row_offset));
        }
        let len_bytes = number("row_len", self.row_len)?;
        let row = offset
            .zip(len_bytes)
            .map(|(offset, len_bytes)| RowSpan { offset, len_bytes });
        if row.is_some() != op.has_row()
            || len_bytes == Some(0)
            || row.is_some_and(|row| row.end() > self.export_len)
        {
            return Err(value_error("row_len", self.row_len));
        }
        let hash = match row {
            Some(_) => from_hex(&self.row_hash),
            None => self.row_hash.is_empty().then_some([0; 16]),
        };
        let hash = hash.ok_or_else(|| value_error("row_hash", &self.row_hash))?;
        Ok((row, hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> LedgerLine {
        LedgerLine {
            seq: 17,
            op: Op::Retract,
            export: ExportId([0x4f, 0x1c, 0x09, 0xb2, 0xa7, 0x7d, 0x5e, 0x03]),
            export_len: 18_366_952,
            row: Some(RowSpan {
                offset: 1_994,
                len_bytes: 2_377,
            }),
            row_hash: row_hash(b"test"),
            id: "audits.jsonl:1".into(),
            source_run_id: "audits-\"1\"\u{2028}".into(),
            cause: Cause::Rejected,
            day_file: "2026/01/01/audits.jsonl".into(),
            line_offset: Some(171_505),
            reason: String::new(),
            at: "2026-11-29T13:50:12.406Z".into(),
        }
    }

    fn written(line: &LedgerLine) -> String {
        let mut out = Vec::new();
        line.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    const WRITTEN: &str = concat!(
        r#"{"schema_version":1,"seq":17,"op":"retract","export":"4f1c09b2a77d5e03","export_len":18366952,"#,
        r#""row_offset":1994,"row_len":2377,"row_hash":"9f86d081884c7d659a2feaa0c55ad015","#,
        r#""id":"audits.jsonl:1","source_run_id":"audits-\"1\""#,
        "\u{2028}",
        r#"","cause":"rejected","day_file":"2026/01/01/audits.jsonl","line_offset":171505,"reason":"","#,
        r#""at":"2026-11-29T13:50:12.406Z"}"#,
        "\n"
    );

    #[test]
    fn a_line_has_its_bytes_and_reads_back() {
        assert_eq!(written(&line()), WRITTEN);
        assert_eq!(LedgerLine::parse(WRITTEN.as_bytes()), Ok(line()));
        let begin = LedgerLine {
            seq: 0,
            op: Op::Begin,
            cause: Cause::Created,
            row: None,
            row_hash: [0; 16],
            line_offset: None,
            ..line()
        };
        let text = written(&begin);
        assert!(text.contains(r#""row_offset":-1,"row_len":-1,"row_hash":"","#));
        assert!(text.contains(r#""line_offset":-1,"#));
        assert_eq!(LedgerLine::parse(text.trim_end().as_bytes()), Ok(begin));
    }

    #[test]
    fn every_code_is_read_back() {
        for op in Op::ALL {
            assert_eq!(Op::parse(op.code()), Some(op));
        }
        for cause in Cause::ALL {
            assert_eq!(Cause::parse(cause.code()), Some(cause));
        }
        assert_eq!((Op::parse("Begin"), Cause::parse("")), (None, None));
    }

    #[test]
    fn each_deviation_is_refused() {
        for (from, to) in [
            ("schema_version\":1", "schema_version\":2"),
            ("\"seq\":17", "\"seq\":-1"),
            ("\"seq\":17", "\"seq\":\"17\""),
            ("\"seq\":17", "\"seq\":null"),
            ("\"seq\":17,", ""),
            ("\"seq\":17", "\"seq\":17,\"seq\":17"),
            ("\"seq\":17", "\"seq\":17,\"more\":1"),
            ("\"reason\":\"\",", ""),
            ("\"retract\"", "\"retracted\""),
            ("\"retract\"", "\"begin\""),
            ("\"retract\"", "\"order\""),
            ("\"rejected\"", "\"created\""),
            ("\"rejected\"", "\"bad\""),
            ("4f1c", "4F1c"),
            ("4f1c", "4f1"),
            (":1994", ":-1"),
            (":1994", ":-2"),
            (":1994", ":18366952"),
            (":2377", ":-1"),
            (":2377", ":0"),
            ("9f86", ""),
            (":171505", ":-2"),
            ("Z\"}", "Z\""),
            ("Z\"}", "Z\"}{}"),
        ] {
            let line = WRITTEN.replacen(from, to, 1);
            assert_ne!(line, WRITTEN, "{from}");
            let parsed = LedgerLine::parse(line.as_bytes());
            assert!(parsed.is_err(), "{from} -> {to}: {parsed:?}");
        }
        for other in ["", "{}", "[]", "null", "row"] {
            assert!(LedgerLine::parse(other.as_bytes()).is_err(), "{other}");
        }
    }
}
