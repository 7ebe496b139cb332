//! The history of the last day: its continuation from what an earlier process stored, and what is stored of it.

use crate::engine::Engine;
use crate::pair::history::{Recent, minute_of};
use crate::store::export::ExportError;
use crate::store::recent::StoredHistory;

impl Engine {
    /// Returns the last day by minute, up to now, and the freshness of the last hour.
    #[must_use]
    pub fn recent(&self) -> Recent {
        let now_ms = self.ctx.clock.wall_ms();
        Recent {
            freshness: self.books.freshness.hour(minute_of(now_ms)),
            ..self.books.history.recent(&self.books.account, now_ms)
        }
    }

    /// Returns the rows with timestamps of a UTC day, in days since 1970.
    #[must_use]
    pub fn rows_on(&self, day: u32) -> u64 {
        self.books.history.rows_on(day)
    }

    /// Returns a number that changes with the history.
    #[must_use]
    pub fn recent_changes(&self) -> u64 {
        self.books.history.changes()
    }

    /// Continues the history that an earlier process stored, with the rows that the export and the lines that the account
    /// got since.
    ///
    /// # Errors
    /// The export cannot be read.
    pub fn resume_recent(&mut self, stored: Option<StoredHistory>) -> Result<(), ExportError> {
        let (books, export) = (&mut self.books, &self.commits.export);
        let now = minute_of(self.ctx.clock.wall_ms());
        // Lines that were read after the last write were read in the same minute, or in the next.
        let newest = stored.as_ref().and_then(|it| it.history.newest_minute());
        let is_stored = stored.is_some();
        if !books.rows_are_counted {
            books.history = export.resume_history(stored)?;
        } else if let Some(stored) = stored {
            books.history.take_refused(stored.history);
        }
        if is_stored {
            let minute = newest.map_or(now, |newest| newest.min(now));
            books.history.follow_all(&books.account, minute);
        } else {
            books.history.begin_at(&books.account);
        }
        Ok(())
    }

    /// Returns the history as it is stored.
    ///
    /// # Errors
    /// The end of the export cannot be read.
    pub fn stored_recent(&self) -> Result<StoredHistory, ExportError> {
        let export = &self.commits.export;
        Ok(StoredHistory {
            export: export.mark_at(export.shown_bytes())?,
            history: self.books.history.clone(),
        })
    }

    /// Removes refused lines from the history that the account no longer has. Only while nothing is to be read.
    pub fn settle_recent(&mut self) {
        self.books.history.settle(&self.books.account);
    }
}
