//! The one place where a clock is read. The core receives the time as a value.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
    /// The instant at which [`Clock::monotonic_ms`] gives `at_ms`, or now if that is past.
    fn instant(&self, at_ms: u64) -> Instant {
        let left_ms = at_ms.saturating_sub(self.monotonic_ms());
        Instant::now() + Duration::from_millis(left_ms)
    }
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
