//! Owns what the engine thread sleeps on: a closed set of reasons to wake up, coalesced and bounded. It reads
//! no file, knows no clock but the deadline it is given, and never does pipeline work on the thread that wakes.
//!
//! A hint is never the truth: it says where to look sooner. What is lost by coalescing is only how often
//! something happened. Hints that grow past their bound become one flag that asks for more work, never for less.
//!
//! One thread waits, any number of threads wake it. The waiter takes all there is under the same lock that the
//! wakers write under, so nothing can fall between looking and falling asleep.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::daemon::requests::EngineRequest;
use crate::lake::path::Stream;

/// Day-files, and likewise directories, that may be pending before they collapse into a rescan.
pub const PENDING_PATHS_MAX: usize = 4_096;
/// Questions that may wait for an answer; more are dropped, and who asked them is told by that.
const QUESTIONS_MAX: usize = 64;

/// Where something may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeHint {
    /// A day-file appeared, grew, was replaced or vanished.
    DayFile {
        /// Its stream.
        stream: Stream,
        /// Its path below the stream's base: year, month, day, name.
        relative: PathBuf,
    },
    /// A directory appeared, was replaced, moved, removed or given other rights.
    Directory {
        /// Its stream.
        stream: Stream,
        /// Its path below the stream's base, one to three names.
        relative: PathBuf,
    },
    /// A stream's base, or a directory above it, appeared, was replaced or removed.
    Root,
    /// Events were lost: anything may have changed.
    Rescan,
}

/// All that came in since the last take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PendingWork {
    /// Day-files to look at, by stream and path below its base.
    pub day_files: BTreeSet<(Stream, PathBuf)>,
    /// Directories to arm and list again, by stream and path below its base.
    pub directories: BTreeSet<(Stream, PathBuf)>,
    /// A base, or a directory above the bases, changed.
    pub root: bool,
    /// Events were lost, or hints grew past their bound: look at every day-file.
    pub rescan: bool,
    /// Events or hints about directories were lost: arm every directory again. Apart from `rescan`, because a mass
    /// of changed day-files, while somebody copies a history in, says nothing against the watches.
    pub rearm: bool,
    /// The daemon is to stop. Set in everything taken from the first [`Wake::stop`] on.
    pub stop: bool,
    /// The configuration is to be read again.
    pub reload: bool,
    /// A report of the current state is to be logged.
    pub report: bool,
    /// Somebody asked something: see [`Wake::take_questions`].
    pub asked: bool,
}

