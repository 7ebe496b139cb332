//! Owns what of an engine's setup may change while it works.

use crate::engine::Engine;
use crate::lake::chunk::LineLimits;

/// What of a setup may change while the engine works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// As [`crate::engine::Setup::limits`].
    pub limits: LineLimits,
    /// As [`crate::engine::Setup::settle_ms`].
    pub settle_ms: u64,
    /// As [`crate::engine::Setup::checkpoint_bytes`].
    pub checkpoint_bytes: u64,
}

impl Engine {
    /// Works by other figures from the next pass on. What was decided by the old ones stays decided.
    pub fn tune(&mut self, tuning: Tuning) {
        let settle_before_ms = std::mem::replace(&mut self.setup.settle_ms, tuning.settle_ms);
        for due_ms in self.settling.values_mut() {
            *due_ms = due_ms.saturating_sub(settle_before_ms) + tuning.settle_ms;
        }
        if self.setup.limits != tuning.limits {
            self.setup.limits = tuning.limits;
            // Where a search for a newline stopped depends on how long a line may be.
            for slot in self.slots.values_mut() {
                slot.memory.scored.scanned_to = 0;
                slot.memory.evidence.scanned_to = 0;
            }
        }
        self.setup.checkpoint_bytes = tuning.checkpoint_bytes;
    }
}
