//! Operations on one directory: watch it, list it, drop its watch. The parent module decides which directory is next.

use std::io;
use std::path::{Path, PathBuf};

use notify::{ErrorKind, RecursiveMode};

use crate::daemon::watch::events::is_day_file_name;
use crate::daemon::watch::queue::{Directory, Urgency, directory};
use crate::daemon::watch::{Identity, Watch};
use crate::lake::path::Stream;
use crate::platform::storage::FileKind;

/// The number of names below a base that lead to a directory with day-files.
pub(crate) const DAY_DEPTH: usize = 3;

/// The result of one slice of arming.
#[derive(Debug, Default)]
pub struct Progress {
    /// The day-files in the listed directories, by stream and path below its base. They may have changed while they
    /// were not watched.
    pub day_files: Vec<(Stream, PathBuf)>,
    /// The directories that were listed, or could not be.
    pub listings: Vec<Listing>,
    /// Whether all directories are armed.
    pub done: bool,
}

/// The result of an attempt to list a directory.
#[derive(Debug)]
pub struct Listing {
    /// The stream.
    pub stream: Stream,
    /// The directory, relative to the stream's base.
    pub dir: PathBuf,
    /// Whether the directory is empty, or the error.
    pub is_empty: io::Result<bool>,
}

/// The result of an attempt to place a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    Armed,
    /// The directory is not watched; its changes are found by polling.
    Unwatched,
    Gone,
}

impl Watch {
    /// Arms and lists a directory: queues its subdirectories, or adds its day-files. The watch comes first: later files
    /// are reported, earlier ones are listed.
    pub(super) fn arm(&mut self, urgency: Urgency, place: &Directory, progress: &mut Progress) {
        let stat = match self.stat(place) {
            Ok(stat) => stat,
            Err(error) => return self.refuse(place, error, progress),
        };
        let identity = Identity::from_stat(&stat);
        if stat.kind != FileKind::Directory {
            return self.forget(place);
        }
        let armed = self.armed.get(place);
        if armed.is_some_and(|armed| *armed != identity) {
            self.forget(place);
        }
        match self.watch_directory(urgency, place, identity.device) {
            Placed::Gone => return self.forget(place),
            Placed::Armed => {
                self.refused.remove(place);
                self.armed.insert(place.clone(), identity);
            }
            Placed::Unwatched => {}
        }
        match self.list(urgency, place, &mut progress.day_files) {
            Ok(is_empty) => progress.listings.push(listing(place, Ok(is_empty))),
            Err(error) => return self.refuse(place, error, progress),
        }
        if self.watcher.is_some() && !self.armed.contains_key(place) {
            self.refused.insert(place.clone());
        }
    }

    /// Queues the subdirectories of a directory, or collects its day-files. Returns whether the directory is empty.
    fn list(
        &mut self,
        urgency: Urgency,
        place: &Directory,
        day_files: &mut Vec<(Stream, PathBuf)>,
    ) -> io::Result<bool> {
        let (stream, relative) = place;
        let is_day = relative.components().count() == DAY_DEPTH;
        let entries = self.list_directory(place)?;
        let is_empty = entries.is_empty();
        for entry in entries {
            if is_day && is_day_file_name(&entry.name) {
                day_files.push((*stream, relative.join(&entry.name)));
            } else if !is_day && entry.kind == FileKind::Directory {
                self.queue
                    .push(urgency, directory(*stream, relative.join(&entry.name)));
            }
        }
        Ok(is_empty)
    }

