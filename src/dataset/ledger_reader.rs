//! Reads the lines of an open ledger into a fold, and continues where it ended.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::dataset::error::DatasetError;
use crate::dataset::files::Files;
use crate::platform::storage::{StorageFile, read_full_at};
use crate::record::ledger::LedgerLine;
use crate::record::ledger::fold::Fold;

/// Bytes of one read.
const READ_BYTES: usize = 1 << 20;

/// The first line is shorter: it has no text of a person.
const FIRST_LINE_BYTES: usize = 64 << 10;

/// No line of a ledger is as long.
const LINE_BYTES_MAX: usize = 16 << 20;

/// The time that a writer has to end the last line of its ledger and to append the rows of the last events: far more than
/// it needs.
pub(crate) const APPEND_PATIENCE: Duration = Duration::from_secs(2);

pub(crate) const APPEND_PAUSE: Duration = Duration::from_millis(10);

/// A ledger, read to [`LedgerReader::len_bytes`].
#[derive(Debug)]
pub(super) struct LedgerReader {
    path: PathBuf,
    file: Arc<dyn StorageFile>,
    pub fold: Fold,
    /// The first line, once it is read.
    pub begin: Option<LedgerLine>,
}

impl LedgerReader {
    pub fn new(files: &Files) -> LedgerReader {
        LedgerReader {
            path: files.ledger_path.clone(),
            file: Arc::clone(&files.ledger),
            fold: Fold::default(),
            begin: None,
        }
    }

    /// Returns the length of the lines that were read.
    pub fn len_bytes(&self) -> u64 {
        self.fold.len_bytes()
    }

    /// Reads all lines that are there now. Waits for the end of a line that its writer has begun: one that was cut may have
    /// retracted a row.
    pub fn read_all(
        &mut self,
        files: &Files,
        each: &mut dyn FnMut(u64, &LedgerLine),
    ) -> Result<(), DatasetError> {
        let end = files.ledger_len()?;
        let mut waited = Duration::ZERO;
        loop {
            self.read_to(u64::MAX, each)?;
            if self.len_bytes() >= end {
                return Ok(());
            }
            if waited >= APPEND_PATIENCE {
                return Err(DatasetError::Torn {
                    path: self.path.clone(),
                    at_byte: self.len_bytes(),
                });
            }
            std::thread::sleep(APPEND_PAUSE);
            waited += APPEND_PAUSE;
        }
    }

    /// Reads the whole lines up to `end`, or up to the end of the file. Calls `each` with the offset of each event.
    pub fn read_to(
        &mut self,
        end: u64,
        each: &mut dyn FnMut(u64, &LedgerLine),
    ) -> Result<(), DatasetError> {
        let mut buf = vec![0; READ_BYTES];
        loop {
            let at = self.len_bytes();
            let wanted = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
            let wanted = wanted.min(buf.len());
            let read = read_full_at(&*self.file, &mut buf[..wanted], at)
                .map_err(DatasetError::io(&self.path))?;
            let Some(last) = memchr::memrchr(b'\n', &buf[..read]) else {
                // A line that fills the buffer may end further on; a file that is no ledger has no end of a line.
                if read < buf.len() {
                    return Ok(());
                }
                if read >= LINE_BYTES_MAX {
                    self.read_line(&buf, each)?;
                }
                buf.resize(2 * buf.len(), 0);
                continue;
            };
            for line in buf[..=last].split_inclusive(|byte| *byte == b'\n') {
                self.read_line(line, each)?;
            }
        }
    }

    /// Reads the first line, if it is complete.
    pub fn read_first(&mut self) -> Result<(), DatasetError> {
        let mut buf = vec![0; FIRST_LINE_BYTES];
        let read = read_full_at(&*self.file, &mut buf, 0).map_err(DatasetError::io(&self.path))?;
        match memchr::memchr(b'\n', &buf[..read]) {
            Some(newline) => self.read_line(&buf[..=newline], &mut |_offset, _event| {}),
            None => Ok(()),
        }
    }

    fn read_line(
        &mut self,
        line: &[u8],
        each: &mut dyn FnMut(u64, &LedgerLine),
    ) -> Result<(), DatasetError> {
        let offset = self.len_bytes();
        let event = self.fold.read(line).map_err(|error| DatasetError::Ledger {
            path: self.path.clone(),
            error,
        })?;
        each(offset, &event);
        self.begin.get_or_insert(event);
        Ok(())
    }
}
