//! Periodic rounds over the watched directories: a mount, or a root renamed from above, causes no event.

use std::ops::Bound;

use crate::daemon::watch::queue::{Urgency, directory};
use crate::daemon::watch::{Identity, Watch, WatchSetting};
use crate::lake::path::Stream;

/// What a step of a round over the watched directories found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// Directories of the round are left.
    Continues,
    /// The round has ended.
    Complete,
    /// The source of events was opened again: changes may have been missed until all directories are armed.
    Restarted,
}

impl Watch {
    /// Checks whether up to `directories_max` watched directories are still the ones that were armed, continuing after
    /// the last call, and queues those that have to be armed again. The periodic scan calls it, because a mount, or a root
    /// renamed from above, causes no event.
    pub fn rearm_changed(&mut self, directories_max: usize) -> Round {
        if self.setting == WatchSetting::Poll {
            return Round::Complete;
        }
        if self.cursor.is_none()
            && let Some(ended) = self.begin_round()
        {
            return ended;
        }
        let from = self.cursor.take().map_or(Bound::Unbounded, Bound::Excluded);
        let slice_len = directories_max.max(1);
        let slice = self.armed.range((from, Bound::Unbounded)).take(slice_len);
        let slice: Vec<_> = slice
            .map(|(place, identity)| (place.clone(), *identity))
            .collect();
        for (place, identity) in &slice {
            if self.stat(place).ok().as_ref().map(Identity::from_stat) != Some(*identity) {
                self.forget(place);
                self.queue.push(Urgency::Fresh, place.clone());
            }
        }
        if slice.len() == slice_len {
            self.cursor = slice.into_iter().next_back().map(|(place, _)| place);
        }
        match self.cursor {
            Some(_) => Round::Continues,
            None => Round::Complete,
        }
    }

    /// Begins a round, or returns how it ended if nothing is left to compare.
    fn begin_round(&mut self) -> Option<Round> {
        let above = [self.identity_above(0), self.identity_above(1)];
        let had_events = self.watcher.is_some();
        if !had_events || above != self.above {
            self.reset();
            return Some(match had_events {
                true => Round::Restarted,
                false => Round::Complete,
            });
        }
        // The directories of the last round are not armed yet: a slow disk would never come to their end.
        if self.has_unarmed() {
            return Some(Round::Complete);
        }
        self.exhausted = false;
        self.failed = false;
        for place in &self.refused {
            self.queue.push(Urgency::History, place.clone());
        }
        for stream in Stream::ALL {
            let base = directory(stream, "");
            if !self.armed.contains_key(&base) {
                self.queue.push(Urgency::Fresh, base);
            }
        }
        None
    }
}
