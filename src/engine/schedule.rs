//! Runs the reads of a pass, one after the other or on several threads.

use std::sync::Arc;

use crate::engine::read_task::{ReadRequest, ReadTask};
use crate::engine::workers::read_pairs_parallel;
use crate::engine::{Engine, EngineError, Setup};

impl Engine {
    /// Reads and merges pairs in order until the pass is full. Returns the number of pairs that were merged.
    pub(super) fn read_pairs(&mut self, requests: &[ReadRequest]) -> Result<usize, EngineError> {
        let ctx = Arc::new(self.ctx.clone());
        if self.ctx.threads > 1
            && requests.len() > 1
            && !self.queue.reads_in_turn()
            && let Some(merged) = read_pairs_parallel(self, &ctx, requests)?
        {
            return Ok(merged);
        }
        for (n, request) in requests.iter().enumerate() {
            if self.queue.pass_is_full() {
                return Ok(n);
            }
            let read = self.prepare(&ctx, request)?.run()?;
            self.merge(request, read)?;
            if self.has_rest_in_order() {
                return Ok(n + 1);
            }
        }
        Ok(requests.len())
    }

    /// Returns a read with all that it needs of the engine, so that any thread can run it. `ctx` is a copy of the engine's,
    /// which the reads of a pass share.
    pub(super) fn prepare(
        &mut self,
        ctx: &Arc<Setup>,
        request: &ReadRequest,
    ) -> Result<ReadTask, EngineError> {
        let slot = self.pairs.slot(&request.path)?;
        let (pair, mut memory) = (Arc::clone(&slot.pair), slot.memory);
        if self.queue.begins_comparison(&request.path) {
            memory.compare();
        }
        Ok(ReadTask {
            request: request.clone(),
            pair,
            memory,
            view: Arc::clone(self.pairs.view()),
            buffers: Arc::clone(&self.commits.buffers),
            ctx: Arc::clone(ctx),
            claimed: Arc::clone(self.pairs.claimed()),
            claims_possible: self.pairs.claimable() > 0,
            orders: Arc::clone(&self.commits.ledger.orders),
            left_out: Arc::clone(&self.left_out),
            kept_stamps: Arc::clone(&self.kept_stamps),
        })
    }

    /// Returns whether this pass should begin no further read.
    pub(super) fn pass_is_full(&self) -> bool {
        self.queue.pass_is_full()
    }

    /// Returns whether the pair that was merged last has to be read once more before the next one of a pass in order.
    pub(super) fn has_rest_in_order(&self) -> bool {
        self.ends_pass_with_rest && (self.queue_len() > 0 || self.may_settle())
    }

    /// Returns whether reads of this pass claimed the same row.
    pub(super) fn claims_collided(&self) -> bool {
        self.queue.claims_collided()
    }
}
