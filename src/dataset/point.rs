//! The points of the history of a dataset: how many bytes of export and ledger belong to a version, a length or a time.

use std::ops::ControlFlow;

use crate::dataset::error::DatasetError;
use crate::dataset::files::Files;
use crate::dataset::ledger_reader::LedgerReader;
use crate::dataset::rows::for_each_row;
use crate::dataset::snapshot::identity;
use crate::dataset::version::{At, Version, utc_ms};
use crate::record::row::summary;

/// Returns how many bytes of export and ledger belong to a point of the history; `None` for now.
pub(super) fn point(files: &Files, at: Option<At>) -> Result<Option<(u64, u64)>, DatasetError> {
    Ok(match at {
        None => None,
        Some(At::Version(version)) => {
            fits(files, &version)?;
            Some((version.export_len, version.ledger_len))
        }
        Some(At::Len(len)) => Some((len, ledger_len_at(files, len, None)?)),
        Some(At::Time(ms)) => {
            let len = export_len_at(files, ms)?;
            Some((len, ledger_len_at(files, len, Some(ms))?))
        }
    })
}

/// Checks that a version is one of these files, without its digest.
pub(super) fn fits(files: &Files, version: &Version) -> Result<(), DatasetError> {
    let mut ledger = LedgerReader::new(files);
    ledger.read_first()?;
    let now = identity(files, &ledger)?;
    if now != version.export {
        let reason = ledger.begin.map(|begin| begin.reason).unwrap_or_default();
        return Err(DatasetError::Rebuilt {
            path: files.export_path.clone(),
            version: *version,
            now,
            reason: match reason.as_str() {
                "" => String::new(),
                reason => format!(" ({reason})"),
            },
        });
    }
    for (path, len_bytes, needed) in [
        (&files.export_path, files.export_len()?, version.export_len),
        (&files.ledger_path, files.ledger_len()?, version.ledger_len),
    ] {
        if len_bytes < needed {
            return Err(DatasetError::ShorterThanVersion {
                path: path.clone(),
                len_bytes,
                needed,
            });
        }
    }
    Ok(())
}

/// Returns the length of the ledger before the first event that was not yet known when the export had a length, or at a
/// time. The writer gives an event of a row that was never effective the length at the end of that row, so a length
/// within a commit has no such row.
fn ledger_len_at(
    files: &Files,
    export_len: u64,
    time_ms: Option<u64>,
) -> Result<u64, DatasetError> {
    let mut ledger = LedgerReader::new(files);
    let mut first_later = None;
    ledger.read_all(files, &mut |offset, event| {
        let later = time_ms.is_some_and(|ms| utc_ms(&event.at).is_none_or(|at| at > ms));
        if first_later.is_none() && (later || event.export_len > export_len) {
            first_later = Some(offset);
        }
    })?;
    match (first_later, &ledger.begin) {
        (Some(0), Some(begin)) => Err(DatasetError::BeforeLedger {
            path: files.export_path.clone(),
            begin: format!("{} with {} bytes of the export", begin.at, begin.export_len),
        }),
        _ => Ok(first_later.unwrap_or(ledger.len_bytes())),
    }
}

/// Returns the length of the export at a time: the start of the first row with a later stamp among those that were
/// appended since the ledger began. The rows before keep their stamps over a rebuild, and need not be in their order.
fn export_len_at(files: &Files, time_ms: u64) -> Result<u64, DatasetError> {
    let head_len = files.rows_len()?;
    let mut ledger = LedgerReader::new(files);
    ledger.read_first()?;
    identity(files, &ledger)?;
    let from = ledger.begin.map_or(0, |begin| begin.export_len);
    let mut len = head_len.max(from);
    for_each_row(files, from, head_len, &mut |offset, row| {
        let stamp = summary(row).ok().and_then(|row| utc_ms(&row.created_at));
        if stamp.is_some_and(|stamp| stamp > time_ms) {
            len = offset;
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(len)
}
