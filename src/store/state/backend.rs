//! The file under redb: checksummed, with failed syncs remembered.

use crate::platform::checksummed_file::CheckedFile;
use crate::platform::storage::{StorageFile, read_full_at, write_all_at};
use crate::store::state::CACHE_BYTES;
use redb::Database;
use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) fn redb_builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// What the store's file and its owner know of each other.
#[derive(Debug, Default)]
pub(crate) struct BackendFlags {
    /// Whether a sync of the file has failed.
    pub(super) sync_failed: AtomicBool,
    /// Whether the file has no name any more or is about to lose it: the store need not write to it when it is closed.
    pub(super) retired: AtomicBool,
}

/// redb's file, through the one storage interface, so that a simulated crash reaches it too.
#[derive(Debug)]
pub(crate) struct Backend {
    file: CheckedFile,
    flags: Arc<BackendFlags>,
}

impl Backend {
    /// Returns the backend over a file, and its flags.
    pub(crate) fn new(file: Arc<dyn StorageFile>) -> (Self, Arc<BackendFlags>) {
        let flags = Arc::<BackendFlags>::default();
        let backend = Self {
            file: CheckedFile::new(file),
            flags: Arc::clone(&flags),
        };
        (backend, flags)
    }

    fn is_retired(&self) -> bool {
        self.flags.retired.load(Ordering::SeqCst)
    }
}

impl redb::StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.file.stat()?.len_bytes)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let read = read_full_at(&self.file, out, offset)?;
        if read == out.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        if self.is_retired() {
            return Ok(());
        }
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        if self.is_retired() {
            return Ok(());
        }
        self.file
            .sync_data()
            .inspect_err(|_| self.flags.sync_failed.store(true, Ordering::SeqCst))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        if self.is_retired() {
            return Ok(());
        }
        write_all_at(&self.file, data, offset)
    }
}
