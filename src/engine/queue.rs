//! The work queue: pairs to read and their order, the settle timers of unterminated lines, relocated and rewritten
//! day-files, and the size limits of a pass.
//!
//! The order is fair: no name is preferred. A hinted pair is taken by the pass that follows all hinted pairs which
//! were queued before it, however often these are hinted again. After a pass without a pair of the backlog, or without all
//! hinted pairs that it took, the next one begins with a pair of the backlog, so that hints without end delay no history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::read_task::ReadRequest;
use crate::engine::settling::SettleTimers;
use crate::engine::turns::{Arrivals, Circle};
use crate::lake::identity::SourceChange;
use crate::lake::path::{PairPath, Stream};
use crate::pair::index::UnclaimedRow;

/// Maximum pairs of a pass. New change hints, and a stop, are received between passes; a pair that is hinted meanwhile
/// has its turn after those that are queued in any case. Each pass ends with a commit, and its threads end with it.
const PASS_PAIRS_MAX: usize = 256;
/// Pairs of the backlog after which a pass begins no further read while the interrupt flag is set.
const BACKLOG_PAIRS_INTERRUPTED: usize = 64;
/// Rewritten day-files of a backlog at which their pairs are reset together: each reset is a durable transaction.
const RESETS_MAX: usize = 512;
/// Bytes of sources after which a pass begins no further read while the interrupt flag is set.
const PASS_BYTES_INTERRUPTED: u64 = 32 << 20;
/// The same limit without an interrupt; it is higher because the reader threads idle at the end of each pass.
const PASS_BYTES_MAX: u64 = 256 << 20;

/// The pairs that are to be read.
#[derive(Debug, Default)]
pub(crate) struct WorkQueue {
    /// Pairs with a change hint; they are read first.
    hinted: Arrivals,
    /// Pairs found by a scan; they are read while no pair is hinted.
    backlog: Circle,
    /// Whether the next pass begins with a pair of the backlog.
    backlog_is_due: bool,
    /// The settle timers of unterminated lines.
    pub(super) settling: SettleTimers,
    /// Moved day-files, source and destination. Their rows are released before the destination is read.
    relocations: BTreeSet<(PairPath, PairPath)>,
    /// Pairs of which all that was read is compared with the next read.
    comparisons: BTreeSet<PairPath>,
    /// Pairs that were queued when a wait for them began, and were not read since.
    awaited: BTreeSet<PairPath>,
    /// Set while work waits for the end of the pass: hints, requests, a stop.
    interrupt: Arc<AtomicBool>,
    /// Bytes of sources that were merged in this pass.
    pass_bytes: u64,
    /// Pairs of the backlog that were merged in this pass.
    pass_backlog_pairs: usize,
    /// Pairs with rewritten day-files. They are reset, and read again, before a pass reads anything.
    resets: BTreeMap<PairPath, RewrittenPair>,
    /// Whether a change hint queued a pair of this pass.
    follows_hints: bool,
    /// Rows that lines claimed in this pass.
    pass_claims: BTreeSet<UnclaimedRow>,
    /// Whether two reads of this pass claimed the same row.
    claims_collided: bool,
    /// Whether this pass reads one pair after the other, because claims of the pass before collided.
    reads_in_turn: bool,
}

/// A pair with rewritten day-files.
#[derive(Debug, Clone, Default)]
pub(super) struct RewrittenPair {
    /// How each of them changed.
    pub(super) changes: BTreeMap<Stream, SourceChange>,
    /// Whether a change hint queued the read that found it.
    hinted: bool,
}

impl WorkQueue {
    /// Queues a pair before the backlog, after the hinted ones.
    pub(super) fn push(&mut self, path: PairPath) {
        self.hinted.push(path);
    }

    /// Queues a pair after all hinted ones.
    pub(super) fn push_backlog(&mut self, path: PairPath) {
        self.backlog.push(path);
    }

    /// Queues a pair after all hinted ones, to compare all that was read of it.
    pub(super) fn push_comparison(&mut self, path: PairPath) {
        self.comparisons.insert(path.clone());
        self.push_backlog(path);
    }

