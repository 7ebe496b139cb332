//! Rebuilds the export and the state from the sources: builds a fresh export and a fresh state next to the old ones,
//! then swaps both in at once. Nothing is changed before the swap. The same engine decides which rows are written.
//!
//! The fresh export holds what a batch over today's sources gives, pair by pair in the order of the walk: `verify` finds
//! it equal, and the daemon that resumes from it has nothing to append. Rows are dropped whose history no longer exists:
//! their line was rewritten or deleted, or their evidence was replaced (the row returns with the current evidence). A
//! run that one line accepts and a later line rejects keeps its row as long as the accepting line exists, because a
//! batch gives that row too and a daemon would append it again; it still counts as contradicted. All rows get a new
//! timestamp.
//!
//! A last line without a newline that is a complete value is read at once, as a batch does.
//!
//! `recovery::swap` describes how the files are swapped and what a crash in between leaves.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::console::progress::OnStep;
use crate::engine::{Engine, EngineError, Setup};
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::{pair_bytes, walk};
use crate::platform::storage::{Storage, exists};
use crate::record::row;
use crate::recovery::swap::{clean_up, finish_swap, stage_of, swap};
use crate::store::export::{Export, ExportError, ROWS_PER_STEP};
use crate::store::files::STATE_FILE;
use crate::store::recent::{RECENT_FILE, StoredHistory};

/// Passes over a pair without a new line after which a pair that was skipped counts as unreadable.
const IDLE_PASSES_MAX: u32 = 16;

/// The result of a rebuild, printed as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    /// Path of the export.
    pub output_path: String,
    /// Lines of the replaced export.
    pub rows_before: u64,
    /// Rows of the fresh export.
    pub rows_after: u64,
    /// Rows of the replaced export that are not in the fresh one, timestamps ignored.
    pub rows_dropped: u64,
    /// Rows of the fresh export that were not in the replaced one, timestamps ignored.
    pub rows_added: u64,
    /// Directories and day-files that could not be read, each named in the log. Their rows are missing until the next
    /// read of them succeeds.
    pub passed_over: u64,
}

/// The cause of a failed rebuild. The old export and state are unchanged.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The engine that fills the fresh export failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The directory of a stream cannot be listed.
    #[error(
        "cannot list the sources in {}: {source}; the export is unchanged", path.display()
    )]
    Sources {
        /// The stream's directory.
        path: PathBuf,
        /// The error of the disk.
        source: io::Error,
    },
    /// A day-file could be opened and not be read to its end.
    #[error(
        "cannot read {} to its end; the export is unchanged", path.display()
    )]
    UnreadBytes {
        /// Pattern that names both day-files of the pair.
        path: PathBuf,
    },
    /// The stop flag was set before the swap.
    #[error("stopped before the swap; the export and the state are as they were")]
    Stopped,
}

impl From<ExportError> for RebuildError {
    fn from(error: ExportError) -> Self {
        RebuildError::Engine(error.into())
    }
}

/// The progress callback of a rebuild and the flag that stops it.
struct Steps<'a> {
    on_step: OnStep<'a>,
    stop: &'a AtomicBool,
}

impl Steps<'_> {
    fn report(
        &mut self,
        label: &'static str,
        done_bytes: u64,
        total_bytes: u64,
    ) -> Result<(), RebuildError> {
        (self.on_step)(label, done_bytes, total_bytes);
        if self.stop.load(Ordering::SeqCst) {
            return Err(RebuildError::Stopped);
        }
        Ok(())
    }
}

/// Writes a fresh export and a state that fits it, and swaps them in. The caller holds the lock on the state and the
/// export. Setting `stop` ends the rebuild at its next step; up to the swap everything it wrote is removed.
///
/// Memory: 8 bytes for each row of the old export and of the fresh one, to count the dropped rows.
///
/// # Errors
/// See [`RebuildError`]. The next start completes a swap that failed.
pub fn rebuild(
    setup: &Setup,
    stop: &AtomicBool,
    on_step: OnStep<'_>,
) -> Result<Rebuilt, RebuildError> {
    let storage = Arc::clone(&setup.storage);
    storage
        .create_dir_all(&setup.state_dir)
        .map_err(|source| setup.state_dir_error(source))?;
    finish_swap(setup)?;
    let stage = stage_of(setup);
    let built = build(setup, &stage, &mut Steps { on_step, stop });
    if let Err(RebuildError::Stopped) = built {
        clean_up(setup, &stage)?;
    }
    let Built {
        before,
        after,
        passed_over,
        history,
    } = built?;
    swap(setup)?;
    store_history(setup, &history);
    let kept = count_common(&before, &after);
    Ok(Rebuilt {
        output_path: setup.export_path.display().to_string(),
        rows_before: before.len() as u64,
        rows_after: after.len() as u64,
        rows_dropped: before.len() as u64 - kept,
        rows_added: after.len() as u64 - kept,
        passed_over,
    })
}

/// The result of the work before the swap: sorted digests of the old rows and of the fresh ones.
struct Built {
    before: Vec<u64>,
    after: Vec<u64>,
    passed_over: u64,
    history: StoredHistory,
}

