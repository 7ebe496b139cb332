//! Owns a look that is prepared: all that it needs of the engine, so that any thread may take it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::engine::read::{PairMemory, PairRead, ReadContext, look};
use crate::engine::setup::Setup;
use crate::lake::path::PairPath;
use crate::pair::ActivePair;
use crate::pair::index::UnclaimedRow;
use crate::platform::buffer_pool::Buffers;
use crate::record::timestamp::stamp;
use crate::store::state::StateView;
use crate::store::state::error::StateError;

/// A pair to look at.
#[derive(Debug, Clone)]
pub(super) struct ReadRequest {
    pub(super) path: PairPath,
    pub(super) settled: bool,
    /// Whether somebody said that it changed.
    pub(super) hinted: bool,
}

/// A look that any thread may take.
pub(super) struct ReadTask {
    pub(super) job: ReadRequest,
    pub(super) pair: Arc<ActivePair>,
    pub(super) memory: PairMemory,
    pub(super) view: Arc<StateView>,
    pub(super) buffers: Arc<Buffers>,
    pub(super) setup: Setup,
    pub(super) claimed: Arc<BTreeSet<UnclaimedRow>>,
    pub(super) claims_possible: bool,
}

impl ReadTask {
    pub(super) fn look(self) -> Result<PairRead, StateError> {
        let wall_ms = self.setup.clock.wall_ms();
        let looking = ReadContext {
            storage: &*self.setup.storage,
            root: &self.setup.root,
            export_path: &self.setup.export_path,
            view: &self.view,
            claimed: &self.claimed,
            released: &BTreeSet::new(),
            claims_possible: self.claims_possible,
            limits: self.setup.limits,
            buffers: &self.buffers,
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
