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
//! With [`RebuildOptions::effective`] the fresh export holds the effective rows alone: neither those of lines that later
//! lines of their runs overrule, nor those of runs with a standing order. The state remembers these lines, so that the
//! daemon appends none of their rows, and `verify` knows it by the first line of the ledger (`recovery::left_out`).
//!
//! A last line without a newline that is a complete value is read at once, as a batch does.
//!
//! `recovery::swap` describes how the files are swapped, and what a crash in between leaves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::console::progress::OnStep;
use crate::engine::{Engine, EngineError, LedgerOrigin, Setup};
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::{pair_bytes, walk};
use crate::platform::storage::exists;
use crate::record::kept_stamps::{KeptStamps, stamped};
use crate::record::ledger::begin::EFFECTIVE_ONLY;
use crate::recovery::availability::Obstacles;
pub use crate::recovery::dropped::{DropReason, DroppedRows};
use crate::recovery::left_out::{LeftOut, Overruled, check_left_out};
use crate::recovery::losses::{Losses, find_losses};
use crate::recovery::old_ledger::{OldLedger, read_old_ledger};
use crate::recovery::owned_storage::with_owner;
pub use crate::recovery::rebuild_state::rebuild_state;
pub use crate::recovery::rebuilt::{CarriedOrders, RebuildError, Rebuilt};
use crate::recovery::swap::{clean_up, finish_swap, replaced_file, stage_of, swap};
use crate::store::export::{Export, ExportError, RowBlock};

/// Passes over a pair without a new line after which a pair that was skipped counts as unreadable.
const IDLE_PASSES_MAX: u32 = 16;
/// Maximum pairs of a pass; the threads that read them idle at its end.
const PAIRS_AT_ONCE: usize = 256;

/// What a rebuild may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RebuildOptions {
    /// Only find out what would change.
    pub dry_run: bool,
    /// Drop rows whose source is gone. Rows whose source cannot be read now are never dropped.
    pub drop_missing: bool,
    /// Leave out the rows that are not effective.
    pub effective: bool,
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
    old.warn(setup);
    let stage = Setup {
        ledger_origin: ledger_origin(&old, options),
        ..stage_of(setup)
    };
    let built = build(setup, &stage, old, options, &mut Steps { on_step, stop });
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

