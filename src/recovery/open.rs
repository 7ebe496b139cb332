//! Opens the engine: gathers the facts that [`crate::recovery::decide`] decides on, and carries its decision out.
//!
//! A crash while a state is being rebuilt is harmless: it is built under another name and renamed once all rows of the
//! export are in it. Until then the next start finds no state and begins from scratch. The claims of few enough rows stay
//! in memory until the lines of the lake have claimed them: the state gets its name when the rest is written, once all
//! day-files are read.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::console::progress::OnStep;
use crate::engine::{Engine, EngineError, Ledger, Setup};
use crate::platform::storage::{FileKind, Storage, exists, read_full_at};
use crate::recovery::adopt::build_state;
use crate::recovery::decide::{CannotStart, ExportFound, RecoveryCase, StateFound, decide};
use crate::recovery::older_state::{forget_journal, is_replaced};
use crate::recovery::report::OpenReport;
use crate::recovery::swap::finish_swap;
use crate::store::export::{Export, ExportError, ExportMark};
use crate::store::files::{DISTRUSTED_FILE, JOURNAL_FILE, STATE_FILE};
use crate::store::journal::Journal;
use crate::store::journal::error::JournalError;
use crate::store::replay::Replay;
use crate::store::row_buffer::Rows;
use crate::store::state::State;
use crate::store::state::compact::remove_copy;
use crate::store::state::error::StateError;

/// The state that the state directory holds.
enum StateOnDisk {
    /// The state and its journal were read.
    Usable(Box<LoadedState>),
    /// There is no state.
    Absent,
    /// The state or its journal is damaged or incomplete, and must be rebuilt.
    Unusable {
        /// The defect, for the log.
        reason: String,
    },
}

/// A state that was read, and the extent of its journal.
struct LoadedState {
    state: State,
    /// Export length with the rows of the journal, bytes.
    committed: u64,
    /// Ledger length with the lines of the journal, bytes.
    ledger_committed: u64,
}

impl Engine {
    /// Opens the state and the export, recovers from a crash, and returns an engine that is ready to work.
    ///
    /// # Errors
    /// The daemon must not start; each error names the remedy.
    pub fn open(setup: Setup) -> Result<(Self, OpenReport), EngineError> {
        Self::open_with_progress(setup, &mut |_, _, _| {})
    }

    /// Opens the engine as [`Self::open`] does and reports the progress of long reads to `on_step`.
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn open_with_progress(
        setup: Setup,
        on_step: OnStep<'_>,
    ) -> Result<(Self, OpenReport), EngineError> {
        let storage = Arc::clone(&setup.storage);
        make_directories(&setup)?;
        finish_swap(&setup)?;
        remove_copy(&*storage, &setup.state_dir.join(STATE_FILE))
            .map_err(|source| setup.state_dir_error(source))?;
        let (mut loaded, mut state_lost) = match load(&setup)? {
            StateOnDisk::Usable(loaded) => (Some(loaded), None),
            StateOnDisk::Absent => (None, None),
            StateOnDisk::Unusable { reason } => (None, Some(reason)),
        };
        let mut case = find_case(&setup, loaded.as_deref());
        if let Err(EngineError::Export(error)) = &case
            && let Some(state) = &loaded
            && is_state_older(&setup, error, state)?
        {
            forget_journal(&setup)?;
            loaded = None;
            state_lost = Some("a rebuild replaced its export or its ledger since".to_owned());
            case = find_case(&setup, None);
        }
        match (case?, loaded) {
            (RecoveryCase::Continue, Some(loaded)) => resume(setup, loaded.state),
            (case, loaded) => {
                let older = loaded.map(|_| "it is older than the export".to_owned());
                let (engine, report) = build_state(setup, case, on_step)?;
                let state_lost = state_lost.or(older);
                Ok((
                    engine,
                    OpenReport {
                        state_lost,
                        ..report
                    },
                ))
            }
        }
    }
}

