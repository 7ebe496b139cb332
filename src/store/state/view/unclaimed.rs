//! Reads the rows of the export that no line owns.

use std::collections::BTreeSet;
use std::ops::Bound;

use redb::{ReadableTable as _, ReadableTableMetadata as _};

use crate::pair::index::{PairId, UnclaimedRow};
use crate::record::keys::RowKey;
use crate::store::state::CLAIMABLE;
use crate::store::state::error::StateError;
use crate::store::state::view::StateView;

impl StateView {
    /// Returns the unclaimed rows with this key, first row first.
    ///
    /// # Errors
    /// redb fails.
    pub fn claimable(&self, row: RowKey) -> Result<Vec<UnclaimedRow>, StateError> {
        self.read(|tables| {
            let table = match self.tables.claimable.get() {
                Some(table) => table,
                None => {
                    let table = tables.open_table(CLAIMABLE)?;
                    let table = (!table.is_empty()?).then_some(table);
                    self.tables.claimable.get_or_init(|| table)
                }
            };
            let mut claims = self.held.with_key(row).to_vec();
            let Some(table) = table else {
                return Ok(claims);
            };
            for found in table.range((&row.0, 0, 0)..=(&row.0, u32::MAX, u64::MAX))? {
                let (_, found_scope, row_offset) = found?.0.value();
                claims.push(UnclaimedRow {
                    row,
                    scope: PairId(found_scope),
                    row_offset,
                });
            }
            claims.sort_by_key(|claim| claim.row_offset);
            Ok(claims)
        })
    }

    /// Returns unclaimed rows that follow `after` in the order of their keys, those that are `wanted` and at most `max`.
    /// Those that only memory holds are of unknown pairs and not among them.
    ///
    /// # Errors
    /// redb fails.
    pub fn unclaimed_after(
        &self,
        after: Option<UnclaimedRow>,
        wanted: impl Fn(&UnclaimedRow) -> bool,
        max: usize,
    ) -> Result<Vec<UnclaimedRow>, StateError> {
        self.read(|tables| {
            let table = tables.open_table(CLAIMABLE)?;
            let from = after.map_or(Bound::Unbounded, |row| {
                Bound::Excluded((row.row.0, row.scope.0, row.row_offset))
            });
            let from = from
                .as_ref()
                .map(|(row, scope, offset)| (row, *scope, *offset));
            let mut rows = Vec::new();
            for found in table.range((from, Bound::Unbounded))? {
                let (key, _) = found?;
                let (row, scope, row_offset) = key.value();
                let row = UnclaimedRow {
                    row: RowKey(*row),
                    scope: PairId(scope),
                    row_offset,
                };
                if wanted(&row) {
                    rows.push(row);
                    if rows.len() == max {
                        break;
                    }
                }
            }
            Ok(rows)
        })
    }

    /// Returns the pairs with unclaimed rows, without those that only memory holds.
    ///
    /// # Errors
    /// redb fails.
    pub fn pairs_with_unclaimed(&self) -> Result<BTreeSet<PairId>, StateError> {
        self.read(|tables| {
            let table = tables.open_table(CLAIMABLE)?;
            let mut pairs = BTreeSet::new();
            for found in table.iter()? {
                let (_, scope, _) = found?.0.value();
                pairs.insert(PairId(scope));
            }
            pairs.remove(&PairId::ANY);
            Ok(pairs)
        })
    }

    /// Returns all unclaimed rows, first row first.
    ///
    /// # Errors
    /// redb fails.
    pub fn unclaimed_rows(&self) -> Result<Vec<UnclaimedRow>, StateError> {
        let mut rows = self.held.all().to_vec();
        rows.extend(self.unclaimed_after(None, |_| true, usize::MAX)?);
        rows.sort_by_key(|row| row.row_offset);
        Ok(rows)
    }
}
