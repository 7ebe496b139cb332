//! The work queue: pairs to read and their order, the settle timers of unterminated lines, relocated and rewritten
//! day-files, and the size limits of a pass.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::read_task::ReadRequest;
use crate::lake::identity::SourceChange;
use crate::lake::path::{PairPath, Stream};
use crate::pair::index::UnclaimedRow;

/// Maximum pairs of a pass. New change hints, and a stop, are received between passes.
const PASS_PAIRS_MAX: usize = 64;
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
    /// Pairs with rewritten day-files. They are reset, and read again, before a pass reads anything.
    resets: BTreeMap<PairPath, RewrittenPair>,
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

    /// Takes the pairs of the next pass, hinted ones first. With one thread the order is strict: hinted pairs are finished
    /// before the backlog continues, and backlog pairs are read one per pass.
    pub(super) fn begin_pass(&mut self, threads: usize, now_ms: u64) -> Vec<ReadRequest> {
        self.pass_bytes = 0;
        self.pass_claims.clear();
        self.reads_in_turn = std::mem::take(&mut self.claims_collided);
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

    pub(super) fn is_settling_pair(&self, path: &PairPath) -> bool {
        self.settling.contains_key(path)
    }

    /// Returns the pairs with a settle timer.
    pub(super) fn settling(&self) -> impl Iterator<Item = &PairPath> {
        self.settling.keys()
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