impl PendingWork {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.day_files.is_empty()
            && self.directories.is_empty()
            && !(self.root || self.rescan || self.rearm || self.stop)
            && !(self.reload || self.report || self.asked)
    }

    fn add(&mut self, hint: ChangeHint) {
        match hint {
            // All of them will be looked at anyway.
            ChangeHint::DayFile { .. } if self.rescan => {}
            ChangeHint::Directory { .. } if self.rearm => {}
            ChangeHint::DayFile { stream, relative } => {
                self.day_files.insert((stream, relative));
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

    /// Arming lists each directory, so that a rescan beside it is not needed.
    fn rearm(&mut self) {
        self.rearm = true;
        self.directories.clear();
    }
}

/// What the engine thread sleeps on.
#[derive(Debug, Default)]
pub struct Inbox {
    pending: Mutex<PendingWork>,
    questions: Mutex<Vec<EngineRequest>>,
    changed: Condvar,
    stopping: AtomicBool,
    /// Something is pending.
    awaited: Arc<AtomicBool>,
}

impl Inbox {
    /// A wake with nothing pending.
    #[must_use]
    pub fn new() -> Inbox {
        Inbox::default()
    }

    /// Adds a hint.
    pub fn hint(&self, hint: ChangeHint) {
        self.wake_with(|pending| pending.add(hint));
    }

    /// Asks the engine to finish the batch in hand and stop. There is no way back.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.wake_with(|pending| pending.stop = true);
    }

    /// Asks the engine to take up a changed configuration.
    pub fn reload(&self) {
        self.wake_with(|pending| pending.reload = true);
    }

    /// Asks the engine to log a report.
    pub fn report(&self) {
        self.wake_with(|pending| pending.report = true);
    }

    /// Asks the engine's thread something. Dropped, and with it the way to answer, where too many wait already.
    pub fn ask(&self, question: EngineRequest) {
        let mut questions = self.lock_questions();
        if questions.len() >= QUESTIONS_MAX {
            return;
        }
        questions.push(question);
        drop(questions);
        self.wake_with(|pending| pending.asked = true);
    }

    /// All that was asked since the last call.
    #[must_use]
    pub fn take_questions(&self) -> Vec<EngineRequest> {
        std::mem::take(&mut *self.lock_questions())
    }

    /// Whether [`Wake::stop`] was called, cheap enough to ask between batches.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Whether something is pending, for who cannot take it yet but may come to it sooner.
    #[must_use]
    pub fn awaited(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.awaited)
    }

    /// Takes all that is pending without waiting.
    #[must_use]
    pub fn take(&self) -> PendingWork {
        self.take_from(self.lock())
    }

    /// Waits until something is pending or the deadline has passed, and takes all there is; returns at once
    /// where something is pending already. Without a deadline it waits for ever. Once stopped it still waits: only
    /// the first take after [`Wake::stop`] is woken by it.
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
        self.awaited.store(false, Ordering::Relaxed);
        taken.stop = self.stopping();
        taken
    }

    fn wake_with(&self, change: impl FnOnce(&mut PendingWork)) {
        let mut pending = self.lock();
        let was_empty = pending.is_empty();
        change(&mut pending);
        self.awaited.store(true, Ordering::Relaxed);
        drop(pending);
        // Where something was pending before, the one waiter was woken for it and has not taken it yet.
        if was_empty {
            self.changed.notify_one();
        }
    }

    fn lock_questions(&self) -> MutexGuard<'_, Vec<EngineRequest>> {
        self.questions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic on another thread leaves the set whole: each change is one insertion or one flag.
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
        let wake = Inbox::new();
        wake.hint(day_file("a.jsonl"));
        wake.hint(day_file("a.jsonl"));
        assert_eq!(wake.take().day_files.len(), 1);
        assert!(wake.take().is_empty());
    }

    #[test]
    fn what_is_pending_is_taken_at_once_and_whole() {
        let wake = Inbox::new();
        wake.hint(day_file("a.jsonl"));
        wake.hint(ChangeHint::Root);
        wake.reload();
        wake.report();
        let taken = wake.wait_until(None);
        assert!(taken.root && taken.reload && taken.report && !taken.stop && !taken.rescan);
        assert_eq!(taken.day_files.len(), 1);
        assert!(wake.wait_until(Some(Instant::now())).is_empty());
    }

    #[test]
    fn too_many_day_files_collapse_into_a_rescan() {
        let wake = Inbox::new();
        for i in 0..=PENDING_PATHS_MAX {
            wake.hint(day_file(&format!("{i}.jsonl")));
        }
        wake.hint(day_file("one-more.jsonl"));
        let taken = wake.take();
        assert!(taken.rescan && !taken.rearm);
        assert!(taken.day_files.is_empty());
        assert!(wake.take().is_empty());
    }

    #[test]
    fn too_many_directories_ask_for_arming_everything() {
        let wake = Inbox::new();
        for i in 0..=PENDING_PATHS_MAX {
            let relative = PathBuf::from(i.to_string());
            wake.hint(ChangeHint::Directory {
                stream: Stream::Evidence,
                relative,
            });
        }
        let taken = wake.take();
        assert!(taken.rearm && taken.directories.is_empty());
    }

    #[test]
    fn lost_events_leave_the_other_reasons() {
        let wake = Inbox::new();
        wake.hint(ChangeHint::Root);
        wake.report();
        wake.hint(ChangeHint::Rescan);
        let taken = wake.take();
        assert!(taken.rescan && taken.rearm && taken.root && taken.report);
    }

    #[test]
    fn a_stop_wakes_once_and_is_seen_in_every_later_take() {
        let wake = Inbox::new();
        assert!(!wake.stopping());
        wake.stop();
        assert!(wake.wait_until(None).stop);
        assert!(wake.stopping());
        // A second wait runs to its deadline instead of spinning.
        let deadline = Instant::now() + Duration::from_millis(20);
        assert!(wake.wait_until(Some(deadline)).stop);
        assert!(Instant::now() >= deadline);
    }

    #[test]
    fn a_deadline_ends_the_wait_with_nothing() {
        let wake = Inbox::new();
        let deadline = Instant::now() + Duration::from_millis(10);
        assert!(wake.wait_until(Some(deadline)).is_empty());
        assert!(Instant::now() >= deadline);
    }

    #[test]
    fn no_wake_up_is_lost_between_many_wakers_and_one_waiter() {
        const WAKERS: usize = 4;
        const HINTS: usize = 2_000;
        let wake = Arc::new(Inbox::new());
        let wakers: Vec<_> = (0..WAKERS)
            .map(|waker| {
                let wake = Arc::clone(&wake);
                std::thread::spawn(move || {
                    for i in 0..HINTS {
                        wake.hint(day_file(&format!("{waker}-{i}.jsonl")));
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
            let taken = wake.wait_until(Some(deadline));
            assert!(Instant::now() < deadline, "only {} came", seen.len());
            // The waiter may be so late that the bound was reached: then nothing more can be counted.
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
