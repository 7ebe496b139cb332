//! Owns `rebuild`: a fresh export and a state that fits it are made beside the old ones and take their place at once.
//! It never changes what stands before the swap, and never decides what earns a row: it drives the same engine.
//!
//! The fresh export holds what a batch over today's sources gives, pair by pair in the walk's order: so `verify` finds
//! it equal, and the daemon that goes on from it has nothing to append. What falls away are rows of history that is
//! no more: of lines that were rewritten or deleted, and of evidence that was replaced (the row comes back with what
//! the evidence says now). A run that was accepted by one line and rejected by a later one keeps its row as long as
//! the accepting line stands, because a batch gives it too, and a daemon would append it again; it is still counted
//! as contradicted. All rows are stamped anew.
//!
//! An unterminated last line that is a whole value is taken at once, as a batch does.
//!
//! How the files take their places, and what a crash then leaves, is told where that is done (`swap`).

use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::engine::{Engine, EngineError, Setup};
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::{pair_bytes, walk};
use crate::platform::storage::{Storage, exists};
use crate::record::row;
use crate::recovery::swap::{clean_up, finish_swap, stage_of, swap};
use crate::store::export::{Export, ExportError, ROWS_PER_STEP};

/// A pair that cannot be read is not looked at more often than this without a new line.
const IDLE_PASSES_MAX: u32 = 16;

/// What a rebuild did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    /// The export.
    pub output_path: String,
    /// Lines of the export that was replaced.
    pub rows_before: u64,
    /// Rows of the fresh one.
    pub rows_after: u64,
    /// Of `rows_before`: those that are not in the fresh one, stamps aside.
    pub rows_dropped: u64,
    /// Of `rows_after`: those that were not in the old one, stamps aside.
    pub rows_added: u64,
    /// Directories and day-files that could not be read, each named in the log; their rows are missing until they can.
    pub passed_over: u64,
}

/// Why there was no rebuild. The old export and state are as they were.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// See there.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The lake's sources cannot be listed.
    #[error(
        "the sources in {} cannot be listed: {source}; the export was not touched", path.display()
    )]
    Sources {
        /// The stream's directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// A day-file was opened and then could not be read.
    #[error(
        "{} cannot be read to its end; the export was not touched", path.display()
    )]
    UnreadBytes {
        /// The pair.
        path: PathBuf,
    },
    /// Whoever was told of its steps wanted no more of them.
    #[error("stopped before the swap; the export and the state are as they were")]
    Stopped,
}

impl From<ExportError> for RebuildError {
    fn from(error: ExportError) -> Self {
        RebuildError::Engine(error.into())
    }
}

/// Told of the work's steps: what is being done, bytes of it that are done, bytes in all. Says whether to go on.
pub type OnStep<'a> = &'a mut dyn FnMut(&'static str, u64, u64) -> ControlFlow<()>;

/// Writes a fresh export and a state that fits it, and swaps them in. Nobody else may work on this state or export:
/// the caller holds the lock. `on_step` may end it up to the swap: what was made is removed.
///
/// Memory: 8 bytes for each row of the old export and of the fresh one, to tell what was dropped.
///
/// # Errors
/// See [`RebuildError`]. A failed swap is finished by the next start.
pub fn rebuild(setup: &Setup, on_step: OnStep<'_>) -> Result<Rebuilt, RebuildError> {
    let storage = Arc::clone(&setup.storage);
    storage
        .create_dir_all(&setup.state_dir)
        .map_err(|source| setup.state_dir_error(source))?;
    finish_swap(setup)?;
    let stage = stage_of(setup);
    let made = make(setup, &stage, on_step);
    if let Err(RebuildError::Stopped) = made {
        clean_up(setup, &stage)?;
    }
    let Made {
        before,
        after,
        passed_over,
    } = made?;
    swap(setup)?;
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

/// What was made beside the old export: digests of the old rows and of the fresh ones.
struct Made {
    before: Vec<u64>,
    after: Vec<u64>,
    passed_over: u64,
}

/// All that comes before the swap. The stage is closed on return.
fn make(setup: &Setup, stage: &Setup, on_step: OnStep<'_>) -> Result<Made, RebuildError> {
    let storage = &setup.storage;
    Ok(Made {
        before: row_digests(
            storage,
            &setup.export_path,
            "reading the old export",
            on_step,
        )?,
        passed_over: fill(stage, on_step)?,
        after: row_digests(storage, &stage.export_path, "comparing", on_step)?,
    })
}

/// Reads all of the lake into the stage, and gives how much of it was passed over. Durable on return.
fn fill(stage: &Setup, on_step: OnStep<'_>) -> Result<u64, RebuildError> {
    let (paths, mut passed_over) = pairs_of(stage)?;
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
            on_step("rebuilding", done_bytes, total_bytes)
        })?;
        passed_over += u64::from(engine.was_skipped(&path));
    }
    engine.checkpoint()?;
    Ok(passed_over)
}

/// Reads one pair to its end, unterminated last lines included. `on_bytes` is told after each pass.
fn read_all(
    engine: &mut Engine,
    stage: &Setup,
    path: &PairPath,
    on_bytes: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<(), RebuildError> {
    let mut idle_passes = 0;
    engine.enqueue(path.clone());
    while engine.queue_len() > 0 || engine.may_settle() {
        engine.tick()?;
        let report = engine.pass()?;
        if on_bytes(report.source_bytes).is_break() {
            return Err(RebuildError::Stopped);
        }
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

/// All pairs in the order of a batch, and how many directories could not be listed.
fn pairs_of(setup: &Setup) -> Result<(BTreeSet<PairPath>, u64), RebuildError> {
    let mut paths = BTreeSet::new();
    let mut passed_over = 0;
    for stream in Stream::ALL {
        let found =
            walk(&*setup.storage, &setup.root, stream).map_err(|source| RebuildError::Sources {
                path: stream.base(&setup.root),
                source,
            })?;
        for (directory, error) in &found.unreadable {
            tracing::warn!(directory = %directory.display(), %error, "directory passed over");
        }
        passed_over += found.unreadable.len() as u64;
        paths.extend(found.day_files);
    }
    Ok((paths, passed_over))
}

/// A digest of each line of an export, stamps aside, sorted.
fn row_digests(
    storage: &Arc<dyn Storage>,
    path: &Path,
    what: &'static str,
    on_step: OnStep<'_>,
) -> Result<Vec<u64>, RebuildError> {
    let mut digests = Vec::new();
    let there = exists(&**storage, path).map_err(|source| ExportError::Io {
        path: path.to_owned(),
        source,
    })?;
    if !there {
        return Ok(digests);
    }
    let export = Export::open_or_create(Arc::clone(storage), path)?;
    let total_bytes = export.len_bytes();
    export.for_each_row(|offset, bytes| {
        let is_step = (digests.len() as u64).is_multiple_of(ROWS_PER_STEP);
        if is_step && on_step(what, offset, total_bytes).is_break() {
            return Err(RebuildError::Stopped);
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

/// How many of two sorted lists pair off.
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
