//! The last check of a batch before it becomes visible: no row of a forbidden category. Pure.

use crate::record::firewall::{ACCEPTED, FIREWALL};
use crate::record::json::escape::Dialect;
use crate::record::json::utf8::decode_utf8;
use memchr::memmem;

/// A line that must not become visible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a row that must not be shown, at byte {at_byte} of its batch: {why}")]
pub struct ForbiddenRow {
    /// Offset of the line in the bytes that were read.
    pub at_byte: usize,
    /// The fault.
    pub why: String,
}

/// Reads a batch's bytes again, just before it becomes visible: each line must be whole and hold the native row's
/// `quality_score` exactly once, with an accepted category. Anything else is forbidden.
///
/// It parses no JSON, on purpose: a fault of the scanner or the writer must not blind the check. The pattern that it
/// searches for cannot be inside a string, where a quote has a backslash, nor begin with the last character of a
/// string, as no name can follow a closing quote.
pub fn forbidden_in(rows: &[u8]) -> Option<ForbiddenRow> {
    forbidden_in_dialect(rows, Dialect::Native)
}

/// As [`forbidden_in`]. In the Go dialect, which lets unknown categories through, only those of the firewall are
/// forbidden.
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

pub(crate) fn forbidden_row(
    row: &[u8],
    finder: &memmem::Finder<'_>,
    dialect: Dialect,
) -> Option<String> {
    let mut found = finder.find_iter(row);
    let Some(start) = found.next() else {
        return Some("it has no quality_score".to_owned());
    };
    if found.next().is_some() {
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
