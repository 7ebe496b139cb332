//! Reads what the state has of the retraction ledger: segments, the flags of rows, standing orders.

use redb::ReadableTable as _;

use crate::record::ledger::Cause;
use crate::store::ledger::{Order, RowFlags};
use crate::store::state::error::StateError;
use crate::store::state::view::StateView;
use crate::store::state::{LEDGER_ROWS, LEDGER_SEGMENTS, ORDERS};

impl StateView {
    /// Returns the hash of a whole segment of the ledger, or `None` if the state does not have it.
    ///
    /// # Errors
    /// redb fails.
    pub fn ledger_segment(&self, number: u64) -> Result<Option<u64>, StateError> {
        self.read(|tables| {
            let table = tables.open_table(LEDGER_SEGMENTS)?;
            Ok(table.get(number)?.map(|hash| hash.value()))
        })
    }

    /// Returns how the ledger has the row at an offset of the export.
    ///
    /// # Errors
    /// redb fails.
    pub fn row_flags(&self, row_offset: u64) -> Result<RowFlags, StateError> {
        self.read(|tables| {
            let table = tables.open_table(LEDGER_ROWS)?;
            let flags = table.get(row_offset)?.map(|flags| RowFlags(flags.value()));
            Ok(flags.unwrap_or_default())
        })
    }

    /// Returns the offsets of the rows that are out, in order, and why each is.
    ///
    /// # Errors
    /// redb fails.
    pub fn rows_out(&self) -> Result<Vec<(u64, Cause)>, StateError> {
        self.read(|tables| {
            let table = tables.open_table(LEDGER_ROWS)?;
            let mut out = Vec::new();
            for row in table.iter()? {
                let (offset, flags) = row?;
                let cause = RowFlags(flags.value()).cause();
                out.extend(cause.map(|cause| (offset.value(), cause)));
            }
            Ok(out)
        })
    }

    /// Returns the standing orders.
    ///
    /// # Errors
    /// redb fails.
    pub fn orders(&self) -> Result<Vec<Order>, StateError> {
        self.read(|tables| {
            let table = tables.open_table(ORDERS)?;
            let orders = table.iter()?.map(|order| {
                let (key, ()) = order.map(|(key, value)| (key, value.value()))?;
                let (run_id, pair) = key.value();
                Ok(Order {
                    run_id: run_id.to_owned(),
                    pair: pair.to_vec(),
                })
            });
            orders.collect()
        })
    }
}
