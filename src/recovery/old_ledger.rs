//! What a new ledger carries over from the one that it replaces: the standing orders, and which rows are out.
//!
//! After a power cut the last lines of the ledger may be in the journal alone. A rebuild does not recover the files that it
//! replaces, so it reads the journal too: an order that was answered must not be lost.
//!
//! The ledger may be lost or damaged as well. The state has the standing orders of all lines before its last checkpoint,
//! without their reasons, and the rows that are out, without their hashes; the file and the journal have the lines since
//! then. So orders and rows are those of
//!
//! | ledger | orders and rows |
//! |---|---|
//! | whole, at least as far as the state | its own, with those of the journal |
//! | missing, or it ends before the lines that the state knows | those of the state, the journal, and later lines |
//! | lines of it are damaged or missing | the same |
//! | of another export than the state | its own; those of the state too if the state is of the export that is there |
//!
//! An order that is kept by mistake can be revoked, and a row that is kept out by mistake returns once its line claims it;
//! what is lost puts rows back without a word. A row without a hash is known by its offset alone, and only if the state is of
//! the export that is there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use crate::engine::{EngineError, Setup};
use crate::platform::storage::exists;
use crate::record::ledger::begin::REPLACES;
use crate::record::ledger::{Cause, ExportId, LedgerLine, Op};
use crate::recovery::old_state::LedgerInState;
use crate::recovery::rebuilt::CarriedOrders;
use crate::store::export::{Export, ExportError};
use crate::store::ledger::Order;

/// The reason of an order that only the state has.
const REASON_LOST: &str = "the reason was in a ledger that is lost";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct OldLedger {
    /// Identity and lengths.
    pub(super) description: String,
    /// The standing orders, with the words of their operators.
    pub(super) orders: Vec<(Order, String)>,
    /// The rows that are out, by offset.
    pub(super) rows_out: HashMap<u64, RowOut>,
    /// What the file is, next to the state.
    pub(super) file: LedgerFile,
    /// Whether these are all rows that are out, as far as the export goes.
    pub(super) rows_are_known: bool,
    /// Whether the orders or the rows are not those of the file.
    pub(super) differs: bool,
    /// Rows that the state has as out and that cannot be found in the export.
    rows_not_found: u64,
    /// The result to print.
    pub(super) carried: CarriedOrders,
}

impl OldLedger {
    /// Logs what of the orders is lost.
    pub(super) fn warn(&self, setup: &Setup) {
        let ledger = setup.ledger_path.display();
        let orders = self.carried.orders_without_reason;
        if orders > 0 {
            tracing::warn!(
                %ledger, orders,
                "the retraction ledger {ledger} lacks {orders} standing orders that the state has: they stay in force, and \
                 their reasons are lost"
            );
        }
        let rows = self.rows_not_found;
        if rows > 0 {
            tracing::warn!(
                %ledger, rows,
                "the state has {rows} rows as out that cannot be found: it is damaged, or the export is another one, and the \
                 retraction ledger {ledger} lacks their hashes. Those whose day-file is gone are effective again; restore \
                 export and ledger from one copy, or take their runs out with `distilld retract`"
            );
        }
        if self.carried.orders_unknown {
            tracing::warn!(
                %ledger,
                "the standing orders are not known, nor the rows that were out: neither the whole retraction ledger {ledger} \
                 nor a state can be read; rows whose day-file is gone are effective again; restore the ledger from a copy \
                 first, or give the orders again with `distilld retract`"
            );
        }
    }
}

/// What the file of a ledger is, next to the state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum LedgerFile {
    /// It has all lines that the state knows, or there is no state.
    #[default]
    Whole,
    /// It is missing, or ends before the lines that the state knows.
    Short,
    /// Lines of it are damaged or missing, or it is of another export than the state.
    Unfit,
}

/// A row that is out.
#[derive(Debug)]
pub(super) struct RowOut {
    /// `None` where only the state has the row.
    pub(super) hash: Option<[u8; 16]>,
    pub(super) cause: Cause,
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
    is_damaged: bool,
}

