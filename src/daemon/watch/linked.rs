//! Watches on day-files that have another name. The watch of a directory reports what is written by the names in it,
//! not what is written to the same file by a name elsewhere.

use std::path::Path;

use crate::daemon::watch::arm::Placed;
use crate::daemon::watch::queue::directory;
use crate::daemon::watch::{Identity, Watch};
use crate::lake::path::Stream;
use crate::platform::storage::{FileKind, FileStat};

/// Maximum number of day-files with a watch of their own. The scans find what is written to further ones: a copy of a
/// lake by hard links gives each of its day-files a second name, to which nothing is written.
const LINKED_MAX: usize = 1_024;

impl Watch {
    /// Watches a day-file itself if it is a symbolic link or has several names. `stat` is that of the name; `relative`
    /// is its path below the stream's base.
    pub fn ensure_linked(&mut self, stream: Stream, relative: &Path, stat: &FileStat) {
        if self.watcher.is_none() {
            return;
        }
        let day_file = directory(stream, relative);
        let path = self.path(&day_file);
        let identity = match stat.kind {
            FileKind::Regular if stat.links > 1 => Identity::from_stat(stat),
            FileKind::Link => match self.stat_followed(&path) {
                Ok(target) if target.kind == FileKind::Regular => Identity::from_stat(&target),
                _ => return,
            },
            _ => return,
        };
        let known = self.linked.get(&day_file);
        if known == Some(&identity) || known.is_none() && self.linked.len() >= LINKED_MAX {
            return;
        }
        if self.place_watch(&path) == Placed::Armed {
            self.linked.insert(day_file, identity);
        }
    }
}
