//! Begins a retraction ledger: that of a new export, of one that has none, or the successor of one that is lost or damaged.
//!
//! A successor has the standing orders, and at once a retraction of each row that is known to be out and of each row that
//! an order names. The lines that would take a row out again may be gone with their day-file.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::engine::{EngineError, LedgerOrigin, Setup, shortened_id};
use crate::platform::storage::{Storage, StorageFile, exists, remove_if_exists, write_all_at};
use crate::record::keys::RunKey;
use crate::record::ledger::{Cause, ExportId, LedgerLine, Op, RowSpan, row_hash};
use crate::record::row;
use crate::record::timestamp::stamp;
use crate::recovery::old_ledger::{
    LedgerFile, OldLedger, open_if_there, read_old_ledger, whole_len,
};
use crate::recovery::swap::{free_number, keep_old_file};
use crate::store::export::{ExportError, RowBlock};
use crate::store::files::STATE_FILE;
use crate::store::ledger::Order;

/// Length of the lines that are written at once, bytes.
const WRITE_LEN: usize = 1 << 20;

/// Writes a ledger with its first lines under another name and renames it, so that it is there whole or not at all. `old`
/// is the ledger that it succeeds.
///
/// # Errors
/// Errors of the disk.
pub(super) fn begin_ledger(
    setup: &Setup,
    export_len: u64,
    old: Option<&OldLedger>,
) -> Result<(), EngineError> {
    let storage = &*setup.storage;
    let io_error = |source| ExportError::Io {
        path: setup.ledger_path.clone(),
        source,
    };
    let new_path = new_path(&setup.ledger_path);
    let create = || {
        remove_if_exists(storage, &new_path)?;
        storage.create(&new_path)
    };
    let file = create().map_err(io_error)?;
    share_rights(storage, &setup.export_path, &*file);
    let begin = begin_line(setup, export_len);
    let cause = begin.cause;
    let mut lines = NewLines::new(&*file, begin);
    for order in &setup.ledger_origin.orders {
        lines.add_order(order).map_err(io_error)?;
    }
    let rows = match old {
        Some(old) => retract_rows(setup, old, &mut lines, &io_error)?,
        None => 0,
    };
    lines.write().map_err(io_error)?;
    let place = || {
        file.sync_data()?;
        storage.rename(&new_path, &setup.ledger_path)?;
        storage.sync_dir(setup.ledger_path.parent().unwrap_or(Path::new(".")))
    };
    place().map_err(io_error)?;
    // A rebuild gives it another name later, and prints its own result.
    if !setup.ledger_origin.is_rebuild {
        let (ledger, cause) = (setup.ledger_path.display(), cause.code());
        let orders = setup.ledger_origin.orders.len();
        tracing::info!(
            %ledger, cause, orders, rows,
            "began the retraction ledger {ledger} ({cause}) of an export of {export_len} bytes, with {orders} standing \
             orders and {rows} retracted rows"
        );
    }
    Ok(())
}

fn begin_line(setup: &Setup, export_len: u64) -> LedgerLine {
    let origin = &setup.ledger_origin;
    let cause = match export_len {
        _ if origin.is_rebuild => Cause::Rebuild,
        0 => Cause::Created,
        _ => Cause::Adopted,
    };
    LedgerLine {
        seq: 0,
        op: Op::Begin,
        export: new_export_id(),
        export_len,
        row: None,
        row_hash: [0; 16],
        id: String::new(),
        source_run_id: String::new(),
        cause,
        day_file: String::new(),
        line_offset: None,
        reason: origin.reason.clone(),
        at: stamp(setup.clock.wall_ms()),
    }
}

/// The first lines of a ledger, before they are in its file.
struct NewLines<'f> {
    file: &'f dyn StorageFile,
    begin: LedgerLine,
    next_seq: u64,
    /// Lines that are not written.
    lines: Vec<u8>,
    /// Length of the written ones, bytes.
    written: u64,
}

