//! What a reader of the export had seen, and what the logs of the disks had, at each moment of a life.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::support::kill_harness::wait_until;
use crate::support::process::LONG;

/// The lengths of the logs, by disk.
pub type LogLengths = Vec<u64>;

/// The observations of a life, in order.
#[derive(Debug, Default)]
pub struct Sightings {
    /// Lengths of the logs when the export had been read up to this length.
    pub of_export: Vec<(LogLengths, usize)>,
    /// Lengths that the logs had at one moment: a power cut ends all disks at once.
    pub moments: Vec<LogLengths>,
}

/// Records sightings on a thread of its own.
#[derive(Debug)]
pub struct Watcher {
    thread: JoinHandle<Sightings>,
    stop: Arc<AtomicBool>,
}

impl Watcher {
    /// Starts with the export as it is.
    pub fn start(export: &Path, logs: &[PathBuf]) -> Self {
        let (export, logs) = (export.to_owned(), logs.to_owned());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let watch = move || {
            let mut found = Sightings::default();
            _ = wait_until(LONG * 10, || {
                found.look(&export, &logs);
                Ok(stopped.load(Ordering::Acquire))
            });
            found
        };
        Self {
            thread: thread::spawn(watch),
            stop,
        }
    }

    /// Returns what was seen.
    pub fn finish(self) -> Sightings {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

impl Sightings {
    /// Reads the export first, so that the logs as read afterwards cover the observed bytes.
    fn look(&mut self, export: &Path, logs: &[PathBuf]) {
        let from = self.of_export.last().map_or(0, |(_, len)| *len);
        let len = read_on(export, from).unwrap_or(from);
        let Some(lengths) = lengths_of(logs) else {
            return;
        };
        if len > from {
            self.of_export.push((lengths.clone(), len));
        }
        // Logs that have not grown while they were read had these lengths at one moment.
        let is_moment = lengths_of(logs).as_ref() == Some(&lengths);
        if is_moment && self.moments.last() != Some(&lengths) {
            self.moments.push(lengths);
        }
    }
}

pub fn lengths_of(logs: &[PathBuf]) -> Option<LogLengths> {
    let lengths = logs.iter().map(|log| Some(fs::metadata(log).ok()?.len()));
    lengths.collect()
}

/// Returns the end of the last whole line of the export, read from `from` on.
fn read_on(export: &Path, from: usize) -> Option<usize> {
    let file = fs::File::open(export).ok()?;
    let len = file.metadata().ok()?.len() as usize;
    let mut fresh = vec![0; len.saturating_sub(from)];
    file.read_exact_at(&mut fresh, from as u64).ok()?;
    let newline = fresh.iter().rposition(|byte| *byte == b'\n')?;
    Some(from + newline + 1)
}
