//! A prepared read of one pair: all that it needs of the engine, so that any thread can run it.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use crate::engine::read::{PairMemory, PairRead, ReadContext, Settled, read_pair};
use crate::engine::setup::Setup;
use crate::lake::path::PairPath;
use crate::pair::ActivePair;
use crate::pair::index::UnclaimedRow;
use crate::pair::orders::Orders;
use crate::platform::buffer_pool::Buffers;
use crate::record::kept_stamps::KeptStamps;
use crate::record::timestamp::stamp;
use crate::store::state::StateView;
use crate::store::state::error::StateError;

/// A pair to read.
#[derive(Debug, Clone)]
pub(super) struct ReadRequest {
    pub(super) path: PairPath,
    /// Whether its unterminated last lines were unchanged for the settle time.
    pub(super) settled: Settled,
    /// Whether a change hint queued it, not a scan.
    pub(super) hinted: bool,
}

/// A read that any thread can run.
pub(super) struct ReadTask {
    pub(super) request: ReadRequest,
    pub(super) pair: Arc<ActivePair>,
    pub(super) memory: PairMemory,
    pub(super) view: Arc<StateView>,
    pub(super) buffers: Arc<Buffers>,
    pub(super) ctx: Arc<Setup>,
    pub(super) claimed: Arc<BTreeSet<UnclaimedRow>>,
    pub(super) claims_possible: bool,
    pub(super) orders: Arc<Orders>,
    pub(super) left_out: Arc<HashSet<u64>>,
    pub(super) kept_stamps: Arc<KeptStamps>,
}

impl ReadTask {
    /// Reads the pair.
    ///
    /// # Errors
    /// Errors of the state.
    pub(super) fn run(self) -> Result<PairRead, StateError> {
        let wall_ms = self.ctx.clock.wall_ms();
        let ctx = ReadContext {
            storage: &*self.ctx.storage,
            root: &self.ctx.root,
            export_path: &self.ctx.export_path,
            view: &self.view,
            claimed: &self.claimed,
            released: &BTreeSet::new(),
            claims_possible: self.claims_possible,
            orders: &self.orders,
            left_out: &self.left_out,
            limits: self.ctx.limits,
            buffers: &self.buffers,
            long_lines: &self.ctx.long_lines,
            stamp: &stamp(wall_ms),
            kept_stamps: &self.kept_stamps,
            now_ms: wall_ms,
            settle_first: self.ctx.settle_ms == 0,
        };
        let ReadRequest { path, settled, .. } = &self.request;
        read_pair(&self.pair, path, self.memory, *settled, &ctx)
    }
}
