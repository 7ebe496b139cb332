//! Owns what is known to be unread: which pairs, since when it is known, how many bytes. What was read counts until its
//! rows are shown. It is for telling alone; what is looked at next is decided elsewhere.

use crate::engine::Engine;
use crate::engine::read::{PairRead, SourceMemory};
use crate::lake::path::{PairPath, Stream};
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How far the export lags behind its sources, as far as that is known. Made once for a snapshot; every status, metric
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
    /// Time since everything was read, milliseconds; seconds in JSON.
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

/// Pairs with news that nobody has read yet.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    news: BTreeMap<PairPath, BacklogEntry>,
    /// Those whose rows are in a batch that is not shown yet.
    merged: Vec<PairPath>,
}

#[derive(Debug, Clone, Copy)]
struct BacklogEntry {
    /// When the oldest of it was heard of, monotonic milliseconds.
    since_ms: u64,
    scored_bytes: u64,
    evidence_bytes: u64,
    /// When more was heard of after all of it had been read, monotonic milliseconds; `None` in it: nothing was.
    merged: Option<Option<u64>>,
}

impl Backlog {
    /// Somebody says that a pair changed.
    pub(super) fn heard(&mut self, path: &PairPath, now_ms: u64) {
        match self.news.get_mut(path) {
            None => {
                self.news.insert(path.clone(), BacklogEntry::since(now_ms));
            }
            Some(news) => {
                if let Some(again) = &mut news.merged {
                    again.get_or_insert(now_ms);
                }
            }
        }
    }

    /// A day-file has so many bytes behind the offset.
    pub(super) fn measured(&mut self, path: &PairPath, stream: Stream, bytes: u64, now_ms: u64) {
        self.heard(path, now_ms);
        if let Some(news) = self.news.get_mut(path) {
            match stream {
                Stream::Scored => news.scored_bytes = bytes,
                Stream::Evidence => news.evidence_bytes = bytes,
            }
        }
    }

    /// A look at the pair left so many bytes.
    pub(super) fn left(&mut self, path: &PairPath, bytes: u64) {
        if let Some(news) = self.news.get_mut(path) {
            news.merged = None;
            (news.scored_bytes, news.evidence_bytes) = (bytes, 0);
        }
    }

    /// All that can be read of the pair now has been read, and gave no rows.
    pub(super) fn read(&mut self, path: &PairPath) {
        self.news.remove(path);
    }

    /// All that can be read of the pair now has been read; its rows are still to be shown.
    pub(super) fn merged(&mut self, path: &PairPath) {
        if let Some(news) = self.news.get_mut(path) {
            news.merged = Some(None);
            self.merged.push(path.clone());
        }
    }

    /// All rows that were merged are in the export.
    pub(super) fn shown(&mut self) {
        for path in std::mem::take(&mut self.merged) {
            match self.news.get_mut(&path).map(|news| news.merged) {
                Some(Some(Some(again_ms))) => {
                    self.news.insert(path, BacklogEntry::since(again_ms));
                }
                Some(Some(None)) => {
                    self.news.remove(&path);
                }
                _ => {}
            }
        }
    }

    /// Bytes, and the age of the oldest news, milliseconds.
    pub(super) fn lag(&self, now_ms: u64) -> (u64, u64) {
        let bytes = self.news.values();
        let bytes = bytes.map(|news| news.scored_bytes + news.evidence_bytes);
        let oldest_ms = self.news.values().map(|news| news.since_ms).min();
        let age_ms = oldest_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms));
        (bytes.sum(), age_ms)
    }
}

impl BacklogEntry {
    fn since(since_ms: u64) -> Self {
        Self {
            since_ms,
            scored_bytes: 0,
            evidence_bytes: 0,
            merged: None,
        }
    }
}

/// The torn last lines of the lake, as far as they were looked at.
#[derive(Debug, Default)]
pub(super) struct PartialLines {
    pairs: BTreeMap<PairPath, Lines>,
}

/// Bytes of the torn line of each source; 0 where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lines {
    scored: u64,
    evidence: u64,
}

impl Lines {
    fn of(look: &PairRead) -> Self {
        let bytes = |source: &SourceMemory, stream| {
            // Of a line that is too long the beginning has been passed over already.
            let after = look
                .outcome
                .as_ref()
                .map(|found| found.checkpoint.source(stream));
            let passed_over = after.and_then(|after| Some(after.offset - after.overlong_from?));
            let kept = source.unterminated.map_or(0, |_| source.unterminated_bytes);
            passed_over.unwrap_or(0) + kept
        };
        Self {
            scored: bytes(&look.memory.scored, Stream::Scored),
            evidence: bytes(&look.memory.evidence, Stream::Evidence),
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
    /// What a look left. While there is more to read at once, nobody knows yet where the last line begins.
    pub(super) fn looked(&mut self, path: &PairPath, look: &PairRead) {
        let lines = Lines::of(look);
        if look.more || lines.scored + lines.evidence == 0 {
            self.forget(path);
        } else {
            self.pairs.insert(path.clone(), lines);
        }
    }

    /// The pair is read again.
    pub(super) fn forget(&mut self, path: &PairPath) {
        self.pairs.remove(path);
    }

    /// Whether a day-file ended in one.
    pub(super) fn is_in(&self, path: &PairPath, stream: Stream) -> bool {
        self.pairs
            .get(path)
            .is_some_and(|lines| lines.of_stream(stream) > 0)
    }
}

impl Engine {
    /// Last lines without a newline, by the last look at each day-file, and their bytes.
    #[must_use]
    pub fn unterminated(&self) -> (u64, u64) {
        let sources = (self.torn.pairs.values())
            .flat_map(|lines| [lines.scored, lines.evidence])
            .filter(|bytes| *bytes > 0);
        sources.fold((0, 0), |(lines, sum), bytes| (lines + 1, sum + bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn path(name: &str) -> PairPath {
        PairPath::from_relative(&Path::new("2026/05/01").join(name)).unwrap()
    }

    #[test]
    fn the_oldest_news_sets_the_lag_until_it_is_read() {
        let mut unread = Backlog::default();
        assert_eq!(unread.lag(5), (0, 0));
        unread.heard(&path("a.jsonl"), 100);
        unread.measured(&path("b.jsonl"), Stream::Scored, 7, 200);
        unread.measured(&path("b.jsonl"), Stream::Evidence, 5, 300);
        assert_eq!(unread.lag(1_000), (12, 900));
        unread.read(&path("a.jsonl"));
        assert_eq!(unread.lag(1_000), (12, 800));
        unread.left(&path("b.jsonl"), 3);
        assert_eq!(unread.lag(1_000), (3, 800));
        unread.read(&path("b.jsonl"));
        assert_eq!(unread.lag(1_000), (0, 0));
    }

    #[test]
    fn what_was_read_counts_until_its_rows_are_shown() {
        let mut unread = Backlog::default();
        unread.measured(&path("a.jsonl"), Stream::Scored, 7, 100);
        unread.heard(&path("b.jsonl"), 200);
        unread.merged(&path("a.jsonl"));
        unread.merged(&path("b.jsonl"));
        unread.heard(&path("b.jsonl"), 500);
        assert_eq!(unread.lag(1_000), (7, 900));
        unread.shown();
        assert_eq!(unread.lag(1_000), (0, 500));
        unread.merged(&path("b.jsonl"));
        unread.shown();
        assert_eq!(unread.lag(1_000), (0, 0));
    }
}
