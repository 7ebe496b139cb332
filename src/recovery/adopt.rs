//! Rebuilds the state from the existing rows of the export. Nothing of the old state is used except the rows that its
//! journal proves, and the standing orders where their ledger is lost.

use crate::record::final_check;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::console::progress::OnStep;
use crate::engine::{Engine, EngineError, Ledger, Setup};
use crate::pair::history::{History, RowTally};
use crate::pair::index::{PairId, UnclaimedRow};
use crate::platform::storage::{exists, remove_if_exists};
use crate::record::firewall::{ACCEPTED, FIREWALL};
use crate::record::row;
use crate::recovery::decide::RecoveryCase;
use crate::recovery::ledger::{FoldedLedger, open_ledger};
use crate::recovery::new_ledger::keep_ledger;
use crate::recovery::report::OpenReport;
use crate::store::export::{Export, ExportError, RowBlock, Segments};
use crate::store::files::{
    BUILDING_FILE, CHANGED_FILE, DISTRUSTED_FILE, JOURNAL_FILE, STATE_FILE, set_state_aside,
};
use crate::store::journal::Journal;
use crate::store::journal::batch::LedgerAppend;
use crate::store::ledger::LedgerChanges;
use crate::store::row_buffer::Rows;
use crate::store::state::State;
use crate::store::state::error::StateError;
use crate::store::state::header::Header;

/// Cases `Fresh` and `Adopt`: a state that knows nothing but the rows that are there. Where memory holds their claims it
/// keeps its provisional name: a process that ends before it has written them leaves no state, and the next start begins
/// again.
pub(super) fn build_state(
    setup: Setup,
    case: RecoveryCase,
    on_step: OnStep<'_>,
) -> Result<(Engine, OpenReport), EngineError> {
    let dir_error = |source| setup.state_dir_error(source);
    let storage = Arc::clone(&setup.storage);
    let journal_path = setup.state_dir.join(JOURNAL_FILE);
    let building_path = setup.state_dir.join(BUILDING_FILE);

    let rows_salvaged_bytes = salvage(&setup, &journal_path)?;
    keep_ledger(&setup)?;
    set_state_aside(&*storage, &setup.state_dir).map_err(dir_error)?;
    remove_if_exists(&*storage, &building_path).map_err(dir_error)?;
    let journal_file = storage.create(&journal_path).map_err(dir_error)?;
    let mut state = State::create(&*storage, &building_path)?;
    // The ledger of a new export is there before it.
    let new_ledger = match export_exists(&setup)? {
        true => None,
        false => Some(open_ledger(&setup, None)?),
    };
    let mut export = Export::open_or_create(Arc::clone(&storage), &setup.export_path)?;
    let mut report = OpenReport {
        salvaged_bytes: rows_salvaged_bytes,
        ..OpenReport::new(case)
    };
    let mut ledger = match new_ledger {
        Some(ledger) => ledger,
        None => open_ledger(&setup, Some(export.whole_rows_len()?))?,
    };
    let files = (&mut export, &mut ledger);
    let history = adopt(&mut state, files, &setup, &mut report, on_step)?;

    let state_path = match state.holds_claims() {
        true => building_path,
        false => {
            let path = setup.state_dir.join(STATE_FILE);
            storage.rename(&building_path, &path).map_err(dir_error)?;
            path
        }
    };
    for outdated in [DISTRUSTED_FILE, CHANGED_FILE] {
        let outdated = setup.state_dir.join(outdated);
        remove_if_exists(&*storage, &outdated).map_err(dir_error)?;
    }
    storage.sync_dir(&setup.state_dir).map_err(dir_error)?;
    let header = state.header().clone();
    let journal = Journal::empty(journal_file, header.journal_epoch, header.seq_applied);
    let ledger = Ledger::new(
        ledger.file,
        &header.ledger,
        LedgerChanges::default(),
        &state.view()?,
    )?;
    let mut engine = Engine::assemble(setup, state, state_path, journal, export, ledger)?;
    engine.books.history = history;
    engine.books.rows_are_counted = true;
    Ok((engine, report))
}

fn export_exists(setup: &Setup) -> Result<bool, ExportError> {
    exists(&*setup.storage, &setup.export_path).map_err(|source| ExportError::Io {
        path: setup.export_path.clone(),
        source,
    })
}

/// The state is lost, its journal may be there: rows that readers saw and that a power cut took from the export are
/// in it. If it belongs to this export they are written again, at the offsets where they were.
fn salvage(setup: &Setup, journal_path: &Path) -> Result<u64, EngineError> {
    let storage = &setup.storage;
    // On any other error the journal may exist, and the start must not continue without its rows.
    let journal = match storage.open_write(journal_path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other.map_err(|source| setup.state_dir_error(source))?,
    };
    if !export_exists(setup)? {
        return Ok(0);
    }
    let mut export = Export::open_or_create(Arc::clone(storage), &setup.export_path)?;
    let mut bytes = 0;
    Journal::salvage(journal, |batch| -> Result<bool, EngineError> {
        let mark = batch.delta.mark;
        if let Some(lines) = &batch.delta.ledger
            && !salvage_lines(setup, lines)?
        {
            return Ok(false);
        }
        let belongs = export.len_bytes() >= batch.delta.export_from
            && export.mark_at(mark.len_bytes)? == mark
            && batch
                .rows
                .pieces()
                .all(|rows| final_check::forbidden_in(rows).is_none());
        if !belongs {
            return Ok(false);
        }
        match export.redo(batch.delta.export_from, &batch.rows) {
            // Others wrote there since, or it is the journal of another export.
            Err(ExportError::Changed { .. }) => return Ok(false),
            other => other?,
        }
        bytes += batch.rows.len_bytes() as u64;
        Ok(true)
    })?;
    if bytes > 0 {
        // The journal is set aside next: from then on the export alone has these rows.
        export.begin_sync().sync()?;
    }
    Ok(bytes)
}

