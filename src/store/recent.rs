//! The history of the last day as it is stored, and its continuation from the export. Losing the file loses figures of
//! plots: rows are counted again in the export, as far as `READ_BACK_BYTES` go back.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::pair::history::{History, RowTally};
use crate::platform::storage::{Storage, StorageFile, remove_if_exists, write_all_at};
use crate::record::row;
use crate::store::export::{ExportMark, mark_of, rows_between};

/// Name of the file in the state directory.
pub const RECENT_FILE: &str = "recent.json";
/// Maximum bytes before the end of the export whose rows are counted where no history is stored.
const READ_BACK_BYTES: u64 = 256 << 20;

/// A history, and the mark of the export whose rows are counted in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredHistory {
    /// The export up to the last row that is counted.
    pub export: ExportMark,
    /// The figures.
    pub history: History,
}

impl StoredHistory {
    /// Writes it into a state directory, by rename, so that a reader sees a whole file. It is not synced: after a power
    /// cut it is read from the export again.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, storage: &dyn Storage, state_dir: &Path) -> io::Result<()> {
        let path = state_dir.join(RECENT_FILE);
        let fresh = path.with_extension("json.new");
        // A process that was killed may have left it.
        remove_if_exists(storage, &fresh)?;
        let file = storage.create(&fresh)?;
        write_all_at(&*file, &serde_json::to_vec(self)?, 0)?;
        storage.rename(&fresh, &path)
    }
}

/// Returns the history of an export with `len_bytes` of rows: the stored one with the rows that were appended since, or
/// where the stored one is of another export, its refused lines with the last rows.
///
/// # Errors
/// The export cannot be read.
pub fn resume(
    stored: Option<StoredHistory>,
    export: &dyn StorageFile,
    len_bytes: u64,
) -> io::Result<History> {
    let (known, mut history) = match stored {
        Some(StoredHistory { export, history }) => (Some(export), history),
        None => (None, History::default()),
    };
    let known = match known {
        Some(mark) if mark.len_bytes <= len_bytes => {
            (mark_of(export, mark.len_bytes)? == mark).then_some(mark.len_bytes)
        }
        _ => None,
    };
    let from = known.unwrap_or_else(|| {
        history.remove_rows();
        len_bytes.saturating_sub(READ_BACK_BYTES)
    });
    let mut is_torn = known.is_none() && from > 0;
    let mut tally = RowTally::new(&mut history);
    rows_between(export, from, len_bytes, |bytes| {
        // The first row after an arbitrary offset lacks its beginning.
        if std::mem::take(&mut is_torn) {
            return;
        }
        if let Some(origin) = row::origin(bytes) {
            tally.add(&origin.day_file_name, origin.minute, 1);
        }
    })?;
    drop(tally);
    Ok(history)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::accounting::Account;
    use crate::platform::storage::OsStorage;
    use crate::record::timestamp::moment;

    fn row(n: usize) -> String {
        format!(
            "{{\"id\":\"a.jsonl:{n}\",\"created_at\":\"2026-05-02T00:00:00.000Z\",\"response\":\"{}\"}}\n",
            "x".repeat(n * 1_000)
        )
    }

    #[test]
    fn a_history_continues_where_it_ends_and_only_with_its_export() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("export");
        let rows: Vec<String> = (0..40).map(row).collect();
        let resumed = |stored: Option<&StoredHistory>| {
            let file = OsStorage.open_read(&path).unwrap();
            let len_bytes = file.stat().unwrap().len_bytes;
            let history = resume(stored.cloned(), &*file, len_bytes).unwrap();
            let rows = history.rows_on(20_575);
            let export = mark_of(&*file, len_bytes).unwrap();
            (rows, StoredHistory { export, history })
        };
        std::fs::write(&path, rows[..10].concat()).unwrap();
        let (first, stored) = resumed(None);
        stored.write(&OsStorage, dir.path()).unwrap();
        let bytes = std::fs::read(dir.path().join(RECENT_FILE)).unwrap();
        let stored: StoredHistory = serde_json::from_slice(&bytes).unwrap();
        std::fs::write(&path, rows.concat()).unwrap();
        assert_eq!((first, resumed(Some(&stored)).0), (10, 40));
        // A shorter export, and one with other bytes: all of its rows are counted.
        std::fs::write(&path, rows[..5].concat()).unwrap();
        assert_eq!(resumed(Some(&stored)).0, 5);
        std::fs::write(&path, rows[10..].concat() + "{\"id\":\"torn").unwrap();
        let (of_other, stored) = resumed(Some(&stored));
        assert_eq!(of_other, 30);
        let now_ms = moment("2026-05-02T00:00:59.000Z").unwrap();
        let recent = stored.history.recent(&Account::default(), now_ms);
        assert_eq!(recent.exported_newest(2), [0, 30]);
    }
}
