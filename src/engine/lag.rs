//! Input lag: which pairs have changes that are not read and exported yet, since when, and how many bytes; and the
//! unterminated last lines of day-files. For reporting only: the work queue decides which pair is read next.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::engine::read::{PairRead, SourceMemory};
use crate::lake::path::{PairPath, Stream};

/// The known lag of the export. Made once for a snapshot; every status, metric
/// and readiness answer of that snapshot prints this value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lag {
    /// Pairs of day-files to read and directories to list.
    pub files: u64,
    /// Unread bytes of day-files.
    pub bytes: u64,
    /// Whether `bytes` is complete; if not, it is a lower bound.
    pub bytes_exact: bool,
    /// Lines in these bytes; `None` if there are too many to count.
    pub lines: Option<u64>,
    /// Age of the oldest change that is not exported, milliseconds; seconds in JSON.
    #[serde(rename = "seconds", with = "seconds")]
    pub age_ms: u64,
    /// The greatest age that counts as ready, milliseconds; seconds in JSON.
    #[serde(rename = "objective_seconds", with = "seconds")]
    pub objective_ms: u64,
    /// Whether everything that existed at the start was read.
    pub caught_up: bool,
}

impl Lag {
    /// Returns whether nothing is known to be unread.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.files == 0 && self.bytes == 0
    }
}

/// Milliseconds as seconds in JSON.
mod seconds {
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub(super) fn serialize<S: Serializer>(ms: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(*ms as f64 / 1_000.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        Ok((f64::deserialize(deserializer)? * 1_000.0).round() as u64)
    }
}

/// The unterminated last lines of all day-files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnterminatedLines {
    /// Number of lines.
    pub lines: u64,
    /// Their length in sum, bytes.
    pub bytes: u64,
}

/// The pairs with changes that are not exported yet.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    entries: BTreeMap<PairPath, BacklogEntry>,
    /// Pairs that were read and whose rows are in a batch that is not appended yet.
    unappended: Vec<PairPath>,
}

#[derive(Debug, Clone, Copy)]
struct BacklogEntry {
    /// Arrival of the oldest change, monotonic milliseconds.
    since_ms: u64,
    scored_bytes: u64,
    evidence_bytes: u64,
    progress: Progress,
}

/// The progress of a pair on its way into the export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Not read, or not to its end.
    Unread,
    /// Read to its end; its rows are not appended yet.
    Merged,
    /// As `Merged`, and the pair changed again at `since_ms`, monotonic milliseconds.
    ChangedAfterMerge { since_ms: u64 },
}

impl Backlog {
    /// Records that a pair changed.
    pub(super) fn on_change(&mut self, path: &PairPath, now_ms: u64) {
        match self.entries.get_mut(path) {
            None => {
                let entry = BacklogEntry::since(now_ms);
                self.entries.insert(path.clone(), entry);
            }
            Some(entry) if entry.progress == Progress::Merged => {
                entry.progress = Progress::ChangedAfterMerge { since_ms: now_ms };
            }
            Some(_) => {}
        }
    }

    /// Records the number of bytes of a day-file after its offset.
    pub(super) fn on_measured(&mut self, path: &PairPath, stream: Stream, bytes: u64, now_ms: u64) {
        self.on_change(path, now_ms);
        if let Some(entry) = self.entries.get_mut(path) {
            match stream {
                Stream::Scored => entry.scored_bytes = bytes,
                Stream::Evidence => entry.evidence_bytes = bytes,
            }
        }
    }

    /// Records that a read of the pair left that many bytes.
    pub(super) fn on_partly_read(&mut self, path: &PairPath, unread_bytes: u64) {
        if let Some(entry) = self.entries.get_mut(path) {
            entry.progress = Progress::Unread;
            (entry.scored_bytes, entry.evidence_bytes) = (unread_bytes, 0);
        }
    }

    /// Records that the pair was read to its end while no row waited to be appended.
    pub(super) fn on_read(&mut self, path: &PairPath) {
        self.entries.remove(path);
    }

    /// Records that the pair was read to its end and its rows are to be appended.
    pub(super) fn on_merged(&mut self, path: &PairPath) {
        if let Some(entry) = self.entries.get_mut(path) {
            entry.progress = Progress::Merged;
            self.unappended.push(path.clone());
        }
    }

    /// Records that all merged rows are in the export.
    pub(super) fn on_all_appended(&mut self) {
        for path in std::mem::take(&mut self.unappended) {
            match self.entries.get(&path).map(|entry| entry.progress) {
                Some(Progress::ChangedAfterMerge { since_ms }) => {
                    self.entries.insert(path, BacklogEntry::since(since_ms));
                }
                Some(Progress::Merged) => {
                    self.entries.remove(&path);
                }
                Some(Progress::Unread) | None => {}
            }
        }
    }

    /// Returns the lag at `now_ms`, monotonic milliseconds.
    pub(super) fn lag(&self, now_ms: u64) -> Lag {
        let entries = self.entries.values();
        let oldest_ms = entries.clone().map(|entry| entry.since_ms).min();
        Lag {
            bytes: entries
                .map(|entry| entry.scored_bytes + entry.evidence_bytes)
                .sum(),
            age_ms: oldest_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms)),
            ..Lag::default()
        }
    }
}

