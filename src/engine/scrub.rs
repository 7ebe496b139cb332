//! Scrubbing of the export and of the retraction ledger: reads their segments again and compares them with their hashes,
//! all of them after a file was touched, one at each full scan otherwise; and keeps a found difference across restarts.

use std::io;
use std::path::{Path, PathBuf};

use crate::engine::{Engine, EngineError};
use crate::platform::storage::{read_full_at, write_all_at};
use crate::store::export::{Export, ExportError};
use crate::store::files::CHANGED_FILE;
use crate::store::state::error::StateError;

/// Pause after a segment in units of the time that its read took: scrubbing takes a tenth of the time, so that it does
/// not slow the export of rows.
const PAUSE_FACTOR: u64 = 9;
/// Pause before an unreadable segment is tried again.
const UNREADABLE_PAUSE_MS: u64 = 60_000;
/// Maximum length of a tampering record, bytes.
const RECORD_LEN_MAX: usize = 40;
/// What precedes the number of a segment of the ledger in a tampering record.
const LEDGER_RECORD: &str = "ledger ";

/// An append-only file whose segments are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scrubbed {
    Export,
    Ledger,
}

impl Scrubbed {
    const ALL: [Scrubbed; 2] = [Scrubbed::Export, Scrubbed::Ledger];

    fn noun(self) -> &'static str {
        match self {
            Scrubbed::Export => "export",
            Scrubbed::Ledger => "retraction ledger",
        }
    }
}

/// The pace of scrubbing.
#[derive(Debug)]
pub(super) struct ScrubTimer {
    /// Time of the next segment, monotonic milliseconds.
    next_ms: u64,
    /// Whether an unreadable segment was reported, so that it is reported once.
    unreadable_reported: bool,
}

impl ScrubTimer {
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            next_ms: now_ms,
            unreadable_reported: false,
        }
    }
}

impl Engine {
    /// Scrubs all segments that are due now: all of a file that was touched.
    ///
    /// # Errors
    /// [`ExportError::Changed`] where a segment does not match its hash; errors of the disk.
    pub fn scrub_export(&mut self) -> Result<(), EngineError> {
        while let Some((of, number)) = self.next_pending() {
            self.scrub(of, number)?;
            self.on_scrubbed(of, number);
        }
        Ok(())
    }

    fn file(&self, of: Scrubbed) -> &Export {
        match of {
            Scrubbed::Export => &self.commits.export,
            Scrubbed::Ledger => &self.commits.ledger.file,
        }
    }

    fn file_mut(&mut self, of: Scrubbed) -> &mut Export {
        match of {
            Scrubbed::Export => &mut self.commits.export,
            Scrubbed::Ledger => &mut self.commits.ledger.file,
        }
    }

    fn path_of(&self, of: Scrubbed) -> &Path {
        match of {
            Scrubbed::Export => &self.ctx.export_path,
            Scrubbed::Ledger => &self.ctx.ledger_path,
        }
    }

    /// Returns the next segment of a touched file.
    fn next_pending(&self) -> Option<(Scrubbed, u64)> {
        Scrubbed::ALL
            .into_iter()
            .find_map(|of| Some((of, self.file(of).scrub_pending()?)))
    }

    /// Returns when the next segment of a touched file is due, monotonic milliseconds.
    pub(super) fn scrub_due_ms(&self) -> Option<u64> {
        self.next_pending().map(|_| self.commits.scrub.next_ms)
    }

    /// Scrubs the next segment of a touched file if it is due.
    pub(super) fn scrub_if_due(&mut self, now_ms: u64) -> Result<(), EngineError> {
        let Some((of, number)) = self.next_pending() else {
            return Ok(());
        };
        if now_ms < self.commits.scrub.next_ms {
            return Ok(());
        }
        if number == 0 {
            let (noun, path) = (of.noun(), self.path_of(of).display());
            tracing::info!(
                export = %path,
                "{noun} metadata changed since our last write, verifying the segments of {path}"
            );
        }
        let started_us = self.ctx.clock.monotonic_us();
        let pause_ms = if self.scrub_unless_unreadable(of, number)? {
            self.on_scrubbed(of, number);
            let took_us = self.ctx.clock.monotonic_us().saturating_sub(started_us);
            (took_us * PAUSE_FACTOR).div_ceil(1_000)
        } else {
            UNREADABLE_PAUSE_MS
        };
        self.commits.scrub.next_ms = now_ms + pause_ms;
        Ok(())
    }

    /// Scrubs one segment of each file that was not touched, round-robin: a change may leave no trace in the metadata.
    ///
    /// # Errors
    /// As [`Self::scrub_export`].
    pub(crate) fn scrub_round_robin(&mut self) -> Result<(), EngineError> {
        for of in Scrubbed::ALL {
            if let Some(number) = self.file_mut(of).next_round_robin() {
                self.scrub_unless_unreadable(of, number)?;
            }
        }
        Ok(())
    }

