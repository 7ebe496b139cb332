//! Which rows of the export are not as they were written, by the hashes in the state: `verify` excuses a row whose sources
//! changed only where the row itself did not.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::platform::storage::Storage;
use crate::store::state::StateView;
use crate::store::state::error::StateError;
use crate::store::written::{ComparedSegments, RowBytes};

/// The changed rows among those that were asked for. Keys are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChangedRows {
    /// Their offsets in the export, bytes.
    pub rows: BTreeSet<u64>,
}

/// Returns which of the rows at these offsets are in a segment of the export with changed bytes. Of rows after the last
/// checkpoint of the state nothing is known, and none of them is returned.
///
/// # Errors
/// The state or the export cannot be read.
pub fn changed_rows(
    rows: &BTreeSet<u64>,
    (storage, export_path): (&dyn Storage, &Path),
    state: &StateView,
) -> Result<ChangedRows, StateError> {
    let export = storage.open_read(export_path).map_err(StateError::Io)?;
    let offsets: Vec<u64> = rows.iter().copied().collect();
    let known = ComparedSegments::default().rows(&offsets, &*export, state)?;
    let changed = offsets.into_iter().zip(known);
    let changed = changed.filter(|(_, bytes)| *bytes == RowBytes::Changed);
    Ok(ChangedRows {
        rows: changed.map(|(offset, _)| offset).collect(),
    })
}
