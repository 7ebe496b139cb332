//! A row as the columns of the table, and back to the same bytes. Pure.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// The values of a row. Serialized as the row is written: compact, in this order of keys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct RowColumns<'r> {
    /// Version of the form of rows.
    pub schema_version: i64,
    /// `NAME.jsonl:index`.
    #[serde(borrow)]
    pub id: Cow<'r, str>,
    /// The instruction of the sample.
    #[serde(borrow)]
    pub instruction: Cow<'r, str>,
    /// The context of the sample.
    #[serde(borrow)]
    pub context: Cow<'r, str>,
    /// The response of the sample.
    #[serde(borrow)]
    pub response: Cow<'r, str>,
    /// The run it was made from.
    #[serde(borrow)]
    pub source_run_id: Cow<'r, str>,
    /// The category.
    #[serde(borrow)]
    pub quality_score: Cow<'r, str>,
    /// The timestamp.
    #[serde(borrow)]
    pub created_at: Cow<'r, str>,
    /// Where its scored run came from.
    #[serde(borrow)]
    pub provenance: ProvenanceColumns<'r>,
}

/// The values of the provenance of a row.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct ProvenanceColumns<'r> {
    /// The file of the scored run's source.
    #[serde(borrow)]
    pub source_file: Cow<'r, str>,
    /// The offset there.
    pub line_offset: i64,
    /// The signature of the scored run.
    #[serde(borrow)]
    pub sig_hash: Cow<'r, str>,
    /// The timestamp.
    #[serde(borrow)]
    pub recorded_at: Cow<'r, str>,
}

impl<'r> RowColumns<'r> {
    /// Reads a row, with or without its newline.
    ///
    /// # Errors
    /// A key is missing, or has a value of another type.
    pub fn read(row: &'r [u8]) -> Result<RowColumns<'r>, serde_json::Error> {
        let text = std::str::from_utf8(row).map_err(serde::de::Error::custom)?;
        serde_json::from_str(text)
    }

    /// Appends the row that these values make, with its newline.
    pub fn write(&self, out: &mut Vec<u8>) {
        // Writing into memory does not fail, and neither does any of these types.
        let _ = serde_json::to_writer(&mut *out, self);
        out.push(b'\n');
    }

    /// Returns the row as it is, if its values do not make the same bytes, as of a row that another exporter wrote. `row`
    /// has its newline.
    #[must_use]
    pub fn verbatim(&self, row: &'r [u8]) -> Option<Cow<'r, str>> {
        let mut rebuilt = Vec::with_capacity(row.len());
        self.write(&mut rebuilt);
        // It was read as UTF-8.
        (rebuilt != row).then(|| String::from_utf8_lossy(row.strip_suffix(b"\n").unwrap_or(row)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = "{\"schema_version\":1,\"id\":\"a.jsonl:1\",\"instruction\":\"i \\\"\\\\ \\u0001\",\"context\":\"\",\"response\":\"r\\n\u{2028}\u{7f}é\",\"source_run_id\":\"r\",\"quality_score\":\"accepted\",\"created_at\":\"t\",\"provenance\":{\"source_file\":\"f\",\"line_offset\":-3,\"sig_hash\":\"s\",\"recorded_at\":\"t\"}}\n";

    #[test]
    fn the_columns_make_the_bytes_of_the_row() {
        let columns = RowColumns::read(ROW.as_bytes()).unwrap();
        assert_eq!(columns.response, "r\n\u{2028}\u{7f}é");
        let mut rebuilt = Vec::new();
        columns.write(&mut rebuilt);
        assert_eq!(String::from_utf8(rebuilt).unwrap(), ROW);
        assert_eq!(columns.verbatim(ROW.as_bytes()), None);
    }

    #[test]
    fn a_row_of_another_exporter_is_kept_as_it_is() {
        for (from, to) in [
            ("é", "\\u00e9"),
            ("{\"schema", "{ \"schema"),
            ("\"id\"", "\"more\":[],\"id\""),
        ] {
            let row = ROW.replacen(from, to, 1);
            let columns = RowColumns::read(row.as_bytes()).unwrap();
            assert_eq!(columns, RowColumns::read(ROW.as_bytes()).unwrap());
            let kept = columns.verbatim(row.as_bytes());
            assert_eq!(kept.as_deref(), row.strip_suffix('\n'));
        }
    }

    #[test]
    fn a_line_that_is_no_row_has_no_columns() {
        for row in ["", "[]\n", "{}\n", &ROW.replace("-3", "1.5")] {
            RowColumns::read(row.as_bytes()).unwrap_err();
        }
    }
}
