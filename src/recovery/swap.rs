//! Replaces the old files by those that a rebuild made, all or none, under any crash.
//!
//! First these are made, and durable: `STATE_DIR/rebuilding/{state.redb, journal}`, and
//! `.sft_export.jsonl.rebuilding` next to the export. Then the marker `STATE_DIR/swap-rebuilt`, durable. Then
//! [`finish_swap`] removes the old state and journal, durably; renames the new export, state and journal; syncs the
//! directories; and removes the marker, durably. Every start calls [`finish_swap`] before anything else:
//!
//! - No marker: the old export and state are unchanged, and the new files are removed.
//!
//! - A marker: all new files were durable before it. Each that still has its old name is renamed. Replacing the
//!   export is one change of one directory, so that it is either the old one or the new one.
//!
//! - The state moves between two directories. If a disk splits this in two, the name may be lost; then there is no
//!   state, because the old one was removed durably before, and the start adopts the rows of the new export (promise
//!   6). An old state with the new export, or an old journal with the new state, never exists without the marker.

use std::io;
use std::path::Path;

use crate::engine::{EngineError, Setup};
use crate::platform::storage::{exists, remove_if_exists};
use crate::store::export::ExportError;
use crate::store::files::{CHANGED_FILE, DISTRUSTED_FILE, JOURNAL_FILE, STATE_FILE};

/// The directory in the state directory where the fresh state is made.
const STAGE_DIR: &str = "rebuilding";
/// Name of the marker file: the new files are complete and durable and must replace the old ones.
const SWAP_FILE: &str = "swap-rebuilt";

/// Replaces the old files by the new ones, which are complete and durable, and copies the ownership of the old ones.
///
/// # Errors
/// A file cannot be renamed or synced; the next start continues.
pub(crate) fn swap(setup: &Setup) -> Result<(), EngineError> {
    let storage = &*setup.storage;
    copy_ownership(setup, &stage_of(setup)).map_err(|source| setup.state_dir_error(source))?;
    storage
        .create(&setup.state_dir.join(SWAP_FILE))
        .and_then(|_| storage.sync_dir(&setup.state_dir))
        .map_err(|source| setup.state_dir_error(source))?;
    finish_swap(setup)
}

/// Copies owner and mode, because the user of a rebuild may not be that of the daemon.
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

/// Completes a swap that a crash interrupted, or removes the files of an interrupted rebuild. It costs three system
/// calls if there is nothing to do.
///
/// # Errors
/// A file cannot be renamed, removed or synced; the next call continues.
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

/// Returns the setup of the rebuild: like `setup`, in its own directory, and strictly one pair after the other.
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
        // If the new file has left its directory it was renamed already.
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
