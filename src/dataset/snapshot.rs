//! A version of a dataset, opened for reading: how far export and ledger count, and which rows are retracted there.

use std::path::Path;
use std::time::Duration;

use crate::dataset::digest::{sha256_of, version_digest};
use crate::dataset::error::DatasetError;
use crate::dataset::files::Files;
use crate::dataset::ledger_reader::{APPEND_PATIENCE, APPEND_PAUSE, LedgerReader};
use crate::dataset::point::{fits, point};
use crate::dataset::version::{At, From, Version};
use crate::platform::storage::Storage;
use crate::record::ledger::{ExportId, LedgerLine, RowSpan, row_hash, to_hex};

/// Attempts to open both files while a rebuild replaces them.
const OPEN_ATTEMPTS: u32 = 5;

/// A dataset up to a point of its history.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) files: Files,
    pub(super) ledger: LedgerReader,
    /// Bytes of the export that count: whole rows.
    pub export_len: u64,
    /// Bytes of the ledger that count: whole lines.
    pub ledger_len: u64,
    /// The export.
    pub export: ExportId,
    /// The retracted rows within these bytes, by offset.
    pub retracted: Vec<RowSpan>,
}

impl Snapshot {
    /// Opens an export with its ledger, as it is now or at a point of its history.
    ///
    /// # Errors
    /// Every reason why the rows that are retracted are not known with certainty.
    pub fn open(
        storage: &dyn Storage,
        export: &Path,
        at: Option<At>,
    ) -> Result<Snapshot, DatasetError> {
        for _ in 1..OPEN_ATTEMPTS {
            let opened = Snapshot::open_once(storage, export, at);
            match opened {
                Err(DatasetError::Replaced { .. }) => std::thread::sleep(APPEND_PAUSE),
                Err(DatasetError::NoLedger(_)) if storage.stat(export).is_ok() => {
                    std::thread::sleep(APPEND_PAUSE);
                }
                opened => return opened,
            }
        }
        Snapshot::open_once(storage, export, at)
    }

    /// Opens an export as it was at a version, to continue after it. The digest is not compared: that would read all
    /// rows that the caller has. Identity and lengths find a rebuild, and what was cut off.
    ///
    /// # Errors
    /// Those of [`Snapshot::open`].
    pub fn resume(
        storage: &dyn Storage,
        export: &Path,
        version: Version,
    ) -> Result<Snapshot, DatasetError> {
        let files = Files::open(storage, export)?;
        fits(&files, &version)?;
        let mut ledger = LedgerReader::new(&files);
        ledger.read_to(version.ledger_len, &mut |_offset, _event| {})?;
        let snapshot = Snapshot {
            export_len: version.export_len,
            ledger_len: ledger.len_bytes(),
            export: version.export,
            retracted: retracted(&files, &mut ledger, version.export_len)?,
            files,
            ledger,
        };
        snapshot.check_row_start(version.export_len)?;
        Ok(snapshot)
    }

    /// Returns the offset at which a reader begins, checked.
    ///
    /// # Errors
    /// No row starts there, or the version is not one of these files.
    pub fn start(&self, from: Option<From>) -> Result<u64, DatasetError> {
        let offset = match from {
            None => return Ok(0),
            Some(From::Offset(offset)) => offset,
            Some(From::Version(version)) => {
                fits(&self.files, &version)?;
                version.export_len
            }
        };
        if offset > self.export_len {
            return Err(DatasetError::AfterEnd {
                path: self.files.export_path.clone(),
                at_byte: offset,
                len_bytes: self.export_len,
            });
        }
        self.check_row_start(offset)?;
        Ok(offset)
    }

    /// Returns the path of the export without links.
    #[must_use]
    pub fn export_path(&self) -> &Path {
        &self.files.export_path
    }

    fn open_once(
        storage: &dyn Storage,
        export: &Path,
        at: Option<At>,
    ) -> Result<Snapshot, DatasetError> {
        let files = Files::open(storage, export)?;
        let mut ledger = LedgerReader::new(&files);
        let mut named = Named::default();
        let export_len = match point(&files, at)? {
            None => read_head(&files, &mut ledger, &mut named)?,
            Some((export_len, ledger_len)) => {
                ledger.read_to(ledger_len, &mut |_offset, event| named.add(event))?;
                export_len
            }
        };
        let export = identity(&files, &ledger)?;
        let snapshot = Snapshot {
            export_len,
            ledger_len: ledger.len_bytes(),
            export,
            retracted: retracted(&files, &mut ledger, export_len)?,
            files,
            ledger,
        };
        snapshot.check_point(at)?;
        if let Some(path) = snapshot.files.replaced(storage)? {
            return Err(DatasetError::Replaced {
                path: path.to_owned(),
                now: None,
            });
        }
        named.compare(&snapshot.files)?;
        Ok(snapshot)
    }

    /// Checks that the point is within the files and between two rows.
    fn check_point(&self, at: Option<At>) -> Result<(), DatasetError> {
        let Some(at) = at else { return Ok(()) };
        if let At::Version(version) = at {
            let found = self.version()?.digest;
            if found != version.digest {
                return Err(DatasetError::Changed {
                    path: self.files.export_path.clone(),
                    version,
                    found: to_hex(&found),
                });
            }
        }
        self.check_row_start(self.export_len)
    }

