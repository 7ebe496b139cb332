//! Replaces the old files by those that a rebuild made, all or none, under any crash.
//!
//! First these are made, and durable: `STATE_DIR/rebuilding/{state.redb, journal}`, and
//! `.sft_export.jsonl.rebuilding` next to the export. Then the old export gets a second name, durably, under which it is
//! kept: `sft_export.jsonl.before-rebuild`, or with a number if that exists, and its ledger one with the same end. Then the marker `STATE_DIR/swap-rebuilt`, durable. Then
//! [`finish_swap`] removes the old state and journal, durably; renames the new export, state and journal; syncs the
//! directories; and removes the marker, durably. Every start calls [`finish_swap`] before anything else:
//!
//! - No marker: the old export and state are unchanged, and the new files are removed; before them the second name of
//!   the export, or the rows that the daemon appends would appear under it too.
//!
//! - A marker: all new files were durable before it. Each that still has its old name is renamed. Replacing the
//!   export is one change of one directory, so that it is either the old one or the new one. If the ledger is renamed
//!   and the export is not, the marker is not needed: it may be lost with the state directory.
//!
//! - The state moves between two directories. If a disk splits this in two, the name may be lost; then there is no
//!   state, because the old one was removed durably before, and the start adopts the rows of the new export (promise
//!   6). An old state with the new export, or an old journal with the new state, never exists without the marker.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use crate::engine::{EngineError, Setup};
use crate::lake::path::{EXPORT_PATH, KEPT_SUFFIX, LEDGER_NAME, new_path};
use crate::platform::storage::{
    FileKind, ListedEntry, Storage, exists, read_full_at, remove_if_exists, write_all_at,
};
use crate::store::export::ExportError;
use crate::store::files::{CHANGED_FILE, DISTRUSTED_FILE, JOURNAL_FILE, STATE_FILE};

/// The directory in the state directory where the fresh state is made.
const STAGE_DIR: &str = "rebuilding";
/// Bytes that are copied at a time.
const COPY_LEN: usize = 1 << 20;
/// Name of the marker file: the new files are complete and durable and must replace the old ones.
const SWAP_FILE: &str = "swap-rebuilt";

/// Replaces the old files by the new ones, which are complete and durable. Returns the path under which the old export
/// is kept.
///
/// # Errors
/// A file cannot be renamed or synced; the next start continues.
pub(crate) fn swap(setup: &Setup) -> Result<Option<PathBuf>, EngineError> {
    let storage = &*setup.storage;
    let dir_error = |source| setup.state_dir_error(source);
    let (ledger, export) = (&setup.ledger_path, &setup.export_path);
    let error_of = |path: &Path| {
        let path = path.to_owned();
        |source| ExportError::Io { path, source }
    };
    let number = free_number(storage, ledger).map_err(error_of(ledger))?;
    keep_old_file(storage, ledger, number).map_err(error_of(ledger))?;
    let kept = keep_old_file(storage, export, number).map_err(error_of(export))?;
    storage
        .create(&setup.state_dir.join(SWAP_FILE))
        .and_then(|_| storage.sync_dir(&setup.state_dir))
        .map_err(dir_error)?;
    finish_swap(setup)?;
    Ok(kept)
}