/// Returns what the ledger of the fresh export begins with.
fn ledger_origin(old: &OldLedger, options: RebuildOptions) -> LedgerOrigin {
    let mut reason = old.description.clone();
    if options.effective {
        let separator = if reason.is_empty() { "" } else { "; " };
        reason = format!("{EFFECTIVE_ONLY}{separator}{reason}");
    }
    LedgerOrigin {
        is_rebuild: true,
        reason,
        orders: old.orders.clone(),
    }
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
fn build(
    setup: &Setup,
    stage: &Setup,
    old: OldLedger,
    options: RebuildOptions,
    steps: &mut Steps<'_>,
) -> Result<Rebuilt, RebuildError> {
    let before = Arc::new(read_stamps(setup, steps)?);
    let orders = old.carried;
    let mut left_out = LeftOut::new(old, options.effective);
    let (obstacles, mut after) = fill(stage, Arc::clone(&before), &mut left_out, steps)?;
    check_left_out(stage, &left_out)?;
    after.sort_unstable();
    let passed_over = obstacles.passed_over();
    let Losses {
        kept,
        replaced,
        left_out,
        dropped,
    } = find_losses(setup, stage, (&before, &after), obstacles, left_out)?;
    Ok(Rebuilt {
        output_path: setup.export_path.display().to_string(),
        kept_path: None,
        rows_before: before.len() as u64,
        rows_after: after.len() as u64,
        rows_kept: kept,
        rows_replaced: replaced,
        rows_added: (after.len() as u64).saturating_sub(kept + replaced),
        rows_left_out: left_out,
        rows_dropped: dropped.iter().map(|group| group.rows).sum(),
        dropped,
        orders,
        refused: None,
        passed_over,
    })
}

/// Reads the whole lake into the stage and returns the paths that could not be read, and the digests of the rows. Durable
/// on return.
fn fill(
    stage: &Setup,
    kept_stamps: Arc<KeptStamps>,
    left_out: &mut LeftOut,
    steps: &mut Steps<'_>,
) -> Result<(Obstacles, Vec<u64>), RebuildError> {
    let (paths, mut obstacles) = list_pairs(stage)?;
    let (mut engine, _) = Engine::open(stage.clone())?;
    engine.commit_full_batches();
    engine.keep_stamps(kept_stamps);
    let sizes = paths
        .iter()
        .map(|path| pair_bytes(&*stage.storage, &stage.root, path));
    let total_bytes = sizes.sum();
    let mut done_bytes = 0;
    let mut on_bytes = |read_bytes| {
        done_bytes += read_bytes;
        steps.report("rebuilding", done_bytes, total_bytes)
    };
    let mut rest = &paths[..];
    while !rest.is_empty() {
        // The engine leaves out the lines of one pair at a time.
        let at_once = if left_out.is_effective() {
            1
        } else {
            PAIRS_AT_ONCE
        };
        let next = &rest[..rest.len().min(at_once)];
        let overruled = left_out.find(stage, &next[0]);
        engine.leave_out(overruled.offsets());
        engine.tick()?;
        let (report, merged) = engine.pass_in_order(next)?;
        on_bytes(report.source_bytes)?;
        read_rest(&mut engine, stage, &next[merged - 1], &mut on_bytes)?;
        for path in &next[..merged] {
            if engine.was_skipped(path) {
                obstacles.pairs += 1;
                let skipped = engine.skipped().filter(|(skipped, ..)| *skipped == path);
                let skipped =
                    skipped.map(|(_, stream, error)| ((path.clone(), stream), error.into()));
                obstacles.day_files.extend(skipped);
            } else if let Overruled::Unknown = overruled {
                return Err(unread_bytes(stage, path));
            }
        }
        rest = &rest[merged..];
    }
    engine.checkpoint()?;
    Ok((obstacles, engine.take_row_digests()))
}

/// Reads the rest of the pair that was merged last, last lines without a newline included. Calls `on_bytes` after each
/// pass with the bytes read in it.
fn read_rest(
    engine: &mut Engine,
    stage: &Setup,
    path: &PairPath,
    on_bytes: &mut dyn FnMut(u64) -> Result<(), RebuildError>,
) -> Result<(), RebuildError> {
    let mut idle_passes = 0;
    while engine.queue_len() > 0 || engine.may_settle() {
        engine.tick()?;
        let report = engine.pass()?;
        on_bytes(report.source_bytes)?;
        let idle = report.scored_lines + report.evidence_lines + report.malformed == 0;
        idle_passes = if idle { idle_passes + 1 } else { 0 };
        if idle_passes > IDLE_PASSES_MAX && engine.was_skipped(path) {
            return Err(unread_bytes(stage, path));
        }
    }
    Ok(())
}

fn unread_bytes(stage: &Setup, pair: &PairPath) -> RebuildError {
    RebuildError::UnreadBytes {
        path: stage
            .root
            .join("data/{evidence,scored-runs}")
            .join(pair.as_path()),
    }
}

/// Returns all pairs that are not excluded, in the order of a batch, and the directories that could not be listed.
fn list_pairs(setup: &Setup) -> Result<(Vec<PairPath>, Obstacles), RebuildError> {
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
    let paths = paths.into_iter();
    let paths = paths.filter(|path| !setup.exclude.matches(path.as_path()));
    Ok((paths.collect(), obstacles))
}

/// Reads the timestamps of all rows of the export on several threads. An export that does not exist has none.
fn read_stamps(setup: &Setup, steps: &mut Steps<'_>) -> Result<KeptStamps, RebuildError> {
    let mut kept = KeptStamps::default();
    let path = &setup.export_path;
    let is_present = exists(&*setup.storage, path).map_err(|source| ExportError::Io {
        path: path.to_owned(),
        source,
    })?;
    if is_present {
        let export = Export::open_or_create(Arc::clone(&setup.storage), path)?;
        let total_bytes = export.len_bytes();
        let label = "reading the old export";
        let stamps_of = |block: &RowBlock| {
            let mut lines = Vec::new();
            block.for_each(|_, line| lines.push(stamped(line)));
            lines
        };
        export.map_rows(stamps_of, |block, lines| -> Result<(), RebuildError> {
            steps.report(label, block.offset, total_bytes)?;
            lines.into_iter().for_each(|line| kept.push(line));
            Ok(())
        })?;
        steps.report(label, total_bytes, total_bytes)?;
    }
    kept.finish();
    Ok(kept)
}
