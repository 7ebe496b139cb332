//! Owns the threads that look at many pairs at once. They read and work; the calling thread merges what they find,
//! in order, and commits meanwhile. It decides nothing.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use crate::engine::read::PairRead;
use crate::engine::read_task::{ReadRequest, ReadTask};
use crate::engine::{Engine, EngineError};
use crate::store::state::error::StateError;

/// Looks that are handed out ahead of the merge. Whether one is begun is decided by the memory it may need.
const HANDED_OUT_MAX: usize = 32;
/// Bytes for rows that may wait for the merge, those of the looks in hand included: what is made while the merge is held up
/// by a checkpoint.
const WAITING_BYTES_MAX: usize = 24 << 20;
/// What a look is taken to need before it is done: of most day-files less, of those with long texts more.
const LOOK_BYTES: usize = 4 << 20;

/// Rows of one look that are of long texts. Where one was met more may come, and those are worked one at a time anyway:
/// then no look is ahead of the merge, so that few such rows wait for it at once.
const LONG_ROWS_BYTES: usize = 8 << 20;

type Looked = (usize, thread::Result<Result<PairRead, StateError>>);

/// What is handed out, and the memory that this may need.
#[derive(Default)]
struct Queue {
    jobs: VecDeque<(usize, ReadTask)>,
    /// Looks that are being done.
    in_hand: usize,
    /// Bytes of rows of looks that are done, and not merged.
    waiting_bytes: usize,
    /// Rows of a long text were met.
    one_by_one: bool,
    /// Nothing more comes.
    closed: bool,
}

impl Queue {
    /// Looks are begun in order, so that the one whose turn it is to be merged is never among those held back.
    fn may_begin(&self) -> bool {
        let may_need = self.waiting_bytes + (self.in_hand + 1) * LOOK_BYTES;
        let nothing_ahead = self.in_hand == 0 && self.waiting_bytes == 0;
        nothing_ahead || !self.one_by_one && may_need <= WAITING_BYTES_MAX
    }
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn change<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        // Each change is whole, whatever panics elsewhere.
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut queue);
        drop(queue);
        self.changed.notify_all();
        changed
    }

    /// The next look that may be begun; `None` when there is no more.
    fn next(&self) -> Option<(usize, ReadTask)> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        while !queue.closed {
            if queue.may_begin()
                && let Some(job) = queue.jobs.pop_front()
            {
                queue.in_hand += 1;
                return Some(job);
            }
            let waited = self.changed.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
        None
    }
}

/// Closes the queue when the merge ends, however it ends: threads that wait for a look would wait for ever.
struct Closing<'s>(&'s Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.change(|queue| queue.closed = true);
    }
}

/// Looks at the pairs of `jobs` on the engine's threads until the pass has merged enough, merges in the order of `jobs`,
/// and says at how many it looked; `None` where no thread is to be had, and nothing was looked at.
///
/// # Errors
/// The first that a look or a merge gives; later looks are dropped, and must be taken again.
pub(super) fn read_pairs_parallel(
    engine: &mut Engine,
    jobs: &[ReadRequest],
) -> Result<Option<usize>, EngineError> {
    let threads = engine.setup.threads.min(jobs.len());
    let (look_sender, looks) = channel();
    let shared = Shared::default();
    thread::scope(|scope| {
        let _closing = Closing(&shared);
        // A host may have fewer threads to give than we want; each one that there is takes any look.
        let begun = (0..threads).filter(|_| {
            let (look_sender, shared) = (look_sender.clone(), &shared);
            let thread = thread::Builder::new().name("look".into());
            let working = thread.spawn_scoped(scope, || work(shared, look_sender));
            working.is_ok()
        });
        if begun.count() == 0 {
            return Ok(None);
        }
        drop(look_sender);
        hand_out_and_merge(engine, jobs, &shared, &looks).map(Some)
    })
}

fn work(shared: &Shared, looks: Sender<Looked>) {
    while let Some((n, prepared)) = shared.next() {
        // A panic must reach the merging thread, which would wait for this look for ever.
        let looked = catch_unwind(AssertUnwindSafe(|| prepared.look()));
        let rows = match &looked {
            Ok(Ok(look)) => look.outcome.as_ref().map(|found| &found.rows),
            _ => None,
        };
        let (rows_bytes, long_rows) = rows.map_or((0, false), |rows| {
            (rows.capacity(), rows.len() >= LONG_ROWS_BYTES)
        });
        shared.change(|queue| {
            queue.in_hand -= 1;
            queue.waiting_bytes += rows_bytes;
            queue.one_by_one |= long_rows;
        });
        if looks.send((n, looked)).is_err() {
            return;
        }
    }
}

fn rows_bytes(look: &PairRead) -> usize {
    look.outcome
        .as_ref()
        .map_or(0, |found| found.rows.capacity())
}

fn hand_out_and_merge(
    engine: &mut Engine,
    jobs: &[ReadRequest],
    shared: &Shared,
    looks: &Receiver<Looked>,
) -> Result<usize, EngineError> {
    let mut out_of_turn = BTreeMap::new();
    let mut handed_out = 0;
    let mut merged = 0;
    let mut is_full = false;
    loop {
        while !is_full && handed_out < jobs.len().min(merged + HANDED_OUT_MAX) {
            let prepared = engine.prepare(&jobs[handed_out])?;
            shared.change(|queue| queue.jobs.push_back((handed_out, prepared)));
            handed_out += 1;
        }
        if !is_full && engine.pass_is_full() {
            is_full = true;
            // What nobody has begun is not begun.
            handed_out -= shared.change(|queue| std::mem::take(&mut queue.jobs)).len();
        }
        if merged == handed_out {
            return Ok(merged);
        }
        let look = loop {
            if let Some(look) = out_of_turn.remove(&merged) {
                break look;
            }
            let (n, look) = looks
                .recv()
                .expect("threads end when there is no more to hand out");
            out_of_turn.insert(n, look);
        };
        let look = look.unwrap_or_else(|panic| resume_unwind(panic))?;
        let rows_bytes = rows_bytes(&look);
        engine.merge(&jobs[merged], look)?;
        shared.change(|queue| queue.waiting_bytes -= rows_bytes);
        merged += 1;
        // The other looks, perhaps begun by now, know nothing of these rows, or would claim the same ones.
        if engine.released_globally {
            return Ok(merged);
        }
    }
}
