//! Whether a state is older than the ledger of its export: a copy of it from before a rebuild was restored.
//!
//! The first line of a ledger names the identity that it replaces, and those of the ledgers that rebuilds keep lead further
//! back. If one of them is the identity that the state has, distilld itself replaced the files, and the state is one that a
//! start can do without, if the bytes that it committed are proven to be whole:
//!
//! | replaced since | proof |
//! |---|---|
//! | the ledger alone | the export has all bytes that the state committed |
//! | the export too | an export that a rebuild kept has them, and the one that is there is another one |
//!
//! Without proof the start stops: the export may as well be the one of the state, and cut.

use std::collections::HashMap;
use std::path::Path;

use crate::engine::{EngineError, Setup};
use crate::platform::storage::{Storage, remove_if_exists};
use crate::record::ledger::{Cause, ExportId, LedgerLine};
use crate::recovery::decide::ExportFound;
use crate::recovery::open::find_export;
use crate::recovery::swap::kept_files;
use crate::store::export::{ExportError, row_at};
use crate::store::files::JOURNAL_FILE;
use crate::store::state::header::Header;

/// Returns whether a state, whose journal ends at `committed` bytes of the export, may be replaced. See the module.
///
/// # Errors
/// Errors of the disk.
pub(super) fn is_replaced(
    setup: &Setup,
    header: &Header,
    committed: u64,
) -> Result<bool, EngineError> {
    let storage = &*setup.storage;
    let kept = |path: &Path| {
        kept_files(storage, path).map_err(|source| ExportError::Io {
            path: path.to_owned(),
            source,
        })
    };
    let ledgers = kept(&setup.ledger_path)?;
    let begins = ledgers.iter().filter_map(|path| begin_of(storage, path));
    let of_state = ExportId(header.ledger.export);
    let Some(begin) = begin_of(storage, &setup.ledger_path) else {
        return Ok(false);
    };
    let Some(is_other_export) = replaces(begin, of_state, begins) else {
        return Ok(false);
    };
    let has_all = |path: &Path| -> Result<bool, EngineError> {
        let found = find_export(storage, path, header.export)?;
        Ok(
            matches!(found, ExportFound::Present { len_bytes, mark_fits: true } if len_bytes >= committed),
        )
    };
    let fits = has_all(&setup.export_path)?;
    if !is_other_export || fits {
        return Ok(!is_other_export && fits);
    }
    for path in kept(&setup.export_path)? {
        if has_all(&path)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the first line of a ledger; `None` if it cannot be read.
fn begin_of(storage: &dyn Storage, ledger: &Path) -> Option<LedgerLine> {
    let file = storage.open_read(ledger).ok()?;
    LedgerLine::parse(&row_at(&*file, 0)?).ok()
}

/// Returns whether the export was replaced too since an identity; `None` if the ledgers do not lead back to it.
fn replaces(
    newest: LedgerLine,
    identity: ExportId,
    kept: impl Iterator<Item = LedgerLine>,
) -> Option<bool> {
    let mut kept: HashMap<_, _> = kept.map(|begin| (begin.export, begin)).collect();
    let (mut begin, mut is_other_export) = (newest, false);
    loop {
        is_other_export |= begin.cause == Cause::Rebuild;
        let replaced = begin.replaced()?;
        if replaced == identity {
            return Some(is_other_export);
        }
        begin = kept.remove(&replaced)?;
    }
}

/// Removes the journal of such a state, durably: its rows are not written again.
///
/// # Errors
/// Errors of the disk.
pub(super) fn forget_journal(setup: &Setup) -> Result<(), EngineError> {
    let journal = setup.state_dir.join(JOURNAL_FILE);
    remove_if_exists(&*setup.storage, &journal)
        .and_then(|()| setup.storage.sync_dir(&setup.state_dir))
        .map_err(|source| setup.state_dir_error(source))
}
