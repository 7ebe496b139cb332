//! The floor of freshness: rows appended to a file and synced, without distilld. Independent of the lake.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Approximate length of a row in the backfill's lake.
pub const ROW_BYTES: usize = 2_100;

/// Sleeps until `when`; returns at once if that time has passed.
pub fn sleep_until(when: Instant) {
    thread::sleep(when.saturating_duration_since(Instant::now()));
}

/// A file next to the root to which rows are appended and synced without distilld.
#[derive(Debug)]
pub struct Floor(File);

impl Floor {
    /// Creates the file with one row in it.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut floor = Self(
            OpenOptions::new()
                .append(true)
                .create_new(true)
                .open(path)?,
        );
        floor.once()?;
        Ok(floor)
    }

    /// A second handle to the same file.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Returns the time to append a row and sync it.
    pub fn once(&mut self) -> io::Result<Duration> {
        let row = [b'x'; ROW_BYTES];
        let start = Instant::now();
        self.0.write_all(&row)?;
        self.0.sync_data()?;
        Ok(start.elapsed())
    }

    /// Appends and syncs rows from `start` to `end`, at least one.
    pub fn steadily(
        &mut self,
        start: Instant,
        period: Duration,
        end: Instant,
    ) -> io::Result<Vec<Duration>> {
        let mut took = Vec::new();
        let mut next = start;
        while next < end || took.is_empty() {
            sleep_until(next);
            took.push(self.once()?);
            next += period;
        }
        Ok(took)
    }
}
