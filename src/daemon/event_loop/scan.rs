//! Scans of the lake: arming slices of directories, the full scan, the frequent scan of the newest days, and their pauses.
//! Scans find what lost events would have reported.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::daemon::event_loop::directories::{is_empty, record_listing};
use crate::daemon::event_loop::{EventLoop, millis};
use crate::daemon::watch::{DAY_DEPTH, Mode, Round};
use crate::engine::EngineError;
use crate::lake::identity::seen;
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::{Level, list_level, stat_day_file, stat_day_files};
use crate::platform::storage::{FileStat, Storage};

/// The number of directories armed or listed between two checks for hints. With a long history a start spends a second
/// on this, and a new record waits for one slice: each directory costs a watch and a stat of its day-files.
pub(super) const DIRECTORIES_PER_SLICE: usize = 4;
/// The number of watches verified with each frequent scan.
const WATCHES_PER_SLICE: usize = 32;
/// The maximum number of unreadable directories that a frequent scan tries again.
const UNREADABLE_PER_SCAN: usize = 64;
/// The maximum number of day-files in one slice that are queued ahead of the backlog; more are history.
const URGENT_DAY_FILES_MAX: usize = 16;
/// The number of newest days of each stream that the frequent scan lists.
const RECENT_DAYS: usize = 2;
/// The pause between full scans while polling, as a multiple of the polling interval.
const POLLS_PER_FULL_SCAN: u64 = 30;

impl EventLoop {
    /// Arms the next directories and queues their day-files.
    pub(super) fn arm(&mut self, directories_max: usize) {
        let progress = self.watch.arm_next(directories_max);
        self.is_rearming &= !progress.done;
        let is_urgent = progress.day_files.len() <= URGENT_DAY_FILES_MAX;
        for listing in progress.listings {
            if listing.is_empty.is_ok() && listing.dir.components().count() == DAY_DEPTH {
                let listed = progress.day_files.iter();
                let in_day = listed.filter(|(stream, path)| {
                    *stream == listing.stream && path.parent() == Some(&listing.dir)
                });
                let day_files = in_day.filter(|(_, path)| self.is_read(path)).count();
                self.watch
                    .note_day(listing.stream, &listing.dir, day_files as u64);
            }
            self.record_listing(listing.stream, &listing.dir, listing.is_empty);
        }
        let days = progress
            .day_files
            .chunk_by(|one, other| day(one) == day(other));
        for in_day in days {
            let (stream, first) = &in_day[0];
            let paths = in_day.iter();
            let paths = paths.filter_map(|(_, path)| PairPath::from_relative(path));
            let dir = first.parent().unwrap_or(first);
            self.enqueue_changed(*stream, dir, paths.collect(), is_urgent);
        }
    }

    /// Queues the changed day-files of one directory, the way to which is walked once.
    fn enqueue_changed(
        &mut self,
        stream: Stream,
        dir: &Path,
        day_files: Vec<PairPath>,
        is_urgent: bool,
    ) {
        let stats = stat_day_files(&*self.storage, &self.root, stream, dir, &day_files);
        for (path, stat) in day_files.into_iter().zip(stats) {
            self.enqueue_by_stat(stream, path, stat, is_urgent);
        }
    }

    /// Returns whether the configuration includes a day-file.
    fn is_read(&self, path: &Path) -> bool {
        !self.settings.exclude.matches(path)
    }

    /// Queues a day-file unless its stat is the one it had when all of it had been read; that costs no open.
    fn enqueue_if_changed(&mut self, stream: Stream, path: PairPath, is_urgent: bool) {
        let stat = stat_day_file(&*self.storage, &self.root, stream, &path);
        self.enqueue_by_stat(stream, path, stat, is_urgent);
    }

