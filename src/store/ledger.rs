//! What the state and the journal hold of the retraction ledger: its name, the rows that it concerns, the orders.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::lake::path::LEDGER_NAME;
use crate::pair::orders::Orders;
use crate::platform::storage::Storage;
use crate::record::keys::RunKey;
use crate::record::ledger::{Cause, LedgerLine, Op};
use crate::store::export::{Segment, rows_between};
use crate::store::state::StateView;
use crate::store::state::error::StateError;

/// Returns whether a file is a ledger, or the one that a rebuild makes.
#[must_use]
pub fn is_ledger(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.strip_prefix(b".")
        .unwrap_or(name)
        .starts_with(LEDGER_NAME.as_bytes())
}

/// How the ledger has a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowFlags(pub u8);

impl RowFlags {
    const OUT: u8 = 1;
    const NOTED: u8 = 2;
    /// The bits of the index in [`RowFlags::CAUSES`], for a row that is out.
    const CAUSE_SHIFT: u8 = 2;
    /// The causes that take a row out; their order is persisted.
    pub const CAUSES: [Cause; 5] = [
        Cause::Rejected,
        Cause::NeedsHumanReview,
        Cause::UnknownCategory,
        Cause::Rescored,
        Cause::Operator,
    ];

    /// Returns whether the row is out of the effective set.
    #[must_use]
    pub fn is_out(self) -> bool {
        self.0 & Self::OUT != 0
    }

    /// Returns whether it is noted that the row's evidence was replaced.
    #[must_use]
    pub fn is_noted(self) -> bool {
        self.0 & Self::NOTED != 0
    }

    /// Returns why the row is out; `None` where it is not.
    #[must_use]
    pub fn cause(self) -> Option<Cause> {
        let index = usize::from(self.0 >> Self::CAUSE_SHIFT);
        Self::CAUSES.get(index).copied().filter(|_| self.is_out())
    }

    /// Returns the flags after an event of the row.
    #[must_use]
    pub fn after(self, op: Op, cause: Cause) -> Self {
        let noted = self.0 & Self::NOTED;
        Self(match op {
            Op::Retract => {
                let index = Self::CAUSES.iter().position(|known| *known == cause);
                let index = index.unwrap_or(Self::CAUSES.len()) as u8;
                noted | Self::OUT | index << Self::CAUSE_SHIFT
            }
            Op::Restore => noted,
            Op::Note => self.0 | Self::NOTED,
            Op::Begin | Op::Order | Op::Revoke => self.0,
        })
    }
}

/// A standing order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    /// The run.
    pub run_id: String,
    /// The path of the pair that it concerns; empty for all.
    pub pair: Vec<u8>,
}

/// Changes that a checkpoint writes into the state.
#[derive(Debug, Clone, Default)]
pub struct LedgerChanges {
    /// Whole segments of the ledger.
    pub segments: Vec<Segment>,
    /// How the ledger has rows now.
    pub rows: BTreeMap<u64, RowFlags>,
    /// Orders, and whether each is in force now.
    pub orders: BTreeMap<Order, bool>,
}

impl LedgerChanges {
    /// Applies a line; `before` is how the ledger had its row until then.
    pub fn apply(&mut self, line: &LedgerLine, before: RowFlags) {
        if let Some(row) = line.row {
            self.rows
                .insert(row.offset, before.after(line.op, line.cause));
        }
        if matches!(line.op, Op::Order | Op::Revoke) {
            let order = Order {
                run_id: line.source_run_id.clone(),
                pair: line.day_file.clone().into_bytes(),
            };
            self.orders.insert(order, line.op == Op::Order);
        }
    }
}

/// Returns the standing orders of a state and of changes that are newer.
///
/// # Errors
/// The state cannot be read.
pub fn standing_orders(view: &StateView, changes: &LedgerChanges) -> Result<Orders, StateError> {
    let mut orders = Orders::default();
    for order in view.orders()? {
        orders.insert(RunKey::from_run_id(&order.run_id), &order.pair);
    }
    for (order, is_in_force) in &changes.orders {
        let run = RunKey::from_run_id(&order.run_id);
        if *is_in_force {
            orders.insert(run, &order.pair);
        } else {
            orders.remove(run, &order.pair);
        }
    }
    Ok(orders)
}

/// Calls `each` with the events of the whole lines of a ledger before `end`, or before the end of the file. Returns that
/// end.
///
/// # Errors
/// The ledger cannot be read; [`io::ErrorKind::InvalidData`] for the first line that is no event.
pub fn for_each_event(
    storage: &dyn Storage,
    ledger: &Path,
    end: Option<u64>,
    mut each: impl FnMut(LedgerLine),
) -> io::Result<u64> {
    let file = storage.open_read(ledger)?;
    let end = match end {
        Some(end) => end,
        None => file.stat()?.len_bytes,
    };
    let mut fault = None;
    rows_between(&*file, 0, end, |line| match LedgerLine::parse(line) {
        Ok(event) => each(event),
        Err(error) => {
            fault.get_or_insert_with(|| io::Error::new(io::ErrorKind::InvalidData, error));
        }
    })?;
    fault.map_or(Ok(end), Err)
}

/// Reads the standing orders that a ledger has; a ledger that does not exist has none.
///
/// # Errors
/// Those of [`for_each_event`].
pub fn read_orders(storage: &dyn Storage, ledger: &Path) -> io::Result<Orders> {
    let mut orders = Orders::default();
    let read = for_each_event(storage, ledger, None, |event| {
        let run = RunKey::from_run_id(&event.source_run_id);
        match event.op {
            Op::Order => _ = orders.insert(run, event.day_file.as_bytes()),
            Op::Revoke => _ = orders.remove(run, event.day_file.as_bytes()),
            _ => {}
        }
    });
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(orders),
        read => read.map(|_| orders),
    }
}