impl BacklogEntry {
    fn since(since_ms: u64) -> Self {
        Self {
            since_ms,
            scored_bytes: 0,
            evidence_bytes: 0,
            progress: Progress::Unread,
        }
    }
}

/// The unterminated last lines of day-files, each as of the last read of its pair.
#[derive(Debug, Default)]
pub(super) struct PartialLines {
    pairs: BTreeMap<PairPath, PartialLineBytes>,
}

/// Bytes of the unterminated line of each source; 0 where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PartialLineBytes {
    scored: u64,
    evidence: u64,
}

impl PartialLineBytes {
    fn from_read(read: &PairRead) -> Self {
        let bytes = |memory: &SourceMemory, stream| {
            // The beginning of an oversized line is before the offset, because it was skipped already.
            let state = read
                .outcome
                .as_ref()
                .map(|outcome| outcome.checkpoint.source(stream));
            let skipped = state.and_then(|state| Some(state.offset - state.overlong_from?));
            let kept = memory.unterminated.map_or(0, |_| memory.unterminated_bytes);
            skipped.unwrap_or(0) + kept
        };
        Self {
            scored: bytes(&read.memory.scored, Stream::Scored),
            evidence: bytes(&read.memory.evidence, Stream::Evidence),
        }
    }

    fn of_stream(self, stream: Stream) -> u64 {
        match stream {
            Stream::Scored => self.scored,
            Stream::Evidence => self.evidence,
        }
    }
}

impl PartialLines {
    /// Records the unterminated lines that a read left. While more can be read at once, the start of the last line is
    /// unknown, and none is recorded.
    pub(super) fn on_read(&mut self, path: &PairPath, read: &PairRead) {
        let lines = PartialLineBytes::from_read(read);
        if read.more || lines.scored + lines.evidence == 0 {
            self.forget(path);
        } else {
            self.pairs.insert(path.clone(), lines);
        }
    }

    /// Forgets the lines of a pair that is read again from its start.
    pub(super) fn forget(&mut self, path: &PairPath) {
        self.pairs.remove(path);
    }

    /// Returns whether a day-file ended in an unterminated line.
    pub(super) fn is_in(&self, path: &PairPath, stream: Stream) -> bool {
        self.pairs
            .get(path)
            .is_some_and(|lines| lines.of_stream(stream) > 0)
    }

    fn totals(&self) -> UnterminatedLines {
        let sources = self
            .pairs
            .values()
            .flat_map(|lines| [lines.scored, lines.evidence])
            .filter(|bytes| *bytes > 0);
        sources.fold(UnterminatedLines::default(), |sum, bytes| {
            UnterminatedLines {
                lines: sum.lines + 1,
                bytes: sum.bytes + bytes,
            }
        })
    }
}

impl Engine {
    /// Returns the lag as the engine knows it: the pairs to read, their measured bytes, and the age of the oldest change
    /// that is not exported yet.
    #[must_use]
    pub fn lag(&self) -> Lag {
        Lag {
            files: self.queue_len() as u64,
            ..self.books.backlog.lag(self.ctx.clock.monotonic_ms())
        }
    }

    /// Returns the number and length of unterminated last lines, as of the last read of each day-file.
    #[must_use]
    pub fn unterminated(&self) -> UnterminatedLines {
        self.books.partial_lines.totals()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn path(name: &str) -> PairPath {
        PairPath::from_relative(&Path::new("2026/05/01").join(name)).unwrap()
    }

    fn lag(bytes: u64, age_ms: u64) -> Lag {
        Lag {
            bytes,
            age_ms,
            ..Lag::default()
        }
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_unread_change() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.lag(5), lag(0, 0));
        backlog.on_change(&path("a.jsonl"), 100);
        backlog.on_measured(&path("b.jsonl"), Stream::Scored, 7, 200);
        backlog.on_measured(&path("b.jsonl"), Stream::Evidence, 5, 300);
        assert_eq!(backlog.lag(1_000), lag(12, 900));
        backlog.on_read(&path("a.jsonl"));
        assert_eq!(backlog.lag(1_000), lag(12, 800));
        backlog.on_partly_read(&path("b.jsonl"), 3);
        assert_eq!(backlog.lag(1_000), lag(3, 800));
        backlog.on_read(&path("b.jsonl"));
        assert_eq!(backlog.lag(1_000), lag(0, 0));
    }

    #[test]
    fn read_lines_count_as_lag_until_their_rows_are_appended() {
        let mut backlog = Backlog::default();
        backlog.on_measured(&path("a.jsonl"), Stream::Scored, 7, 100);
        backlog.on_change(&path("b.jsonl"), 200);
        backlog.on_merged(&path("a.jsonl"));
        backlog.on_merged(&path("b.jsonl"));
        backlog.on_change(&path("b.jsonl"), 500);
        // Only the first change after the merge counts.
        backlog.on_change(&path("b.jsonl"), 600);
        assert_eq!(backlog.lag(1_000), lag(7, 900));
        backlog.on_all_appended();
        assert_eq!(backlog.lag(1_000), lag(0, 500));
        backlog.on_merged(&path("b.jsonl"));
        backlog.on_all_appended();
        assert_eq!(backlog.lag(1_000), lag(0, 0));
    }
}
