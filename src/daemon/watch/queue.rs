//! Owns the order in which directories are armed: newest first, and what a hint named before history. It knows
//! names only and touches no disk.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::lake::path::Stream;

/// A directory by its stream and its path below the stream's base; the base itself has the empty path.
pub(super) type Directory = (Stream, Box<Path>);

/// Directories that wait to be armed and listed.
#[derive(Debug, Default)]
pub(super) struct ArmQueue {
    /// Named by a hint: a new record may stand there this moment.
    fresh: BTreeSet<NewestFirst>,
    /// Everything else, met on the way down from the bases.
    history: BTreeSet<NewestFirst>,
}

/// Why a directory stands in the queue; its subdirectories inherit it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// It was named by a hint.
    Fresh,
    /// It was met on the way down.
    History,
}

impl ArmQueue {
    /// Adds a directory; one that is there already stays once.
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

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.history.is_empty()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.history.len()
    }

    /// Forgets all of it.
    pub(super) fn clear(&mut self) {
        self.fresh.clear();
        self.history.clear();
    }
}

/// Byte order of the names, the last being the newest; a directory that was not listed yet may hold a newer one
/// than any known below it, so it stands behind all of those and is taken before them.
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

/// A directory's key from its parts.
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
    fn what_a_hint_named_comes_before_history() {
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
