//! Scrubbing of the export: reads its segments again and compares them with their hashes, all of them after the file was
//! touched, one at each full scan otherwise; and keeps a found difference across restarts.

use std::io;
use std::path::PathBuf;

use crate::engine::{Engine, EngineError};
use crate::platform::storage::{read_full_at, write_all_at};
use crate::store::export::ExportError;
use crate::store::files::CHANGED_FILE;
use crate::store::state::error::StateError;

/// Pause after a segment in units of the time that its read took: scrubbing takes a tenth of the time, so that it does
/// not slow the export of rows.
const PAUSE_FACTOR: u64 = 9;
/// Pause before an unreadable segment is tried again.
const UNREADABLE_PAUSE_MS: u64 = 60_000;
/// Maximum length of the number of a segment in the tampering record, bytes.
const NUMBER_LEN_MAX: usize = 20;

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
    /// Scrubs all segments that are due now: the whole export if it was touched.
    ///
    /// # Errors
    /// [`ExportError::Changed`] where a segment does not match its hash; errors of the disk.
    pub fn scrub_export(&mut self) -> Result<(), EngineError> {
        while let Some(number) = self.commits.export.scrub_pending() {
            self.scrub(number)?;
            self.on_scrubbed(number);
        }
        Ok(())
    }

    /// Returns when the next segment of a touched export is due, monotonic milliseconds.
    pub(super) fn scrub_due_ms(&self) -> Option<u64> {
        let pending = self.commits.export.scrub_pending();
        pending.map(|_| self.commits.scrub.next_ms)
    }

    /// Scrubs the next segment of a touched export if it is due.
    pub(super) fn scrub_if_due(&mut self, now_ms: u64) -> Result<(), EngineError> {
        let Some(number) = self.commits.export.scrub_pending() else {
            return Ok(());
        };
        if now_ms < self.commits.scrub.next_ms {
            return Ok(());
        }
        if number == 0 {
            let export = self.ctx.export_path.display();
            tracing::info!(
                %export,
                "export metadata changed since our last write, verifying the segments of {export}"
            );
        }
        let started_us = self.ctx.clock.monotonic_us();
        let pause_ms = if self.scrub_unless_unreadable(number)? {
            self.on_scrubbed(number);
            let took_us = self.ctx.clock.monotonic_us().saturating_sub(started_us);
            (took_us * PAUSE_FACTOR).div_ceil(1_000)
        } else {
            UNREADABLE_PAUSE_MS
        };
        self.commits.scrub.next_ms = now_ms + pause_ms;
        Ok(())
    }

    /// Scrubs one segment of an export that was not touched, round-robin: a change may leave no trace in the metadata.
    ///
    /// # Errors
    /// As [`Self::scrub_export`].
    pub(crate) fn scrub_round_robin(&mut self) -> Result<(), EngineError> {
        match self.commits.export.next_round_robin() {
            Some(number) => self.scrub_unless_unreadable(number).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Scrubs a segment that an earlier process found changed, before anything is appended.
    pub(crate) fn check_recorded_tampering(&mut self) -> Result<(), EngineError> {
        let path = self.tampering_path();
        let storage = &*self.ctx.storage;
        let file = match storage.open_read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|source| self.ctx.state_dir_error(source))?,
        };
        let mut text = [0; NUMBER_LEN_MAX];
        let read = read_full_at(&*file, &mut text, 0)
            .map_err(|source| self.ctx.state_dir_error(source))?;
        let number = std::str::from_utf8(&text[..read]).ok();
        if let Some(number) = number.and_then(|number| number.trim().parse().ok()) {
            self.scrub(number)?;
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
    fn scrub_unless_unreadable(&mut self, number: u64) -> Result<bool, EngineError> {
        match self.scrub(number) {
            Err(EngineError::Export(ExportError::Io { source, .. })) => {
                if !self.commits.scrub.unreadable_reported {
                    let export = self.ctx.export_path.display();
                    tracing::error!(
                        %export, segment = number, error = %source,
                        "cannot read segment {number} of the export {export} ({source}); check its disk"
                    );
                    self.books.metrics.error("export");
                }
                self.commits.scrub.unreadable_reported = true;
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }

    fn scrub(&mut self, number: u64) -> Result<(), EngineError> {
        let result = self
            .reopen_state_if_failed()
            .and_then(|()| self.compare(number));
        self.commits.mark_state_failed(result)
    }

    /// Compares a segment with its hash, which is in memory or in the state.
    fn compare(&mut self, number: u64) -> Result<(), EngineError> {
        let export = &self.commits.export;
        let finished = export.finished_segments();
        let at = finished.binary_search_by_key(&number, |segment| segment.number);
        let known = match at {
            Ok(at) => Some(finished[at].hash),
            Err(_) => self.pairs.view().segment(number)?,
        };
        if known.is_none() && !export.is_last(number) {
            let what = format!("segment {number} of the export is missing");
            return Err(StateError::Damaged(what).into());
        }
        let result = export.prove(number, known);
        if matches!(result, Err(ExportError::Changed { .. })) {
            self.record_tampering(number);
        }
        Ok(result?)
    }

    fn on_scrubbed(&mut self, number: u64) {
        self.commits.scrub.unreadable_reported = false;
        if self.commits.export.scrubbed(number) {
            let export = self.ctx.export_path.display();
            let len_bytes = self.commits.export.len_bytes();
            tracing::info!(
                %export, len_bytes,
                "all {len_bytes} bytes of the export {export} verified, unchanged since they were written"
            );
        }
    }

    /// Records a changed segment, because the next start would append rows until its scrub reaches that segment.
    fn record_tampering(&self, number: u64) {
        let storage = &*self.ctx.storage;
        let path = self.tampering_path();
        let file = match storage.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return,
            other => other,
        };
        let recorded = file.and_then(|file| {
            write_all_at(&*file, number.to_string().as_bytes(), 0)?;
            file.sync_data()?;
            storage.sync_dir(&self.ctx.state_dir)
        });
        if let Err(error) = recorded {
            let path = path.display();
            tracing::error!(%path, %error, "cannot record in {path} that the export was tampered with ({error})");
        }
    }

    fn tampering_path(&self) -> PathBuf {
        self.ctx.state_dir.join(CHANGED_FILE)
    }
}
