//! A liveness counter: the steps that a thread finished and the time until which it announced to be idle. It measures
//! nothing itself and reports to no one.
//!
//! A step is a turn of a loop or a call to the disk that returned. A long backfill, recovery or checkpoint consists
//! of calls that return; a commit that hangs in a sync does not return. An idle thread is alive only until the
//! announced time, so that a lost wake-up is noticed.

use std::sync::atomic::{AtomicU64, Ordering};

/// Maximum delay of a wake-up on a busy host, milliseconds.
const LATE_MS: u64 = 1_000;

/// The steps of one thread and of the threads that work for it.
#[derive(Debug, Default)]
pub struct Heartbeat {
    steps: AtomicU64,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    /// Monotonic milliseconds; 0 while it works.
    rests_until_ms: AtomicU64,
}

impl Heartbeat {
    /// One step is finished.
    pub fn tick(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// A read from the disk came back.
    pub fn has_read(&self, bytes: u64) {
        self.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.tick();
    }

    /// A write to the disk came back.
    pub fn has_written(&self, bytes: u64) {
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.tick();
    }

    /// Nothing to do until then, in monotonic milliseconds.
    pub fn idle_until(&self, until_ms: u64) {
        self.rests_until_ms.store(until_ms.max(1), Ordering::SeqCst);
    }

    /// The rest is over.
    pub fn busy(&self) {
        self.rests_until_ms.store(0, Ordering::SeqCst);
        self.tick();
    }

    /// The steps so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Bytes read and bytes written so far.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (
            self.read_bytes.load(Ordering::Relaxed),
            self.written_bytes.load(Ordering::Relaxed),
        )
    }

    /// Returns whether the thread made progress since `steps_before` or is within its announced idle time, and the
    /// current step count.
    #[must_use]
    pub fn is_alive(&self, steps_before: u64, now_ms: u64) -> (bool, u64) {
        let steps = self.steps();
        let rests_until_ms = self.rests_until_ms.load(Ordering::SeqCst);
        let rests = rests_until_ms > 0 && now_ms <= rests_until_ms.saturating_add(LATE_MS);
        (steps != steps_before || rests, steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_finishes_nothing_is_dead_unless_it_said_it_would_sleep() {
        let pulse = Heartbeat::default();
        assert_eq!(pulse.is_alive(0, 10), (false, 0));
        pulse.tick();
        assert_eq!(pulse.is_alive(0, 10), (true, 1));
        assert_eq!(pulse.is_alive(1, 10), (false, 1));
        pulse.idle_until(500);
        assert!(pulse.is_alive(1, 500 + LATE_MS).0);
        assert!(
            !pulse.is_alive(1, 501 + LATE_MS).0,
            "the wake-up is overdue"
        );
        pulse.busy();
        assert_eq!(pulse.is_alive(1, 100), (true, 2));
        assert!(!pulse.is_alive(2, 100).0);
    }

    #[test]
    fn a_call_to_the_disk_that_came_back_is_a_step() {
        let pulse = Heartbeat::default();
        pulse.has_read(7);
        pulse.has_written(0);
        assert_eq!((pulse.bytes(), pulse.steps()), ((7, 0), 2));
    }
}