    /// Returns whether the next read of a pair begins a comparison.
    pub(super) fn begins_comparison(&self, path: &PairPath) -> bool {
        self.comparisons.contains(path)
    }

    /// Begins to wait for a read of the pair, if it is queued.
    pub(super) fn await_read(&mut self, path: &PairPath) {
        if self.contains(path) {
            self.awaited.insert(path.clone());
        }
    }

    /// Returns whether the pair was not read since a wait for it began.
    pub(super) fn awaits_read(&self, path: &PairPath) -> bool {
        self.awaited.contains(path)
    }

    /// Records that the pair was read as its day-files are now.
    pub(super) fn on_read(&mut self, path: &PairPath) {
        self.awaited.remove(path);
    }

    /// Records that a read of the pair was merged, so that its comparison has begun.
    pub(super) fn comparison_begun(&mut self, path: &PairPath) {
        self.comparisons.remove(path);
    }

    /// Queues a pair whose read left a rest. The rest of a hinted pair waits for the other hinted ones; that of a backlog
    /// pair must not delay a recent change.
    pub(super) fn push_rest(&mut self, request: &ReadRequest) {
        let path = request.path.clone();
        if request.hinted {
            self.push(path);
        } else {
            self.push_backlog(path);
        }
    }

    /// Queues pairs that were taken and not read, in the order in which they were taken: they keep their turn.
    pub(super) fn put_back(&mut self, requests: &[ReadRequest]) {
        for request in requests.iter().rev() {
            let path = request.path.clone();
            if request.hinted {
                self.backlog_is_due = true;
                self.hinted.push_first(path);
            } else {
                self.backlog.push_first(path);
            }
        }
    }

    /// Returns the number of queued pairs.
    pub(super) fn len(&self) -> usize {
        self.hinted.len() + self.backlog.len() + self.resets.len()
    }

    pub(super) fn contains(&self, path: &PairPath) -> bool {
        let is_queued = self.hinted.contains(path) || self.backlog.contains(path);
        is_queued || self.resets.contains_key(path)
    }

    /// Returns the queued pairs, hinted ones first, then the backlog from its newest day.
    pub(super) fn iter(&self) -> impl Iterator<Item = &PairPath> {
        let resets = self.resets.keys();
        self.hinted
            .iter()
            .chain(resets)
            .chain(self.backlog.iter().rev())
    }

    /// Takes the pairs of the next pass: a backlog pair if one is due, then hinted ones. With one thread, another backlog pair
    /// is taken only where nothing else is.
    pub(super) fn begin_pass(&mut self, threads: usize, now_ms: u64) -> Vec<ReadRequest> {
        self.reset_pass();
        let mut requests = Vec::new();
        if std::mem::take(&mut self.backlog_is_due) {
            self.take_backlog(&mut requests, 1, now_ms);
        }
        while requests.len() < PASS_PAIRS_MAX
            && let Some(path) = self.hinted.pop()
        {
            requests.push(self.request(path, true, now_ms));
        }
        let pairs_max = match threads {
            1 if requests.is_empty() => 1,
            1 => 0,
            _ => PASS_PAIRS_MAX,
        };
        self.follows_hints = requests.iter().any(|request| request.hinted);
        self.take_backlog(&mut requests, pairs_max, now_ms);
        self.backlog_is_due = requests.iter().all(|request| request.hinted);
        requests
    }

    fn reset_pass(&mut self) {
        self.pass_bytes = 0;
        self.pass_backlog_pairs = 0;
        self.follows_hints = false;
        self.pass_claims.clear();
        self.reads_in_turn = std::mem::take(&mut self.claims_collided);
    }

    /// Begins a pass over these pairs instead of the queued ones.
    pub(super) fn begin_pass_over(&mut self, paths: &[PairPath], now_ms: u64) -> Vec<ReadRequest> {
        self.reset_pass();
        let paths = paths.iter();
        paths
            .map(|path| self.request(path.clone(), true, now_ms))
            .collect()
    }

