//! The work queue: pairs to read and their order, the settle timers of unterminated lines, relocated day-files, and the
//! size limits of a pass.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::read_task::ReadRequest;
use crate::lake::path::PairPath;

/// Maximum pairs of a pass. New change hints, and a stop, are received between passes.
const PASS_PAIRS_MAX: usize = 64;
/// Bytes of sources after which a pass begins no further read while the interrupt flag is set.
const PASS_BYTES_INTERRUPTED: u64 = 32 << 20;
/// The same limit without an interrupt; it is higher because the reader threads idle at the end of each pass.
const PASS_BYTES_MAX: u64 = 256 << 20;

/// The pairs that are to be read.
#[derive(Debug, Default)]
pub(crate) struct WorkQueue {
    /// Pairs with a change hint; they are read first.
    hinted: BTreeSet<PairPath>,
    /// Pairs found by a scan; they are read while no pair is hinted.
    backlog: BTreeSet<PairPath>,
    /// Time at which the unterminated line of a pair has been unchanged for long enough, monotonic milliseconds.
    settling: BTreeMap<PairPath, u64>,
    /// Moved day-files, source and destination. Their rows are released before the destination is read.
    relocations: BTreeSet<(PairPath, PairPath)>,
    /// Set while work waits for the end of the pass: hints, requests, a stop.
    interrupt: Arc<AtomicBool>,
    /// Bytes of sources that were merged in this pass.
    pass_bytes: u64,
    /// Whether rows that the lines of any pair may claim were released in this pass.
    released_globally: bool,
}

impl WorkQueue {
    /// Queues a pair before the backlog.
    pub(super) fn push(&mut self, path: PairPath) {
        self.hinted.insert(path);
    }

    /// Queues a pair after all hinted ones.
    pub(super) fn push_backlog(&mut self, path: PairPath) {
        self.backlog.insert(path);
    }

    /// Queues a pair again where it was: the rest of a backlog pair must not delay a recent change.
    pub(super) fn requeue(&mut self, request: &ReadRequest) {
        let path = request.path.clone();
        if request.hinted {
            self.push(path);
        } else {
            self.push_backlog(path);
        }
    }

    /// Returns the number of queued pairs.
    pub(super) fn len(&self) -> usize {
        self.hinted.len() + self.backlog.len()
    }

    pub(super) fn contains(&self, path: &PairPath) -> bool {
        self.hinted.contains(path) || self.backlog.contains(path)
    }

    /// Returns the queued pairs, hinted ones first, then the backlog from its newest day.
    pub(super) fn iter(&self) -> impl Iterator<Item = &PairPath> {
        self.hinted.iter().chain(self.backlog.iter().rev())
    }

