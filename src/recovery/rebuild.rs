//! Rebuilds the export and the state from the sources: builds a fresh export and a fresh state next to the old ones,
//! then swaps both in at once. Nothing is changed before the swap. The same engine decides which rows are written.
//!
//! The fresh export holds what a batch over today's sources gives, pair by pair in the order of the walk: `verify` finds
//! it equal, and the daemon that resumes from it has nothing to append. A row that stays keeps its timestamps; a row
//! whose evidence or index was changed is replaced and gets new ones. Rows would be dropped whose line was rewritten or
//! whose day-file is away: the rebuild refuses that, unless the caller permits it, and always where a source only cannot
//! be read now (`recovery::losses` finds out). A run that one line accepts and a later line rejects keeps its row
//! as long as the accepting line exists, because a batch gives that row too and a daemon would append it again; it still
//! counts as contradicted.
//!
//! A last line without a newline that is a complete value is read at once, as a batch does.
//!
//! `recovery::swap` describes how the files are swapped, and what a crash in between leaves.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::console::progress::OnStep;
use crate::engine::{Engine, EngineError, LedgerOrigin, Setup};
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::{pair_bytes, walk};
use crate::platform::storage::exists;
use crate::record::kept_stamps::{self, KeptStamps};
use crate::recovery::availability::Obstacles;
pub use crate::recovery::dropped::{DropReason, DroppedRows};
use crate::recovery::ledger::read_old_ledger;
use crate::recovery::losses::{Losses, find_losses};
use crate::recovery::owned_storage::with_owner;
pub use crate::recovery::rebuild_state::rebuild_state;
use crate::recovery::swap::{clean_up, finish_swap, replaced_file, stage_of, swap};
use crate::store::export::{Export, ExportError, ROWS_PER_STEP};

/// Passes over a pair without a new line after which a pair that was skipped counts as unreadable.
const IDLE_PASSES_MAX: u32 = 16;

/// Maximum groups of dropped rows that an error names.
const NAMED_MAX: usize = 20;

/// What a rebuild may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RebuildOptions {
    /// Only find out what would change.
    pub dry_run: bool,
    /// Drop rows whose source is gone. Rows whose source cannot be read now are never dropped.
    pub drop_missing: bool,
}

/// The result of a rebuild, or of its dry run, printed as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rebuilt {
    /// Path of the export.
    pub output_path: String,
    /// Path of the replaced export, which is kept; `null` if there was none, and in a dry run.
    pub kept_path: Option<String>,
    /// Lines of the replaced export.
    pub rows_before: u64,
    /// Rows of the fresh export.
    pub rows_after: u64,
    /// Rows that stay, with their timestamps.
    pub rows_kept: u64,
    /// Rows that stay with other bytes: their evidence or their index was changed.
    pub rows_replaced: u64,
    /// Rows of the fresh export without one of the same origin in the replaced one.
    pub rows_added: u64,
    /// Rows without one of the same origin in the fresh export.
    pub rows_dropped: u64,
    /// The dropped rows by day and reason, rows without a known day first.
    pub dropped: Vec<DroppedRows>,
    /// Why a rebuild refuses to drop them, in a dry run; `null` if it does not refuse.
    pub refused: Option<DropReason>,
    /// Directories and day-files that could not be read, each named in the log. They hold no source of a row of the
    /// replaced export.
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
    /// Rows would be dropped. The reason is the one that matters most.
    #[error("{}", refusal(.0, *.1))]
    WouldDrop(Box<Rebuilt>, DropReason),
    /// There is no export whose rows a new state could adopt.
    #[error("there is no export at {}, and so no rows that a new state could adopt", .0.display())]
    NothingToAdopt(PathBuf),
    /// Another process put something else in the place of a new file.
    #[error("another process replaced {} during the rebuild; the export is unchanged", .0.display())]
    Replaced(PathBuf),
    /// The stop flag was set before the swap.
    #[error("stopped before the swap; the export and the state are as they were")]
    Stopped,
}

