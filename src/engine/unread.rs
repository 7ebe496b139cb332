//! Owns what is known to be unread: which pairs, since when it is known, how many bytes. It is for telling alone; what
//! is looked at next is decided elsewhere.

use std::collections::BTreeMap;

use crate::discover::{PairPath, Stream};

/// Pairs with news that nobody has read yet.
#[derive(Debug, Default)]
pub(super) struct Unread(BTreeMap<PairPath, News>);

#[derive(Debug, Clone, Copy)]
struct News {
    /// When the oldest of it was heard of, monotonic milliseconds.
    since_ms: u64,
    scored_bytes: u64,
    evidence_bytes: u64,
}

impl Unread {
    /// Somebody says that a pair changed.
    pub(super) fn heard(&mut self, path: &PairPath, now_ms: u64) {
        if !self.0.contains_key(path) {
            self.0.insert(path.clone(), News::since(now_ms));
        }
    }

    /// A day-file has so many bytes behind the offset.
    pub(super) fn measured(&mut self, path: &PairPath, stream: Stream, bytes: u64, now_ms: u64) {
        self.heard(path, now_ms);
        if let Some(news) = self.0.get_mut(path) {
            match stream {
                Stream::Scored => news.scored_bytes = bytes,
                Stream::Evidence => news.evidence_bytes = bytes,
            }
        }
    }

    /// A look at the pair left so many bytes.
    pub(super) fn left(&mut self, path: &PairPath, bytes: u64) {
        if let Some(news) = self.0.get_mut(path) {
            (news.scored_bytes, news.evidence_bytes) = (bytes, 0);
        }
    }

    /// All that can be read of the pair now has been read.
    pub(super) fn read(&mut self, path: &PairPath) {
        self.0.remove(path);
    }

    /// Bytes, and the age of the oldest news, milliseconds.
    pub(super) fn lag(&self, now_ms: u64) -> (u64, u64) {
        let bytes = self.0.values();
        let bytes = bytes.map(|news| news.scored_bytes + news.evidence_bytes);
        let oldest_ms = self.0.values().map(|news| news.since_ms).min();
        let age_ms = oldest_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms));
        (bytes.sum(), age_ms)
    }
}

impl News {
    fn since(since_ms: u64) -> Self {
        Self {
            since_ms,
            scored_bytes: 0,
            evidence_bytes: 0,
        }
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
        let mut unread = Unread::default();
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
}
