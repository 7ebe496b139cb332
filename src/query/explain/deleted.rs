//! Owns the answer which rows belong to lines of deleted day-files: `verify` reads no history, and where a line with the
//! same row key exists elsewhere it cannot distinguish such a row from one that was written twice.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use serde::{Deserialize, Serialize};

use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::stat_day_file;
use crate::pair::verdict::{Verdict, VerdictKind};
use crate::query::explain::ExplainContext;
use crate::store::snapshot::pair_path;
use crate::store::state::error::StateError;

/// The rows of deleted day-files among those that were asked for. Keys are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeletedRows {
    /// Their offsets in the export, bytes.
    pub rows: BTreeSet<u64>,
}

/// Returns the rows, by offset, whose line was in a scored day-file that does not exist now.
///
/// # Errors
/// The state cannot be read.
pub fn deleted_rows(
    rows: &BTreeSet<u64>,
    context: &ExplainContext<'_>,
) -> Result<DeletedRows, StateError> {
    let mut deleted: Vec<PairPath> = Vec::new();
    context.state.for_each_pair(|_, checkpoint| {
        let path = pair_path(checkpoint).filter(|_| checkpoint.counts[VerdictKind::Exported] > 0);
        deleted.extend(path.filter(|path| is_deleted(path, context)));
    })?;
    let mut found = DeletedRows::default();
    for path in deleted {
        let Some(pair) = context.state.pair(&path)? else {
            continue;
        };
        context.state.for_each_scored(&pair, |line| {
            if let Verdict::Exported { row_offset, .. } = line.verdict
                && rows.contains(&row_offset)
            {
                found.rows.insert(row_offset);
            }
        })?;
    }
    Ok(found)
}

fn is_deleted(path: &PairPath, context: &ExplainContext<'_>) -> bool {
    let stat = stat_day_file(context.storage, context.root, Stream::Scored, path);
    stat.is_err_and(|error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory))
}