    fn refuse(&mut self, place: &Directory, error: io::Error, progress: &mut Progress) {
        let kind = error.kind();
        if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
            self.forget(place);
            return progress.listings.push(listing(place, Err(error)));
        }
        self.disarm(place);
        if kind != io::ErrorKind::PermissionDenied {
            let directory = self.path(place);
            self.unwatched_because(|| format!("cannot list {}: {error}", directory.display()));
        }
        self.refused.insert(place.clone());
        progress.listings.push(listing(place, Err(error)));
    }

    fn watch_directory(&mut self, urgency: Urgency, place: &Directory, device: u64) -> Placed {
        let path = self.path(place);
        self.check_file_system(&path, device);
        if self.watcher.is_none() {
            return Placed::Unwatched;
        }
        if self.exhausted && urgency == Urgency::History {
            return Placed::Unwatched;
        }
        let mut placed = self.place_watch(&path);
        // A new day takes precedence over an old one.
        if placed == Placed::Unwatched
            && urgency == Urgency::Fresh
            && self.exhausted
            && self.give_up_older_than(place)
        {
            placed = self.place_watch(&path);
        }
        if placed == Placed::Unwatched {
            self.armed.remove(place);
        }
        placed
    }

    /// Places one watch, and records the reason if it fails.
    pub(super) fn place_watch(&mut self, path: &Path) -> Placed {
        let Some(watcher) = &mut self.watcher else {
            return Placed::Unwatched;
        };
        match watcher.watch(path, RecursiveMode::NonRecursive) {
            Ok(()) => Placed::Armed,
            Err(error) => match error.kind {
                ErrorKind::PathNotFound => Placed::Gone,
                ErrorKind::MaxFilesWatch => {
                    self.exhausted = true;
                    self.unwatched_because(|| {
                        "inotify watches are used up, raise fs.inotify.max_user_watches".into()
                    });
                    Placed::Unwatched
                }
                ErrorKind::Io(error) => self.watch_failed(path, &error),
                kind => {
                    self.unwatched_because(|| format!("cannot watch {}: {kind:?}", path.display()));
                    Placed::Unwatched
                }
            },
        }
    }

    fn watch_failed(&mut self, path: &Path, error: &io::Error) -> Placed {
        match error.kind() {
            // It vanished while its watch was being placed.
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Placed::Gone,
            // Polling cannot read it either; listing it reports the error.
            io::ErrorKind::PermissionDenied => Placed::Unwatched,
            _ => {
                self.unwatched_because(|| format!("cannot watch {}: {error}", path.display()));
                Placed::Unwatched
            }
        }
    }

    /// Drops the watch of the oldest day if it is older than `place`; returns whether there was one.
    pub(super) fn give_up_older_than(&mut self, place: &Directory) -> bool {
        let days = Stream::ALL.into_iter().filter_map(|stream| {
            let mut armed = self
                .armed
                .range(directory(stream, "")..)
                .take_while(|((of, _), _)| *of == stream);
            armed
                .find(|((_, path), _)| path.components().count() == DAY_DEPTH)
                .map(|(day, _)| day)
        });
        let oldest = days
            .min_by(|(_, path), (_, other)| path.cmp(other))
            .cloned();
        let Some(oldest) = oldest.filter(|(_, path)| *path < place.1) else {
            return false;
        };
        self.unwatch(&oldest);
        self.armed.remove(&oldest);
        let entries = self.list_directory(&oldest).unwrap_or_default();
        let day_files = entries.iter().filter(|entry| is_day_file_name(&entry.name));
        self.note_day(oldest.0, &oldest.1, day_files.count() as u64);
        self.refused.insert(oldest);
        true
    }

    /// Forgets a directory and all directories below it.
    pub(super) fn forget(&mut self, place: &Directory) {
        self.disarm(place);
        self.refused.retain(|refused| !is_below(refused, place));
        let linked = self.linked.range(place.clone()..).map(|(linked, _)| linked);
        let linked = linked.take_while(|linked| is_below(linked, place));
        for day_file in linked.cloned().collect::<Vec<_>>() {
            self.unwatch(&day_file);
            self.linked.remove(&day_file);
        }
        self.unwatched.forget(|day| is_below(day, place));
    }

    /// Drops the watches of a directory and of all directories below it.
    fn disarm(&mut self, place: &Directory) {
        let armed = self.armed.range(place.clone()..).map(|(armed, _)| armed);
        let armed = armed.take_while(|armed| is_below(armed, place));
        for directory in armed.cloned().collect::<Vec<_>>() {
            self.unwatch(&directory);
            self.armed.remove(&directory);
        }
    }

    pub(super) fn unwatch(&mut self, place: &Directory) {
        let path = self.path(place);
        if let Some(watcher) = &mut self.watcher {
            // The only error is that the event source has already dropped the watch, with the directory.
            let _ = watcher.unwatch(&path);
        }
    }
}

fn listing((stream, dir): &Directory, is_empty: io::Result<bool>) -> Listing {
    Listing {
        stream: *stream,
        dir: dir.to_path_buf(),
        is_empty,
    }
}

/// Returns whether a directory is `place` or below it.
fn is_below((stream, path): &Directory, place: &Directory) -> bool {
    *stream == place.0 && path.starts_with(&place.1)
}
