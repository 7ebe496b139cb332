//! The settle timers of unterminated last lines, one for each source: while one day-file of a pair grows, the last line of the
//! other one settles.

use std::collections::BTreeMap;

use crate::engine::read::Settled;
use crate::lake::path::{PairPath, Stream};

/// Times at which the unterminated line of a source has been unchanged for long enough, monotonic milliseconds.
#[derive(Debug, Default)]
pub(super) struct SettleTimers(BTreeMap<(PairPath, Stream), u64>);

impl SettleTimers {
    /// Starts the timer of a source. A running one is kept unless `restart`.
    pub(super) fn start(
        &mut self,
        path: &PairPath,
        stream: Stream,
        settles_at_ms: u64,
        restart: bool,
    ) {
        let key = (path.clone(), stream);
        if restart || !self.0.contains_key(&key) {
            self.0.insert(key, settles_at_ms);
        }
    }

    pub(super) fn stop(&mut self, path: &PairPath, stream: Stream) {
        if !self.0.is_empty() {
            self.0.remove(&(path.clone(), stream));
        }
    }

    pub(super) fn stop_all(&mut self) {
        self.0.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether a source of a pair has a timer.
    pub(super) fn contains(&self, path: &PairPath) -> bool {
        !self.0.is_empty() && self.of(path).next().is_some()
    }

    /// Returns the pairs with a timer; one with two timers twice.
    pub(super) fn pairs(&self) -> impl Iterator<Item = &PairPath> {
        self.0.keys().map(|(path, _)| path)
    }

    /// Returns the earliest end of a timer, monotonic milliseconds.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.0.values().min().copied()
    }

    /// Returns the pairs with a timer that has ended.
    pub(super) fn due(&self, now_ms: u64) -> impl Iterator<Item = &PairPath> {
        let ended = self.0.iter().filter(move |(_, at_ms)| **at_ms <= now_ms);
        ended.map(|((path, _), _)| path)
    }

    /// Returns which timers of a pair have ended.
    pub(super) fn settled(&self, path: &PairPath, now_ms: u64) -> Settled {
        let has_ended = |stream| {
            let mut timers = self.of(path);
            timers.any(|(of, at_ms)| of == stream && at_ms <= now_ms)
        };
        Settled {
            scored: has_ended(Stream::Scored),
            evidence: has_ended(Stream::Evidence),
        }
    }

    /// Moves the running timers from one settle time to another.
    pub(super) fn change_time(&mut self, before_ms: u64, after_ms: u64) {
        for at_ms in self.0.values_mut() {
            *at_ms = at_ms.saturating_sub(before_ms) + after_ms;
        }
    }

    fn of(&self, path: &PairPath) -> impl Iterator<Item = (Stream, u64)> {
        let timers = self.0.range((path.clone(), Stream::ALL[0])..);
        let of_pair = timers.take_while(move |((of, _), _)| of == path);
        of_pair.map(|((_, stream), at_ms)| (*stream, *at_ms))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn path(day: u32) -> PairPath {
        PairPath::from_relative(Path::new(&format!("2026/01/{day:02}/a.jsonl"))).unwrap()
    }

    #[test]
    fn each_source_has_a_timer_of_its_own() {
        let mut timers = SettleTimers::default();
        timers.start(&path(1), Stream::Scored, 100, false);
        timers.start(&path(1), Stream::Scored, 200, false);
        timers.start(&path(1), Stream::Evidence, 150, false);
        assert_eq!(timers.next_ms(), Some(100));
        timers.change_time(50, 80);
        assert_eq!(timers.next_ms(), Some(130));
        assert_eq!(timers.due(129).count(), 0);
        assert_eq!(timers.due(130).count(), 1);
        let settled = timers.settled(&path(1), 130);
        assert!(settled.scored && !settled.evidence);
        assert!(timers.contains(&path(1)) && !timers.contains(&path(2)));
        timers.stop(&path(1), Stream::Scored);
        timers.start(&path(1), Stream::Evidence, 300, true);
        assert_eq!(timers.next_ms(), Some(300));
    }
}
