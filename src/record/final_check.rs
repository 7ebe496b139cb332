//! The last check of rows before they become visible. It parses no JSON, on purpose: a fault of the scanner or the writer
//! must not disable it.

use memchr::memmem;

use crate::record::firewall::{ACCEPTED, FIREWALL};
use crate::record::json::escape::Dialect;
use crate::record::json::utf8::decode_utf8;

/// A line that must not become visible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("forbidden row at byte {at_byte} of its batch: {why}")]
pub struct ForbiddenRow {
    /// Offset of the line in the checked bytes.
    pub at_byte: usize,
    /// The violated rule.
    pub why: String,
}

/// Checks the bytes of a batch just before it becomes visible: each line must end in a newline and hold the native
/// row's `quality_score` exactly once, with an accepted category. Any other line is forbidden; returns the first one.
///
/// The searched pattern cannot occur inside a string, where each quote has its backslash, nor start with the last
/// character of a string, because no name can follow a closing quote.
pub fn forbidden_in(rows: &[u8]) -> Option<ForbiddenRow> {
    forbidden_in_dialect(rows, Dialect::Native)
}

/// Checks rows like [`forbidden_in`]. The Go dialect lets unknown categories through, so only those of the firewall are
/// forbidden in it.
pub fn forbidden_in_dialect(rows: &[u8], dialect: Dialect) -> Option<ForbiddenRow> {
    let finder = memmem::Finder::new(b",\"quality_score\":\"");
    let mut at_byte = 0;
    while at_byte < rows.len() {
        let Some(len) = memchr::memchr(b'\n', &rows[at_byte..]) else {
            let why = "the row has no newline".to_owned();
            return Some(ForbiddenRow { at_byte, why });
        };
        if let Some(why) = forbidden_row(&rows[at_byte..at_byte + len], &finder, dialect) {
            return Some(ForbiddenRow { at_byte, why });
        }
        at_byte += len + 1;
    }
    None
}

fn forbidden_row(row: &[u8], finder: &memmem::Finder<'_>, dialect: Dialect) -> Option<String> {
    let mut matches = finder.find_iter(row);
    let Some(start) = matches.next() else {
        return Some("it has no quality_score".to_owned());
    };
    if matches.next().is_some() {
        return Some("it has more than one quality_score".to_owned());
    }
    let value = &row[start + finder.needle().len()..];
    let len = memchr::memchr(b'"', value).unwrap_or(value.len());
    let category = decode_utf8(&value[..len]);
    let is_allowed = match dialect {
        Dialect::Native => ACCEPTED.contains(&&*category),
        Dialect::Go => !FIREWALL.contains(&&*category),
    };
    (!is_allowed).then(|| format!("its quality_score is {category:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = r#"{"schema_version":1,"id":"a:b.jsonl:12","instruction":"i","context":"","response":",\"quality_score\":\"rejected\"","source_run_id":"r","quality_score":"accepted","created_at":"then","provenance":{"source_file":"f","line_offset":-3,"sig_hash":"s","recorded_at":"then"}}"#;

    fn check(rows: &str, native: Option<&str>, go: Option<&str>) {
        let why = |dialect| {
            forbidden_in_dialect(rows.as_bytes(), dialect).map(|row| (row.at_byte, row.why))
        };
        let expected = |why: Option<&str>| why.map(|why| (0, why.to_owned()));
        assert_eq!(why(Dialect::Native), expected(native), "{rows}");
        assert_eq!(why(Dialect::Go), expected(go), "{rows}");
    }

    #[test]
    fn a_row_is_shown_only_if_it_holds_one_accepted_category() {
        let row = |category: &str| ROW.replacen("\"accepted\"", category, 1) + "\n";
        check("", None, None);
        check(&row("\"accepted\""), None, None);
        check(&row("\"partially_accepted\""), None, None);
        for category in FIREWALL {
            let why = format!("its quality_score is \"{category}\"");
            check(&row(&format!("\"{category}\"")), Some(&why), Some(&why));
        }
        check(
            &row("\"Rejected\""),
            Some("its quality_score is \"Rejected\""),
            None,
        );
        check(&row("\"\""), Some("its quality_score is \"\""), None);
        let none = Some("it has no quality_score");
        check(&row("5"), none, none);
        check("\n", none, none);
        let cut = Some("the row has no newline");
        check(ROW, cut, cut);
        let twice = Some("it has more than one quality_score");
        check(
            &row("\"accepted\",\"quality_score\":\"accepted\""),
            twice,
            twice,
        );
    }

    #[test]
    fn the_second_row_is_checked_too() {
        let rows = format!("{ROW}\n{}\n", ROW.replace(":\"accepted\"", ":\"rejected\""));
        assert_eq!(
            forbidden_in(rows.as_bytes()).unwrap().at_byte,
            ROW.len() + 1
        );
    }
}
