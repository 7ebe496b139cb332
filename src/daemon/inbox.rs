//! The inbox that wakes the engine thread: a closed set of coalesced, bounded reasons. It reads no file, knows no clock
//! except the deadline it is given, and does no pipeline work on the waking thread.
//!
//! A hint is never the truth; it only makes the engine read something sooner. Coalescing loses nothing but the number
//! of occurrences. Hints beyond their bound become one flag that causes more work, never less.
//!
//! One thread waits, any number of threads wake it. The waiter takes everything under the lock that the wakers write
//! under, so no wake-up is lost between the check and the wait.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::daemon::requests::EngineRequest;
use crate::lake::path::Stream;

/// The maximum number of pending day-files, and likewise of pending directories, before they collapse into a rescan.
pub const PENDING_PATHS_MAX: usize = 4_096;
/// The maximum number of unanswered requests; further ones are dropped, which closes their reply channels.
const REQUESTS_MAX: usize = 64;

/// A place where something may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeHint {
    /// A day-file appeared, grew, was replaced or removed.
    DayFile {
        /// Its stream.
        stream: Stream,
        /// Its path below the stream's base: year, month, day, name. The name may be another one of a file that was
        /// created without a name.
        relative: PathBuf,
    },
    /// A directory appeared, was replaced, moved or removed, or its permissions changed.
    Directory {
        /// Its stream.
        stream: Stream,
        /// Its path below the stream's base, one to three names.
        relative: PathBuf,
    },
    /// A stream's base, or a directory above it, appeared, was replaced or removed.
    Root,
    /// Events were lost; anything may have changed.
    Rescan,
}

/// The work that arrived since the last take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PendingWork {
    /// Day-files to read, by stream and path below its base. The paths are compared as bytes: each event of a write is
    /// compared with what is pending.
    pub day_files: BTreeSet<(Stream, OsString)>,
    /// Directories to watch and list again, by stream and path below its base.
    pub directories: BTreeSet<(Stream, PathBuf)>,
    /// A base, or a directory above the bases, changed.
    pub root: bool,
    /// Events were lost, or hints exceeded their bound: check every day-file.
    pub rescan: bool,
    /// Events or hints about directories were lost: watch every directory again. This is separate from `rescan`,
    /// because many changed day-files, as while a history is copied in, do not mean that watches were lost.
    pub rearm: bool,
    /// The daemon is to stop. Set in each take after the first [`Inbox::stop`].
    pub stop: bool,
    /// The configuration is to be reloaded.
    pub reload: bool,
    /// A report of the current state is to be logged.
    pub report: bool,
    /// Requests are pending: see [`Inbox::take_requests`].
    pub requested: bool,
}

impl PendingWork {
    /// Returns whether nothing is pending.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.day_files.is_empty()
            && self.directories.is_empty()
            && !(self.root || self.rescan || self.rearm || self.stop)
            && !(self.reload || self.report || self.requested)
    }

    fn add(&mut self, hint: ChangeHint) {
        match hint {
            // The rescan or rearm covers it.
            ChangeHint::DayFile { .. } if self.rescan => {}
            ChangeHint::Directory { .. } if self.rearm => {}
            ChangeHint::DayFile { stream, relative } => {
                self.day_files.insert((stream, relative.into_os_string()));
                if self.day_files.len() > PENDING_PATHS_MAX {
                    self.rescan();
                }
            }
            ChangeHint::Directory { stream, relative } => {
                self.directories.insert((stream, relative));
                if self.directories.len() > PENDING_PATHS_MAX {
                    self.rearm();
                }
            }
            ChangeHint::Root => self.root = true,
            ChangeHint::Rescan => {
                self.rescan();
                self.rearm();
            }
        }
    }

    fn rescan(&mut self) {
        self.rescan = true;
        self.day_files.clear();
    }

    /// Replaces the pending directories by a full rearm. Arming lists each directory, so no rescan is needed in
    /// addition.
    fn rearm(&mut self) {
        self.rearm = true;
        self.directories.clear();
    }
}

/// A mailbox with one waiter, the engine thread.
#[derive(Debug, Default)]
pub struct Inbox {
    pending: Mutex<PendingWork>,
    requests: Mutex<Vec<EngineRequest>>,
    changed: Condvar,
    stopping: AtomicBool,
    /// True while something is pending.
    interrupt: Arc<AtomicBool>,
}

impl Inbox {
    /// Creates an empty inbox.
    #[must_use]
    pub fn new() -> Inbox {
        Inbox::default()
    }

    /// Adds a hint.
    pub fn hint(&self, hint: ChangeHint) {
        self.wake_with(|pending| pending.add(hint));
    }

