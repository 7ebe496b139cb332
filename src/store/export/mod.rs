//! Owns an append-only file, the export or the retraction ledger: appends committed rows at their offset, and checks that it is still the file that the state
//! knows. Its parts read rows, and write a committed batch again after a crash. It never decides what is shown.
//!
//! Nothing is synced when rows are appended: the journal holds them, durable, until a checkpoint has synced the
//! export. What a reader sees is therefore always durable somewhere, at the price of one sync a batch instead of two.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod blocks;
mod guard;
pub(crate) mod mark;
mod read;
mod redo;
pub(crate) mod scrub;
mod segments;

use xxhash_rust::xxh3::xxh3_64;

use crate::pair::history::History;
use crate::platform::held_dir::Misplaced;
use crate::platform::storage::{FileKind, Storage, StorageFile, read_full_at, write_all_at};
use crate::store::ledger::is_ledger;
use crate::store::recent::{self, StoredHistory};
use crate::store::row_buffer::Rows;

/// Bytes before the durable length that its mark covers.
const MARK_TAIL_LEN: u64 = 4_096;

pub use blocks::{RowBlock, RowBlocks, map_blocks};
use guard::Scrubber;
pub use mark::{ExportFingerprint, ExportMark, ScrubState};
pub use read::{row_at, rows_between, short_row_at, whole_lines_len};
pub use segments::{SEGMENT_BYTES, Segment, Segments, hash_of};

/// Returns what an append-only file is called in messages.
fn role_of(path: &Path) -> &'static str {
    match is_ledger(path) {
        true => "retraction ledger",
        false => "export",
    }
}

/// An error of the export file, or of the retraction ledger.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The disk refused. Rows that are not written yet are written when it is tried again.
    #[error("writing the {} {} failed: {source}", role_of(path), path.display())]
    Io {
        /// The export.
        path: PathBuf,
        /// The error of the disk.
        source: io::Error,
    },
    /// A sync failed, so that it is unknown what is durable. Fatal.
    #[error(
        "syncing the {} {} failed: {source}; what is on the disk is unknown", role_of(path), path.display()
    )]
    Sync {
        /// The export.
        path: PathBuf,
        /// The error of the disk.
        source: io::Error,
    },
    /// It is gone.
    #[error(
        "the {} {} is missing, but {committed_bytes} bytes of it were committed", role_of(path), path.display()
    )]
    Missing {
        /// The export.
        path: PathBuf,
        /// Its committed length.
        committed_bytes: u64,
    },
    /// It lost bytes that were committed.
    #[error(
        "the {} {} is {found_bytes} bytes long, but {committed_bytes} bytes of it were committed", role_of(path), path.display()
    )]
    Short {
        /// The export.
        path: PathBuf,
        /// Its length now.
        found_bytes: u64,
        /// Its committed length.
        committed_bytes: u64,
    },
    /// Something that is not a file is in its place.
    #[error("the {} {} is not a regular file", role_of(path), path.display())]
    NotAFile {
        /// The export.
        path: PathBuf,
    },
    /// Its bytes or its file are not those that were committed.
    #[error(
        "the {} {} was changed by someone else ({what})", role_of(path), path.display()
    )]
    Changed {
        /// The export.
        path: PathBuf,
        /// The difference that was found.
        what: String,
    },
}

/// The open export.
#[derive(Debug)]
pub struct Export {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    file: Arc<dyn StorageFile>,
    /// Device and inode of `file`.
    identity: (u64, u64),
    /// Length of the committed rows, bytes. Only a torn row of ours may follow.
    len_bytes: u64,
    /// Length of the rows that readers can see, bytes; greater than `len_bytes` while an append that failed halfway is to
    /// be repeated.
    shown_bytes: u64,
    /// Length of the export when the last sync was started, bytes.
    sync_begun_at: u64,
    /// Maximum length of the torn row that a failed append left at the end, bytes.
    torn_bytes_max: u64,
    /// The last bytes before the end as they were written or found at the start, no more than a mark covers.
    tail: Vec<u8>,
    guard: Scrubber,
}

/// A sync of the export that any thread can run.
#[derive(Debug)]
pub struct ExportSync {
    path: PathBuf,
    file: Arc<dyn StorageFile>,
}

