//! The floor of freshness: rows appended to a file and synced, without distilld. It knows nothing of the lake.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// A row of the backfill's lake has about this length.
pub const ROW_BYTES: usize = 2_100;

/// Sleeps until then; not at all if that is over.
pub fn sleep_until(when: Instant) {
    thread::sleep(when.saturating_duration_since(Instant::now()));
}

/// A file next to the root to which rows are appended and synced without distilld.
#[derive(Debug)]
pub struct Floor(File);

impl Floor {
    /// Makes it, new, with one row in it.
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

    /// Does it from `start` to `end`, at least once.
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
