//! The file under redb: checksummed, with failed syncs remembered.

use crate::platform::storage::{StorageFile, read_full_at, write_all_at};
use crate::store::state::*;
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

/// redb's file, through the one storage interface, so that a simulated crash reaches it too.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(super) file: Arc<dyn StorageFile>,
    pub(super) sync_failed: Arc<AtomicBool>,
}

impl redb::StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.file.stat()?.len_bytes)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let read = read_full_at(&*self.file, out, offset)?;
        if read == out.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.file
            .sync_data()
            .inspect_err(|_| self.sync_failed.store(true, Ordering::SeqCst))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        write_all_at(&*self.file, data, offset)
    }
}
