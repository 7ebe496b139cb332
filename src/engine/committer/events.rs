//! The lines of the retraction ledger in a batch: they are made when the batch is sealed.

use crate::engine::committer::Committer;
use crate::engine::ledger::Event;
use crate::engine::{EngineError, Setup};
use crate::record::timestamp::stamp;
use crate::store::journal::batch::LedgerAppend;

impl Committer {
    /// Returns the length of the ledger when all sealed batches are appended.
    fn committed_ledger_bytes(&self) -> u64 {
        let committing = self.committing.as_ref().map(|it| &it.sealed);
        let unappended = self.unappended.iter().map(|it| &it.sealed);
        let sealed = unappended.chain(committing);
        let mut lines = sealed.filter_map(|sealed| sealed.batch.delta.ledger.as_ref());
        lines
            .next_back()
            .map_or(self.ledger.file.len_bytes(), LedgerAppend::to)
    }

    /// Adds the lines of the pending events to the pending batch. All batches before it are appended.
    pub(super) fn seal_events(&mut self, ctx: &Setup) -> Result<Vec<Event>, EngineError> {
        if self.ledger.pending.is_empty() {
            return Ok(Vec::new());
        }
        let (mark, from) = (
            self.state.header().ledger.file,
            self.committed_ledger_bytes(),
        );
        let (pending, export) = (&self.pending, &self.export);
        let row = |offset: u64| -> Result<Vec<u8>, EngineError> {
            let of_pending = offset.checked_sub(pending.delta.export_from);
            if let Some(row) = of_pending.and_then(|at| pending.rows.row_at(at)) {
                return Ok(row.to_vec());
            }
            let mut row = export.row_at(offset)?;
            row.push(b'\n');
            Ok(row)
        };
        let at = stamp(ctx.clock.wall_ms());
        let lengths = (pending.delta.export_from, pending.export_to());
        let (events, lines) = self.ledger.seal(lengths, &at, row)?;
        self.pending.delta.ledger = Some(LedgerAppend { mark, from, lines });
        Ok(events)
    }
}
