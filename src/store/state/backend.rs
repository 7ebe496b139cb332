//! The file under redb: checksummed, with failed calls recorded.

use crate::platform::checksummed_file::CheckedFile;
use crate::platform::storage::{StorageFile, read_full_at, write_all_at};
use crate::store::state::CACHE_BYTES;
use crate::store::state::failures::Failures;
use redb::Database;
use std::fmt::Debug;
use std::io;
use std::sync::Arc;

pub(super) fn redb_builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// redb's file, through the one storage interface, so that a simulated crash reaches it too.
#[derive(Debug)]
pub(super) struct Backend {
    file: CheckedFile,
    failures: Arc<Failures>,
}

impl Backend {
    /// Reads and writes `file` through checksums, and records failed calls in `failures`.
    pub(super) fn new(file: Arc<dyn StorageFile>, failures: &Arc<Failures>) -> Self {
        Self {
            file: CheckedFile::new(file),
            failures: Arc::clone(failures),
        }
    }

    fn recorded<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| self.failures.record(error))
    }
}

impl redb::StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.recorded(self.file.stat())?.len_bytes)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let read = read_full_at(&self.file, out, offset);
        let whole = read.and_then(|read| match read == out.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        });
        self.recorded(whole)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        if self.failures.is_retired() {
            return Ok(());
        }
        self.recorded(self.file.set_len(len))
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        if self.failures.is_retired() {
            return Ok(());
        }
        let synced = self.file.sync_data();
        synced.inspect_err(|error| self.failures.record_sync(error))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        if self.failures.is_retired() {
            return Ok(());
        }
        self.recorded(write_all_at(&self.file, data, offset))
    }
}