    /// Takes the pairs of the next pass, hinted ones first. With one thread the order is strict: hinted pairs are finished
    /// before the backlog continues, and backlog pairs are read one per pass.
    pub(super) fn begin_pass(&mut self, threads: usize, now_ms: u64) -> Vec<ReadRequest> {
        self.pass_bytes = 0;
        self.released_globally = false;
        let mut paths = Vec::new();
        while paths.len() < PASS_PAIRS_MAX
            && let Some(path) = self.hinted.pop_first()
        {
            paths.push(path);
        }
        let hinted = paths.len();
        let backlog_max = match threads {
            1 if hinted > 0 => 0,
            1 => 1,
            _ => PASS_PAIRS_MAX - hinted,
        };
        while paths.len() < hinted + backlog_max
            && let Some(path) = self.backlog.pop_first()
        {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        let requests = paths.into_iter().enumerate().map(|(n, path)| ReadRequest {
            settled: self.settling.get(&path).is_some_and(|at| *at <= now_ms),
            hinted: n < hinted,
            path,
        });
        requests.collect()
    }

    /// Returns whether this pass should begin no further read.
    pub(super) fn pass_is_full(&self) -> bool {
        let bytes_max = match self.interrupt.load(Ordering::Relaxed) {
            true => PASS_BYTES_INTERRUPTED,
            false => PASS_BYTES_MAX,
        };
        self.pass_bytes >= bytes_max
    }

    pub(super) fn add_pass_bytes(&mut self, bytes: u64) {
        self.pass_bytes += bytes;
    }

    pub(super) fn pass_bytes(&self) -> u64 {
        self.pass_bytes
    }

    pub(super) fn set_interrupt_flag(&mut self, interrupt: Arc<AtomicBool>) {
        self.interrupt = interrupt;
    }

    /// Records that rows were released that any pair may claim: reads that began before do not know them.
    pub(super) fn mark_released_globally(&mut self) {
        self.released_globally = true;
    }

    pub(super) fn released_globally(&self) -> bool {
        self.released_globally
    }

    /// Starts the settle timer of a pair. A running one is kept unless `restart`.
    pub(super) fn start_settling(&mut self, path: &PairPath, settles_at_ms: u64, restart: bool) {
        if restart || !self.settling.contains_key(path) {
            self.settling.insert(path.clone(), settles_at_ms);
        }
    }

    pub(super) fn stop_settling(&mut self, path: &PairPath) {
        self.settling.remove(path);
    }

    pub(super) fn stop_all_settling(&mut self) {
        self.settling.clear();
    }

    pub(super) fn is_settling(&self) -> bool {
        !self.settling.is_empty()
    }

    /// Returns the earliest end of a settle timer, monotonic milliseconds.
    pub(super) fn next_settled_ms(&self) -> Option<u64> {
        self.settling.values().min().copied()
    }

    /// Queues the pairs whose unterminated line has settled.
    pub(super) fn push_settled(&mut self, now_ms: u64) {
        let settled = self.settling.iter().filter(|(_, at_ms)| **at_ms <= now_ms);
        self.hinted.extend(settled.map(|(path, _)| path.clone()));
    }

    /// Moves the running timers from one settle time to another.
    pub(super) fn change_settle_time(&mut self, before_ms: u64, after_ms: u64) {
        for at_ms in self.settling.values_mut() {
            *at_ms = at_ms.saturating_sub(before_ms) + after_ms;
        }
    }

    /// Records a moved day-file.
    pub(super) fn push_relocation(&mut self, from: PairPath, to: PairPath) {
        self.relocations.insert((from, to));
    }

    /// Returns the first moved day-file, which stays recorded until [`Self::pop_relocation`].
    pub(super) fn first_relocation(&self) -> Option<(PairPath, PairPath)> {
        self.relocations.first().cloned()
    }

    pub(super) fn pop_relocation(&mut self) {
        self.relocations.pop_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn path(day: usize) -> PairPath {
        let relative = format!("2026/{:02}/{:02}/a.jsonl", 1 + day / 28, 1 + day % 28);
        PairPath::from_relative(Path::new(&relative)).unwrap()
    }

    #[test]
    fn hinted_pairs_are_taken_before_the_backlog() {
        let mut queue = WorkQueue::default();
        for day in 0..100 {
            queue.push_backlog(path(day));
        }
        queue.push(path(99));
        queue.push(path(200));
        let requests = queue.begin_pass(2, 0);
        assert_eq!(requests.len(), PASS_PAIRS_MAX);
        let hinted = requests.iter().take_while(|request| request.hinted);
        let hinted: Vec<_> = hinted.map(|request| request.path.clone()).collect();
        assert_eq!(hinted, [path(99), path(200)]);
        assert_eq!(queue.len(), 100 - 62);
        for request in &requests {
            queue.requeue(request);
        }
        assert_eq!(queue.iter().next(), Some(&path(99)));
        assert_eq!(queue.len(), 102);
    }

    #[test]
    fn one_thread_finishes_hinted_pairs_and_takes_the_backlog_one_by_one() {
        let mut queue = WorkQueue::default();
        queue.push_backlog(path(0));
        queue.push_backlog(path(1));
        queue.push(path(7));
        for expected in [7, 0, 1] {
            let requests = queue.begin_pass(1, 0);
            let paths: Vec<_> = requests.into_iter().map(|request| request.path).collect();
            assert_eq!(paths, [path(expected)]);
        }
        assert_eq!(queue.begin_pass(1, 0).len(), 0);
    }

    #[test]
    fn a_pair_settles_when_its_timer_ends() {
        let mut queue = WorkQueue::default();
        queue.start_settling(&path(0), 100, false);
        queue.start_settling(&path(0), 200, false);
        assert_eq!(queue.next_settled_ms(), Some(100));
        queue.change_settle_time(50, 80);
        assert_eq!(queue.next_settled_ms(), Some(130));
        queue.push_settled(129);
        assert_eq!(queue.len(), 0);
        queue.push_settled(130);
        assert!(queue.begin_pass(2, 130)[0].settled);
    }
}
