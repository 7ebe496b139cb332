//! Compares an export with naive rows, which define the expected content.

use std::collections::BTreeMap;

use super::STAMP;
use crate::support::naive_json::{Json, parse};

/// Returns a row with [`STAMP`] for both timestamps; unchanged if it has none.
pub fn blank_stamps(row: &str) -> String {
    // Inside a JSON string each quote follows a backslash, so these can only be the keys.
    let row = blank_after(row, ",\"created_at\":\"");
    blank_after(&row, ",\"recorded_at\":\"")
}

fn blank_after(row: &str, key: &str) -> String {
    let Some((before, after)) = row.rsplit_once(key) else {
        return row.to_owned();
    };
    let rest = after.find('"').map_or("", |end| &after[end..]);
    format!("{before}{key}{STAMP}{rest}")
}

/// Returns the first difference between an export's rows and the naive ones, as multisets and without timestamps;
/// `None` if there is none.
pub fn multiset_difference(export: &[u8], naive_rows: &[String]) -> Option<String> {
    if !export.is_empty() && !export.ends_with(b"\n") {
        let tail = export
            .rsplit(|byte| *byte == b'\n')
            .next()
            .unwrap_or_default();
        return Some(format!(
            "the export ends inside a line: {}",
            excerpt(&String::from_utf8_lossy(tail))
        ));
    }
    let export = String::from_utf8_lossy(export);
    let rows: Vec<String> = export.split_terminator('\n').map(blank_stamps).collect();
    let mut surplus: BTreeMap<&str, i64> = BTreeMap::new();
    for row in &rows {
        *surplus.entry(row).or_default() += 1;
    }
    for row in naive_rows {
        *surplus.entry(row).or_default() -= 1;
    }
    surplus.retain(|_, times| *times != 0);
    let (row, times) = surplus.first_key_value()?;
    let expected = naive_rows.iter().filter(|expected| expected == row).count();
    Some(format!(
        "{} rows in the export, {} expected, {} distinct rows differ; the first: {} times in the export, {expected} expected: {}",
        rows.len(),
        naive_rows.len(),
        surplus.len(),
        i64::try_from(expected).unwrap_or(i64::MAX) + times,
        excerpt(row),
    ))
}

/// As [`multiset_difference`], for a daemon that lost its state: rows of one run from day-files of one name with all
/// else equal cannot be distinguished by the export alone, so they are interchangeable. Their number must match.
pub fn difference_without_state(export: &[u8], naive_rows: &[String]) -> Option<String> {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for row in naive_rows {
        *times.entry(row_key(row)).or_default() += 1;
    }
    let distinguishing = |row: &str| {
        let key = row_key(row);
        match times.get(&key) {
            Some(2..) => key,
            _ => row.to_owned(),
        }
    };
    let Ok(text) = std::str::from_utf8(export) else {
        return multiset_difference(export, naive_rows);
    };
    if !export.is_empty() && !export.ends_with(b"\n") {
        return multiset_difference(export, naive_rows);
    }
    let export: String = text
        .split_terminator('\n')
        .map(|row| distinguishing(row) + "\n")
        .collect();
    let naive_rows: Vec<String> = naive_rows.iter().map(|row| distinguishing(row)).collect();
    multiset_difference(export.as_bytes(), &naive_rows)
}

/// Returns the key of a row: file name, run, source file, offset and hash; as one string. For lakes where evidence may
/// change after a row was written, these must agree though contents need not.
pub fn row_key(row: &str) -> String {
    let row = parse(row).unwrap_or(Json::Null);
    let provenance = row.get("provenance");
    let id = match row.get("id") {
        Json::Text(id) => id.clone(),
        _ => String::new(),
    };
    let name = id.rsplit_once(':').map_or(id.as_str(), |(name, _)| name);
    let run = row.get("source_run_id");
    let [file, offset, hash] =
        ["source_file", "line_offset", "sig_hash"].map(|key| provenance.get(key));
    format!("{name} {run:?} {file:?} {offset:?} {hash:?}")
}

fn excerpt(row: &str) -> String {
    let end = row
        .char_indices()
        .nth(600)
        .map_or(row.len(), |(end, _)| end);
    row[..end].to_owned()
}