impl ExportSync {
    /// Makes durable what was appended by now.
    ///
    /// # Errors
    /// [`ExportError::Sync`]: fatal.
    pub fn sync(&self) -> Result<(), ExportError> {
        self.file.sync_data().map_err(|source| ExportError::Sync {
            path: self.path.clone(),
            source,
        })
    }
}

/// Returns the mark of an export file as if it ended at `len_bytes`.
///
/// # Errors
/// The file cannot be read.
pub fn mark_of(export: &dyn StorageFile, len_bytes: u64) -> io::Result<ExportMark> {
    let tail_len = len_bytes.min(MARK_TAIL_LEN);
    let mut tail = vec![0; tail_len as usize];
    let read = read_full_at(export, &mut tail, len_bytes - tail_len)?;
    tail.truncate(read);
    let tail_len_bytes = u32::try_from(tail.len()).expect("a mark covers a few KiB");
    Ok(ExportMark {
        len_bytes,
        tail_len_bytes,
        tail_hash: xxh3_64(&tail),
    })
}

impl Export {
    /// Opens the export, or creates an empty one, durably, in a directory that is there. Checks nothing: recovery does.
    ///
    /// # Errors
    /// [`ExportError::Io`], [`ExportError::NotAFile`].
    pub fn open_or_create(storage: Arc<dyn Storage>, path: &Path) -> Result<Self, ExportError> {
        let io_error = |source| ExportError::Io {
            path: path.to_owned(),
            source,
        };
        let dir = path.parent().unwrap_or(Path::new("."));
        let file = match storage.open_write(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = storage.create(path).map_err(io_error)?;
                storage.sync_dir(dir).map_err(io_error)?;
                file
            }
            Err(error) if Misplaced::of(&error).is_some_and(Misplaced::is_no_file) => {
                return Err(ExportError::NotAFile {
                    path: path.to_owned(),
                });
            }
            other => other.map_err(io_error)?,
        };
        let stat = file.stat().map_err(io_error)?;
        if stat.kind != FileKind::Regular {
            return Err(ExportError::NotAFile {
                path: path.to_owned(),
            });
        }
        let identity = (stat.device, stat.inode);
        Ok(Self {
            storage,
            path: path.to_owned(),
            file,
            identity,
            len_bytes: stat.len_bytes,
            shown_bytes: 0,
            sync_begun_at: stat.len_bytes,
            torn_bytes_max: 0,
            tail: Vec::new(),
            guard: Scrubber::new(&stat),
        })
    }

    /// Length, bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Length of the rows that readers can see, bytes.
    #[must_use]
    pub fn shown_bytes(&self) -> u64 {
        self.shown_bytes.max(self.len_bytes)
    }

    /// Appends committed rows at `offset`, where the export must end, or in the middle of them where an earlier try
    /// failed. A row torn by that is written over.
    ///
    /// # Errors
    /// [`ExportError::Io`]: try again, nothing is lost. The others: stop.
    pub fn append(&mut self, offset: u64, rows: &Rows) -> Result<(), ExportError> {
        self.check()?;
        for (at, piece) in rows.placed(offset) {
            // Skip pieces that an earlier attempt already wrote.
            if at + piece.len() as u64 > self.len_bytes {
                self.append_piece(at, piece)?;
            }
        }
        self.record_own_write();
        Ok(())
    }

    fn append_piece(&mut self, offset: u64, rows: &[u8]) -> Result<(), ExportError> {
        assert_eq!(
            offset, self.len_bytes,
            "rows are appended where the export ends"
        );
        match write_all_at(&*self.file, rows, offset) {
            Ok(()) => {
                self.len_bytes += rows.len() as u64;
                self.torn_bytes_max = 0;
                self.lengthen_tail(rows);
                self.guard.segments.extend(rows);
                Ok(())
            }
            Err(source) => {
                self.torn_bytes_max = rows.len() as u64;
                self.cut_torn_row(offset, rows);
                self.record_own_write();
                Err(self.io_error(source))
            }
        }
    }

    /// Verifies that the path still leads to this file and that its length and end are unchanged. If its metadata
    /// changed all the same, the rest of the file is [`Export::scrub_pending`].
    ///
    /// # Errors
    /// The first difference that was found.
    pub fn check(&mut self) -> Result<(), ExportError> {
        let stat = match self.storage.stat(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ExportError::Missing {
                    path: self.path.clone(),
                    committed_bytes: self.len_bytes,
                });
            }
            other => other.map_err(|source| self.io_error(source))?,
        };
        if (stat.device, stat.inode) != self.identity || stat.kind != FileKind::Regular {
            return Err(self.changed("another file is in its place".into()));
        }
        if stat.len_bytes < self.len_bytes {
            return Err(ExportError::Short {
                path: self.path.clone(),
                found_bytes: stat.len_bytes,
                committed_bytes: self.len_bytes,
            });
        }
        if stat.len_bytes > self.len_bytes + self.torn_bytes_max {
            let appended = stat.len_bytes - self.len_bytes;
            return Err(self.changed(format!("another process appended {appended} bytes")));
        }
        self.guard.compare(&stat);
        self.check_tail()
    }

    /// Without this a checkpoint would take a changed end for ours.
    fn check_tail(&self) -> Result<(), ExportError> {
        let start = self.len_bytes - self.tail.len() as u64;
        let mut found = vec![0; self.tail.len()];
        let read = self.read_at(&mut found, start)?;
        if read == found.len() && found == self.tail {
            return Ok(());
        }
        let len_bytes = self.len_bytes;
        Err(self.changed(format!("the bytes between {start} and {len_bytes} differ")))
    }

    /// Notes how the export ends, once recovery is done with it.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn remember_tail(&mut self) -> Result<(), ExportError> {
        let mut tail = vec![0; self.len_bytes.min(MARK_TAIL_LEN) as usize];
        let start = self.len_bytes - tail.len() as u64;
        let read = self.read_at(&mut tail, start)?;
        tail.truncate(read);
        self.tail = tail;
        Ok(())
    }

    fn lengthen_tail(&mut self, rows: &[u8]) {
        // No more than is kept: rows of a long text are not copied.
        let new = &rows[rows.len().saturating_sub(MARK_TAIL_LEN as usize)..];
        let surplus = (self.tail.len() + new.len()).saturating_sub(MARK_TAIL_LEN as usize);
        self.tail.drain(..surplus);
        self.tail.extend_from_slice(new);
    }

    /// Makes all rows durable and gives the mark by which the export is known again.
    ///
    /// # Errors
    /// [`ExportError::Sync`]: fatal. [`ExportError::Io`]: try again.
    pub fn sync(&mut self) -> Result<ExportMark, ExportError> {
        self.begin_sync().sync()?;
        self.mark_at(self.len_bytes)
    }

    /// Bytes appended since a sync was last begun.
    #[must_use]
    pub fn unsynced_bytes(&self) -> u64 {
        self.len_bytes.saturating_sub(self.sync_begun_at)
    }

    /// A sync of all rows that are there by now, which another thread may make.
    pub fn begin_sync(&mut self) -> ExportSync {
        self.sync_begun_at = self.len_bytes;
        ExportSync {
            path: self.path.clone(),
            file: Arc::clone(&self.file),
        }
    }

    /// The mark of the export as if it ended at `len_bytes`.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn mark_at(&self, len_bytes: u64) -> Result<ExportMark, ExportError> {
        mark_of(&*self.file, len_bytes).map_err(|source| self.io_error(source))
    }

    /// Continues a stored history with the rows of this export.
    ///
    /// # Errors
    /// [`ExportError::Io`].
    pub fn resume_history(&self, stored: Option<StoredHistory>) -> Result<History, ExportError> {
        recent::resume(stored, &*self.file, self.len_bytes).map_err(|source| self.io_error(source))
    }

    /// After a failed append: whole rows stay, they may have been seen; what is left of a torn one is removed as
    /// far as the disk lets us. Cutting needs no space. If it fails, the next append writes over it.
    fn cut_torn_row(&mut self, offset: u64, rows: &[u8]) {
        let Ok(stat) = self.file.stat() else { return };
        let written = stat.len_bytes.saturating_sub(offset).min(rows.len() as u64) as usize;
        let whole = memchr::memrchr(b'\n', &rows[..written]).map_or(0, |newline| newline + 1);
        self.shown_bytes = offset + whole as u64;
        if written > whole && self.file.set_len(offset + whole as u64).is_err() {
            tracing::warn!(
                export = %self.path.display(),
                torn_bytes = written - whole,
                "a torn row stays at the end of the export until the disk takes writes again"
            );
        }
    }

    fn io_error(&self, source: io::Error) -> ExportError {
        ExportError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn changed(&self, what: String) -> ExportError {
        ExportError::Changed {
            path: self.path.clone(),
            what,
        }
    }
}
