//! The claims of an adoption that memory holds instead of the table: most rows of an export are claimed within minutes,
//! and to insert and to remove them would cost more than all else that an adoption writes.

use std::sync::Arc;

use crate::pair::index::UnclaimedRow;
use crate::record::keys::RowKey;
use crate::store::state::error::StateError;
use crate::store::state::header::Header;
use crate::store::state::write::insert_claimable;
use crate::store::state::{PairWrite, State, write_pairs};

/// Mean number of claims in a bucket, which is searched as a whole.
const BUCKET_CLAIMS: usize = 8;

/// Unclaimed rows in order, each once. Views share them.
#[derive(Debug, Clone, Default)]
pub(super) struct HeldClaims(Arc<Sorted>);

#[derive(Debug, Default)]
struct Sorted {
    claims: Vec<UnclaimedRow>,
    /// The position of the first claim of each bucket, and the number of claims. Keys are hashes, so that buckets of keys
    /// with the same first bits are about equal. A search in all claims would miss the processor's caches at most steps.
    starts: Vec<u32>,
}

impl Sorted {
    fn new(claims: Vec<UnclaimedRow>) -> Self {
        let buckets = (claims.len() / BUCKET_CLAIMS).next_power_of_two();
        let mut starts = Vec::with_capacity(buckets + 1);
        for (at, claim) in claims.iter().enumerate() {
            let bucket = bucket_of(claim.row, buckets);
            if starts.len() <= bucket {
                starts.resize(bucket + 1, at as u32);
            }
        }
        starts.resize(buckets + 1, claims.len() as u32);
        Self { claims, starts }
    }

    fn with_key(&self, row: RowKey) -> &[UnclaimedRow] {
        let bucket = bucket_of(row, self.starts.len().saturating_sub(1));
        let Some([from, to]) = self.starts.get(bucket..bucket + 2) else {
            return &[];
        };
        let claims = &self.claims[*from as usize..*to as usize];
        let from = claims.partition_point(|claim| claim.row < row);
        let with_key = claims[from..].iter().take_while(|claim| claim.row == row);
        &claims[from..from + with_key.count()]
    }
}

/// Returns the bucket of a key; `buckets` is their number.
fn bucket_of(row: RowKey, buckets: usize) -> usize {
    let [a, b, c, d, ..] = row.0;
    let first = u64::from(u32::from_be_bytes([a, b, c, d]));
    ((first * buckets as u64) >> 32) as usize
}

impl HeldClaims {
    pub(super) fn new(mut claims: Vec<UnclaimedRow>) -> Self {
        claims.sort_unstable();
        claims.shrink_to_fit();
        Self(Arc::new(Sorted::new(claims)))
    }

    pub(super) fn all(&self) -> &[UnclaimedRow] {
        &self.0.claims
    }

    /// Returns the claims with this key.
    pub(super) fn with_key(&self, row: RowKey) -> &[UnclaimedRow] {
        self.0.with_key(row)
    }

    /// Removes claims that found their row. Views keep what they have.
    pub(super) fn remove<'a>(&mut self, claimed: impl Iterator<Item = &'a UnclaimedRow>) {
        if self.all().is_empty() {
            return;
        }
        let mut claimed: Vec<_> = claimed.collect();
        claimed.sort_unstable();
        let mut claimed = claimed.into_iter().peekable();
        let is_left = |claim: &UnclaimedRow| {
            while claimed.next_if(|first| *first < claim).is_some() {}
            claimed.peek() != Some(&claim)
        };
        let left = match Arc::get_mut(&mut self.0) {
            Some(shared) => {
                let mut claims = std::mem::take(&mut shared.claims);
                claims.retain(is_left);
                claims
            }
            None => self.all().iter().copied().filter(is_left).collect(),
        };
        self.0 = Arc::new(Sorted::new(left));
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
        assert_eq!(held.with_key(key), []);
        assert_eq!(HeldClaims::default().with_key(key), []);
    }

    #[test]
    fn each_of_many_claims_is_found() {
        let mut rng = fastrand::Rng::with_seed(1);
        for count in [1, 7, 8, 100, 5_000] {
            let mut claims: Vec<_> = (0..count)
                .map(|n| UnclaimedRow {
                    row: RowKey(std::array::from_fn(|_| rng.u8(..))),
                    ..claim(0, n)
                })
                .collect();
            claims.push(claim(0, 1));
            claims.push(claim(255, 1));
            let held = HeldClaims::new(claims.clone());
            for claim in &claims {
                assert_eq!(held.with_key(claim.row), [*claim]);
                let mut other = claim.row;
                other.0[11] ^= 1;
                assert_eq!(held.with_key(other), []);
            }
        }
    }
}
