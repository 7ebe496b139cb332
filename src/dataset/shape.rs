//! The form in which `rows` writes a row: its bytes, with fields that a consumer asks for in front.

use std::io::Write as _;

use crate::record::keys::RowKey;
use crate::record::row::RowError;

/// The form of rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// Begin each row with its offset, `"_offset":N`.
    pub offsets: bool,
    /// Begin each row with its key, `"_row_key":"HEX"`.
    pub key: bool,
    /// Escape the characters that some readers take for the end of a line.
    pub safe_lines: bool,
}

impl Shape {
    /// Returns whether the rows are written as they are.
    #[must_use]
    pub fn is_plain(self) -> bool {
        self == Shape::default()
    }

    /// Appends a row, given with its newline.
    ///
    /// # Errors
    /// The line is no object, or with `key` no row.
    pub fn write(self, offset: u64, row: &[u8], out: &mut Vec<u8>) -> Result<(), RowError> {
        let body = match self.offsets || self.key {
            true => self.write_front(offset, row, out)?,
            false => row,
        };
        match self.safe_lines {
            true => write_safe(body, out),
            false => out.extend_from_slice(body),
        }
        Ok(())
    }

    /// Appends the fields in front and returns the rest of the row.
    fn write_front<'r>(
        self,
        offset: u64,
        row: &'r [u8],
        out: &mut Vec<u8>,
    ) -> Result<&'r [u8], RowError> {
        let body = row.strip_prefix(b"{").ok_or(RowError::Syntax {
            at_byte: 0,
            what: "an object is missing",
        })?;
        let key = match self.key {
            true => Some(RowKey::from_row(row)?),
            false => None,
        };
        out.push(b'{');
        // Writing into memory does not fail.
        if self.offsets {
            let _ = write!(out, "\"_offset\":{offset},");
        }
        if let Some(key) = key {
            let _ = write!(out, "\"_row_key\":\"{key:?}\",");
        }
        if body.trim_ascii_start().starts_with(b"}") {
            out.pop();
        }
        Ok(body)
    }
}

/// Appends a line of JSON with U+0085, U+2028 and U+2029 escaped. They occur only in strings.
fn write_safe(line: &[u8], out: &mut Vec<u8>) {
    let mut copied = 0;
    for at in memchr::memchr2_iter(0xC2, 0xE2, line) {
        let (escape, len): (&[u8], usize) = match &line[at..] {
            [0xC2, 0x85, ..] => (b"\\u0085", 2),
            [0xE2, 0x80, 0xA8, ..] => (b"\\u2028", 3),
            [0xE2, 0x80, 0xA9, ..] => (b"\\u2029", 3),
            _ => continue,
        };
        out.extend_from_slice(&line[copied..at]);
        out.extend_from_slice(escape);
        copied = at + len;
    }
    out.extend_from_slice(&line[copied..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = "{\"id\":\"a.jsonl:1\",\"source_run_id\":\"r\u{2028}\u{e2}\u{2027}\",\"provenance\":{\"source_file\":\"f\u{85}\",\"line_offset\":1,\"sig_hash\":\"\u{2029}\u{c2}\"}}\n";

    fn written(shape: Shape, offset: u64, row: &str) -> String {
        let mut out = Vec::new();
        shape.write(offset, row.as_bytes(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_row_has_its_fields_in_front() {
        assert_eq!(written(Shape::default(), 7, ROW), ROW);
        let offsets = Shape {
            offsets: true,
            ..Shape::default()
        };
        assert_eq!(
            written(offsets, 7, ROW),
            ROW.replacen('{', "{\"_offset\":7,", 1)
        );
        assert_eq!(written(offsets, 7, "{ }\n"), "{\"_offset\":7 }\n");
        let both = Shape {
            key: true,
            ..offsets
        };
        let key = RowKey::from_row(ROW.as_bytes()).unwrap();
        let front = format!("{{\"_offset\":0,\"_row_key\":\"{key:?}\",");
        assert_eq!(written(both, 0, ROW), ROW.replacen('{', &front, 1));
        let mut out = Vec::new();
        for line in ["[]\n", "\n", "{}\n"] {
            assert!(both.write(0, line.as_bytes(), &mut out).is_err(), "{line}");
        }
        assert_eq!(out, b"");
    }

    #[test]
    fn a_safe_line_has_the_same_value_and_one_end() {
        let safe = Shape {
            safe_lines: true,
            ..Shape::default()
        };
        let line = written(safe, 0, ROW);
        let ends = ['\u{85}', '\u{2028}', '\u{2029}'];
        assert!(!line.contains(ends) && ROW.contains(ends));
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&line), value(ROW));
        assert_eq!(written(safe, 0, "plain \u{e9}\u{c2}"), "plain \u{e9}\u{c2}");
    }
}
