//! A batch that nothing is merged into any more: its rows get their final check, then it is written to the journal, on the
//! engine's thread or in the background.

use std::sync::Arc;

use crate::engine::error::EngineError;
use crate::engine::ledger::Event;
use crate::platform::background::{BackgroundTask, ThreadError};
use crate::platform::clock::Clock;
use crate::record::final_check;
use crate::store::journal::batch::Batch;
use crate::store::journal::frame::{FrameReceipt, FrameSlot};

/// The rows of a pair in a batch, in figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PairRows {
    /// The source class of the pair.
    pub(super) class: String,
    /// The minute of their timestamp, since 1970.
    pub(super) minute: u64,
    pub(super) rows: u64,
    pub(super) len_bytes: u64,
    /// Last change of the day-files of the pair, milliseconds since 1970.
    pub(super) changed_ms: u64,
}

/// A batch that nothing is merged into any more.
#[derive(Debug, Clone)]
pub(super) struct Sealed {
    pub(super) batch: Batch,
    /// The rows of each pair in the batch, in order.
    pub(super) rows_of: Vec<PairRows>,
    /// The events whose lines are in the batch, in order.
    pub(super) events: Vec<Event>,
}

/// A batch that is in the journal and not, or not all of it, in the export.
#[derive(Debug)]
pub(super) struct Unappended {
    pub(super) sealed: Arc<Sealed>,
    /// The rows that are not in the export, in order.
    pub(super) rows_of: Vec<PairRows>,
}

impl Unappended {
    pub(super) fn new(sealed: Arc<Sealed>) -> Self {
        let rows_of = sealed.rows_of.clone();
        Self { sealed, rows_of }
    }

    /// Takes the rows that an append that failed halfway has shown, of an export with `shown_bytes` of rows.
    pub(super) fn take_shown(&mut self, shown_bytes: u64) -> Vec<PairRows> {
        let batch = &self.sealed.batch;
        let shown = batch.rows.placed(batch.delta.export_from);
        let shown = shown.map(|(at, rows)| {
            let len_shown = shown_bytes.saturating_sub(at).min(rows.len() as u64);
            memchr::memchr_iter(b'\n', &rows[..len_shown as usize]).count() as u64
        });
        let unshown_before = rows_in(&self.rows_of);
        let mut more =
            (shown.sum::<u64>() + unshown_before).saturating_sub(rows_in(&self.sealed.rows_of));
        let mut taken = Vec::new();
        while more > 0
            && let Some(first) = self.rows_of.first_mut()
        {
            if first.rows <= more {
                more -= first.rows;
                taken.push(self.rows_of.remove(0));
            } else {
                first.rows -= more;
                let (rows, len_bytes) = (std::mem::take(&mut more), 0);
                taken.push(PairRows {
                    rows,
                    len_bytes,
                    ..first.clone()
                });
            }
        }
        taken
    }
}

/// Returns the number of rows in all.
pub(super) fn rows_in(rows_of: &[PairRows]) -> u64 {
    rows_of.iter().map(|of| of.rows).sum()
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
