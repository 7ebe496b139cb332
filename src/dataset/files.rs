//! The two open files of a dataset.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dataset::error::DatasetError;
use crate::lake::path::{ledger_path, new_path};
use crate::platform::storage::{
    FileStat, Storage, StorageFile, exists, read_full_at, without_links,
};
use crate::record::ledger::RowSpan;
use crate::store::export::whole_lines_len;

/// An export and its ledger, opened in this order.
#[derive(Debug)]
pub(super) struct Files {
    pub export_path: PathBuf,
    pub export: Arc<dyn StorageFile>,
    pub ledger_path: PathBuf,
    pub ledger: Arc<dyn StorageFile>,
}

impl Files {
    pub fn open(storage: &dyn Storage, export: &Path) -> Result<Files, DatasetError> {
        let export_path = without_links(storage, export);
        let open = |path: &Path, missing: fn(PathBuf) -> DatasetError| match storage.open_read(path)
        {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing(path.to_owned())),
            opened => opened.map_err(DatasetError::io(path)),
        };
        let export = open(&export_path, DatasetError::NoExport)?;
        let ledger_path = ledger_path(&export_path);
        let ledger = open(&ledger_path, DatasetError::NoLedger)?;
        Ok(Files {
            export_path,
            export,
            ledger_path,
            ledger,
        })
    }

    fn stat(&self, file: &dyn StorageFile, path: &Path) -> Result<FileStat, DatasetError> {
        file.stat().map_err(DatasetError::io(path))
    }

    /// Returns the length of the export.
    pub fn export_len(&self) -> Result<u64, DatasetError> {
        Ok(self.stat(&*self.export, &self.export_path)?.len_bytes)
    }

    /// Returns the length of the ledger.
    pub fn ledger_len(&self) -> Result<u64, DatasetError> {
        Ok(self.stat(&*self.ledger, &self.ledger_path)?.len_bytes)
    }

    /// Returns the length of the whole rows of the export: its writer may be in the middle of an append.
    pub fn rows_len(&self) -> Result<u64, DatasetError> {
        whole_lines_len(&*self.export, self.export_len()?)
            .map_err(DatasetError::io(&self.export_path))
    }

    /// Fills `buf` from `offset` of the export and returns the number of bytes before its end.
    pub fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize, DatasetError> {
        read_full_at(&*self.export, buf, offset).map_err(DatasetError::io(&self.export_path))
    }

    /// Returns the bytes of a row that the ledger names.
    pub fn row(&self, row: RowSpan) -> Result<Vec<u8>, DatasetError> {
        let mut bytes = vec![0; usize::try_from(row.len_bytes).unwrap_or(usize::MAX)];
        let read = self.read(&mut bytes, row.offset)?;
        if read < bytes.len() || bytes.last() != Some(&b'\n') {
            return Err(DatasetError::Foreign {
                path: self.ledger_path.clone(),
                what: "no row ends where the ledger has its end",
                at_byte: row.offset,
            });
        }
        Ok(bytes)
    }

    /// Returns whether a row starts at `offset`, which is at most the length of the export.
    pub fn is_row_start(&self, offset: u64) -> Result<bool, DatasetError> {
        let mut before = [0];
        Ok(match offset.checked_sub(1) {
            None => true,
            Some(at) => self.read(&mut before, at)? == 1 && before == *b"\n",
        })
    }

    /// Returns the path of the file whose name belongs to another file now. A rebuild gives the new ledger its name first,
    /// then the new export: in between the ledger is not that of the export, and only the new export still has the name
    /// under which it was made. That is examined first, because the rebuild may go on meanwhile.
    pub fn replaced(&self, storage: &dyn Storage) -> Result<Option<&Path>, DatasetError> {
        let is_there = |path: &Path| {
            let new = new_path(path);
            exists(storage, &new).map_err(DatasetError::io(&new))
        };
        if is_there(&self.export_path)? && !is_there(&self.ledger_path)? {
            return Ok(Some(&self.ledger_path));
        }
        for (path, file) in [
            (&self.export_path, &self.export),
            (&self.ledger_path, &self.ledger),
        ] {
            let own = self.stat(&**file, path)?;
            let is_same = match storage.stat(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                named => {
                    let named = named.map_err(DatasetError::io(path))?;
                    (named.device, named.inode) == (own.device, own.inode)
                }
            };
            if !is_same {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }
}
