//! Moved day-files in a plan: the rows of the pairs that they left become claimable for the pairs at their new paths.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::relocate::{MoveCheck, check_move, has_no_evidence_left};
use crate::lake::identity::SourceChange;
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::stat_day_file;
use crate::pair::ActivePair;
use crate::pair::index::{PairId, UnclaimedRow};
use crate::query::plan::{Delta, Planner, name};
use crate::store::state::error::StateError;

impl Planner<'_> {
    /// Releases the rows of the day-file that was moved to a path, of the one that was moved to where that was, and so on.
    /// Returns whether there were any, so that the pair is read again.
    pub(super) fn release_moved_rows(&mut self, path: &PairPath) -> Result<bool, StateError> {
        let mut taken = vec![path.clone()];
        let mut any = false;
        while let Some(to) = taken.pop() {
            if let Some((from, known)) = self.origin_of(&to)? {
                self.leave(&from, &known, &to)?;
                taken.push(from);
                any = true;
            }
        }
        Ok(any)
    }

    /// Returns the pair, as the state has it, whose scored day-file is at `to` now.
    fn origin_of(&self, to: &PairPath) -> Result<Option<(PairPath, Arc<ActivePair>)>, StateError> {
        let (storage, root) = (self.context.storage, self.context.root);
        let Ok(stat) = stat_day_file(storage, root, Stream::Scored, to) else {
            return Ok(None);
        };
        let mut pairs = self.context.state.pairs_with_inode(stat.inode)?.into_iter();
        Ok(pairs.find(|(from, known)| {
            !self.left.contains_key(from)
                && check_move(storage, root, from, &known.checkpoint.scored, to) == MoveCheck::Moved
        }))
    }

    /// Resets a pair whose scored day-file was moved.
    fn leave(
        &mut self,
        from: &PairPath,
        known: &ActivePair,
        to: &PairPath,
    ) -> Result<(), StateError> {
        let why = SourceChange::Moved;
        let ordered: Vec<_> = self
            .context
            .state
            .orders
            .limited_to(from.as_bytes())
            .collect();
        for run in ordered {
            Arc::make_mut(&mut self.orders).insert(run, to.as_bytes());
        }
        name(&mut self.plan.read_again, from, Stream::Scored, why.code());
        let heir = self.context.state.pair(to)?;
        let heir = heir.map_or_else(|| self.id_of_new(to), |pair| pair.id);
        self.bequeath_claims(known.id, heir)?;
        let (storage, root) = (self.context.storage, self.context.root);
        let mut left = self.reset(known.clone(), Stream::Scored, why, Some(heir))?;
        if has_no_evidence_left(storage, root, from, &known.checkpoint) {
            left = self.reset(left, Stream::Evidence, why, None)?;
        }
        let before = known.checkpoint.line_totals();
        self.sum_up(&left.checkpoint, &before, &Delta::default());
        self.left.insert(from.clone(), left);
        Ok(())
    }

    /// Gives the rows that lines of pair `from` may claim to pair `heir`, to which its day-file was moved.
    fn bequeath_claims(&mut self, from: PairId, heir: PairId) -> Result<(), StateError> {
        let mut unclaimed = match self.unclaimed.take() {
            Some(unclaimed) => unclaimed,
            None => self.unclaimed_by_pair()?,
        };
        for row in unclaimed.remove(&from).unwrap_or_default() {
            if self.claimed.insert(row) {
                self.released.insert(UnclaimedRow { scope: heir, ..row });
            }
        }
        self.unclaimed = Some(unclaimed);
        Ok(())
    }

    fn unclaimed_by_pair(&self) -> Result<BTreeMap<PairId, Vec<UnclaimedRow>>, StateError> {
        let mut of_pairs = BTreeMap::<PairId, Vec<UnclaimedRow>>::new();
        for row in self.context.state.view.unclaimed_rows()? {
            if row.scope != PairId::ANY {
                of_pairs.entry(row.scope).or_default().push(row);
            }
        }
        Ok(of_pairs)
    }
}