    /// Takes pairs of the backlog that are neither taken yet nor hinted, until there are `pairs_max` requests.
    fn take_backlog(&mut self, requests: &mut Vec<ReadRequest>, pairs_max: usize, now_ms: u64) {
        while requests.len() < pairs_max
            && let Some(path) = self.backlog.pop()
        {
            let is_taken = requests.iter().any(|request| request.path == path);
            if !is_taken && !self.hinted.contains(&path) {
                requests.push(self.request(path, false, now_ms));
            }
        }
    }

    fn request(&self, path: PairPath, hinted: bool, now_ms: u64) -> ReadRequest {
        ReadRequest {
            settled: self.settling.settled(&path, now_ms),
            hinted,
            path,
        }
    }

    /// Returns whether this pass should begin no further read.
    pub(super) fn pass_is_full(&self) -> bool {
        match self.interrupt.load(Ordering::Relaxed) {
            true => {
                self.pass_bytes >= PASS_BYTES_INTERRUPTED
                    || self.pass_backlog_pairs >= BACKLOG_PAIRS_INTERRUPTED
            }
            false => self.pass_bytes >= PASS_BYTES_MAX,
        }
    }

    /// Returns whether this pass follows day-files that grow.
    pub(super) fn follows_hints(&self) -> bool {
        self.follows_hints
    }

    /// Records that the read of a request was merged.
    pub(super) fn on_merged(&mut self, request: &ReadRequest) {
        self.pass_backlog_pairs += usize::from(!request.hinted);
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

    /// Adds the rows that a merged read claimed.
    pub(super) fn add_claims(&mut self, claims: &[UnclaimedRow]) {
        self.pass_claims.extend(claims);
    }

    /// Returns, and records, whether another read of this pass claimed one of these rows.
    pub(super) fn collides(&mut self, claims: &[UnclaimedRow]) -> bool {
        let collides = claims.iter().any(|claim| self.pass_claims.contains(claim));
        self.claims_collided |= collides;
        collides
    }

    pub(super) fn claims_collided(&self) -> bool {
        self.claims_collided
    }

    pub(super) fn reads_in_turn(&self) -> bool {
        self.reads_in_turn
    }

    /// Queues a pair to be reset and read again, because day-files of it were rewritten.
    pub(super) fn push_reset(
        &mut self,
        request: &ReadRequest,
        rewritten: &[(Stream, SourceChange)],
    ) {
        let reset = self.resets.entry(request.path.clone()).or_default();
        reset.changes.extend(rewritten.iter().copied());
        reset.hinted |= request.hinted;
    }

    /// Returns the pairs to be reset now. Those of a backlog wait for each other; a hinted one never waits.
    pub(super) fn due_resets(&self) -> BTreeMap<PairPath, RewrittenPair> {
        let is_due = self.backlog.is_empty()
            || self.resets.len() >= RESETS_MAX
            || self.resets.values().any(|reset| reset.hinted);
        if is_due {
            self.resets.clone()
        } else {
            BTreeMap::new()
        }
    }

    /// Queues the pairs that were reset, each where it was.
    pub(super) fn requeue_reset(&mut self, resets: BTreeMap<PairPath, RewrittenPair>) {
        for (path, reset) in resets {
            self.resets.remove(&path);
            if reset.hinted {
                self.push(path);
            } else {
                self.push_backlog(path);
            }
        }
    }

    /// Returns whether pairs that a scan found are to be read or reset.
    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty() || !self.resets.is_empty()
    }

    /// Queues the pairs whose unterminated line has settled.
    pub(super) fn push_settled(&mut self, now_ms: u64) {
        for path in self.settling.due(now_ms) {
            self.hinted.push(path.clone());
        }
    }

    /// Records a moved day-file.
    pub(super) fn push_relocation(&mut self, from: PairPath, to: PairPath) {
        self.relocations.insert((from, to));
    }

    /// Returns the moved day-files, source and destination, which stay recorded until [`Self::clear_relocations`].
    pub(super) fn relocations(&self) -> BTreeSet<(PairPath, PairPath)> {
        self.relocations.clone()
    }