/// Returns the case of a start.
///
/// # Errors
/// The start has to stop, or a file cannot be read.
fn find_case(setup: &Setup, loaded: Option<&LoadedState>) -> Result<RecoveryCase, EngineError> {
    let (storage, export) = (&*setup.storage, &setup.export_path);
    let Some(loaded) = loaded else {
        let found = find_export(storage, export, ExportMark::default())?;
        return Ok(decide(StateFound::Lost, found));
    };
    let (mark, committed) = (loaded.state.header().export, loaded.committed);
    let state = StateFound::Read {
        durable: mark.len_bytes,
        committed,
    };
    match decide(state, find_export(storage, export, mark)?) {
        RecoveryCase::Stop(cause) => {
            Err(stop_error(storage, export, cause, mark, committed).into())
        }
        case => case_with_ledger(setup, case, loaded),
    }
}

/// Returns whether the error for which a start would have to stop is that the state is older than a rebuild.
fn is_state_older(
    setup: &Setup,
    error: &ExportError,
    loaded: &LoadedState,
) -> Result<bool, EngineError> {
    match error {
        ExportError::Short { .. } | ExportError::Changed { .. } => {
            is_replaced(setup, loaded.state.header(), loaded.committed)
        }
        _ => Ok(false),
    }
}

/// Returns the case of a start with a usable state, from that of the export and from the ledger that is there: it must be
/// the one of the state, like the export.
fn case_with_ledger(
    setup: &Setup,
    case: RecoveryCase,
    loaded: &LoadedState,
) -> Result<RecoveryCase, EngineError> {
    let mark = loaded.state.header().ledger.file;
    let committed = loaded.ledger_committed;
    let state = StateFound::Read {
        durable: mark.len_bytes,
        committed,
    };
    let storage = &*setup.storage;
    match decide(state, find_export(storage, &setup.ledger_path, mark)?) {
        // A state that is older than the export is not used: the adoption holds the ledger against the rows instead.
        RecoveryCase::Stop(cause)
            if case != RecoveryCase::Adopt || cause == CannotStart::Missing =>
        {
            Err(stop_error(storage, &setup.ledger_path, cause, mark, committed).into())
        }
        RecoveryCase::Continue | RecoveryCase::Stop(_) => Ok(case),
        other => Ok(other),
    }
}

/// Creates the directories of the state and of the export and makes their names durable: a process that was killed may
/// have created them, or files in them, without syncing the directories above.
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

