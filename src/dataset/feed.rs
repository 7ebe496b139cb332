//! Feeds a consumer that keeps a copy of the effective rows. The copy has a [`Point`]: it holds the effective rows of
//! the first `export_len` bytes of the export, as the first `ledger_len` bytes of the ledger have them. The feed names
//! which of these rows changed since then, and gives the rows that follow.

use std::ops::ControlFlow;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::dataset::error::DatasetError;
use crate::dataset::files::Files;
use crate::dataset::ledger_reader::LedgerReader;
use crate::dataset::rows::{EachRow, Skip, for_each_row};
use crate::dataset::snapshot::{Named, Snapshot};
use crate::platform::storage::{Storage, StorageFile, read_full_at};
use crate::record::ledger::{ExportId, RowSpan};

/// Bytes that are read before a point to find the start of the last line.
const TAIL_BYTES: usize = 64 << 10;

/// How much of export and ledger a copy has, bytes of whole lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Point {
    /// Bytes of the export.
    pub export_len: u64,
    /// Bytes of the ledger.
    pub ledger_len: u64,
}

/// What happened to the rows of a copy since its point.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Rows of the copy that are no longer effective, by offset.
    pub retracted: Vec<RowSpan>,
    /// Rows before the point that are effective again, by offset.
    pub restored: Vec<RowSpan>,
    /// The ledger up to which this holds.
    pub ledger_len: u64,
    /// The rows of the export that this ledger covers: each retraction of them is in it.
    pub export_len: u64,
}

/// An export and its ledger, opened for a copy.
#[derive(Debug)]
pub struct Feed {
    files: Files,
    ledger: LedgerReader,
    export: ExportId,
}

impl Feed {
    /// Opens an export with its ledger and compares the whole ledger with the rows that it names.
    ///
    /// # Errors
    /// Those of [`Snapshot::open`].
    pub fn open(storage: &dyn Storage, export: &Path) -> Result<Feed, DatasetError> {
        let Snapshot {
            files,
            ledger,
            export,
            ..
        } = Snapshot::open(storage, export, None)?;
        Ok(Feed {
            files,
            ledger,
            export,
        })
    }

    /// Returns the identity of the export.
    #[must_use]
    pub fn export(&self) -> ExportId {
        self.export
    }

    /// Returns the path of the export without links.
    #[must_use]
    pub fn export_path(&self) -> &Path {
        &self.files.export_path
    }

