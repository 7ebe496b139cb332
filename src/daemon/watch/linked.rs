//! Watches on day-files that have another name. The watch of a directory reports what is written by the names in it,
//! not what is written to the same file by a name elsewhere.

use std::path::Path;

use crate::daemon::watch::arm::Placed;
use crate::daemon::watch::queue::{Directory, directory};
use crate::daemon::watch::{Identity, Watch};
use crate::lake::path::Stream;
use crate::platform::storage::{FileKind, FileStat};

/// Maximum number of day-files with a watch of their own; the newest days have them. The scans find what is written to
/// further ones: a copy of a lake by hard links gives each of its day-files a second name, to which nothing is written.
pub(super) const LINKED_MAX: usize = 1_024;

impl Watch {
    /// Watches a day-file itself if it is a symbolic link or has several names. `stat` is that of the name; `relative`
    /// is its path below the stream's base. After a hint the watch is placed again: the event source drops it when it
    /// reads that the name vanished, and by that time the name may be back.
    pub fn ensure_linked(
        &mut self,
        stream: Stream,
        relative: &Path,
        stat: &FileStat,
        is_hinted: bool,
    ) {
        if self.watcher.is_none() {
            return;
        }
        let day_file = directory(stream, relative);
        let path = self.path(&day_file);
        let identity = match stat.kind {
            FileKind::Regular if stat.links > 1 => Some(Identity::from_stat(stat)),
            FileKind::Link => match self.stat_followed(&path) {
                Ok(target) if target.kind == FileKind::Regular => {
                    Some(Identity::from_stat(&target))
                }
                _ => None,
            },
            _ => None,
        };
        let known = self.linked.get(&day_file).copied();
        let Some(identity) = identity else {
            return self.forget_linked(stream, relative);
        };
        if known == Some(identity) && !is_hinted {
            return;
        }
        if known != Some(identity) {
            self.drop_linked(&day_file);
            // The event source has one path for each file.
            let is_taken = self.linked.values().any(|other| *other == identity);
            if is_taken || !self.has_room_for(&day_file) {
                return self.unwatched.add_link(&day_file);
            }
        }
        match self.place_watch(&path) {
            Placed::Armed => {
                self.linked.insert(day_file.clone(), identity);
                self.unwatched.remove_link(&day_file);
            }
            Placed::Unwatched => {
                self.linked.remove(&day_file);
                self.unwatched.add_link(&day_file);
            }
            Placed::Gone => self.forget_linked(stream, relative),
        }
    }

    /// Drops the watch of a day-file that vanished or is no link any more.
    pub fn forget_linked(&mut self, stream: Stream, relative: &Path) {
        if self.linked.is_empty() && self.unwatched.has_no_links() {
            return;
        }
        let day_file = directory(stream, relative);
        self.drop_linked(&day_file);
        self.unwatched.remove_link(&day_file);
    }

    fn drop_linked(&mut self, day_file: &Directory) -> bool {
        let was_watched = self.linked.remove(day_file).is_some();
        if was_watched {
            self.unwatch(day_file);
        }
        was_watched
    }

    /// Returns whether a day-file may have a watch of its own, after the oldest one lost its watch if it is older.
    fn has_room_for(&mut self, day_file: &Directory) -> bool {
        if self.linked.len() < LINKED_MAX {
            return true;
        }
        let firsts = Stream::ALL.into_iter().filter_map(|stream| {
            let from = directory(stream, "");
            self.linked.range(from..).map(|(first, _)| first).next()
        });
        let oldest = firsts.min_by(|(_, path), (_, other)| path.cmp(other));
        match oldest.filter(|(_, path)| *path < day_file.1).cloned() {
            Some(oldest) => {
                self.unwatched.add_link(&oldest);
                self.drop_linked(&oldest)
            }
            None => false,
        }
    }
}
