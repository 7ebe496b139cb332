//! The order in which directories are armed: newest first, and those named by a hint before history. It uses names only
//! and no disk.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::lake::path::Stream;

/// A directory by its stream and its path below the stream's base; the base has the empty path.
pub(super) type Directory = (Stream, Box<Path>);

/// The directories that wait to be armed and listed.
#[derive(Debug, Default)]
pub(super) struct ArmQueue {
    /// Named by a hint: a new record may be in it.
    fresh: BTreeSet<NewestFirst>,
    /// All others, found on the way down from the bases.
    history: BTreeSet<NewestFirst>,
}

/// The reason why a directory is queued; its subdirectories inherit it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// A hint named the directory.
    Fresh,
    /// The directory was found on the way down.
    History,
}

impl ArmQueue {
    /// Adds a directory; a second addition has no effect.
    pub(super) fn push(&mut self, urgency: Urgency, directory: Directory) {
        match urgency {
            Urgency::Fresh => self.fresh.insert(NewestFirst(directory)),
            Urgency::History => self.history.insert(NewestFirst(directory)),
        };
    }

    /// Takes the next directory.
    pub(super) fn pop(&mut self) -> Option<(Urgency, Directory)> {
        if let Some(NewestFirst(directory)) = self.fresh.pop_last() {
            return Some((Urgency::Fresh, directory));
        }
        let NewestFirst(directory) = self.history.pop_last()?;
        Some((Urgency::History, directory))
    }

    /// Returns whether the queue is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.history.is_empty()
    }

    /// Returns the number of queued directories.
    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.history.len()
    }

    /// Returns the number of queued directories that hints named, or that are below one.
    pub(super) fn fresh_len(&self) -> usize {
        self.fresh.len()
    }

    /// Removes all directories.
    pub(super) fn clear(&mut self) {
        self.fresh.clear();
        self.history.clear();
    }
}

/// Byte order of the names, the last being the newest. A directory that has not been listed may contain a newer one
/// than any known below it, so it sorts after all of them and is taken before them.
#[derive(Debug, PartialEq, Eq)]
struct NewestFirst(Directory);

impl Ord for NewestFirst {
    fn cmp(&self, other: &Self) -> Ordering {
        let (stream, path) = &self.0;
        let (other_stream, other_path) = &other.0;
        by_newest_inside(path, other_path).then(stream.cmp(other_stream))
    }
}

impl PartialOrd for NewestFirst {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn by_newest_inside(path: &Path, other: &Path) -> Ordering {
    let (mut names, mut other_names) = (path.components(), other.components());
    loop {
        match (names.next(), other_names.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Greater,
            (Some(_), None) => return Ordering::Less,
            (Some(name), Some(other_name)) if name == other_name => {}
            (Some(name), Some(other_name)) => return name.cmp(&other_name),
        }
    }
}

/// Returns the key of a directory.
pub(super) fn directory(stream: Stream, relative: impl Into<PathBuf>) -> Directory {
    (stream, relative.into().into_boxed_path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut ArmQueue) -> Vec<String> {
        let popped = std::iter::from_fn(|| queue.pop());
        popped
            .map(|(_, (stream, path))| format!("{}:{}", stream.dir_name(), path.display()))
            .collect()
    }

    #[test]
    fn the_newest_day_of_both_streams_comes_before_any_older_one() {
        let mut queue = ArmQueue::default();
        for stream in Stream::ALL {
            for path in ["2025/12/31", "2026/05", "2026/06/01", "2026/06", ""] {
                queue.push(Urgency::History, directory(stream, path));
            }
        }
        let want = [
            "evidence:",
            "scored-runs:",
            "evidence:2026/06",
            "scored-runs:2026/06",
            "evidence:2026/06/01",
            "scored-runs:2026/06/01",
            "evidence:2026/05",
            "scored-runs:2026/05",
            "evidence:2025/12/31",
            "scored-runs:2025/12/31",
        ];
        assert_eq!(drain(&mut queue), want);
    }

    #[test]
    fn a_directory_named_by_a_hint_comes_before_history() {
        let mut queue = ArmQueue::default();
        queue.push(Urgency::History, directory(Stream::Scored, "2026/06/01"));
        queue.push(Urgency::Fresh, directory(Stream::Scored, "2019/01/01"));
        queue.push(Urgency::Fresh, directory(Stream::Scored, "2019/01/01"));
        assert_eq!(
            drain(&mut queue),
            ["scored-runs:2019/01/01", "scored-runs:2026/06/01"]
        );
        assert!(queue.is_empty());
    }
}
