//! A batch that nothing is merged into any more: its rows get their final check, then it is written to the journal, on the
//! engine's thread or in the background.

use std::sync::Arc;

use crate::engine::error::EngineError;
use crate::platform::background::{BackgroundTask, ThreadError};
use crate::platform::clock::Clock;
use crate::record::final_check;
use crate::store::journal::batch::Batch;
use crate::store::journal::frame::{FrameReceipt, FrameSlot};

/// A batch that nothing is merged into any more.
#[derive(Debug, Clone)]
pub(super) struct Sealed {
    pub(super) batch: Batch,
    /// Last change of the day-files of each pair with rows in the batch, milliseconds since 1970.
    pub(super) changed_ms: Vec<u64>,
}

/// The result of a successful commit.
#[derive(Debug)]
pub(super) struct Durable {
    pub(super) frame: FrameReceipt,
    pub(super) took_us: u64,
}

impl Sealed {
    /// Checks the rows (rule 3) and makes the batch durable in the journal (rule 1).
    pub(super) fn make_durable(
        &self,
        frame: &FrameSlot,
        clock: &dyn Clock,
    ) -> Result<Durable, EngineError> {
        for (at, rows) in self.batch.rows.placed(0) {
            if let Some(mut forbidden) = final_check::forbidden_in(rows) {
                forbidden.at_byte += at as usize;
                return Err(EngineError::Forbidden(forbidden));
            }
        }
        let started_us = clock.monotonic_us();
        let frame = frame.write(&self.batch)?;
        let took_us = clock.monotonic_us().saturating_sub(started_us);
        Ok(Durable { frame, took_us })
    }
}

/// A batch that a background thread makes durable.
#[derive(Debug)]
pub(super) struct Committing {
    pub(super) sealed: Arc<Sealed>,
    pub(super) durable: BackgroundTask<Result<Durable, EngineError>>,
}

impl Committing {
    pub(super) fn begin(
        sealed: &Arc<Sealed>,
        frame: FrameSlot,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ThreadError> {
        let batch = Arc::clone(sealed);
        Ok(Self {
            sealed: Arc::clone(sealed),
            durable: BackgroundTask::spawn("commit", move || batch.make_durable(&frame, &*clock))?,
        })
    }
}