    /// Returns the lengths of both files now.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn head(&self) -> Result<Point, DatasetError> {
        Ok(Point {
            export_len: self.files.rows_len()?,
            ledger_len: self.files.ledger_len()?,
        })
    }

    /// Returns whether the names of export and ledger belong to other files now, as after a rebuild.
    ///
    /// # Errors
    /// A file cannot be examined.
    pub fn is_replaced(&self, storage: &dyn Storage) -> Result<bool, DatasetError> {
        Ok(self.files.replaced(storage)?.is_some())
    }

    /// Returns a digest of the last row and the last event before a point, which another export or an old copy of it
    /// does not have there; `None` if one of them does not end there.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn digest_at(&self, point: Point) -> Result<Option<[u8; 32]>, DatasetError> {
        let mut hash = Sha256::new();
        for (file, path, end) in [
            (
                &self.files.export,
                &self.files.export_path,
                point.export_len,
            ),
            (
                &self.files.ledger,
                &self.files.ledger_path,
                point.ledger_len,
            ),
        ] {
            match last_line(&**file, end).map_err(DatasetError::io(path))? {
                Some(line) => hash.update(Sha256::digest(line)),
                None => return Ok(None),
            }
        }
        Ok(Some(hash.finalize().into()))
    }

    /// Reads the ledger to its end and returns what happened to the rows of a copy at `from`.
    ///
    /// # Errors
    /// The ledger is damaged, or contradicts the export; a file cannot be read.
    pub fn changes(&mut self, from: Point) -> Result<Changes, DatasetError> {
        let before = self.retracted_at(from)?;
        // The length first: the ledger then has each retraction of these rows.
        let export_len = self.files.rows_len()?;
        let mut named = Named::default();
        let files = &self.files;
        self.ledger.read_all(files, &mut |_offset, event| {
            if event.row.is_some_and(|row| row.end() <= export_len) {
                named.add(event);
            }
        })?;
        named.compare(files)?;
        let now = self.ledger.fold.retracted();
        let without = |rows: &[RowSpan], others: &[RowSpan]| -> Vec<RowSpan> {
            let rows = rows.iter().filter(|row| row.offset < from.export_len);
            let rows = rows.filter(|row| others.binary_search(row).is_err());
            rows.copied().collect()
        };
        Ok(Changes {
            retracted: without(now, &before),
            restored: without(&before, now),
            ledger_len: self.ledger.len_bytes(),
            export_len,
        })
    }

    /// Returns the rows that are retracted at the ledger length of a point, and continues reading there.
    fn retracted_at(&mut self, point: Point) -> Result<Vec<RowSpan>, DatasetError> {
        if self.ledger.len_bytes() > point.ledger_len {
            self.ledger = LedgerReader::new(&self.files);
        }
        let ledger = &mut self.ledger;
        ledger.read_to(point.ledger_len, &mut |_offset, _event| {})?;
        Ok(ledger.fold.retracted().to_vec())
    }

    /// Calls `each` with the rows from `from` to `to` that are effective now, as far as the ledger is read, until it
    /// breaks.
    ///
    /// # Errors
    /// The ledger contradicts the export, or a file cannot be read.
    pub fn effective_rows(
        &mut self,
        from: u64,
        to: u64,
        each: &mut EachRow<'_>,
    ) -> Result<(), DatasetError> {
        let retracted = self.ledger.fold.retracted();
        let first = retracted.partition_point(|row| row.offset < from);
        let mut skip = Skip::new(&self.files, &retracted[first..]);
        for_each_row(&self.files, from, to, &mut |offset, row| match skip
            .is_retracted(offset, row)?
        {
            true => Ok(ControlFlow::Continue(())),
            false => each(offset, row),
        })
    }

    /// Calls `each` with the rows of a copy at a point.
    ///
    /// # Errors
    /// Those of [`Feed::effective_rows`].
    pub fn rows_at(&mut self, point: Point, each: &mut EachRow<'_>) -> Result<(), DatasetError> {
        self.retracted_at(point)?;
        self.effective_rows(0, point.export_len, each)
    }

    /// Returns the bytes of a row that the ledger names.
    ///
    /// # Errors
    /// It is not in the export, or cannot be read.
    pub fn row(&self, row: RowSpan) -> Result<Vec<u8>, DatasetError> {
        self.files.row(row)
    }

    /// Returns the end of the first row at or after `from` whose end is at least `from + bytes`, or `to`.
    ///
    /// # Errors
    /// The export cannot be read.
    pub fn end_of_rows(&self, from: u64, to: u64, bytes: u64) -> Result<u64, DatasetError> {
        let wanted = from.saturating_add(bytes.max(1));
        if wanted >= to {
            return Ok(to);
        }
        let mut end = to;
        for_each_row(&self.files, wanted - 1, to, &mut |offset, part| {
            end = offset + part.len() as u64;
            Ok(ControlFlow::Break(()))
        })?;
        Ok(end)
    }
}

/// Returns the line that ends at `end`, or nothing at the start of the file; `None` if no line ends there.
fn last_line(file: &dyn StorageFile, end: u64) -> std::io::Result<Option<Vec<u8>>> {
    let mut len = TAIL_BYTES as u64;
    loop {
        let from = end.saturating_sub(len);
        let mut bytes = vec![0; usize::try_from(end - from).unwrap_or(usize::MAX)];
        if read_full_at(file, &mut bytes, from)? < bytes.len() {
            return Ok(None);
        }
        let Some(before) = bytes.strip_suffix(b"\n") else {
            return Ok((end == 0).then(Vec::new));
        };
        match memchr::memrchr(b'\n', before) {
            Some(newline) => return Ok(Some(bytes.split_off(newline + 1))),
            None if from == 0 => return Ok(Some(bytes)),
            None => len = len.saturating_mul(4),
        }
    }
}