    /// Scrubs a segment that an earlier process found changed, before anything is appended.
    pub(crate) fn check_recorded_tampering(&mut self) -> Result<(), EngineError> {
        let path = self.tampering_path();
        let storage = &*self.ctx.storage;
        let file = match storage.open_read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|source| self.ctx.state_dir_error(source))?,
        };
        let mut text = [0; RECORD_LEN_MAX];
        let read = read_full_at(&*file, &mut text, 0)
            .map_err(|source| self.ctx.state_dir_error(source))?;
        let record = String::from_utf8_lossy(&text[..read]);
        let (of, number) = match record.strip_prefix(LEDGER_RECORD) {
            Some(number) => (Scrubbed::Ledger, number),
            None => (Scrubbed::Export, &*record),
        };
        if let Ok(number) = number.trim().parse() {
            self.scrub(of, number)?;
        }
        // The original bytes were restored.
        let storage = &*self.ctx.storage;
        storage
            .remove_file(&path)
            .and_then(|()| storage.sync_dir(&self.ctx.state_dir))
            .map_err(|source| self.ctx.state_dir_error(source))
    }

    /// Scrubs a segment. Returns false where the disk cannot read it, which stops nothing: appended bytes are read again
    /// after their write.
    fn scrub_unless_unreadable(&mut self, of: Scrubbed, number: u64) -> Result<bool, EngineError> {
        match self.scrub(of, number) {
            Err(EngineError::Export(ExportError::Io { source, .. })) => {
                if !self.commits.scrub.unreadable_reported {
                    let (noun, path) = (of.noun(), self.path_of(of).display());
                    tracing::error!(
                        export = %path, segment = number, error = %source,
                        "cannot read segment {number} of the {noun} {path} ({source}); check its disk"
                    );
                    self.books.metrics.error("export");
                }
                self.commits.scrub.unreadable_reported = true;
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }

    fn scrub(&mut self, of: Scrubbed, number: u64) -> Result<(), EngineError> {
        let result = self
            .reopen_state_if_failed()
            .and_then(|()| self.compare(of, number));
        self.commits.mark_state_failed(result)
    }

    /// Compares a segment with its hash, which is in memory or in the state.
    fn compare(&mut self, of: Scrubbed, number: u64) -> Result<(), EngineError> {
        let file = self.file(of);
        let finished = file.finished_segments();
        let at = finished.binary_search_by_key(&number, |segment| segment.number);
        let known = match (at, of) {
            (Ok(at), _) => Some(finished[at].hash),
            (Err(_), Scrubbed::Export) => self.pairs.view().segment(number)?,
            (Err(_), Scrubbed::Ledger) => self.pairs.view().ledger_segment(number)?,
        };
        if known.is_none() && !file.is_last(number) {
            let what = format!("segment {number} of the {} is missing", of.noun());
            return Err(StateError::Damaged(what).into());
        }
        let result = file.prove(number, known);
        if matches!(result, Err(ExportError::Changed { .. })) {
            self.record_tampering(of, number);
        }
        Ok(result?)
    }

    fn on_scrubbed(&mut self, of: Scrubbed, number: u64) {
        self.commits.scrub.unreadable_reported = false;
        if self.file_mut(of).scrubbed(number) {
            let (noun, path) = (of.noun(), self.path_of(of).display());
            let len_bytes = self.file(of).len_bytes();
            tracing::info!(
                export = %path, len_bytes,
                "all {len_bytes} bytes of the {noun} {path} verified, unchanged since they were written"
            );
        }
    }

    /// Records a changed segment, because the next start would append rows until its scrub reaches that segment.
    fn record_tampering(&self, of: Scrubbed, number: u64) {
        let storage = &*self.ctx.storage;
        let path = self.tampering_path();
        let file = match storage.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return,
            other => other,
        };
        let record = match of {
            Scrubbed::Export => number.to_string(),
            Scrubbed::Ledger => format!("{LEDGER_RECORD}{number}"),
        };
        let recorded = file.and_then(|file| {
            write_all_at(&*file, record.as_bytes(), 0)?;
            file.sync_data()?;
            storage.sync_dir(&self.ctx.state_dir)
        });
        if let Err(error) = recorded {
            let (noun, path) = (of.noun(), path.display());
            tracing::error!(%path, %error, "cannot record in {path} that the {noun} was tampered with ({error})");
        }
    }

    fn tampering_path(&self) -> PathBuf {
        self.ctx.state_dir.join(CHANGED_FILE)
    }
}