    /// Requests a stop after the batch in hand. It cannot be revoked.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.wake_with(|pending| pending.stop = true);
    }

    /// Requests a reload of the configuration.
    pub fn reload(&self) {
        self.wake_with(|pending| pending.reload = true);
    }

    /// Requests a report in the log.
    pub fn report(&self) {
        self.wake_with(|pending| pending.report = true);
    }

    /// Queues a request for the engine thread. Drops it, and with it its reply channel, when too many are pending.
    pub fn ask(&self, request: EngineRequest) {
        let mut requests = self.lock_requests();
        if requests.len() >= REQUESTS_MAX {
            return;
        }
        requests.push(request);
        drop(requests);
        self.wake_with(|pending| pending.requested = true);
    }

    /// Takes the requests since the last call.
    #[must_use]
    pub fn take_requests(&self) -> Vec<EngineRequest> {
        std::mem::take(&mut *self.lock_requests())
    }

    /// Returns whether [`Inbox::stop`] was called; cheap enough to be called between batches.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Returns the flag that is true while something is pending, so that long work can be cut short.
    #[must_use]
    pub fn interrupt_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.interrupt)
    }

    /// Takes all that is pending without waiting.
    #[must_use]
    pub fn take(&self) -> PendingWork {
        self.take_from(self.lock())
    }

    /// Waits until something is pending or the deadline has passed, and takes everything. Returns at once if something
    /// is already pending, and waits without limit if there is no deadline. After a stop it still waits:
    /// [`Inbox::stop`] wakes only the first take.
    #[must_use]
    pub fn wait_until(&self, deadline: Option<Instant>) -> PendingWork {
        let mut pending = self.lock();
        while pending.is_empty() {
            pending = match deadline {
                None => self
                    .changed
                    .wait(pending)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    let waited = self.changed.wait_timeout(pending, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        self.take_from(pending)
    }

    fn take_from(&self, mut pending: MutexGuard<'_, PendingWork>) -> PendingWork {
        let mut taken = std::mem::take(&mut *pending);
        self.interrupt.store(false, Ordering::Relaxed);
        taken.stop = self.stopping();
        taken
    }

    fn wake_with(&self, change: impl FnOnce(&mut PendingWork)) {
        let mut pending = self.lock();
        let was_empty = pending.is_empty();
        change(&mut pending);
        self.interrupt.store(true, Ordering::Relaxed);
        drop(pending);
        // The waiter has already been notified of what was pending before.
        if was_empty {
            self.changed.notify_one();
        }
    }

    fn lock_requests(&self) -> MutexGuard<'_, Vec<EngineRequest>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the pending work. A panic on another thread leaves it consistent: each change is one insertion or one
    /// flag.
    fn lock(&self) -> MutexGuard<'_, PendingWork> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    fn day_file(name: &str) -> ChangeHint {
        let relative = PathBuf::from("2026/05/02").join(name);
        ChangeHint::DayFile {
            stream: Stream::Scored,
            relative,
        }
    }

    #[test]
    fn the_same_hint_twice_is_one() {
        let inbox = Inbox::new();
        inbox.hint(day_file("a.jsonl"));
        inbox.hint(day_file("a.jsonl"));
        assert_eq!(inbox.take().day_files.len(), 1);
        assert!(inbox.take().is_empty());
    }

    #[test]
    fn what_is_pending_is_taken_at_once_and_whole() {
        let inbox = Inbox::new();
        inbox.hint(day_file("a.jsonl"));
        inbox.hint(ChangeHint::Root);
        inbox.reload();
        inbox.report();
        let taken = inbox.wait_until(None);
        assert!(taken.root && taken.reload && taken.report && !taken.stop && !taken.rescan);
        assert_eq!(taken.day_files.len(), 1);
        assert!(inbox.wait_until(Some(Instant::now())).is_empty());
    }

    #[test]
    fn too_many_day_files_collapse_into_a_rescan() {
        let inbox = Inbox::new();
        for i in 0..=PENDING_PATHS_MAX {
            inbox.hint(day_file(&format!("{i}.jsonl")));
        }
        inbox.hint(day_file("one-more.jsonl"));
        let taken = inbox.take();
        assert!(taken.rescan && !taken.rearm);
        assert!(taken.day_files.is_empty());
        assert!(inbox.take().is_empty());
    }

    #[test]
    fn too_many_directories_ask_for_arming_everything() {
        let inbox = Inbox::new();
        for i in 0..=PENDING_PATHS_MAX {
            let relative = PathBuf::from(i.to_string());
            inbox.hint(ChangeHint::Directory {
                stream: Stream::Evidence,
                relative,
            });
        }
        let taken = inbox.take();
        assert!(taken.rearm && taken.directories.is_empty());
    }

    #[test]
    fn lost_events_leave_the_other_reasons() {
        let inbox = Inbox::new();
        inbox.hint(ChangeHint::Root);
        inbox.report();
        inbox.hint(ChangeHint::Rescan);
        let taken = inbox.take();
        assert!(taken.rescan && taken.rearm && taken.root && taken.report);
    }

    #[test]
    fn a_stop_wakes_once_and_is_seen_in_every_later_take() {
        let inbox = Inbox::new();
        assert!(!inbox.stopping());
        inbox.stop();
        assert!(inbox.wait_until(None).stop);
        assert!(inbox.stopping());
        // A second wait runs to its deadline instead of spinning.
        let deadline = Instant::now() + Duration::from_millis(20);
        assert!(inbox.wait_until(Some(deadline)).stop);
        assert!(Instant::now() >= deadline);
    }

    #[test]
    fn a_deadline_ends_the_wait_with_nothing() {
        let inbox = Inbox::new();
        let deadline = Instant::now() + Duration::from_millis(10);
        assert!(inbox.wait_until(Some(deadline)).is_empty());
        assert!(Instant::now() >= deadline);
    }

    #[test]
    fn no_wake_up_is_lost_between_many_wakers_and_one_waiter() {
        const WAKERS: usize = 4;
        const HINTS: usize = 2_000;
        let inbox = Arc::new(Inbox::new());
        let wakers: Vec<_> = (0..WAKERS)
            .map(|waker| {
                let inbox = Arc::clone(&inbox);
                std::thread::spawn(move || {
                    for i in 0..HINTS {
                        inbox.hint(day_file(&format!("{waker}-{i}.jsonl")));
                        if i % 16 == 0 {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut seen = BTreeSet::new();
        let deadline = Instant::now() + Duration::from_secs(30);
        while seen.len() < WAKERS * HINTS {
            let taken = inbox.wait_until(Some(deadline));
            assert!(Instant::now() < deadline, "only {} came", seen.len());
            // If the waiter was too slow, the bound was reached and no more can be counted.
            if taken.rescan {
                break;
            }
            seen.extend(taken.day_files);
        }
        for waker in wakers {
            waker.join().unwrap();
        }
    }
}