/// Describes the rows that would be dropped, the first groups in a line each.
fn refusal(rebuilt: &Rebuilt, reason: DropReason) -> String {
    let why = match reason {
        DropReason::Unreadable => "the sources of some of them cannot be read now",
        _ => "their sources are gone",
    };
    let mut text = format!(
        "a rebuild would drop {} of {} rows: {why}; the export is unchanged",
        rebuilt.rows_dropped, rebuilt.rows_before
    );
    for group in rebuilt.dropped.iter().take(NAMED_MAX) {
        text += &format!("\n  {group}");
    }
    match rebuilt.dropped.len().saturating_sub(NAMED_MAX) {
        0 => text,
        more => text + &format!("\n  and {more} more, see `distilld rebuild --dry-run`"),
    }
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
/// Memory: 16 bytes for each row of the old export and 8 for each of the fresh one, and what `recovery::losses` needs
/// for rows that only one of them has.
///
/// # Errors
/// See [`RebuildError`]. The next start completes a swap that failed.
pub fn rebuild(
    setup: &Setup,
    options: RebuildOptions,
    stop: &AtomicBool,
    on_step: OnStep<'_>,
) -> Result<Rebuilt, RebuildError> {
    create_state_dir(setup)?;
    let setup = &with_owner(setup)?;
    finish_swap(setup)?;
    let old = read_old_ledger(setup)?;
    let stage = Setup {
        ledger_origin: LedgerOrigin {
            is_rebuild: true,
            reason: old.description,
            orders: old.orders,
        },
        ..stage_of(setup)
    };
    let built = build(setup, &stage, &mut Steps { on_step, stop });
    let mut rebuilt = match built {
        Ok(rebuilt) => rebuilt,
        Err(error) => {
            if !matches!(error, RebuildError::Engine(_)) {
                clean_up(setup, &stage)?;
            }
            return Err(error);
        }
    };
    rebuilt.refused = refused(&rebuilt.dropped, options);
    match rebuilt.refused {
        _ if options.dry_run => clean_up(setup, &stage)?,
        None => {
            if let Some(path) = replaced_file(setup, &stage)? {
                return Err(RebuildError::Replaced(path));
            }
            let kept = swap(setup)?;
            rebuilt.kept_path = kept.map(|path| path.display().to_string());
        }
        Some(reason) => {
            clean_up(setup, &stage)?;
            return Err(RebuildError::WouldDrop(Box::new(rebuilt), reason));
        }
    }
    Ok(rebuilt)
}

pub(super) fn create_state_dir(setup: &Setup) -> Result<(), EngineError> {
    let created = setup.storage.create_dir_all(&setup.state_dir);
    created.map_err(|source| setup.state_dir_error(source))
}

/// Returns the reason for which these rows may not be dropped.
fn refused(dropped: &[DroppedRows], options: RebuildOptions) -> Option<DropReason> {
    let has = |reason| dropped.iter().any(|group| group.reason == reason);
    [
        (DropReason::Unreadable, false),
        (DropReason::Gone, options.drop_missing),
        (DropReason::LineGone, options.drop_missing),
    ]
    .into_iter()
    .find_map(|(reason, is_permitted)| (has(reason) && !is_permitted).then_some(reason))
}

/// Does all the work before the swap. The stage is closed on return.
fn build(setup: &Setup, stage: &Setup, steps: &mut Steps<'_>) -> Result<Rebuilt, RebuildError> {
    let mut before = KeptStamps::default();
    for_each_line(
        setup,
        &setup.export_path,
        "reading the old export",
        steps,
        |line| {
            before.push(line);
        },
    )?;
    before.finish();
    let before = Arc::new(before);
    let obstacles = fill(stage, Arc::clone(&before), steps)?;
    let mut after = Vec::new();
    for_each_line(setup, &stage.export_path, "comparing", steps, |line| {
        after.push(kept_stamps::digest(line));
    })?;
    after.sort_unstable();
    let passed_over = obstacles.passed_over();
    let Losses {
        kept,
        replaced,
        dropped,
    } = find_losses(setup, stage, (&before, &after), obstacles)?;
    Ok(Rebuilt {
        output_path: setup.export_path.display().to_string(),
        kept_path: None,
        rows_before: before.len() as u64,
        rows_after: after.len() as u64,
        rows_kept: kept,
        rows_replaced: replaced,
        rows_added: (after.len() as u64).saturating_sub(kept + replaced),
        rows_dropped: dropped.iter().map(|group| group.rows).sum(),
        dropped,
        refused: None,
        passed_over,
    })
}

/// Reads the whole lake into the stage and returns the paths that could not be read. Durable on return.
fn fill(
    stage: &Setup,
    kept_stamps: Arc<KeptStamps>,
    steps: &mut Steps<'_>,
) -> Result<Obstacles, RebuildError> {
    let (paths, mut obstacles) = list_pairs(stage)?;
    let (mut engine, _) = Engine::open(stage.clone())?;
    engine.commit_full_batches();
    engine.keep_stamps(kept_stamps);
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
        if engine.was_skipped(&path) {
            obstacles.pairs += 1;
            let skipped = engine.skipped().filter(|(skipped, ..)| **skipped == path);
            let skipped = skipped.map(|(_, stream, error)| ((path.clone(), stream), error.into()));
            obstacles.day_files.extend(skipped);
        }
    }
    engine.checkpoint()?;
    Ok(obstacles)
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

/// Returns all pairs in the order of a batch, and the directories that could not be listed.
fn list_pairs(setup: &Setup) -> Result<(BTreeSet<PairPath>, Obstacles), RebuildError> {
    let mut paths = BTreeSet::new();
    let mut obstacles = Obstacles::default();
    for stream in Stream::ALL {
        let base = stream.base(&setup.root);
        let found =
            walk(&*setup.storage, &setup.root, stream).map_err(|source| RebuildError::Sources {
                path: base.clone(),
                source,
            })?;
        for (directory, error) in found.unreadable {
            tracing::warn!(
                directory = %directory.display(),
                %error,
                "cannot list directory {} ({error}), its day-files are missing from the fresh export",
                directory.display()
            );
            obstacles.directories.push((directory, error.to_string()));
        }
        if let Err(error) = setup.storage.stat(&base) {
            let why = format!("{error}; is it mounted?");
            obstacles.missing_bases.push((base, why));
        }
        paths.extend(found.day_files);
    }
    Ok((paths, obstacles))
}

/// Calls `visit` with each line of an export, without its newline. An export that does not exist has no lines.
fn for_each_line(
    setup: &Setup,
    path: &Path,
    label: &'static str,
    steps: &mut Steps<'_>,
    mut visit: impl FnMut(&[u8]),
) -> Result<(), RebuildError> {
    let is_present = exists(&*setup.storage, path).map_err(|source| ExportError::Io {
        path: path.to_owned(),
        source,
    })?;
    if !is_present {
        return Ok(());
    }
    let export = Export::open_or_create(Arc::clone(&setup.storage), path)?;
    let total_bytes = export.len_bytes();
    let mut lines = 0_u64;
    export.for_each_row(|offset, bytes| -> Result<(), RebuildError> {
        if lines.is_multiple_of(ROWS_PER_STEP) {
            steps.report(label, offset, total_bytes)?;
        }
        lines += 1;
        visit(bytes);
        Ok(())
    })?;
    Ok(())
}
