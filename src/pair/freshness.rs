//! The freshness of rows in the last hour by minute: how long after the last change of their day-files they were
//! readable. Bounded: at most an hour of minutes, each with a fixed number of buckets. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Number of minutes kept.
const MINUTES: u64 = 60;
/// Buckets for each power of two. A value is reported as the longest one of its bucket, at most an eighth too long.
const BUCKETS_PER_OCTAVE: usize = 8;
/// The longest time that has a bucket of its own, milliseconds: three days.
const LONGEST_MS: u64 = (1 << 28) - 1;
/// Number of buckets.
const BUCKETS: usize = bucket_of(LONGEST_MS) + 1;

/// The last hour in its published form. Compatible changes only add keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Freshness {
    /// Start of the first minute, seconds since 1970.
    pub minute_s: u64,
    /// For each minute the batches of a pair that appended rows, oldest first.
    pub batches: Vec<u64>,
    /// For each minute the time within which half of them were readable, milliseconds; 0 without a batch.
    pub p50_ms: Vec<u64>,
    /// For each minute the time within which 99 of 100 were readable, milliseconds; 0 without a batch.
    pub p99_ms: Vec<u64>,
    /// The same figures of the whole hour.
    pub hour: FreshnessFigures,
}

/// The freshness of some batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FreshnessFigures {
    /// Batches of a pair that appended rows.
    pub batches: u64,
    /// The time within which half of them were readable, milliseconds; 0 without a batch.
    pub p50_ms: u64,
    /// The time within which 99 of 100 were readable, milliseconds; 0 without a batch.
    pub p99_ms: u64,
}

/// Counts of batches by minute and freshness.
#[derive(Debug, Default)]
pub struct FreshnessHistory {
    minutes: BTreeMap<u64, Box<[u32; BUCKETS]>>,
}

impl FreshnessHistory {
    /// Counts a batch that was readable in a minute since 1970, `fresh_ms` after the change of its day-files.
    pub fn add(&mut self, minute: u64, fresh_ms: u64) {
        if !self.minutes.contains_key(&minute) {
            // Also removes the minutes of a clock that was wrong.
            self.minutes
                .retain(|other, _| other.abs_diff(minute) < MINUTES);
        }
        let counts = self
            .minutes
            .entry(minute)
            .or_insert_with(|| Box::new([0; BUCKETS]));
        let count = &mut counts[bucket_of(fresh_ms.min(LONGEST_MS))];
        *count = count.saturating_add(1);
    }

    /// Returns the hour that ends with a minute since 1970.
    #[must_use]
    pub fn hour(&self, now: u64) -> Freshness {
        let first = (now + 1).saturating_sub(MINUTES);
        let mut sum = [0; BUCKETS];
        let mut freshness = Freshness {
            minute_s: first * 60,
            ..Freshness::default()
        };
        for minute in first..=now {
            let mut counts = [0; BUCKETS];
            if let Some(kept) = self.minutes.get(&minute) {
                counts = kept.map(u64::from);
            }
            for (sum, count) in sum.iter_mut().zip(counts) {
                *sum += count;
            }
            let figures = figures_of(&counts);
            freshness.batches.push(figures.batches);
            freshness.p50_ms.push(figures.p50_ms);
            freshness.p99_ms.push(figures.p99_ms);
        }
        freshness.hour = figures_of(&sum);
        freshness
    }
}

fn figures_of(counts: &[u64; BUCKETS]) -> FreshnessFigures {
    let batches = counts.iter().sum::<u64>();
    let percentile = |percent: u64| {
        let mut left = (batches * percent).div_ceil(100);
        let within = counts.iter().position(|count| {
            left = left.saturating_sub(*count);
            left == 0
        });
        within.map_or(0, longest_of)
    };
    match batches {
        0 => FreshnessFigures::default(),
        _ => FreshnessFigures {
            batches,
            p50_ms: percentile(50),
            p99_ms: percentile(99),
        },
    }
}

const fn bucket_of(ms: u64) -> usize {
    let per_octave = BUCKETS_PER_OCTAVE as u64;
    if ms < per_octave {
        return ms as usize;
    }
    let shift = ms.ilog2() - per_octave.ilog2();
    (per_octave * shift as u64 + (ms >> shift)) as usize
}

/// Returns the longest time of a bucket, milliseconds.
fn longest_of(bucket: usize) -> u64 {
    if bucket < BUCKETS_PER_OCTAVE {
        return bucket as u64;
    }
    let shift = bucket / BUCKETS_PER_OCTAVE - 1;
    let upper = (bucket % BUCKETS_PER_OCTAVE + BUCKETS_PER_OCTAVE + 1) as u64;
    (upper << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_the_bucket_that_reports_it_within_an_eighth() {
        let times = (0..5_000).chain((13..28).flat_map(|n| [(1 << n) - 1, 1 << n, (1 << n) + 1]));
        for ms in times.chain([LONGEST_MS]) {
            let reported = longest_of(bucket_of(ms));
            assert!((ms..=ms + ms / 8).contains(&reported), "{ms}: {reported}");
        }
        assert_eq!(bucket_of(LONGEST_MS), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_the_minute_and_of_the_hour() {
        let mut history = FreshnessHistory::default();
        for ms in 0..100 {
            history.add(1_000, ms.min(7));
        }
        history.add(1_001, 6_000_000_000);
        let hour = history.hour(1_001);
        assert_eq!(hour.minute_s, (1_001 - 59) * 60);
        assert_eq!(hour.batches.len(), 60);
        assert_eq!(hour.batches[57..], [0, 100, 1]);
        assert_eq!(hour.p50_ms[57..], [0, 7, LONGEST_MS]);
        assert_eq!((hour.hour.batches, hour.hour.p99_ms), (101, 7));
        // A minute leaves the hour, and a wrong clock leaves nothing.
        assert_eq!(history.hour(1_060).hour.batches, 1);
        history.add(9_999_999, 1);
        history.add(1_002, 1);
        assert_eq!(history.minutes.len(), 1);
        assert_eq!(history.hour(0).hour, FreshnessFigures::default());
    }
}
