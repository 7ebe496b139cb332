//! Owns the time: the one place where a clock is read, and how a moment is written. The core is told the time.

use std::fmt::Debug;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::account::day_of_stamp;

/// Two clocks: one that never jumps, for waiting, and the wall's, for stamps alone.
pub trait Clock: Debug + Send + Sync {
    /// Milliseconds since some moment in the past; never goes back.
    fn monotonic_ms(&self) -> u64;
    /// The same in microseconds, as far as the clock is that fine: for measuring.
    fn monotonic_us(&self) -> u64 {
        self.monotonic_ms() * 1_000
    }
    /// Milliseconds since 1970 UTC; may jump.
    fn wall_ms(&self) -> u64;
}

/// The host's clocks.
#[derive(Debug, Clone, Copy)]
pub struct HostClock {
    started: Instant,
}

impl HostClock {
    /// Counts from now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    /// The instant that [`Clock::monotonic_ms`] would give as `at_ms`.
    #[must_use]
    pub fn instant(&self, at_ms: u64) -> Instant {
        self.started + std::time::Duration::from_millis(at_ms)
    }
}

impl Default for HostClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for HostClock {
    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

/// RFC 3339 UTC with milliseconds: the stamp of a row.
#[must_use]
pub fn stamp(wall_ms: u64) -> String {
    let (seconds, ms) = (wall_ms / 1_000, wall_ms % 1_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// The moment of a stamp that [`stamp`] wrote, milliseconds since 1970.
#[must_use]
pub fn moment(stamp: &str) -> Option<u64> {
    let day = u64::from(day_of_stamp(stamp)?);
    let (_, time) = stamp.strip_suffix('Z')?.split_once('T')?;
    let mut parts = time.split([':', '.']).map(|part| part.parse::<u64>().ok());
    let mut next = || parts.next().flatten();
    let (hour, minute, second, ms) = (next()?, next()?, next()?, next()?);
    let in_a_day = hour < 24 && minute < 60 && second < 60 && ms < 1_000;
    in_a_day.then(|| (((day * 24 + hour) * 60 + minute) * 60 + second) * 1_000 + ms)
}

/// Year, month and day of a day counted from 1970-01-01, after Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>): years begin in March, so that the leap day is last.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let day_of_all = days + 719_468;
    let (era, day_of_era) = (day_of_all / 146_097, day_of_all % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_rfc_3339_with_milliseconds() {
        for (wall_ms, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_777_690_985_678, "2026-05-02T03:03:05.678Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(stamp(wall_ms), expected);
            assert_eq!(moment(expected), Some(wall_ms));
        }
        // What others call a stamp, as in a status that is damaged.
        for odd in [
            "24:00:00.000",
            "18446744073709551615:00:00.000",
            "0:0:0.18446744073709551615",
        ] {
            assert_eq!(moment(&format!("2026-05-02T{odd}Z")), None, "{odd}");
        }
    }
}