    fn enqueue_by_stat(
        &mut self,
        stream: Stream,
        path: PairPath,
        stat: io::Result<FileStat>,
        is_urgent: bool,
    ) {
        let has_changed = match stat {
            Ok(stat) => {
                if self.is_read(path.as_path()) {
                    self.watch
                        .ensure_linked(stream, path.as_path(), &stat, false);
                }
                let has_changed = self.engine.has_changed(&path, stream, seen(&stat));
                has_changed.unwrap_or(true)
            }
            // A missing file is a change only if the engine knew it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.watch.forget_linked(stream, path.as_path());
                self.engine.has_disappeared(&path, stream).unwrap_or(true)
            }
            Err(_) => true,
        };
        match (has_changed, is_urgent) {
            (true, true) => self.engine.enqueue(path),
            (true, false) => self.engine.enqueue_backlog(path),
            (false, _) => {}
        }
    }

    /// Queues the day-files of hints. A new one may have another name, by which it is written.
    pub(super) fn enqueue_hinted(&mut self, hints: &BTreeSet<(Stream, OsString)>) {
        let hints = hints
            .iter()
            .map(|(stream, path)| (*stream, Path::new(path)));
        let hints: Vec<_> = hints.collect();
        for in_day in hints.chunk_by(|one, other| day(one) == day(other)) {
            let (stream, first) = in_day[0];
            let dir = first.parent().unwrap_or(first);
            let names = in_day.iter().map(|(_, path)| PairPath::from_relative(path));
            let day_files: Vec<_> = names.clone().flatten().collect();
            let has_other_names = day_files.len() < names.len();
            self.enqueue_named(stream, dir, day_files);
            if has_other_names {
                self.enqueue_day(stream, dir);
            }
        }
    }

    /// Queues day-files of one directory, the way to which is walked once.
    fn enqueue_named(&mut self, stream: Stream, dir: &Path, day_files: Vec<PairPath>) {
        let stats = stat_day_files(&*self.storage, &self.root, stream, dir, &day_files);
        for (path, stat) in day_files.into_iter().zip(stats) {
            match stat {
                Ok(stat) if self.is_read(path.as_path()) => {
                    self.watch
                        .ensure_linked(stream, path.as_path(), &stat, true);
                }
                Ok(_) => {}
                Err(_) => self.watch.forget_linked(stream, path.as_path()),
            }
            self.engine.enqueue(path);
        }
    }

    /// Queues the changed day-files of a day: a name that no day-file has is a hint about each of them.
    fn enqueue_day(&mut self, stream: Stream, dir: &Path) {
        if let Ok(Level::DayFiles(day_files)) = list_level(&*self.storage, &self.root, stream, dir)
        {
            self.enqueue_changed(stream, dir, day_files, true);
        }
    }

    /// Runs the scans that are due: a slice of the full one, and the frequent one.
    pub(super) fn scan(&mut self, now_ms: u64) -> Result<(), EngineError> {
        self.shorten_pauses(now_ms);
        // A full scan requested while another runs stays due: the change may be where that one has already been.
        if now_ms >= self.full_scan_at_ms && self.scanning.is_empty() {
            self.engine.metrics().scan("full");
            self.engine.scrub_round_robin()?;
            self.full_scans += 1;
            self.scanning
                .extend(Stream::ALL.map(|stream| (stream, PathBuf::new())));
            self.full_scan_at_ms = now_ms + self.full_scan_pause_ms();
            self.comparisons
                .on_scan(now_ms, millis(self.settings.full_scan));
        }
        for _ in 0..DIRECTORIES_PER_SLICE {
            let Some((stream, dir)) = self.scanning.pop_back() else {
                break;
            };
            self.scan_directory(stream, &dir, true);
        }
        if now_ms >= self.recent_scan_at_ms {
            self.recent_scan_at_ms = now_ms + self.recent_scan_pause_ms();
            self.engine.metrics().scan("recent");
            for (stream, dir) in self.unreadable.to_retry(UNREADABLE_PER_SCAN) {
                self.scan_directory(stream, &dir, false);
            }
            self.scan_recent();
            self.engine.check_files()?;
            // A slice per scan: with a long history a whole round at once would keep the idle daemon busy.
            self.is_rearming |= self.watch.rearm_changed(WATCHES_PER_SLICE) == Round::Restarted;
            // From its end: where it takes longer than the pause, the loop would do nothing else.
            self.recent_scan_at_ms = self.shared.clock.monotonic_ms() + self.recent_scan_pause_ms();
        }
        Ok(())
    }

    /// Returns whether the full scan with this number has ended.
    pub(super) fn has_scanned(&self, scan: u64) -> bool {
        self.full_scans > scan || self.full_scans == scan && self.scanning.is_empty()
    }

    fn scan_directory(&mut self, stream: Stream, dir: &Path, is_full: bool) {
        let level = list_level(&*self.storage, &self.root, stream, dir);
        self.record_listing(stream, dir, is_empty(&level));
        match level {
            // The stack pops the last one first, so the newest days precede history.
            Ok(Level::Directories(dirs)) => {
                self.watch.keep_days(stream, dir, &dirs);
                self.scanning
                    .extend(dirs.into_iter().map(|dir| (stream, dir)));
            }
            Ok(Level::DayFiles(day_files)) => {
                self.watch.ensure(stream, dir);
                let read = day_files.iter().filter(|path| self.is_read(path.as_path()));
                self.watch.note_day(stream, dir, read.count() as u64);
                if is_full && stream == Stream::Scored {
                    for path in day_files
                        .iter()
                        .filter(|path| self.comparisons.is_due(path))
                    {
                        self.engine.enqueue_comparison(path.clone());
                    }
                }
                self.enqueue_changed(stream, dir, day_files, false);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.watch.keep_days(stream, dir, &[]);
            }
            Err(_) => {}
        }
    }

    /// Records the result of an attempt to list a directory.
    fn record_listing(&mut self, stream: Stream, dir: &Path, is_empty: io::Result<bool>) {
        record_listing(
            &mut self.engine,
            &mut self.unreadable,
            &self.root,
            stream,
            dir,
            is_empty,
        );
    }

    /// Scans the newest days and every pair in memory, where lost events are most likely.
    fn scan_recent(&mut self) {
        self.check_root_link();
        for stream in Stream::ALL {
            let days = newest_days(&*self.storage, &self.root, stream);
            // A link in the place of a directory causes no hint.
            let above = days.iter().flat_map(|day| day.ancestors().skip(1));
            let above = above.map(Path::to_owned).chain([PathBuf::new()]);
            for dir in above
                .chain(self.unreadable.with_links(stream))
                .collect::<BTreeSet<_>>()
            {
                self.unreadable
                    .check_links(&*self.storage, &self.root, stream, &dir);
            }
            for day in days {
                self.scan_directory(stream, &day, false);
            }
            for path in self.engine.active_paths() {
                self.enqueue_if_changed(stream, path, true);
            }
        }
    }

    /// Reports that the configured root, or a link in its path, leads to another directory since the start, and that it
    /// leads back.
    fn check_root_link(&mut self) {
        let (given, root) = (self.settings.root.display(), self.root.display());
        let leads_to = self.storage.canonicalize(&self.settings.root).ok();
        let elsewhere = leads_to.filter(|leads_to| *leads_to != self.root);
        if elsewhere == self.root_elsewhere {
            return;
        }
        match &elsewhere {
            Some(other) => {
                let other = other.display();
                tracing::warn!(%root, %other, "the root {given} now leads to {other}; this daemon still works on {root}, restart distilld to change to {other}");
            }
            None => tracing::info!(%root, "the root {given} leads to {root} again"),
        }
        self.root_elsewhere = elsewhere;
    }

    /// Ends the running pauses earlier where the mode or the configuration has shorter ones now.
    fn shorten_pauses(&mut self, now_ms: u64) {
        let recent_ms = now_ms + self.recent_scan_pause_ms();
        self.recent_scan_at_ms = self.recent_scan_at_ms.min(recent_ms);
        let full_ms = now_ms + self.full_scan_pause_ms();
        self.full_scan_at_ms = self.full_scan_at_ms.min(full_ms);
    }

    /// Returns the pause between two frequent scans, milliseconds.
    pub(super) fn recent_scan_pause_ms(&self) -> u64 {
        let pause = match self.watch.mode() {
            Mode::Events => self.settings.recent_scan,
            Mode::Polling { .. } => self.settings.poll,
        };
        millis(pause)
    }

    /// Returns the pause between two full scans, milliseconds. Without events it is [`POLLS_PER_FULL_SCAN`] polls, a
    /// compromise between latency and the load on the disk.
    pub(super) fn full_scan_pause_ms(&self) -> u64 {
        match self.watch.mode() {
            Mode::Events => millis(self.settings.full_scan),
            Mode::Polling { .. } => millis(self.settings.poll) * POLLS_PER_FULL_SCAN,
        }
    }
}

/// Returns the stream and the directory of a day-file.
fn day<P: AsRef<Path>>((stream, path): &(Stream, P)) -> (Stream, Option<&Path>) {
    (*stream, path.as_ref().parent())
}

/// Returns the newest days of a stream, as paths below its base.
fn newest_days(storage: &dyn Storage, root: &Path, stream: Stream) -> Vec<PathBuf> {
    let mut newest = vec![PathBuf::new()];
    for _ in 0..3 {
        let mut below = Vec::new();
        for dir in &newest {
            if let Ok(Level::Directories(dirs)) = list_level(storage, root, stream, dir) {
                below.extend(dirs.into_iter().rev().take(RECENT_DAYS));
            }
        }
        below.truncate(RECENT_DAYS);
        newest = below;
    }
    newest
}