    /// Checks that a row starts at an offset, or that the export ends there.
    pub(super) fn check_row_start(&self, at_byte: u64) -> Result<(), DatasetError> {
        let path = self.files.export_path.clone();
        let len_bytes = self.files.rows_len()?;
        if at_byte > len_bytes {
            return Err(DatasetError::AfterEnd {
                path,
                at_byte,
                len_bytes,
            });
        }
        match self.files.is_row_start(at_byte)? {
            true => Ok(()),
            false => Err(DatasetError::NoRowStart { path, at_byte }),
        }
    }

    /// Reads the bytes of both files that count, and returns the version.
    ///
    /// # Errors
    /// A file cannot be read, or is shorter.
    pub fn version(&self) -> Result<Version, DatasetError> {
        Ok(self.version_of(self.export_sha256()?, self.ledger_sha256()?))
    }

    pub(super) fn version_of(&self, export_sha256: [u8; 32], ledger_sha256: [u8; 32]) -> Version {
        Version {
            export: self.export,
            export_len: self.export_len,
            ledger_len: self.ledger_len,
            digest: version_digest(&export_sha256, &ledger_sha256),
        }
    }

    fn export_sha256(&self) -> Result<[u8; 32], DatasetError> {
        let Files {
            export,
            export_path,
            ..
        } = &self.files;
        sha256_of(&**export, export_path, self.export_len)
    }

    pub(super) fn ledger_sha256(&self) -> Result<[u8; 32], DatasetError> {
        let Files {
            ledger,
            ledger_path,
            ..
        } = &self.files;
        sha256_of(&**ledger, ledger_path, self.ledger_len)
    }

    /// Returns an error for a contradiction between ledger and export.
    pub(super) fn foreign(files: &Files, what: &'static str, at_byte: u64) -> DatasetError {
        DatasetError::Foreign {
            path: files.ledger_path.clone(),
            what,
            at_byte,
        }
    }
}

/// Reads the ledger to its end and returns the length of the export that belongs to it. A writer appends the ledger
/// first; the version must not have events of rows that are not in it, so that a copy of its bytes is complete.
fn read_head(
    files: &Files,
    ledger: &mut LedgerReader,
    named: &mut Named,
) -> Result<u64, DatasetError> {
    let mut waited = Duration::ZERO;
    loop {
        // The length first: the ledger then has each retraction of these rows.
        let len_bytes = files.rows_len()?;
        ledger.read_all(files, &mut |_offset, event| named.add(event))?;
        let needed = ledger.fold.export_len();
        if needed <= len_bytes {
            return Ok(len_bytes);
        }
        if waited >= APPEND_PATIENCE {
            return Err(DatasetError::Short {
                path: files.export_path.clone(),
                len_bytes,
                needed,
            });
        }
        std::thread::sleep(APPEND_PAUSE);
        waited += APPEND_PAUSE;
    }
}

/// Returns the export that the first line of the ledger names.
pub(super) fn identity(files: &Files, ledger: &LedgerReader) -> Result<ExportId, DatasetError> {
    let empty = || DatasetError::EmptyLedger(files.ledger_path.clone());
    ledger.fold.export().ok_or_else(empty)
}

/// Returns the retracted rows before `export_len`, none of which overlap.
fn retracted(
    files: &Files,
    ledger: &mut LedgerReader,
    export_len: u64,
) -> Result<Vec<RowSpan>, DatasetError> {
    let all = ledger.fold.retracted();
    let count = all.partition_point(|row| row.offset < export_len);
    let rows = all[..count].to_vec();
    let mut ends = rows
        .iter()
        .map(|row| row.offset)
        .skip(1)
        .chain([export_len]);
    match rows
        .iter()
        .find(|row| ends.next().is_some_and(|end| row.end() > end))
    {
        Some(row) => Err(Snapshot::foreign(
            files,
            "a row overlaps the next one",
            row.offset,
        )),
        None => Ok(rows),
    }
}

/// The rows that the ledger names, with their hashes. Each is compared with the export before a row is returned: an event
/// whose offset is another one would let the row through that it retracts.
#[derive(Debug, Default)]
pub(super) struct Named(Vec<(RowSpan, [u8; 16])>);

impl Named {
    pub fn add(&mut self, event: &LedgerLine) {
        self.0.extend(event.row.map(|row| (row, event.row_hash)));
    }

    pub fn compare(mut self, files: &Files) -> Result<(), DatasetError> {
        // In the order of the export, a row with several events once.
        self.0.sort_unstable();
        self.0.dedup();
        let mut bytes = Vec::new();
        let export_len = files.export_len()?;
        for (row, hash) in &self.0 {
            let foreign = |what| Snapshot::foreign(files, what, row.offset);
            if row.end() > export_len {
                return Err(foreign("a row ends after the export"));
            }
            if !files.is_row_start(row.offset)? {
                return Err(foreign("no row starts where the ledger has one"));
            }
            bytes.resize(usize::try_from(row.len_bytes).unwrap_or(usize::MAX), 0);
            let read = files.read(&mut bytes, row.offset)?;
            if read < bytes.len() || row_hash(&bytes) != *hash {
                return Err(foreign(
                    "a row does not have the hash that the ledger has for it",
                ));
            }
        }
        Ok(())
    }
}