/// Syncs a directory and its ancestors up to the root; outside of the root only its parent.
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
            // A directory that the daemon may not open is one in which it created nothing.
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Reads the state and finds the end of its journal. Both are durable on return.
fn load(setup: &Setup) -> Result<StateOnDisk, EngineError> {
    let storage = &*setup.storage;
    let dir_error = |source| setup.state_dir_error(source);
    let unusable = |reason: String| Ok(StateOnDisk::Unusable { reason });
    if exists(storage, &setup.state_dir.join(DISTRUSTED_FILE)).map_err(dir_error)? {
        return unusable("it was found damaged while it was in use".into());
    }
    let state_path = setup.state_dir.join(STATE_FILE);
    let state_file = match storage.open_write(&state_path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(StateOnDisk::Absent),
        other => other.map_err(dir_error)?,
    };
    let journal_file = match storage.open_write(&setup.state_dir.join(JOURNAL_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return unusable("its journal is missing".into());
        }
        other => other.map_err(dir_error)?,
    };
    // A process that was killed leaves bytes that can be read and are not durable yet. They are synced before anything
    // is built on them, or a power cut would take them from under it. The journal is synced below, once its end is
    // known. A state that is still older than its export after that counts as lost.
    state_file.sync_data().map_err(dir_error)?;
    let state = match State::open(storage, &state_path) {
        Ok(state) => state,
        Err(StateError::Damaged(reason)) => return unusable(reason),
        Err(StateError::Io(error)) => return Err(dir_error(error)),
        Err(error) => return Err(error.into()),
    };
    let header = state.header();
    let mut committed = header.export.len_bytes;
    let mut ledger_committed = header.ledger.file.len_bytes;
    let replayed = Journal::replay(
        journal_file,
        header.journal_epoch,
        header.seq_applied,
        |_, batch| {
            committed = batch.export_to();
            if let Some(lines) = &batch.delta.ledger {
                ledger_committed = lines.to();
            }
            Ok::<_, JournalError>(())
        },
    );
    match replayed {
        Ok(journal) => {
            journal.rewrite()?;
            Ok(StateOnDisk::Usable(Box::new(LoadedState {
                state,
                committed,
                ledger_committed,
            })))
        }
        Err(JournalError::Damaged(reason)) => unusable(format!("its journal is damaged: {reason}")),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn find_export(
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
        return Err(ExportError::NotAFile {
            path: path.to_owned(),
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

/// Checks, without a change, whether a start can continue with the export. `mark` and `committed` are those of a usable
/// state.
///
/// # Errors
/// The error that such a start ends with.
pub fn check_export(
    storage: &dyn Storage,
    path: &Path,
    mark: ExportMark,
    committed: u64,
) -> Result<(), ExportError> {
    let state = StateFound::Read {
        durable: mark.len_bytes,
        committed,
    };
    match decide(state, find_export(storage, path, mark)?) {
        RecoveryCase::Stop(cause) => Err(stop_error(storage, path, cause, mark, committed)),
        _ => Ok(()),
    }
}

fn stop_error(
    storage: &dyn Storage,
    path: &Path,
    cause: CannotStart,
    mark: ExportMark,
    committed_bytes: u64,
) -> ExportError {
    let path = path.to_owned();
    let durable_bytes = mark.len_bytes;
    match cause {
        CannotStart::Missing => ExportError::Missing {
            path,
            committed_bytes,
        },
        CannotStart::Short => ExportError::Short {
            found_bytes: storage.stat(&path).map_or(0, |stat| stat.len_bytes),
            committed_bytes: durable_bytes,
            path,
        },
        CannotStart::Changed => ExportError::Changed {
            path,
            what: format!("the bytes before byte {durable_bytes} differ from those written"),
        },
    }
}

/// Carries out [`RecoveryCase::Continue`]: writes the journal's rows to the export again and applies its deltas in
/// memory.
fn resume(setup: Setup, state: State) -> Result<(Engine, OpenReport), EngineError> {
    let storage = Arc::clone(&setup.storage);
    let mut export = Export::open_or_create(Arc::clone(&storage), &setup.export_path)?;
    let file = storage
        .open_write(&setup.state_dir.join(JOURNAL_FILE))
        .map_err(|source| setup.state_dir_error(source))?;
    let header = state.header();
    export.resume_hashes(&header.export, &header.guard)?;
    let mut ledger = Export::open_or_create(Arc::clone(&storage), &setup.ledger_path)?;
    ledger.resume_hashes(&header.ledger.file, &header.ledger.guard)?;
    let mut replay = Replay::new(state.view()?, header, u64::MAX);
    let journal = Journal::replay(
        file,
        header.journal_epoch,
        header.seq_applied,
        |_, batch| -> Result<(), EngineError> {
            if let Some(lines) = &batch.delta.ledger {
                ledger.redo(lines.from, &Rows::from(lines.lines.clone()))?;
            }
            export.redo(batch.delta.export_from, &batch.rows)?;
            Ok(replay.apply(batch)?)
        },
    )?;
    let report = OpenReport {
        batches_redone: replay.batches,
        ..OpenReport::new(RecoveryCase::Continue)
    };
    let state_path = setup.state_dir.join(STATE_FILE);
    let changes = std::mem::take(&mut replay.ledger_changes);
    let ledger = Ledger::new(ledger, &replay.ledger, changes, &replay.view)?;
    let mut engine = Engine::assemble(setup, state, state_path, journal, export, ledger)?;
    apply_journal(&mut engine, replay);
    engine.check_recorded_tampering()?;
    Ok((engine, report))
}

/// Moves the pairs and sums of the replayed journal into the engine's memory.
fn apply_journal(engine: &mut Engine, replay: Replay) {
    engine.books.account = replay.account.clone();
    engine.pairs.restore(replay);
}
