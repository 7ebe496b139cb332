//! Owns the start of the engine: finds the facts that [`crate::recovery::decide`] decides on, and carries its decision out.
//!
//! Crashes while a state is made anew are harmless: it is built under another name and gets its own with one rename,
//! when all of the export has been taken in. Until then the next start finds no state and begins again.

use crate::recovery::report::OpenReport;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use crate::engine::{Engine, EngineError, Setup, Slot};
use crate::lake::path::PairPath;
use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::{ActivePair, Overlay};
use crate::platform::storage::{FileKind, Storage, exists, read_full_at};
use crate::record::row;
use crate::recovery::adopt::begin_anew;
use crate::recovery::decide::{CannotStart, ExportFound, RecoveryCase, StateFound, decide};
use crate::recovery::swap::finish_swap;
use crate::store::export::{Export, ExportError, ExportMark};
use crate::store::files::{DISTRUSTED_FILE, JOURNAL_FILE, STATE_FILE};
use crate::store::journal::Journal;
use crate::store::journal::batch::PairDelta;
use crate::store::journal::error::JournalError;
use crate::store::state::State;
use crate::store::state::error::StateError;

/// Told of long work: what is being done, bytes of it that are done, bytes in all.
pub type OnStep<'a> = &'a mut dyn FnMut(&'static str, u64, u64);

/// A state that was read, and its journal. Only recovery makes an engine of it.
struct LoadedState {
    state: State,
    deltas: Vec<PairDelta>,
    batches: u64,
    committed: u64,
}

impl Engine {
    /// Opens what is there, recovers what a crash left, and gives an engine that is ready to work.
    ///
    /// # Errors
    /// What must not be gone on with; each says what to do.
    pub fn open(setup: Setup) -> Result<(Self, OpenReport), EngineError> {
        Self::open_telling(setup, &mut |_, _, _| {})
    }

    /// As [`Self::open`]; of what takes long `on_step` is told: what is done, and how many bytes of how many.
    ///
    /// # Errors
    /// As there.
    pub fn open_telling(
        setup: Setup,
        on_step: OnStep<'_>,
    ) -> Result<(Self, OpenReport), EngineError> {
        let storage = Arc::clone(&setup.storage);
        make_directories(&setup)?;
        finish_swap(&setup)?;
        let (loaded, state_lost) = match load(&setup)? {
            Ok(loaded) => (Some(loaded), None),
            Err(why) => (None, why),
        };
        let state_found = loaded
            .as_ref()
            .map_or(StateFound::Lost, |loaded| StateFound::Read {
                durable: loaded.state.header().export.len_bytes,
                committed: loaded.committed,
            });
        let mark = loaded
            .as_ref()
            .map_or(ExportMark::default(), |loaded| loaded.state.header().export);
        let case = decide(
            state_found,
            find_export(&*storage, &setup.export_path, mark)?,
        );
        let (engine, report) = match (case, loaded) {
            (RecoveryCase::Continue, Some(loaded)) => go_on(setup, loaded)?,
            (RecoveryCase::Stop(refused), Some(loaded)) => {
                return Err(refusal(&setup, refused, &loaded)?.into());
            }
            (_, loaded) => {
                let older = loaded.map(|_| "it is older than the export".to_owned());
                let (engine, report) = begin_anew(setup, case, on_step)?;
                (
                    engine,
                    OpenReport {
                        state_lost: state_lost.or(older),
                        ..report
                    },
                )
            }
        };
        Ok((engine, report))
    }
}

/// Makes the directories of the state and of the export, and their names durable: a process that was killed may have
/// made them, or files in them, without living long enough to sync what is above.
fn make_directories(setup: &Setup) -> Result<(), EngineError> {
    let storage = &*setup.storage;
    let dir_error = |source| setup.state_dir_error(source);
    storage
        .create_dir_all(&setup.state_dir)
        .map_err(dir_error)?;
    sync_names(storage, &setup.state_dir, &setup.root).map_err(dir_error)?;
    let export_dir = setup.export_path.parent().unwrap_or(&setup.root);
    let export_error = |source| ExportError::Io {
        path: setup.export_path.clone(),
        source,
    };
    storage.create_dir_all(export_dir).map_err(export_error)?;
    sync_names(storage, export_dir, &setup.root).map_err(export_error)?;
    Ok(())
}

/// Syncs a directory and those above it, up to the root; outside of the root only the one above.
fn sync_names(storage: &dyn Storage, dir: &Path, root: &Path) -> io::Result<()> {
    let levels = dir
        .strip_prefix(root)
        .map_or(1, |below| below.components().count());
    for dir in dir
        .ancestors()
        .take(levels + 1)
        .filter(|dir| !dir.as_os_str().is_empty())
    {
        match storage.sync_dir(dir) {
            // Above our own directories we may have no rights, and then made nothing there.
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The state and what its journal adds; `Err` with the reason where it must be made anew.
fn load(setup: &Setup) -> Result<Result<LoadedState, Option<String>>, EngineError> {
    let storage = &*setup.storage;
    if exists(storage, &setup.state_dir.join(DISTRUSTED_FILE))
        .map_err(|error| setup.state_dir_error(error))?
    {
        return Ok(Err(Some("it was found damaged while it was in use".into())));
    }
    let state_path = setup.state_dir.join(STATE_FILE);
    let state_file = match storage.open_write(&state_path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err(None)),
        Err(error) => return Err(setup.state_dir_error(error)),
    };
    let file = match storage.open_write(&setup.state_dir.join(JOURNAL_FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Err(Some("its journal is missing".into())));
        }
        Err(error) => return Err(setup.state_dir_error(error)),
    };
    // A process that was killed leaves bytes that are there to be read and not yet durable. What is built on them
    // must not lose them to a power cut: they are made durable before they are believed. The journal's below, once
    // it is known how far they go. A state that stays behind for all that is one that was lost.
    state_file
        .sync_data()
        .map_err(|error| setup.state_dir_error(error))?;
    let state = match State::open(storage, &state_path) {
        Ok(state) => state,
        Err(StateError::Damaged(why)) => return Ok(Err(Some(why))),
        Err(StateError::Io(error)) => return Err(setup.state_dir_error(error)),
        Err(error) => return Err(error.into()),
    };
    let header = state.header().clone();
    let mut loaded = LoadedState {
        state,
        deltas: Vec::new(),
        batches: 0,
        committed: header.export.len_bytes,
    };
    let replayed = Journal::replay(
        file,
        header.journal_epoch,
        header.seq_applied,
        |_, batch| {
            loaded.batches += 1;
            loaded.committed = batch.export_to();
            loaded.deltas.extend(batch.delta.pairs);
            Ok::<_, JournalError>(())
        },
    );
    match replayed {
        Ok(journal) => {
            journal.write_again()?;
            Ok(Ok(loaded))
        }
        Err(JournalError::Damaged(why)) => Ok(Err(Some(format!("its journal is damaged: {why}")))),
        Err(error) => Err(error.into()),
    }
}

fn find_export(
    storage: &dyn Storage,
    path: &Path,
    mark: ExportMark,
) -> Result<ExportFound, ExportError> {
    let io_error = |source| ExportError::Io {
        path: path.to_owned(),
        source,
    };
    let stat = match storage.stat(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(ExportFound::Absent),
        other => other.map_err(io_error)?,
    };
    if stat.kind != FileKind::Regular {
        return Err(ExportError::Changed {
            path: path.to_owned(),
            what: "it is no regular file".into(),
        });
    }
    let file = storage.open_read(path).map_err(io_error)?;
    let tail_len = u64::from(mark.tail_len_bytes);
    let mut tail = vec![0; tail_len as usize];
    let read = read_full_at(&*file, &mut tail, mark.len_bytes.saturating_sub(tail_len))
        .map_err(io_error)?;
    tail.truncate(read);
    let mark_fits = mark.tail_len_bytes == 0 || xxhash_rust::xxh3::xxh3_64(&tail) == mark.tail_hash;
    Ok(ExportFound::Present {
        len_bytes: stat.len_bytes,
        mark_fits,
    })
}

fn refusal(
    setup: &Setup,
    refused: CannotStart,
    loaded: &LoadedState,
) -> Result<ExportError, EngineError> {
    let path = setup.export_path.clone();
    Ok(match refused {
        CannotStart::Missing => ExportError::Missing {
            path,
            committed_bytes: loaded.committed,
        },
        CannotStart::Short => ExportError::Short {
            found_bytes: setup.storage.stat(&path).map_or(0, |stat| stat.len_bytes),
            committed_bytes: loaded.state.header().export.len_bytes,
            path,
        },
        CannotStart::Changed => {
            let len_bytes = loaded.state.header().export.len_bytes;
            ExportError::Changed {
                path,
                what: format!("the bytes before byte {len_bytes} are not ours"),
            }
        }
    })
}

/// Case `Continue`: writes the journal's rows again, and takes its deltas into memory.
fn go_on(setup: Setup, loaded: LoadedState) -> Result<(Engine, OpenReport), EngineError> {
    let storage = Arc::clone(&setup.storage);
    let mut export = Export::open_or_create(Arc::clone(&storage), &setup.export_path)?;
    let file = storage
        .open_write(&setup.state_dir.join(JOURNAL_FILE))
        .map_err(|source| setup.state_dir_error(source))?;
    let header = loaded.state.header().clone();
    export.resume_hashes(&header.export, &header.guard)?;
    let mut days = Vec::new();
    let journal = Journal::replay(
        file,
        header.journal_epoch,
        header.seq_applied,
        |_, batch| {
            days.extend(batch.rows.pieces().flat_map(row::days_of));
            export
                .redo(batch.delta.export_from, &batch.rows)
                .map_err(EngineError::from)
        },
    )?;
    let state_path = setup.state_dir.join(STATE_FILE);
    let mut engine = Engine::assemble(setup, loaded.state, state_path, journal, export)?;
    for delta in &loaded.deltas {
        take_in(&mut engine, delta)?;
    }
    for (day, rows) in days {
        engine.account.add_rows(day, rows);
    }
    engine.check_recorded_tampering()?;
    let report = OpenReport {
        batches_redone: loaded.batches,
        ..OpenReport::new(RecoveryCase::Continue)
    };
    Ok((engine, report))
}

/// Puts a delta of the journal over what the state says of its pair.
fn take_in(engine: &mut Engine, delta: &PairDelta) -> Result<(), EngineError> {
    let path = pair_path(&delta.checkpoint)?;
    engine.pair_next = engine.pair_next.max(delta.id.0 + 1);
    if !engine.slots.contains_key(&path) {
        let persisted = engine.view.pair_id(path.as_bytes())?.is_some();
        let checkpoint = if persisted {
            engine.view.checkpoint(delta.id)?
        } else {
            PairCheckpoint::new(path.as_bytes().to_vec())
        };
        let pair = ActivePair {
            id: delta.id,
            checkpoint,
            overlay: Overlay::default(),
            persisted,
        };
        engine.slots.insert(path.clone(), Slot::new(pair));
    }
    let slot = engine.slots.get_mut(&path).expect("it was just put there");
    slot.changed = true;
    engine.any_changed = true;
    let pair = Arc::make_mut(&mut slot.pair);
    engine.account.replace(&pair.checkpoint, &delta.checkpoint);
    engine.inodes.note(&path, &delta.checkpoint);
    pair.checkpoint = delta.checkpoint.clone();
    let overlay = delta.overlay();
    engine.claimable -= overlay.claimed_rows.len() as u64;
    Arc::make_mut(&mut engine.claimed).extend(overlay.claimed_rows.iter().copied());
    engine.overlay_entries += overlay.len();
    pair.overlay.extend(overlay);
    Ok(())
}

fn pair_path(checkpoint: &PairCheckpoint) -> Result<PairPath, StateError> {
    PairPath::from_relative(Path::new(OsStr::from_bytes(&checkpoint.path))).ok_or_else(|| {
        StateError::Damaged(format!(
            "{} is no day-file",
            String::from_utf8_lossy(&checkpoint.path)
        ))
    })
}
