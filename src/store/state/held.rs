//! The claims of an adoption that memory holds instead of the table: most rows of an export are claimed within minutes,
//! and to insert and to remove them would cost more than all else that an adoption writes.

use std::sync::Arc;

use crate::pair::index::UnclaimedRow;
use crate::record::keys::RowKey;
use crate::store::state::error::StateError;
use crate::store::state::header::Header;
use crate::store::state::write::insert_claimable;
use crate::store::state::{PairWrite, State, write_pairs};

/// Unclaimed rows in order, each once. Views share them.
#[derive(Debug, Clone, Default)]
pub(super) struct HeldClaims(Arc<Vec<UnclaimedRow>>);

impl HeldClaims {
    pub(super) fn new(mut claims: Vec<UnclaimedRow>) -> Self {
        claims.sort_unstable();
        claims.shrink_to_fit();
        Self(Arc::new(claims))
    }

    pub(super) fn all(&self) -> &[UnclaimedRow] {
        &self.0
    }

    /// Returns the claims with this key.
    pub(super) fn with_key(&self, row: RowKey) -> &[UnclaimedRow] {
        let from = self.0.partition_point(|claim| claim.row < row);
        let rest = &self.0[from..];
        let len = rest.iter().take_while(|claim| claim.row == row).count();
        &rest[..len]
    }

    /// Removes claims that found their row. Views keep what they have.
    pub(super) fn remove<'a>(&mut self, claimed: impl Iterator<Item = &'a UnclaimedRow>) {
        if self.0.is_empty() {
            return;
        }
        let mut claimed: Vec<_> = claimed.collect();
        claimed.sort_unstable();
        let mut claimed = claimed.into_iter().peekable();
        let mut is_left = |claim: &UnclaimedRow| {
            while claimed.next_if(|first| *first < claim).is_some() {}
            claimed.peek() != Some(&claim)
        };
        match Arc::get_mut(&mut self.0) {
            Some(claims) => claims.retain(is_left),
            None => {
                let left = self.0.iter().filter(|claim| is_left(claim));
                self.0 = Arc::new(left.copied().collect());
            }
        }
    }
}

impl State {
    /// Adds rows that no known line has earned. They become durable with the next durable commit.
    ///
    /// # Errors
    /// redb fails.
    pub fn add_claimable(&mut self, claims: &[UnclaimedRow]) -> Result<(), StateError> {
        let header = Header {
            claimable: self.header.claimable + claims.len() as u64,
            ..self.header.clone()
        };
        self.write(header, |transaction| insert_claimable(transaction, claims))
    }

    /// Adds rows that no known line has earned, in memory alone: the file lacks them until [`Self::complete`] writes those
    /// that are left, and must not be used without them.
    pub fn hold_claims(&mut self, claims: Vec<UnclaimedRow>) {
        self.header.claimable += claims.len() as u64;
        self.held = HeldClaims::new(claims);
    }

    /// Returns whether the file lacks unclaimed rows.
    #[must_use]
    pub fn holds_claims(&self) -> bool {
        !self.held.all().is_empty()
    }

    /// Takes over the claims in memory of the same state, opened before.
    pub fn inherit_claims(&mut self, before: &State) {
        self.held = before.held.clone();
    }

    /// Writes a checkpoint, and the claims that only memory holds.
    ///
    /// # Errors
    /// redb fails; nothing is written then.
    pub fn complete(&mut self, header: Header, pairs: &[PairWrite<'_>]) -> Result<(), StateError> {
        let held = self.held.clone();
        self.write(header, |transaction| {
            // Those that the pairs claim are removed again. The file may have had all of them before: a commit that was
            // reported as failed may have reached the disk.
            insert_claimable(transaction, held.all())?;
            write_pairs(transaction, pairs)
        })?;
        self.held = HeldClaims::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::index::PairId;

    fn claim(row: u8, row_offset: u64) -> UnclaimedRow {
        UnclaimedRow {
            row: RowKey([row; 12]),
            scope: PairId::ANY,
            row_offset,
        }
    }

    #[test]
    fn claims_are_found_by_their_key_until_they_are_removed() {
        let mut held = HeldClaims::new(vec![claim(3, 0), claim(1, 9), claim(3, 5), claim(2, 7)]);
        let key = RowKey([3; 12]);
        assert_eq!(held.with_key(key), [claim(3, 0), claim(3, 5)]);
        assert_eq!(held.with_key(RowKey([4; 12])), []);
        let view = held.clone();
        // One of a row that was released since is not among them.
        held.remove([claim(3, 5), claim(0, 1), claim(1, 9), claim(9, 9)].iter());
        assert_eq!(held.all(), [claim(2, 7), claim(3, 0)]);
        assert_eq!(view.with_key(key), [claim(3, 0), claim(3, 5)]);
        drop(view);
        held.remove([claim(3, 0), claim(2, 7)].iter());
        assert_eq!(held.all(), []);
    }
}
