//! What a new ledger carries over from the one that it replaces: the standing orders, and which rows are out.
//!
//! After a power cut the last lines of the ledger may be in the journal alone. A rebuild does not recover the files that it
//! replaces, so it reads the journal too: an order that was answered must not be lost.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::engine::{EngineError, Setup};
use crate::platform::storage::exists;
use crate::record::ledger::{ExportId, LedgerLine, Op};
use crate::recovery::old_state::journaled_ledger_lines;
use crate::store::export::{Export, ExportError};
use crate::store::ledger::Order;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct OldLedger {
    /// Identity and lengths.
    pub(super) description: String,
    /// The standing orders, with the words of their operators.
    pub(super) orders: Vec<(Order, String)>,
    /// The rows that are out, by offset.
    pub(super) rows_out: HashMap<u64, RowOut>,
}

/// A row that is out.
#[derive(Debug)]
pub(super) struct RowOut {
    pub(super) hash: [u8; 16],
    /// The path of its pair, as the event names it; empty where it is not known.
    pub(super) pair: Arc<str>,
}

/// The events of a ledger, folded as far as they matter.
#[derive(Default)]
struct Events {
    orders: BTreeMap<Order, String>,
    rows_out: HashMap<u64, RowOut>,
    /// Each path of a pair once.
    pairs: HashSet<Arc<str>>,
    export: Option<(ExportId, u64)>,
    next_seq: u64,
}

impl Events {
    fn add(&mut self, line: LedgerLine) {
        self.export = Some((line.export, line.export_len));
        self.next_seq = line.seq.saturating_add(1);
        match (line.op, line.row) {
            (Op::Retract, Some(row)) => {
                let (hash, pair) = (line.row_hash, self.path(&line.day_file));
                self.rows_out.insert(row.offset, RowOut { hash, pair });
            }
            (Op::Restore, Some(row)) => drop(self.rows_out.remove(&row.offset)),
            _ => {}
        }
        let order = Order {
            run_id: line.source_run_id,
            pair: line.day_file.into_bytes(),
        };
        match line.op {
            Op::Order => drop(self.orders.insert(order, line.reason)),
            Op::Revoke => drop(self.orders.remove(&order)),
            _ => {}
        }
    }

    fn path(&mut self, day_file: &str) -> Arc<str> {
        if let Some(known) = self.pairs.get(day_file) {
            return Arc::clone(known);
        }
        let path = Arc::<str>::from(day_file);
        self.pairs.insert(Arc::clone(&path));
        path
    }

    /// Returns whether a line of the journal follows those of the file.
    fn misses(&self, line: &LedgerLine) -> bool {
        let is_of_export = self.export.is_none_or(|(export, _)| export == line.export);
        is_of_export && line.seq >= self.next_seq
    }
}

/// Reads a ledger that is to be replaced. Lines that cannot be read hold nothing.
///
/// # Errors
/// The ledger cannot be read.
pub(super) fn read_old_ledger(setup: &Setup) -> Result<OldLedger, EngineError> {
    let storage = &setup.storage;
    let path = &setup.ledger_path;
    let io_error = |source| ExportError::Io {
        path: path.clone(),
        source,
    };
    let mut events = Events::default();
    let mut end = 0;
    if exists(&**storage, path).map_err(io_error)? {
        let file = Export::open_or_create(Arc::clone(storage), path)?;
        end = file.for_each_row(|_, line| -> Result<(), EngineError> {
            if let Ok(line) = LedgerLine::parse(line) {
                events.add(line);
            }
            Ok(())
        })?;
    }
    for line in journaled_ledger_lines(setup) {
        if events.misses(&line) {
            events.add(line);
        }
    }
    // The rows after the last event are in the file, and those of its batch may be in the journal alone.
    let rows_len = match exists(&**storage, &setup.export_path).map_err(io_error)? {
        true => {
            Export::open_or_create(Arc::clone(storage), &setup.export_path)?.whole_rows_len()?
        }
        false => 0,
    };
    let description = events.export.map(|(export, export_len)| {
        let export_len = export_len.max(rows_len);
        format!("replaces export {export}, {export_len} bytes, with a ledger of {end} bytes")
    });
    Ok(OldLedger {
        description: description.unwrap_or_default(),
        orders: events.orders.into_iter().collect(),
        rows_out: events.rows_out,
    })
}