impl Events {
    /// Returns what a state has of the ledger, without the lines of its journal.
    fn of_state(state: &LedgerInState) -> Option<Self> {
        let orders = state.orders.iter().flatten().cloned();
        let unknown = Arc::<str>::from("");
        let row = |(offset, cause): &(u64, Cause)| {
            let pair = Arc::clone(&unknown);
            (
                *offset,
                RowOut {
                    hash: None,
                    cause: *cause,
                    pair,
                },
            )
        };
        state.orders.is_some().then(|| Self {
            orders: orders.map(|order| (order, REASON_LOST.into())).collect(),
            rows_out: state.rows_out.iter().map(row).collect(),
            export: Some((ExportId(state.mark.export), state.export_len)),
            next_seq: state.mark.next_seq,
            ..Self::default()
        })
    }

    fn add(&mut self, line: LedgerLine) {
        self.export = Some((line.export, line.export_len));
        self.is_damaged |= line.seq != self.next_seq;
        self.next_seq = line.seq.saturating_add(1);
        match (line.op, line.row) {
            (Op::Retract, Some(row)) => {
                let out = RowOut {
                    hash: Some(line.row_hash),
                    cause: line.cause,
                    pair: self.path(&line.day_file),
                };
                self.rows_out.insert(row.offset, out);
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

    /// Adds a line that follows those that were added.
    fn add_later(&mut self, line: &LedgerLine) {
        let is_of_export = self.export.is_none_or(|(export, _)| export == line.export);
        if is_of_export && line.seq >= self.next_seq {
            self.add(line.clone());
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
}

/// Reads a ledger that is to be replaced. Lines that cannot be read hold nothing.
///
/// # Errors
/// The ledger cannot be read.
pub(super) fn read_old_ledger(setup: &Setup) -> Result<OldLedger, EngineError> {
    let state = LedgerInState::read(setup);
    let mut of_state = state.as_ref().and_then(Events::of_state);
    let mut events = Events::default();
    let end = read_file(setup, &mut |line| match line {
        Some(line) => {
            of_state.iter_mut().for_each(|known| known.add_later(&line));
            events.add(line);
        }
        None => events.is_damaged = true,
    })?;
    let (file_end, is_damaged) = (events.next_seq, events.is_damaged);
    let in_file: Vec<Order> = events.orders.keys().cloned().collect();
    let rows_in_file: BTreeSet<u64> = events.rows_out.keys().copied().collect();
    for line in state.iter().flat_map(|state| &state.journaled) {
        of_state.iter_mut().for_each(|known| known.add_later(line));
        events.add_later(line);
    }
    // The rows after the last event are in the file, and those of its batch may be in the journal alone.
    let rows_len = whole_len(setup, &setup.export_path)?;
    let is_unknown = of_state.is_none() && (file_end == 0 && rows_len > 0 || is_damaged);
    let unread = state.as_ref().map_or(0, LedgerInState::rows_unread);
    let is_of_export = state.is_some_and(|state| state.is_of_export);
    let taken = match of_state {
        Some(known) => {
            take_known(&mut events, known, (file_end, is_damaged), is_of_export).without(unread)
        }
        None if is_damaged => Taken::of(LedgerFile::Unfit),
        None => Taken::of(LedgerFile::Whole),
    };
    let description = events.export.map(|(export, export_len)| {
        let export_len = export_len.max(rows_len);
        format!("{REPLACES}{export}, {export_len} bytes, with a ledger of {end} bytes")
    });
    Ok(OldLedger {
        description: description.unwrap_or_default(),
        differs: !events.orders.keys().eq(&in_file)
            || events.rows_out.len() != rows_in_file.len()
            || !events.rows_out.keys().all(|row| rows_in_file.contains(row)),
        carried: CarriedOrders {
            orders: events.orders.len() as u64,
            orders_without_reason: taken.without_reason,
            orders_unknown: is_unknown,
        },
        orders: events.orders.into_iter().collect(),
        rows_out: events.rows_out,
        rows_are_known: taken.rows_are_known,
        rows_not_found: taken.rows_not_found,
        file: taken.file,
    })
}

/// What is taken from a state.
struct Taken {
    /// What the file is.
    file: LedgerFile,
    /// Orders whose reason is lost.
    without_reason: u64,
    /// See [`OldLedger::rows_are_known`].
    rows_are_known: bool,
    /// See [`OldLedger::rows_not_found`].
    rows_not_found: u64,
}

impl Taken {
    /// Nothing is taken.
    fn of(file: LedgerFile) -> Self {
        Self {
            file,
            without_reason: 0,
            rows_are_known: false,
            rows_not_found: 0,
        }
    }

    /// Adds rows that are out and cannot be read from the state. A whole file has them.
    fn without(mut self, rows_unread: u64) -> Self {
        if self.file != LedgerFile::Whole {
            self.rows_not_found += rows_unread;
            self.rows_are_known &= rows_unread == 0;
        }
        self
    }
}

/// Replaces the orders and rows of a file and its journal by those that a state knows, where the file lacks lines. Of the
/// file the number of the next line is given, and whether it is damaged; `is_of_export` is whether the state is of the
/// export that is there.
fn take_known(
    events: &mut Events,
    known: Events,
    (file_end, is_damaged): (u64, bool),
    is_of_export: bool,
) -> Taken {
    let id = |events: &Events| events.export.map(|(export, _)| export);
    let is_same = events.export.is_none() || id(events) == id(&known);
    let file = match is_same && !is_damaged {
        true if file_end >= known.next_seq => return Taken::of(LedgerFile::Whole),
        true => LedgerFile::Short,
        false => LedgerFile::Unfit,
    };
    if !is_same && !is_of_export {
        return Taken::of(file);
    }
    let mut taken = Taken {
        rows_are_known: is_of_export,
        ..Taken::of(file)
    };
    let mut in_file = std::mem::replace(&mut events.orders, known.orders);
    for (order, reason) in &mut events.orders {
        match in_file.remove(order) {
            Some(known) => *reason = known,
            None => taken.without_reason += u64::from(reason == REASON_LOST),
        }
    }
    let mut rows_in_file = std::mem::replace(&mut events.rows_out, known.rows_out);
    for (offset, row) in &mut events.rows_out {
        let in_file = rows_in_file.remove(offset).filter(|_| is_same);
        match in_file.filter(|_| row.hash.is_none()) {
            Some(in_file) if is_of_export => row.pair = in_file.pair,
            Some(in_file) => *row = in_file,
            None => {}
        }
    }
    if !is_of_export {
        let before = events.rows_out.len();
        events.rows_out.retain(|_, row| row.hash.is_some());
        taken.rows_not_found = (before - events.rows_out.len()) as u64;
    }
    if !is_same {
        events.orders.extend(in_file);
        events.rows_out.extend(rows_in_file);
    }
    events.export = events.export.or(known.export);
    taken
}

/// Calls `each` with the lines of the ledger, `None` for one that cannot be read. Returns their end, bytes.
fn read_file(setup: &Setup, each: &mut dyn FnMut(Option<LedgerLine>)) -> Result<u64, EngineError> {
    match open_if_there(setup, &setup.ledger_path)? {
        None => Ok(0),
        Some(file) => file.for_each_row(|_, line| -> Result<(), EngineError> {
            each(LedgerLine::parse(line).ok());
            Ok(())
        }),
    }
}

/// Returns the length of the whole lines of a file, bytes.
pub(super) fn whole_len(setup: &Setup, path: &Path) -> Result<u64, EngineError> {
    let file = open_if_there(setup, path)?;
    Ok(file.map_or(Ok(0), |file| file.whole_rows_len())?)
}

pub(super) fn open_if_there(setup: &Setup, path: &Path) -> Result<Option<Export>, EngineError> {
    let is_there = exists(&*setup.storage, path).map_err(|source| ExportError::Io {
        path: path.to_owned(),
        source,
    })?;
    let open = || Export::open_or_create(Arc::clone(&setup.storage), path);
    Ok(is_there.then(open).transpose()?)
}
