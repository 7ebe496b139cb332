//! Owns how the files that a rebuild made take the places of the old ones, all or none, whatever crashes.
//!
//! Made first, and durable: `STATE_DIR/rebuilding/{state.redb, journal}` and `.sft_export.jsonl.rebuilding` beside the
//! export. Then the marker `STATE_DIR/swap-rebuilt`, durable. Then, by [`finish_swap`]: the old state and journal are
//! removed, durably; the fresh export, state and journal get their names; the directories are synced; the marker
//! goes, durably. Every start calls [`finish_swap`] before it looks at anything:
//!
//! - No marker: the old export and state are untouched. What was made beside them is removed.
//! - A marker: all of the fresh files were durable before it. Each that still has its old name gets the new one.
//!   Replacing the export is one change of one directory: it is the old one or the fresh one, never a part.
//! - The state moves between two directories. A disk that tears this in two may lose the name; then there is no state,
//!   because the old one was removed before, durably, and the start adopts the rows of the fresh export (promise 6).
//!   An old state beside the fresh export, or an old journal beside the fresh state, is never there without the
//!   marker.

use std::io;
use std::path::Path;

use crate::engine::{EngineError, Setup};
use crate::platform::storage::{exists, remove_if_exists};
use crate::store::export::ExportError;
use crate::store::files::{CHANGED_FILE, DISTRUSTED_FILE, JOURNAL_FILE, STATE_FILE};

/// The directory in the state directory where the fresh state is made.
const STAGE_DIR: &str = "rebuilding";
/// A file of this name says that the fresh files are complete and durable, and take their places.
const SWAP_FILE: &str = "swap-rebuilt";

/// The fresh files are complete and durable: has them take their places, with the rights of those that they replace.
///
/// # Errors
/// What the disk says; the next start goes on where this one ended.
pub(crate) fn swap(setup: &Setup) -> Result<(), EngineError> {
    let storage = &*setup.storage;
    copy_ownership(setup, &stage_of(setup)).map_err(|source| setup.state_dir_error(source))?;
    storage
        .create(&setup.state_dir.join(SWAP_FILE))
        .and_then(|_| storage.sync_dir(&setup.state_dir))
        .map_err(|source| setup.state_dir_error(source))?;
    finish_swap(setup)
}

/// Whoever rebuilds may be another user than the daemon.
fn copy_ownership(setup: &Setup, stage: &Setup) -> io::Result<()> {
    let storage = &*setup.storage;
    let state = |name| (setup.state_dir.join(name), stage.state_dir.join(name));
    let pairs = [
        (setup.export_path.clone(), stage.export_path.clone()),
        (setup.state_dir.clone(), stage.state_dir.clone()),
        state(STATE_FILE),
        state(JOURNAL_FILE),
    ];
    for (old, fresh) in pairs {
        if exists(storage, &old)? && exists(storage, &fresh)? {
            storage.copy_ownership(&old, &fresh)?;
        }
    }
    Ok(())
}

/// Completes a swap that a crash interrupted, or removes what an interrupted rebuild left. Costs three looks at the
/// disk where there was none.
///
/// # Errors
/// What the disk says; the next call goes on where this one ended.
pub(crate) fn finish_swap(setup: &Setup) -> Result<(), EngineError> {
    let stage = stage_of(setup);
    let dir_error = |source| setup.state_dir_error(source);
    let marker = setup.state_dir.join(SWAP_FILE);
    if !exists(&*setup.storage, &marker).map_err(dir_error)? {
        return clean_up(setup, &stage);
    }
    swap_export(setup, &stage)?;
    swap_state(setup, &stage).map_err(dir_error)?;
    setup
        .storage
        .remove_file(&marker)
        .and_then(|()| setup.storage.sync_dir(&setup.state_dir))
        .map_err(dir_error)
}

/// Works as `setup` does, beside it, and strictly one pair after the other.
pub(crate) fn stage_of(setup: &Setup) -> Setup {
    let name = setup.export_path.file_name().unwrap_or_default();
    let mut stage_name = std::ffi::OsString::from(".");
    stage_name.push(name);
    stage_name.push(".rebuilding");
    Setup {
        state_dir: setup.state_dir.join(STAGE_DIR),
        export_path: setup.export_path.with_file_name(stage_name),
        settle_ms: 0,
        threads: 1,
        ..setup.clone()
    }
}

fn swap_export(setup: &Setup, stage: &Setup) -> Result<(), ExportError> {
    let storage = &*setup.storage;
    let swap = || {
        if exists(storage, &stage.export_path)? {
            storage.rename(&stage.export_path, &setup.export_path)?;
        }
        storage.sync_dir(setup.export_path.parent().unwrap_or(Path::new(".")))
    };
    swap().map_err(|source| ExportError::Io {
        path: setup.export_path.clone(),
        source,
    })
}

fn swap_state(setup: &Setup, stage: &Setup) -> io::Result<()> {
    let storage = &*setup.storage;
    let mut moves = Vec::new();
    for name in [STATE_FILE, JOURNAL_FILE] {
        let (from, to) = (stage.state_dir.join(name), setup.state_dir.join(name));
        // Where the fresh one is not in its stage any more it has its new name, and what is there is fresh.
        if exists(storage, &from)? {
            remove_if_exists(storage, &to)?;
            moves.push((from, to));
        }
    }
    for outdated in [DISTRUSTED_FILE, CHANGED_FILE] {
        remove_if_exists(storage, &setup.state_dir.join(outdated))?;
    }
    storage.sync_dir(&setup.state_dir)?;
    for (from, to) in moves {
        storage.rename(&from, &to)?;
    }
    storage.sync_dir(&setup.state_dir)?;
    // The stage itself may be gone: then nothing in it can come back.
    match storage.sync_dir(&stage.state_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes what a rebuild that did not reach its swap has left. The empty stage directory stays.
pub(crate) fn clean_up(setup: &Setup, stage: &Setup) -> Result<(), EngineError> {
    let storage = &*setup.storage;
    remove_if_exists(storage, &stage.export_path).map_err(|source| ExportError::Io {
        path: stage.export_path.clone(),
        source,
    })?;
    let left = match storage.list(&stage.state_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other.map_err(|source| setup.state_dir_error(source))?,
    };
    for entry in left {
        storage
            .remove_file(&stage.state_dir.join(entry.name))
            .map_err(|source| setup.state_dir_error(source))?;
    }
    Ok(())
}