impl<'f> NewLines<'f> {
    fn new(file: &'f dyn StorageFile, begin: LedgerLine) -> Self {
        let mut lines = Vec::new();
        begin.write(&mut lines);
        Self {
            file,
            begin,
            next_seq: 1,
            lines,
            written: 0,
        }
    }

    fn add(&mut self, line: LedgerLine) -> io::Result<()> {
        let line = LedgerLine {
            seq: self.next_seq,
            ..line
        };
        self.next_seq += 1;
        line.write(&mut self.lines);
        match self.lines.len() >= WRITE_LEN {
            true => self.write(),
            false => Ok(()),
        }
    }

    fn add_order(&mut self, (order, reason): &(Order, String)) -> io::Result<()> {
        self.add(LedgerLine {
            op: Op::Order,
            source_run_id: order.run_id.clone(),
            cause: Cause::Operator,
            day_file: String::from_utf8_lossy(&order.pair).into_owned(),
            reason: reason.clone(),
            ..self.begin.clone()
        })
    }

    fn add_row(&mut self, found: Found) -> io::Result<()> {
        self.add(LedgerLine {
            op: Op::Retract,
            row: Some(found.row),
            row_hash: found.hash,
            id: shortened_id(found.id),
            source_run_id: shortened_id(found.run_id),
            cause: found.cause,
            day_file: found.day_file,
            reason: found.reason,
            ..self.begin.clone()
        })
    }

    fn write(&mut self) -> io::Result<()> {
        write_all_at(self.file, &self.lines, self.written)?;
        self.written += self.lines.len() as u64;
        self.lines.clear();
        Ok(())
    }
}

/// A row of the export that has to be out.
struct Found {
    row: RowSpan,
    hash: [u8; 16],
    id: String,
    run_id: String,
    cause: Cause,
    day_file: String,
    reason: String,
}

/// Adds a retraction of each row of the export that has to be out. Returns their number.
fn retract_rows(
    setup: &Setup,
    old: &OldLedger,
    lines: &mut NewLines<'_>,
    io_error: &dyn Fn(io::Error) -> ExportError,
) -> Result<u64, EngineError> {
    let mut rows = 0;
    if old.rows_out.is_empty() && old.orders.is_empty() {
        return Ok(rows);
    }
    let Some(export) = open_if_there(setup, &setup.export_path)? else {
        return Ok(rows);
    };
    let wanted = Wanted::new(old);
    let find = |block: &RowBlock| {
        let mut found = Vec::new();
        block.for_each(|offset, row| found.extend(wanted.find(offset, row)));
        found
    };
    export.map_rows(find, |_, found| -> Result<(), EngineError> {
        rows += found.len() as u64;
        for found in found {
            lines.add_row(found).map_err(io_error)?;
        }
        Ok(())
    })?;
    Ok(rows)
}

/// By what a row is known that has to be out.
struct Wanted<'a> {
    old: &'a OldLedger,
    /// The orders by run.
    orders: HashMap<RunKey, Vec<&'a (Order, String)>>,
}

impl<'a> Wanted<'a> {
    fn new(old: &'a OldLedger) -> Self {
        let mut orders = HashMap::<RunKey, Vec<_>>::new();
        for order in &old.orders {
            let run = RunKey::from_run_id(&order.0.run_id);
            orders.entry(run).or_default().push(order);
        }
        Self { old, orders }
    }