    pub(super) fn clear_relocations(&mut self) {
        self.relocations.clear();
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
        for day in 0..400 {
            queue.push_backlog(path(day));
        }
        queue.push(path(399));
        queue.push(path(500));
        let requests = queue.begin_pass(2, 0);
        assert_eq!(requests.len(), PASS_PAIRS_MAX);
        let hinted = requests.iter().take_while(|request| request.hinted);
        let hinted: Vec<_> = hinted.map(|request| request.path.clone()).collect();
        assert_eq!(hinted, [path(399), path(500)]);
        assert_eq!(queue.len(), 400 - 254);
        queue.put_back(&requests);
        assert_eq!(queue.iter().next(), Some(&path(399)));
        assert_eq!(queue.len(), 402);
    }

    /// Hints `hinted` pairs again before each pass, and returns the passes until each of the others was taken.
    fn passes_until_taken(queue: &mut WorkQueue, threads: usize, hinted: &[PairPath]) -> usize {
        let mut waiting: BTreeSet<PairPath> = queue.iter().cloned().collect();
        for passes in 1..1_000 {
            hinted.iter().for_each(|path| queue.push(path.clone()));
            let requests = queue.begin_pass(threads, 0);
            // A full pass reads a part of what it took.
            let (read, unread) = requests.split_at(requests.len().div_ceil(2));
            for request in read {
                waiting.remove(&request.path);
            }
            queue.put_back(unread);
            if waiting.is_empty() {
                return passes;
            }
        }
        panic!("{waiting:?} starve");
    }

    #[test]
    fn no_name_is_preferred_and_nothing_starves() {
        for threads in [1, 2, 16] {
            let mut days: Vec<usize> = (0..825).collect();
            fastrand::Rng::with_seed(7).shuffle(&mut days);
            let (busy, quiet) = days.split_at(800);
            let busy: Vec<PairPath> = busy.iter().map(|&day| path(day)).collect();
            for &day in quiet {
                let mut queue = WorkQueue::default();
                busy.iter().for_each(|path| queue.push(path.clone()));
                queue.push(path(day));
                // 801 pairs, of which a pass reads half of 256.
                let passes = passes_until_taken(&mut queue, threads, &busy);
                assert_eq!(passes, 7, "{threads} threads, {}", path(day));
            }
            let mut queue = WorkQueue::default();
            quiet.iter().for_each(|&day| queue.push_backlog(path(day)));
            assert!(passes_until_taken(&mut queue, threads, &busy) < 300);
        }
    }

    /// Scans find the first pairs of the backlog again before each pass.
    #[test]
    fn pairs_that_scans_find_again_do_not_delay_the_others() {
        for threads in [1, 2, 16] {
            let mut queue = WorkQueue::default();
            let mut waiting: BTreeSet<PairPath> = (0..300).map(path).collect();
            let found: Vec<PairPath> = waiting.iter().take(270).cloned().collect();
            waiting
                .iter()
                .for_each(|path| queue.push_backlog(path.clone()));
            for _ in 0..300 {
                found
                    .iter()
                    .for_each(|path| queue.push_backlog(path.clone()));
                for request in queue.begin_pass(threads, 0) {
                    waiting.remove(&request.path);
                }
            }
            assert!(waiting.is_empty(), "{threads} threads: {waiting:?} starve");
        }
    }

    /// With one thread, a change hint before each pass leaves every second pass to the backlog too.
    #[test]
    fn hints_before_each_pass_do_not_delay_the_backlog_of_one_thread() {
        let mut queue = WorkQueue::default();
        (0..10).for_each(|day| queue.push_backlog(path(day)));
        let mut days = 0;
        for _ in 0..20 {
            queue.push(path(600));
            let requests = queue.begin_pass(1, 0);
            assert!(requests.iter().any(|request| request.hinted));
            days += requests.iter().filter(|request| !request.hinted).count();
        }
        assert_eq!(days, 10);
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
}
