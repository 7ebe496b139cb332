//! Resets a source whose day-file no longer holds what was read of it: rewritten, truncated, replaced, shortened by a
//! power cut. What was read is forgotten; its rows stay in the export, and the lines that the day-file holds now claim
//! them.

use crate::engine::relocate::scope_of_claims;
use crate::engine::{Engine, EngineError};
use crate::lake::identity::SourceChange;
use crate::lake::path::{PairPath, Stream};
use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::index::{PairId, UnclaimedRow};
use crate::pair::verdict::Verdict;
use crate::record::keys::RowKey;
use crate::store::state::Reset;
use crate::store::state::error::StateError;

impl Engine {
    /// Resets a source outside a pass, so that the next pass reads it from its start.
    ///
    /// # Errors
    /// Errors of a checkpoint and of the state.
    pub(crate) fn reset_for_retry(
        &mut self,
        path: &PairPath,
        stream: Stream,
    ) -> Result<(), EngineError> {
        let result = self
            .reopen_state_if_failed()
            .and_then(|()| self.reset_source(path, stream, SourceChange::Edited));
        self.books.log.flush();
        self.commits.mark_state_failed(result)
    }

    /// Forgets what was read of a source, and releases its rows for lines to claim.
    pub(super) fn reset_source(
        &mut self,
        path: &PairPath,
        stream: Stream,
        why: SourceChange,
    ) -> Result<(), EngineError> {
        self.checkpoint()?;
        let pair = &self.pairs.slot(path)?.pair;
        let (id, before) = (pair.id, pair.checkpoint.clone());
        let mut after = before.clone();
        let reset = match stream {
            Stream::Scored => {
                let scope = scope_of_claims(why, id);
                if scope == PairId::ANY {
                    self.queue.mark_released_globally();
                }
                after.scored = Default::default();
                after.counts = Default::default();
                after.waiting_since_s = 0;
                Reset::Scored(self.claims_of(id, scope)?)
            }
            Stream::Evidence => {
                let now_s = self.ctx.clock.wall_ms() / 1_000;
                reset_evidence(&mut after, now_s);
                Reset::Evidence(now_s)
            }
        };
        self.books.metrics.reread();
        if why != SourceChange::Moved {
            let day_file = path.path(&self.ctx.root, stream);
            let offset = before.source(stream).offset;
            self.books.log.on_reset(day_file, offset, why.code());
        }
        let mut header = self.with_accounts(self.commits.state.header().clone());
        header.account.replace(&before, &after);
        if let Reset::Scored(claims) = &reset {
            header.claimable += claims.len() as u64;
        }
        self.commits.reset_pair(header, id, &after, &reset)?;
        let header = self.commits.state.header();
        self.books.account = header.account.clone();
        self.pairs.remove_reset(path, header.claimable);
        self.queue.stop_settling(path);
        self.renew_view()
    }

    /// Returns a claim, for the lines of `scope`, on every row that the pair's lines have in the export.
    fn claims_of(&self, id: PairId, scope: PairId) -> Result<Vec<UnclaimedRow>, EngineError> {
        let mut offsets = Vec::new();
        self.pairs.view().for_each_entry(id, |entry| {
            if let Verdict::Exported { row_offset, .. } = entry.verdict {
                offsets.push(row_offset);
            }
        })?;
        let mut claims = Vec::with_capacity(offsets.len());
        for row_offset in offsets {
            let bytes = self.commits.export.row_at(row_offset)?;
            let row = RowKey::from_row(&bytes).map_err(|error| {
                StateError::Damaged(format!(
                    "no row starts at byte {row_offset} of the export: {error}"
                ))
            })?;
            claims.push(UnclaimedRow {
                row,
                scope,
                row_offset,
            });
        }
        Ok(claims)
    }
}

/// Forgets the evidence of a pair. Lines that were refused for it wait again.
fn reset_evidence(checkpoint: &mut PairCheckpoint, now_s: u64) {
    checkpoint.evidence = Default::default();
    if checkpoint.counts.requeue_refused_evidence() > 0 {
        checkpoint.begin_to_wait(now_s);
    }
}
