//! The rows of an export that a batch is about to replace, by the keys of their origins: a batch must not lose any of
//! them.

use std::io;
use std::path::Path;

use crate::batch::line_reader::{LineReader, Source};
use crate::platform::storage::Storage;
use crate::record::firewall::FIREWALL;
use crate::record::keys::RowKey;
use crate::record::row;

/// The rows that were there, 28 bytes each, and those that the batch has made so far, 12 bytes each.
#[derive(Debug, Default)]
pub(super) struct KeptRows {
    /// The key and the offset of each row.
    before: Vec<(RowKey, u64)>,
    after: Vec<RowKey>,
}

/// The rows that a batch would drop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsLost {
    /// Their number.
    pub rows: u64,
    /// The number of rows that are there.
    pub of: u64,
    /// Offset of the first one, bytes.
    pub offset: u64,
}

impl KeptRows {
    /// Reads the rows of an export; one that does not exist has none. Rows that the firewall forbids are left out.
    pub(super) fn read(storage: &dyn Storage, export: &Path) -> io::Result<Self> {
        let file = match storage.open_read(&storage.canonicalize(export).unwrap_or(export.into())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            opened => opened?,
        };
        let end = file.stat()?.len_bytes;
        let source = Source::File(file);
        let mut lines = LineReader::new(&source, end, usize::MAX);
        let mut before = Vec::new();
        while let Some(line) = lines.next_line()? {
            let Some(bytes) = line.bytes else { continue };
            let is_forbidden =
                row::view(bytes).is_ok_and(|row| FIREWALL.contains(&row.quality_score.as_ref()));
            if let Ok(key) = RowKey::from_row(bytes)
                && !is_forbidden
            {
                before.push((key, line.span.offset));
            }
        }
        Ok(Self {
            before,
            after: Vec::new(),
        })
    }

    /// Records rows that the batch has made.
    pub(super) fn on_made(&mut self, rows: &[u8]) {
        if self.before.is_empty() {
            return;
        }
        let rows = rows.split_inclusive(|byte| *byte == b'\n');
        self.after.extend(rows.flat_map(RowKey::from_row));
    }

    /// Returns the rows that the batch did not make again.
    pub(super) fn lost(&mut self) -> Option<RowsLost> {
        self.after.sort_unstable();
        let lost = self.before.iter();
        let mut lost = lost.filter(|(key, _)| self.after.binary_search(key).is_err());
        let (_, offset) = lost.next()?;
        Some(RowsLost {
            rows: 1 + lost.count() as u64,
            of: self.before.len() as u64,
            offset: *offset,
        })
    }
}
