//! Owns the threads that look at many pairs at once. They read and work; the calling thread merges what they find,
//! in order, and commits meanwhile. It decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::checkpoint::Claim;
use crate::clock::stamp;
use crate::discover::PairPath;
use crate::engine::{Engine, EngineError, Setup};
use crate::pair::ActivePair;
use crate::reader::{Look, Looking, PairMemory, look};
use crate::state::{StateError, StateView};

/// Looks that are done or being done ahead of the merge, per thread. Each may hold a chunk and its rows; while the
/// merge commits, the others go on.
const AHEAD_PER_THREAD: usize = 2;

/// Rows of one look that are of long texts. Where one was met more may come, and those are worked one at a time anyway:
/// then no look is ahead of the merge, so that few such rows wait for it at once.
const LONG_ROWS_BYTES: usize = 8 << 20;

type Looked = (usize, thread::Result<Result<Look, StateError>>);

/// A pair to look at.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) path: PairPath,
    pub(crate) settled: bool,
    /// Whether somebody said that it changed.
    pub(crate) hinted: bool,
}

/// A look that any thread may take.
pub(crate) struct PreparedLook {
    job: Job,
    pair: Arc<ActivePair>,
    memory: PairMemory,
    view: Arc<StateView>,
    setup: Setup,
    claimed: Arc<BTreeSet<Claim>>,
    claims_possible: bool,
}

impl PreparedLook {
    pub(crate) fn look(self) -> Result<Look, StateError> {
        let wall_ms = self.setup.clock.wall_ms();
        let looking = Looking {
            storage: &*self.setup.storage,
            root: &self.setup.root,
            view: &self.view,
            claimed: &self.claimed,
            released: &BTreeSet::new(),
            claims_possible: self.claims_possible,
            limits: self.setup.limits,
            long_lines: &self.setup.long_lines,
            stamp: &stamp(wall_ms),
            now_ms: wall_ms,
            settle_first: self.setup.settle_ms == 0,
        };
        look(
            &self.pair,
            &self.job.path,
            self.memory,
            self.job.settled,
            &looking,
        )
    }
}

impl Engine {
    /// All that a look needs, so that a thread may do it.
    pub(crate) fn prepare(&mut self, job: &Job) -> Result<PreparedLook, EngineError> {
        let slot = self.slot(&job.path)?;
        let (pair, memory) = (Arc::clone(&slot.pair), slot.memory);
        Ok(PreparedLook {
            job: job.clone(),
            pair,
            memory,
            view: Arc::clone(&self.view),
            setup: self.setup.clone(),
            claimed: Arc::clone(&self.claimed),
            claims_possible: self.claimable > 0,
        })
    }
}

/// Looks at the pairs of `jobs` on the engine's threads until the pass has merged enough, merges in the order of `jobs`,
/// and says at how many it looked.
///
/// # Errors
/// The first that a look or a merge gives; later looks are dropped, and must be taken again.
pub(crate) fn look_at_all(engine: &mut Engine, jobs: &[Job]) -> Result<usize, EngineError> {
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
        hand_out_and_merge(engine, jobs, threads, job_sender, &look_receiver)
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
    threads: usize,
    job_sender: Sender<(usize, PreparedLook)>,
    looks: &Receiver<Looked>,
) -> Result<usize, EngineError> {
    let mut out_of_turn = BTreeMap::new();
    let mut handed_out = 0;
    let mut merged = 0;
    let mut ahead = threads * AHEAD_PER_THREAD;
    loop {
        while handed_out < jobs.len().min(merged + ahead) && !engine.pass_is_full() {
            let prepared = engine.prepare(&jobs[handed_out])?;
            if job_sender.send((handed_out, prepared)).is_err() {
                break;
            }
            handed_out += 1;
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
        let rows_bytes = look.outcome.as_ref().map_or(0, |found| found.rows.len());
        if rows_bytes >= LONG_ROWS_BYTES {
            ahead = 1;
        }
        engine.merge(&jobs[merged], look)?;
        merged += 1;
    }
}
