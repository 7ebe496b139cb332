//! Makes a new state of the export that is there (`rebuild --state-only`).

use crate::console::progress::OnStep;
use crate::engine::{Engine, EngineError, Setup};
use crate::platform::storage::exists;
use crate::recovery::new_ledger::renew_ledger;
use crate::recovery::old_ledger::{LedgerFile, read_old_ledger};
use crate::recovery::owned_storage::with_owner;
use crate::recovery::rebuild::{RebuildError, create_state_dir};
use crate::recovery::rebuilt::CarriedOrders;
use crate::recovery::report::OpenReport;
use crate::recovery::swap::finish_swap;
use crate::store::export::ExportError;
use crate::store::files::mark_state_damaged;

/// Makes a new state of the rows that the export has, and of the rows that only the journal has. Every row keeps its
/// offset; the next start reads the sources and appends the rows that are missing. The caller holds the lock. Returns what
/// was found in the export, and the standing orders that stay in force.
///
/// # Errors
/// See [`RebuildError`]. The next start continues.
pub fn rebuild_state(
    setup: &Setup,
    on_step: OnStep<'_>,
) -> Result<(OpenReport, CarriedOrders), RebuildError> {
    let is_there = exists(&*setup.storage, &setup.export_path);
    let is_there = is_there.map_err(|source| ExportError::Io {
        path: setup.export_path.clone(),
        source,
    })?;
    if !is_there {
        return Err(RebuildError::NothingToAdopt(setup.export_path.clone()));
    }
    create_state_dir(setup)?;
    let setup = with_owner(setup)?;
    finish_swap(&setup)?;
    let old = read_old_ledger(&setup)?;
    if old.file != LedgerFile::Short {
        old.warn(&setup);
    }
    mark_state_damaged(&*setup.storage, &setup.state_dir)
        .map_err(|source| setup.state_dir_error(source))?;
    // A ledger that is replaced is kept under another name, and the orders of its operators stay in force. Those that only
    // the state has are in the new one before the state is set aside; a start does this for a ledger that is cut.
    if old.differs && old.file == LedgerFile::Unfit {
        renew_ledger(&setup, &old)?;
    }
    let opened = match Engine::open_with_progress(setup.clone(), on_step) {
        Err(EngineError::Ledger { .. }) => {
            renew_ledger(&setup, &old)?;
            Engine::open_with_progress(setup, on_step)
        }
        opened => opened,
    };
    Ok((complete(opened?)?, old.carried))
}

/// Completes the state, which the next start uses.
fn complete((mut engine, report): (Engine, OpenReport)) -> Result<OpenReport, EngineError> {
    engine.complete_state()?;
    Ok(report)
}
