//! Owns the threads that look at many pairs at once. They read and work; the calling thread merges what they find,
//! in order, and commits meanwhile. It decides nothing.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::engine::{Engine, EngineError, Job, PreparedLook};
use crate::reader::Look;
use crate::state::StateError;

/// Looks that are done or being done ahead of the merge, per thread. Each may hold two chunks and its rows.
const AHEAD_PER_THREAD: usize = 2;

type Looked = (usize, thread::Result<Result<Look, StateError>>);

/// Looks at all pairs of `jobs` on the engine's threads, and merges in the order of `jobs`.
///
/// # Errors
/// The first that a look or a merge gives; later looks are dropped, and must be taken again.
pub(crate) fn look_at_all(engine: &mut Engine, jobs: &[Job]) -> Result<(), EngineError> {
    let threads = engine.setup.threads.min(jobs.len());
    let (job_sender, job_receiver) = channel();
    let (look_sender, look_receiver) = channel();
    let job_receiver = Mutex::new(job_receiver);
    thread::scope(|scope| {
        for _ in 0..threads {
            let look_sender = look_sender.clone();
            scope.spawn(|| work(&job_receiver, look_sender));
        }
        drop(look_sender);
        // Returning drops the sender, by which the threads learn that there is no more.
        hand_out_and_merge(
            engine,
            jobs,
            threads * AHEAD_PER_THREAD,
            job_sender,
            &look_receiver,
        )
    })
}

fn work(jobs: &Mutex<Receiver<(usize, PreparedLook)>>, looks: Sender<Looked>) {
    loop {
        let job = jobs.lock().ok().and_then(|jobs| jobs.recv().ok());
        let Some((n, prepared)) = job else { return };
        // A panic must reach the merging thread, which would wait for this look for ever.
        let looked = catch_unwind(AssertUnwindSafe(|| prepared.look()));
        if looks.send((n, looked)).is_err() {
            return;
        }
    }
}

fn hand_out_and_merge(
    engine: &mut Engine,
    jobs: &[Job],
    ahead: usize,
    job_sender: Sender<(usize, PreparedLook)>,
    looks: &Receiver<Looked>,
) -> Result<(), EngineError> {
    let mut out_of_turn = BTreeMap::new();
    let mut handed_out = 0;
    for merged in 0..jobs.len() {
        while handed_out < jobs.len().min(merged + ahead) {
            let prepared = engine.prepare(&jobs[handed_out])?;
            if job_sender.send((handed_out, prepared)).is_err() {
                break;
            }
            handed_out += 1;
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
        engine.merge(&jobs[merged], look)?;
    }
    Ok(())
}