    /// Returns a row, given without its newline, if it has to be out.
    fn find(&self, offset: u64, line: &[u8]) -> Option<Found> {
        let known = self.old.rows_out.get(&offset);
        if known.is_none() && self.orders.is_empty() {
            return None;
        }
        let view = row::view(line).ok()?;
        let of_run = self.orders.get(&RunKey::from_run_id(&view.source_run_id));
        if known.is_none() && of_run.is_none() {
            return None;
        }
        let hash = row_hash(&[line, b"\n"].concat());
        let known = known.filter(|row| row.hash.is_none_or(|known| known == hash));
        let order = of_run.and_then(|orders| order_on(orders, view.day_file_name()));
        let (cause, pair) = match (known, order) {
            (Some(known), _) => (known.cause, &*known.pair),
            // Where the rows that are out are known, an order that is limited to a day-file names no other of its run.
            (None, Some((order, _))) if order.pair.is_empty() || !self.old.rows_are_known => {
                (Cause::Operator, "")
            }
            _ => return None,
        };
        let order = order.filter(|_| cause == Cause::Operator);
        let day_file = match order {
            Some((order, _)) if pair.is_empty() => String::from_utf8_lossy(&order.pair).into(),
            _ => pair.to_owned(),
        };
        Some(Found {
            row: RowSpan {
                offset,
                len_bytes: line.len() as u64 + 1,
            },
            hash,
            id: view.id.into_owned(),
            run_id: view.source_run_id.into_owned(),
            cause,
            day_file,
            reason: order.map_or_else(String::new, |(_, reason)| reason.clone()),
        })
    }
}

/// Returns the order that names a row of a day-file with this name: that on all rows of its run, or one that is limited to a
/// day-file of the name. The day of a row is not in it.
fn order_on<'a>(orders: &[&'a (Order, String)], name: &str) -> Option<&'a (Order, String)> {
    let of_name =
        |order: &Order| order.pair.rsplit(|byte| *byte == b'/').next() == Some(name.as_bytes());
    let all = orders.iter().find(|(order, _)| order.pair.is_empty());
    all.or_else(|| orders.iter().find(|(order, _)| of_name(order)))
        .copied()
}

/// Gives the ledger the rights of the export: its readers read both. A file that keeps other rights is reported by `check`.
fn share_rights(storage: &dyn Storage, export: &Path, ledger: &dyn StorageFile) {
    if let Ok(Some(rights)) = storage.rights(export)
        && let Err(error) = ledger.set_rights(rights)
    {
        tracing::warn!(
            export = %export.display(), %error,
            "cannot give the retraction ledger the owner and mode of the export {} ({error})",
            export.display()
        );
    }
}

fn new_path(ledger: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(ledger.file_name().unwrap_or_default());
    name.push(".new");
    ledger.with_file_name(name)
}

/// Returns eight random bytes.
fn new_export_id() -> ExportId {
    use std::hash::{BuildHasher as _, RandomState};
    // The keys of the hash are random in each process and differ in each state.
    ExportId(
        RandomState::new()
            .hash_one(std::process::id())
            .to_le_bytes(),
    )
}

/// Begins a new ledger with the orders and the rows that are out by what the state knows, if the one that is there lacks some
/// of them. The state is set aside next, and from then on the ledger alone has them.
///
/// # Errors
/// Errors of the disk.
pub(super) fn keep_ledger(setup: &Setup) -> Result<(), EngineError> {
    if setup.ledger_origin.is_rebuild || !exists_state(setup)? {
        return Ok(());
    }
    let old = read_old_ledger(setup)?;
    if old.differs && old.file == LedgerFile::Short {
        old.warn(setup);
        renew_ledger(setup, &old)?;
    }
    Ok(())
}

fn exists_state(setup: &Setup) -> Result<bool, EngineError> {
    let found = exists(&*setup.storage, &setup.state_dir.join(STATE_FILE));
    found.map_err(|source| setup.state_dir_error(source))
}

/// Replaces a ledger by a new one with its orders and the rows that are out. The old one is kept under another name.
///
/// # Errors
/// Errors of the disk.
pub(super) fn renew_ledger(setup: &Setup, old: &OldLedger) -> Result<(), EngineError> {
    let io_error = |source| ExportError::Io {
        path: setup.ledger_path.clone(),
        source,
    };
    free_number(&*setup.storage, &setup.ledger_path)
        .and_then(|number| keep_old_file(&*setup.storage, &setup.ledger_path, number))
        .map_err(io_error)?;
    let export_len = whole_len(setup, &setup.export_path)?;
    let setup = Setup {
        ledger_origin: LedgerOrigin {
            is_rebuild: false,
            reason: old.description.clone(),
            orders: old.orders.clone(),
        },
        ..setup.clone()
    };
    begin_ledger(&setup, export_len, Some(old))
}
