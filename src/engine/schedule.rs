//! Owns which pairs a pass looks at, how many of them, and whether one after the other or at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::engine::read_task::{ReadRequest, ReadTask};
use crate::engine::workers::read_pairs_parallel;
use crate::engine::{Engine, EngineError};
use crate::lake::path::PairPath;

/// Pairs looked at before new hints, or a stop, are heard.
const PASS_PAIRS_MAX: usize = 64;
/// Bytes of sources after which a pass begins no further look, where somebody waits for its end.
const PASS_BYTES_AWAITED: u64 = 32 << 20;
/// The same where nobody does: at the end of a pass its threads have nothing to do for a while.
const PASS_BYTES_MAX: u64 = 256 << 20;

impl Engine {
    /// Pairs to look at, and how many of them, the first, were hinted at.
    pub(super) fn next_paths(&mut self) -> (Vec<PairPath>, usize) {
        let mut paths = Vec::new();
        while paths.len() < PASS_PAIRS_MAX {
            let Some(path) = self.hinted.pop_first() else {
                break;
            };
            paths.push(path);
        }
        let hinted = paths.len();
        // In strict order a pair is finished before the next one begins.
        let finish_first = self.setup.threads == 1 && !paths.is_empty();
        while paths.len() < PASS_PAIRS_MAX && !finish_first {
            let Some(path) = self.backlog.pop_first() else {
                break;
            };
            if !paths.contains(&path) {
                paths.push(path);
            }
            if self.setup.threads == 1 {
                break;
            }
        }
        (paths, hinted)
    }

    /// Looks at pairs in order until the pass has merged enough, and says at how many.
    pub(super) fn read_pairs(
        &mut self,
        paths: &[PairPath],
        hinted: usize,
    ) -> Result<usize, EngineError> {
        let now_ms = self.setup.clock.monotonic_ms();
        let settled = |path| {
            self.settling
                .get(path)
                .is_some_and(|at_ms| *at_ms <= now_ms)
        };
        let jobs: Vec<ReadRequest> = paths
            .iter()
            .enumerate()
            .map(|(n, path)| ReadRequest {
                path: path.clone(),
                settled: settled(path),
                hinted: n < hinted,
            })
            .collect();
        self.pass_bytes = 0;
        self.released_globally = false;
        // Rows that any pair may claim are claimed one pair after the other, so that no two take the same one.
        if self.setup.threads > 1
            && jobs.len() > 1
            && self.claimable == 0
            && let Some(looked) = read_pairs_parallel(self, &jobs)?
        {
            return Ok(looked);
        }
        for (n, job) in jobs.iter().enumerate() {
            if self.pass_is_full() {
                return Ok(n);
            }
            let look = self.prepare(job)?.look()?;
            self.merge(job, look)?;
        }
        Ok(jobs.len())
    }

    /// All that a look needs, so that a thread may do it.
    pub(super) fn prepare(&mut self, job: &ReadRequest) -> Result<ReadTask, EngineError> {
        let slot = self.slot(&job.path)?;
        let (pair, memory) = (Arc::clone(&slot.pair), slot.memory);
        Ok(ReadTask {
            job: job.clone(),
            pair,
            memory,
            view: Arc::clone(&self.view),
            buffers: Arc::clone(&self.buffers),
            setup: self.setup.clone(),
            claimed: Arc::clone(&self.claimed),
            claims_possible: self.claimable > 0,
        })
    }

    /// Whether this pass should begin no further look.
    pub(super) fn pass_is_full(&self) -> bool {
        let bytes_max = match self.awaited.load(Ordering::Relaxed) {
            true => PASS_BYTES_AWAITED,
            false => PASS_BYTES_MAX,
        };
        self.pass_bytes >= bytes_max
    }
}