/// Does all the work before the swap. The stage is closed on return.
fn build(setup: &Setup, stage: &Setup, steps: &mut Steps<'_>) -> Result<Built, RebuildError> {
    let storage = &setup.storage;
    let before = row_digests(storage, &setup.export_path, "reading the old export", steps)?;
    let (passed_over, history) = fill(stage, steps)?;
    Ok(Built {
        before,
        passed_over,
        history,
        after: row_digests(storage, &stage.export_path, "comparing", steps)?,
    })
}

/// Stores the rows of the fresh export by minute, which else the next start would have to read. Only figures depend on it.
fn store_history(setup: &Setup, history: &StoredHistory) {
    let storage = &*setup.storage;
    let (state_dir, state) = (&setup.state_dir, setup.state_dir.join(STATE_FILE));
    let stored = history
        .write(storage, state_dir)
        .and_then(|()| storage.copy_ownership(&state, &state_dir.join(RECENT_FILE)));
    if let Err(error) = stored {
        tracing::debug!(%error, "cannot store the rows of the last day by minute ({error})");
    }
}

/// Reads the whole lake into the stage. Returns the number of unreadable directories and pairs, and the rows by minute.
/// Durable on return.
fn fill(stage: &Setup, steps: &mut Steps<'_>) -> Result<(u64, StoredHistory), RebuildError> {
    let (paths, mut passed_over) = list_pairs(stage)?;
    let (mut engine, _) = Engine::open(stage.clone())?;
    engine.commit_full_batches();
    let sizes = paths
        .iter()
        .map(|path| pair_bytes(&*stage.storage, &stage.root, path));
    let total_bytes = sizes.sum();
    let mut done_bytes = 0;
    for path in paths {
        read_all(&mut engine, stage, &path, &mut |read_bytes| {
            done_bytes += read_bytes;
            steps.report("rebuilding", done_bytes, total_bytes)
        })?;
        passed_over += u64::from(engine.was_skipped(&path));
    }
    engine.checkpoint()?;
    Ok((passed_over, engine.stored_recent()?))
}

/// Reads one pair to its end, last lines without a newline included. Calls `on_bytes` after each pass with the bytes
/// read in it.
fn read_all(
    engine: &mut Engine,
    stage: &Setup,
    path: &PairPath,
    on_bytes: &mut dyn FnMut(u64) -> Result<(), RebuildError>,
) -> Result<(), RebuildError> {
    let mut idle_passes = 0;
    engine.enqueue(path.clone());
    while engine.queue_len() > 0 || engine.may_settle() {
        engine.tick()?;
        let report = engine.pass()?;
        on_bytes(report.source_bytes)?;
        let idle = report.scored_lines + report.evidence_lines + report.malformed == 0;
        idle_passes = if idle { idle_passes + 1 } else { 0 };
        if idle_passes > IDLE_PASSES_MAX && engine.was_skipped(path) {
            return Err(RebuildError::UnreadBytes {
                path: stage
                    .root
                    .join("data/{evidence,scored-runs}")
                    .join(path.as_path()),
            });
        }
    }
    Ok(())
}

/// Returns all pairs in the order of a batch and the number of directories that could not be listed.
fn list_pairs(setup: &Setup) -> Result<(BTreeSet<PairPath>, u64), RebuildError> {
    let mut paths = BTreeSet::new();
    let mut passed_over = 0;
    for stream in Stream::ALL {
        let found =
            walk(&*setup.storage, &setup.root, stream).map_err(|source| RebuildError::Sources {
                path: stream.base(&setup.root),
                source,
            })?;
        for (directory, error) in &found.unreadable {
            tracing::warn!(
                directory = %directory.display(),
                %error,
                "cannot list directory {} ({error}), its day-files are missing from the fresh export",
                directory.display()
            );
        }
        passed_over += found.unreadable.len() as u64;
        paths.extend(found.day_files);
    }
    Ok((paths, passed_over))
}

/// Returns a digest of each line of an export, timestamps ignored, sorted. An export that does not exist has no lines.
fn row_digests(
    storage: &Arc<dyn Storage>,
    path: &Path,
    label: &'static str,
    steps: &mut Steps<'_>,
) -> Result<Vec<u64>, RebuildError> {
    let mut digests = Vec::new();
    let is_present = exists(&**storage, path).map_err(|source| ExportError::Io {
        path: path.to_owned(),
        source,
    })?;
    if !is_present {
        return Ok(digests);
    }
    let export = Export::open_or_create(Arc::clone(storage), path)?;
    let total_bytes = export.len_bytes();
    export.for_each_row(|offset, bytes| -> Result<(), RebuildError> {
        if (digests.len() as u64).is_multiple_of(ROWS_PER_STEP) {
            steps.report(label, offset, total_bytes)?;
        }
        let digest = row::digest_without_stamps(bytes);
        digests.push(digest.map_or_else(
            |_| xxhash_rust::xxh3::xxh3_64(bytes),
            |digest| (digest & u128::from(u64::MAX)) as u64,
        ));
        Ok(())
    })?;
    digests.sort_unstable();
    Ok(digests)
}

/// Returns the size of the multiset intersection of two sorted lists.
fn count_common(left: &[u64], right: &[u64]) -> u64 {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    let mut common = 0;
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        match a.cmp(b) {
            std::cmp::Ordering::Less => drop(left.next()),
            std::cmp::Ordering::Greater => drop(right.next()),
            std::cmp::Ordering::Equal => {
                common += 1;
                left.next();
                right.next();
            }
        }
    }
    common
}
