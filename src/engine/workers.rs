//! The reader threads of a pass. They read and join pairs; the calling thread merges the results in the order of the
//! requests, and commits meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use crate::engine::read::PairRead;
use crate::engine::read_task::{ReadRequest, ReadTask};
use crate::engine::{Engine, EngineError, Setup};
use crate::platform::background::spawn_in;
use crate::store::state::error::StateError;

/// Maximum tasks that are queued ahead of the merge. Whether one is started depends on the memory it may need.
const QUEUED_MAX: usize = 32;
/// Maximum bytes of outcomes that wait for the merge, including those of running tasks. It bounds what is made while the
/// merge waits for a checkpoint.
const WAITING_BYTES_MAX: usize = 24 << 20;
/// Estimated memory of a change to the state that waits for the merge, bytes.
const CHANGE_BYTES: usize = 128;
/// Estimated bytes of a running task: most day-files need less, those with long texts more.
const TASK_BYTES: usize = 4 << 20;
/// Row bytes of one task from which its rows count as long texts. More of them are likely to follow, and they are joined one
/// at a time in any case; no task runs ahead of the merge then, so that few such rows are in memory.
const LONG_ROWS_BYTES: usize = 8 << 20;

/// The index of a request and its result, or the panic of its thread.
type TaskResult = (usize, thread::Result<Result<PairRead, StateError>>);

/// The tasks that are not started, and the memory that the started ones may need.
#[derive(Default)]
struct TaskQueue {
    tasks: VecDeque<(usize, ReadTask)>,
    /// Number of running tasks.
    running: usize,
    /// Bytes of outcomes of tasks that are done and not merged.
    waiting_bytes: usize,
    /// Whether rows of long texts were made.
    one_by_one: bool,
    /// Whether no further task starts.
    closed: bool,
    /// Number of threads that wait for a change.
    waiting: usize,
}

impl TaskQueue {
    /// Returns whether the next task may start. Tasks start in order, so that the next one to be merged is never held back.
    fn may_start(&self) -> bool {
        let bytes = self.waiting_bytes + (self.running + 1) * TASK_BYTES;
        let is_next = self.running == 0 && self.waiting_bytes == 0;
        is_next || !self.one_by_one && bytes <= WAITING_BYTES_MAX
    }
}

#[derive(Default)]
struct Shared {
    queue: Mutex<TaskQueue>,
    changed: Condvar,
}

impl Shared {
    /// Changes the queue and wakes all waiting threads.
    fn change<T>(&self, change: impl FnOnce(&mut TaskQueue) -> T) -> T {
        // Each change is complete, so a panic of another thread leaves the queue consistent.
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut queue);
        let is_awaited = queue.waiting > 0;
        drop(queue);
        // To notify costs a system call also where no thread waits.
        if is_awaited {
            self.changed.notify_all();
        }
        result
    }

    /// Waits for the next task that may start. Returns `None` when the queue is closed.
    fn next(&self) -> Option<(usize, ReadTask)> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        while !queue.closed {
            if queue.may_start()
                && let Some(task) = queue.tasks.pop_front()
            {
                queue.running += 1;
                return Some(task);
            }
            queue.waiting += 1;
            let waited = self.changed.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
            queue.waiting -= 1;
        }
        None
    }
}

/// Closes the queue on drop, so that the threads end also when the merge fails or panics.
struct CloseOnDrop<'s>(&'s Shared);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.change(|queue| queue.closed = true);
    }
}

/// Reads pairs on the engine's threads until the pass is full, and merges them in the order of `requests`. Returns the
/// number of merged pairs; `None` where no thread can be started, and nothing was read.
///
/// # Errors
/// The first error of a read or a merge. Later reads are discarded and must be repeated.
pub(super) fn read_pairs_parallel(
    engine: &mut Engine,
    ctx: &Arc<Setup>,
    requests: &[ReadRequest],
) -> Result<Option<usize>, EngineError> {
    let threads = engine.ctx.threads.min(requests.len());
    let (sender, results) = channel();
    let shared = Shared::default();
    thread::scope(|scope| {
        let _close = CloseOnDrop(&shared);
        // A host may refuse some of the threads; each started one runs any task.
        let started = (0..threads).filter(|_| {
            let (sender, shared) = (sender.clone(), &shared);
            spawn_in(scope, "read", || run_tasks(shared, sender)).is_ok()
        });
        if started.count() == 0 {
            return Ok(None);
        }
        drop(sender);
        queue_and_merge(engine, ctx, requests, &shared, &results).map(Some)
    })
}

fn run_tasks(shared: &Shared, results: Sender<TaskResult>) {
    while let Some((n, task)) = shared.next() {
        // The merging thread must receive a panic, or it would wait for this result without end.
        let result = catch_unwind(AssertUnwindSafe(|| task.run()));
        let (bytes, long_rows) = match &result {
            Ok(Ok(read)) => (outcome_bytes(read), has_long_rows(read)),
            _ => (0, false),
        };
        shared.change(|queue| {
            queue.running -= 1;
            queue.waiting_bytes += bytes;
            queue.one_by_one |= long_rows;
        });
        if results.send((n, result)).is_err() {
            return;
        }
    }
}

/// Returns the memory of an outcome until it is merged, bytes.
fn outcome_bytes(read: &PairRead) -> usize {
    let outcome = read.outcome.as_ref();
    outcome.map_or(0, |outcome| {
        outcome.rows.capacity() + outcome.overlay.len() * CHANGE_BYTES
    })
}

fn has_long_rows(read: &PairRead) -> bool {
    let outcome = read.outcome.as_ref();
    outcome.is_some_and(|outcome| outcome.rows.len() >= LONG_ROWS_BYTES)
}

fn queue_and_merge(
    engine: &mut Engine,
    ctx: &Arc<Setup>,
    requests: &[ReadRequest],
    shared: &Shared,
    results: &Receiver<TaskResult>,
) -> Result<usize, EngineError> {
    let mut out_of_order = BTreeMap::new();
    let mut queued = 0;
    let mut merged = 0;
    let mut is_full = false;
    loop {
        let queued_max = requests.len().min(merged + QUEUED_MAX);
        if !is_full && queued < queued_max {
            let tasks = (queued..queued_max).map(|n| Ok((n, engine.prepare(ctx, &requests[n])?)));
            let tasks = tasks.collect::<Result<Vec<_>, EngineError>>()?;
            shared.change(|queue| queue.tasks.extend(tasks));
            queued = queued_max;
        }
        if !is_full && engine.pass_is_full() {
            is_full = true;
            // Tasks that are not started are left to the next pass.
            queued -= shared
                .change(|queue| std::mem::take(&mut queue.tasks))
                .len();
        }
        if merged == queued {
            return Ok(merged);
        }
        let result = loop {
            if let Some(result) = out_of_order.remove(&merged) {
                break result;
            }
            let (n, result) = results
                .recv()
                .expect("threads run until the queue is closed");
            out_of_order.insert(n, result);
        };
        let read = result.unwrap_or_else(|panic| resume_unwind(panic))?;
        let bytes = outcome_bytes(&read);
        engine.merge(&requests[merged], read)?;
        shared.change(|queue| queue.waiting_bytes -= bytes);
        merged += 1;
        // Other reads of this pass probably claim the same rows too: the next pass reads in turn.
        if engine.claims_collided() || engine.has_rest_in_order() {
            return Ok(merged);
        }
    }
}