/// Writes lines of the journal to the ledger again. Returns false where they are not of this ledger. A ledger that is gone
/// gets a successor, with the retractions that follow from the sources; the rows are written in any case.
fn salvage_lines(setup: &Setup, lines: &LedgerAppend) -> Result<bool, EngineError> {
    let storage = &setup.storage;
    let io_error = |source| ExportError::Io {
        path: setup.ledger_path.clone(),
        source,
    };
    if !exists(&**storage, &setup.ledger_path).map_err(io_error)? {
        return Ok(true);
    }
    let mut ledger = Export::open_or_create(Arc::clone(storage), &setup.ledger_path)?;
    let belongs =
        ledger.len_bytes() >= lines.from && ledger.mark_at(lines.mark.len_bytes)? == lines.mark;
    if !belongs {
        return Ok(false);
    }
    match ledger.redo(lines.from, &Rows::from(lines.lines.clone())) {
        Err(ExportError::Changed { .. }) => return Ok(false),
        other => other?,
    }
    ledger.begin_sync().sync()?;
    Ok(true)
}

/// Makes every row of the export claimable, and removes a torn row at its end, which no reader can have seen as a
/// whole line. Returns the rows by minute.
fn adopt(
    state: &mut State,
    (export, ledger): (&mut Export, &mut FoldedLedger),
    setup: &Setup,
    report: &mut OpenReport,
    on_step: OnStep<'_>,
) -> Result<History, EngineError> {
    let mut history = History::default();
    let mut tally = RowTally::new(&mut history);
    let mut claims = Vec::new();
    let total_bytes = export.len_bytes();
    let mut hashed = Segments::new(setup.segment_bytes);
    let end = export.map_rows(FoundRows::of, |block, found| -> Result<(), EngineError> {
        on_step("reading back the export", block.offset, total_bytes);
        ledger.on_rows(block)?;
        if let Some((offset, what)) = found.forbidden {
            let export = setup.export_path.display().to_string();
            return Err(EngineError::Tainted {
                export,
                what,
                offset,
            });
        }
        hashed.extend(block.rows.as_deref().unwrap_or_default());
        for (day_file_name, minute, rows) in found.by_minute {
            tally.add(&day_file_name, minute, rows);
        }
        report.rows_foreign += found.foreign;
        report.rows_unknown_category += found.unknown_category;
        report.rows_adopted += found.claims.len() as u64;
        claims.extend(found.claims);
        if claims.len() > setup.claims_held_max {
            take_claims(state, &mut claims)?;
        }
        Ok(())
    })?;
    drop(tally);
    match state.header().claimable {
        0 => state.hold_claims(claims),
        _ => take_claims(state, &mut claims)?,
    }
    report.torn_bytes = export.len_bytes() - end;
    if report.torn_bytes > 0 {
        export.cut(end)?;
    }
    export.hashed(hashed);
    state.record_segments(export.finished_segments());
    let (ledger_mark, changes) = ledger.finish()?;
    state.record_ledger(changes);
    let header = Header {
        ledger: ledger_mark,
        export: export.sync()?,
        guard: export.guard(),
        ..state.header().clone()
    };
    state.write_header(header)?;
    export.all_segments_applied();
    Ok(history)
}

/// The store writes far less when it is given its keys in order.
fn take_claims(state: &mut State, claims: &mut Vec<UnclaimedRow>) -> Result<(), StateError> {
    claims.sort_unstable();
    state.add_claimable(claims)?;
    claims.clear();
    Ok(())
}

/// What an adoption takes from rows that follow each other.
#[derive(Debug, Default)]
struct FoundRows {
    claims: Vec<UnclaimedRow>,
    /// Lines that are no rows.
    foreign: u64,
    unknown_category: u64,
    /// The numbers of rows of one day-file name and minute that follow each other.
    by_minute: Vec<(String, u64, u64)>,
    /// Offset and description of the first row that the firewall forbids.
    forbidden: Option<(u64, String)>,
}

impl FoundRows {
    fn of(block: &RowBlock) -> Self {
        let mut found = Self::default();
        block.for_each(|offset, row| found.add(offset, row));
        found
    }

    fn add(&mut self, row_offset: u64, bytes: &[u8]) {
        let Ok(row) = row::existing(bytes) else {
            self.foreign += 1;
            return;
        };
        self.claims.push(UnclaimedRow {
            row: row.key,
            scope: PairId::ANY,
            row_offset,
        });
        if let Some(origin) = row.origin {
            match self.by_minute.last_mut() {
                Some((name, minute, rows))
                    if (name.as_str(), *minute) == (&origin.day_file_name, origin.minute) =>
                {
                    *rows += 1;
                }
                _ => {
                    let name = origin.day_file_name.into_owned();
                    self.by_minute.push((name, origin.minute, 1));
                }
            }
        }
        let Some(category) = row.quality_score else {
            return;
        };
        self.unknown_category += u64::from(!ACCEPTED.contains(&&*category));
        if FIREWALL.contains(&&*category) && self.forbidden.is_none() {
            let what = format!("run {:?}, scored {category}", row.source_run_id);
            self.forbidden = Some((row_offset, what));
        }
    }
}
