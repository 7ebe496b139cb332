//! Owns the reading of an export that somebody touched: when each of its segments is read again, against which hash, and
//! that what is found once is not forgotten. What a touch is, and what fits, is the export's.

use std::io;
use std::path::PathBuf;

use crate::engine::{Engine, EngineError};
use crate::platform::storage::{read_full_at, write_all_at};
use crate::store::export::ExportError;
use crate::store::files::CHANGED_FILE;
use crate::store::state::error::StateError;

/// Reading takes a tenth of the time, so that rows go on at their pace.
const PAUSE_FACTOR: u64 = 9;
/// A segment that cannot be read is tried again after so long.
const UNREAD_PAUSE_MS: u64 = 60_000;
/// A longer name of a segment is none.
const NUMBER_LEN_MAX: usize = 20;

impl Engine {
    /// Holds all of an export that was touched against its hashes now.
    ///
    /// # Errors
    /// [`ExportError::Changed`] where it does not fit; the disk's.
    pub fn prove_export(&mut self) -> Result<(), EngineError> {
        while let Some(number) = self.export.scrub_pending() {
            self.prove(number)?;
            self.note_proven(number);
        }
        Ok(())
    }

    /// The next segment of an export that was touched, where it is time for it.
    pub(super) fn prove_a_segment(&mut self, now_ms: u64) -> Result<(), EngineError> {
        let Some(number) = self.export.scrub_pending() else {
            return Ok(());
        };
        if now_ms < self.prove_at_ms {
            return Ok(());
        }
        if number == 0 {
            tracing::info!(
                export = %self.setup.export_path.display(),
                "the export is not as our last write left it: touched, or copied, rebuilt, killed since; it is compared with what was written"
            );
        }
        let began_us = self.setup.clock.monotonic_us();
        let pause_ms = if self.prove_unless_unread(number)? {
            self.note_proven(number);
            let took_us = self.setup.clock.monotonic_us().saturating_sub(began_us);
            (took_us * PAUSE_FACTOR).div_ceil(1_000)
        } else {
            UNREAD_PAUSE_MS
        };
        self.prove_at_ms = now_ms + pause_ms;
        Ok(())
    }

    /// One segment that nobody is known to have touched: what leaves no trace is found in time too.
    ///
    /// # Errors
    /// As [`Self::prove_export`].
    pub(crate) fn prove_next_in_turn(&mut self) -> Result<(), EngineError> {
        match self.export.next_round_robin() {
            Some(number) => self.prove_unless_unread(number).map(|_| ()),
            None => Ok(()),
        }
    }

    /// A segment that was found changed before this start is looked at before anything is appended.
    pub(crate) fn check_recorded_tampering(&mut self) -> Result<(), EngineError> {
        let path = self.changed_path();
        let storage = &*self.setup.storage;
        let file = match storage.open_read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|source| self.setup.state_dir_error(source))?,
        };
        let mut text = [0; NUMBER_LEN_MAX];
        let read = read_full_at(&*file, &mut text, 0)
            .map_err(|source| self.setup.state_dir_error(source))?;
        let number = std::str::from_utf8(&text[..read]).ok();
        if let Some(number) = number.and_then(|number| number.trim().parse().ok()) {
            self.prove(number)?;
        }
        // Somebody put back what stood there.
        let storage = &*self.setup.storage;
        storage
            .remove_file(&path)
            .and_then(|()| storage.sync_dir(&self.setup.state_dir))
            .map_err(|source| self.setup.state_dir_error(source))
    }

    /// Whether a segment fits; `false` where the disk does not give it. That stops nothing: what is appended is read
    /// again where it stands.
    fn prove_unless_unread(&mut self, number: u64) -> Result<bool, EngineError> {
        match self.prove(number) {
            Err(EngineError::Export(ExportError::Io { source, .. })) => {
                if !self.unread_said {
                    tracing::error!(
                        export = %self.setup.export_path.display(), segment = number, error = %source,
                        "a part of the export cannot be read; look at its disk"
                    );
                    self.meters.error("export");
                }
                self.unread_said = true;
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }

    fn prove(&mut self, number: u64) -> Result<(), EngineError> {
        let proved = self
            .reopen_state_if_failed()
            .and_then(|()| self.compare(number));
        self.mark_state_failed(proved)
    }

    fn compare(&mut self, number: u64) -> Result<(), EngineError> {
        let finished = self.export.finished_segments();
        let finished = finished
            .binary_search_by_key(&number, |segment| segment.number)
            .map(|at| finished[at].hash);
        let known = match finished {
            Ok(hash) => Some(hash),
            Err(_) => self.view.segment(number)?,
        };
        if known.is_none() && !self.export.is_last(number) {
            let what = format!("segment {number} of the export is missing");
            return Err(StateError::Damaged(what).into());
        }
        let proved = self.export.prove(number, known);
        if matches!(proved, Err(ExportError::Changed { .. })) {
            self.record_tampering(number);
        }
        Ok(proved?)
    }

    fn note_proven(&mut self, number: u64) {
        self.unread_said = false;
        if self.export.scrubbed(number) {
            tracing::info!(
                export = %self.setup.export_path.display(), len_bytes = self.export.len_bytes(),
                "the export is as it was written"
            );
        }
    }

    /// The next start would append rows until it comes to this segment.
    fn record_tampering(&self, number: u64) {
        let storage = &*self.setup.storage;
        let remembered = match storage.create(&self.changed_path()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return,
            other => other,
        };
        let remembered = remembered.and_then(|file| {
            write_all_at(&*file, number.to_string().as_bytes(), 0)?;
            file.sync_data()?;
            storage.sync_dir(&self.setup.state_dir)
        });
        if let Err(error) = remembered {
            tracing::error!(%error, "that the export was changed could not be noted");
        }
    }

    fn changed_path(&self) -> PathBuf {
        self.setup.state_dir.join(CHANGED_FILE)
    }
}
