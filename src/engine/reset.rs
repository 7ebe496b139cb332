//! Owns what follows when a day-file is not what was read of it: rewritten, truncated, replaced, shortened by a power
//! cut. What was read is forgotten, its rows stay where they are, and the lines that stand there now claim them.

use crate::engine::relocate::scope_of_claims;
use crate::engine::{Engine, EngineError};
use crate::lake::identity::SourceChange;
use crate::lake::path::{PairPath, Stream};
use crate::pair::index::{PairId, UnclaimedRow};
use crate::pair::verdict::Verdict;
use crate::record::keys;
use crate::store::state::Reset;
use crate::store::state::error::StateError;

impl Engine {
    /// A source is not what was read of it: forget that, keep its rows for its lines to claim, begin anew.
    pub(crate) fn read_again(
        &mut self,
        path: &PairPath,
        stream: Stream,
        why: SourceChange,
    ) -> Result<(), EngineError> {
        self.checkpoint()?;
        let (id, before) = {
            let pair = &self.slot(path)?.pair;
            (pair.id, pair.checkpoint.clone())
        };
        let mut after = before.clone();
        let reset = match stream {
            Stream::Scored => {
                let scope = scope_of_claims(why, id);
                self.released_globally |= scope == PairId::ANY;
                after.scored = Default::default();
                after.counts = Default::default();
                after.waiting_since_s = 0;
                Reset::Scored(self.claims_of(id, scope)?)
            }
            Stream::Evidence => {
                after.evidence = Default::default();
                let now_s = self.setup.clock.wall_ms() / 1_000;
                if after.counts.requeue_refused_evidence() > 0 {
                    after.begin_to_wait(now_s);
                }
                Reset::Evidence(now_s)
            }
        };
        self.meters.reread();
        if why != SourceChange::Moved {
            tracing::warn!(
                day_file = %path.path(&self.setup.root, stream).display(),
                reason = why.code(),
                offset = before.source(stream).offset,
                "day-file is not what was read of it, reading it again from its start"
            );
        }
        let mut header = self.header();
        header.account.replace(&before, &after);
        if let Reset::Scored(claims) = &reset {
            header.claimable += claims.len() as u64;
        }
        self.state
            .reset(header, id, &after, &reset)
            .inspect_err(|_| self.state_failed = true)?;
        self.account = self.state.header().account.clone();
        self.claimable = self.state.header().claimable;
        self.slots.remove(path);
        self.settling.remove(path);
        self.renew_view()
    }

    /// A claim, for the lines of `scope`, on every row that the pair's lines have in the export.
    fn claims_of(&self, id: PairId, scope: PairId) -> Result<Vec<UnclaimedRow>, EngineError> {
        let mut offsets = Vec::new();
        self.view.for_each_entry(id, |entry| {
            if let Verdict::Exported { row_offset, .. } = entry.verdict {
                offsets.push(row_offset);
            }
        })?;
        let mut claims = Vec::with_capacity(offsets.len());
        for row_offset in offsets {
            let bytes = self.export.row_at(row_offset)?;
            let row = keys::RowKey::from_row(&bytes).map_err(|fault| {
                StateError::Damaged(format!(
                    "no row starts at byte {row_offset} of the export: {fault}"
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