/// Returns the new file in whose place something else is: the directories belong to the daemon's user, who may change
/// them during a rebuild by root.
///
/// # Errors
/// A new file does not exist, or the directory cannot be read.
pub(crate) fn replaced_file(setup: &Setup, stage: &Setup) -> Result<Option<PathBuf>, EngineError> {
    let [state, journal] = [STATE_FILE, JOURNAL_FILE].map(|name| stage.state_dir.join(name));
    for path in [
        state,
        journal,
        stage.export_path.clone(),
        stage.ledger_path.clone(),
    ] {
        let stat = setup.storage.stat(&path);
        let stat = stat.map_err(|source| setup.state_dir_error(source))?;
        if stat.kind != FileKind::Regular {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Returns a path for a kept export or ledger: `NAME.before-rebuild`, then the same with a number.
fn kept_path(export: &Path, number: u32) -> PathBuf {
    let mut name = export.file_name().unwrap_or_default().to_owned();
    name.push(KEPT_SUFFIX);
    if number > 0 {
        name.push(format!(".{number}"));
    }
    export.with_file_name(name)
}

/// Gives the old export, or its ledger, a second name with a free number, durably, or copies it where the file system has no
/// second names. An empty one is not kept.
pub(super) fn keep_old_file(
    storage: &dyn Storage,
    export: &Path,
    number: u32,
) -> io::Result<Option<PathBuf>> {
    match storage.stat(export) {
        Ok(stat) if stat.len_bytes == 0 => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    let kept = kept_path(export, number);
    match storage.hard_link(export, &kept) {
        Err(error) if has_no_links(&error) => copy(storage, export, &kept)?,
        linked => linked?,
    }
    storage.sync_dir(export.parent().unwrap_or(Path::new(".")))?;
    Ok(Some(kept))
}

/// Returns the first number with which neither an export nor a ledger is kept next to a file. Both that a rebuild replaces
/// have the same one: by that a reader finds the ledger of a kept export.
pub(super) fn free_number(storage: &dyn Storage, file: &Path) -> io::Result<u32> {
    let mut number = 0;
    while is_taken(storage, file, number)? {
        number += 1;
    }
    Ok(number)
}

/// Returns the paths under which a file was kept by rebuilds.
pub(super) fn kept_files(storage: &dyn Storage, file: &Path) -> io::Result<Vec<PathBuf>> {
    let dir = file.parent().unwrap_or(Path::new("."));
    let first = kept_path(file, 0);
    let first = first.file_name().unwrap_or_default().as_encoded_bytes();
    let is_kept = |entry: &ListedEntry| match entry.name.as_encoded_bytes().strip_prefix(first) {
        Some([]) => true,
        Some([b'.', number @ ..]) => number.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let entries = storage.list(dir)?.into_iter().filter(is_kept);
    let entries = entries.filter(|entry| entry.kind == FileKind::Regular);
    Ok(entries.map(|entry| dir.join(entry.name)).collect())
}

fn is_taken(storage: &dyn Storage, file: &Path, number: u32) -> io::Result<bool> {
    let export_name = Path::new(EXPORT_PATH).file_name().unwrap_or_default();
    for name in [export_name, OsStr::new(LEDGER_NAME)] {
        if exists(storage, &kept_path(&file.with_file_name(name), number))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns whether a file system refuses second names.
fn has_no_links(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied | io::ErrorKind::TooManyLinks
    )
}

/// Copies the export under another name first, so that an incomplete copy never has the name of a kept export.
fn copy(storage: &dyn Storage, export: &Path, kept: &Path) -> io::Result<()> {
    let mut partial = kept.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    remove_if_exists(storage, &partial)?;
    let (from, to) = (storage.open_read(export)?, storage.create(&partial)?);
    let mut chunk = vec![0; COPY_LEN];
    let mut offset = 0;
    loop {
        let read = read_full_at(&*from, &mut chunk, offset)?;
        write_all_at(&*to, &chunk[..read], offset)?;
        offset += read as u64;
        if read < chunk.len() {
            break;
        }
    }
    to.sync_data()?;
    storage.rename(&partial, kept)
}

/// Returns the second name of a file that is still in its place.
fn second_name(storage: &dyn Storage, file: &Path) -> io::Result<Option<PathBuf>> {
    let identity = |path: &Path| match storage.stat(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(|stat| Some((stat.device, stat.inode))),
    };
    let Some(own) = identity(file)? else {
        return Ok(None);
    };
    let mut number = 0;
    while is_taken(storage, file, number)? {
        let kept = kept_path(file, number);
        if identity(&kept)? == Some(own) {
            return Ok(Some(kept));
        }
        number += 1;
    }
    Ok(None)
}

/// Removes the second name of an export that is still in its place: its rebuild ended before the swap.
fn forget_kept(storage: &dyn Storage, export: &Path) -> io::Result<()> {
    if let Some(kept) = second_name(storage, export)? {
        storage.remove_file(&kept)?;
        storage.sync_dir(export.parent().unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

/// Returns whether a swap renamed the ledger and not the export. The state directory may be lost since, with the marker.
fn is_half_done(setup: &Setup, stage: &Setup) -> Result<bool, ExportError> {
    let storage = &*setup.storage;
    let is_half_done = || {
        Ok(exists(storage, &stage.export_path)?
            && !exists(storage, &stage.ledger_path)?
            && second_name(storage, &setup.export_path)?.is_some())
    };
    is_half_done().map_err(|source| ExportError::Io {
        path: stage.export_path.clone(),
        source,
    })
}

/// Completes a swap that a crash interrupted, or removes the files of an interrupted rebuild. It costs four system
/// calls if there is nothing to do.
///
/// # Errors
/// A file cannot be renamed, removed or synced; the next call continues.
pub(crate) fn finish_swap(setup: &Setup) -> Result<(), EngineError> {
    let stage = stage_of(setup);
    let dir_error = |source| setup.state_dir_error(source);
    let marker = setup.state_dir.join(SWAP_FILE);
    let has_marker = exists(&*setup.storage, &marker).map_err(dir_error)?;
    if !has_marker && !is_half_done(setup, &stage)? {
        return clean_up(setup, &stage);
    }
    swap_export(setup, &stage)?;
    swap_state(setup, &stage).map_err(dir_error)?;
    remove_if_exists(&*setup.storage, &marker)
        .and_then(|()| setup.storage.sync_dir(&setup.state_dir))
        .map_err(dir_error)
}

/// Returns the setup of the rebuild: like `setup`, in its own directory.
pub(crate) fn stage_of(setup: &Setup) -> Setup {
    Setup {
        state_dir: setup.state_dir.join(STAGE_DIR),
        export_path: new_path(&setup.export_path),
        ledger_path: new_path(&setup.ledger_path),
        settle_ms: 0,
        ..setup.clone()
    }
}

fn swap_export(setup: &Setup, stage: &Setup) -> Result<(), ExportError> {
    let storage = &*setup.storage;
    let swap = || {
        // The ledger first: a reader that still finds the new export here, and no new ledger, knows that the ledger is not
        // that of the export.
        if exists(storage, &stage.ledger_path)? {
            storage.rename(&stage.ledger_path, &setup.ledger_path)?;
        }
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

/// Lists the stage. A link in its place is removed instead: what it leads to is not the stage.
fn list_stage(storage: &dyn Storage, dir: &Path) -> io::Result<Vec<ListedEntry>> {
    if storage.stat(dir)?.kind == FileKind::Directory {
        return storage.list(dir);
    }
    storage.remove_file(dir)?;
    Ok(Vec::new())
}

/// Removes what a rebuild that did not reach its swap has left. The empty stage directory stays.
pub(crate) fn clean_up(setup: &Setup, stage: &Setup) -> Result<(), EngineError> {
    let storage = &*setup.storage;
    let clean_export = || {
        for (stage, own) in [
            (&stage.export_path, &setup.export_path),
            (&stage.ledger_path, &setup.ledger_path),
        ] {
            if exists(storage, stage)? {
                forget_kept(storage, own)?;
                storage.remove_file(stage)?;
            }
        }
        Ok(())
    };
    clean_export().map_err(|source| ExportError::Io {
        path: stage.export_path.clone(),
        source,
    })?;
    let left = match list_stage(storage, &stage.state_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other.map_err(|source| setup.state_dir_error(source))?,
    };
    // Nothing else is removed: the directory belongs to the daemon's user, and root may be cleaning up.
    let is_ours = |entry: &ListedEntry| {
        let name = entry.name.as_encoded_bytes();
        name.starts_with(STATE_FILE.as_bytes()) || name.starts_with(JOURNAL_FILE.as_bytes())
    };
    for entry in left.into_iter().filter(is_ours) {
        storage
            .remove_file(&stage.state_dir.join(entry.name))
            .map_err(|source| setup.state_dir_error(source))?;
    }
    Ok(())
}
