//! One read of a pair of day-files: opens both, verifies that they hold what was read of them, reads new lines, and joins
//! them. It changes nothing: the caller merges the returned [`PairRead`], or drops it.

mod chunks;
mod cursor;
mod lookup;
mod remember;

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::Path;
use std::sync::Mutex;

use crate::lake::chunk::{Chunk, LineLimits};
use crate::lake::identity::{SourceChange, SourceState};
use crate::lake::path::{PairPath, Stream};
use crate::lake::source::Source;
use crate::pair::index::UnclaimedRow;
use crate::pair::orders::Orders;
use crate::pair::{ActivePair, JoinContext, JoinOutcome, advance};
use crate::platform::buffer_pool::Buffers;
use crate::platform::storage::{Storage, is_out_of_files};
use crate::record::kept_stamps::KeptStamps;
use crate::store::state::StateView;
use crate::store::state::error::StateError;

use chunks::{NewLines, Sources, has_leftover, has_more, open_sources, read_chunks};
pub use cursor::{PairMemory, Settled, SourceMemory};
use lookup::{LiveIndex, ReadError, SourceBodies};
pub use remember::{forget_device, is_gone, last_device};
use remember::{mark_gone, remember};

/// The environment of a read.
pub struct ReadContext<'a> {
    /// The file system.
    pub storage: &'a dyn Storage,
    /// The root of the lake, with all links resolved.
    pub root: &'a Path,
    /// The path of the export, from which rows that lines claim are read.
    pub export_path: &'a Path,
    /// The view of the state.
    pub view: &'a StateView,
    /// Rows that were claimed since that view was opened.
    pub claimed: &'a BTreeSet<UnclaimedRow>,
    /// Unclaimed rows in addition to those that the view lists.
    pub released: &'a BTreeSet<UnclaimedRow>,
    /// Whether there are unclaimed rows.
    pub claims_possible: bool,
    /// The standing orders of operators.
    pub orders: &'a Orders,
    /// Offsets of scored lines whose rows a rebuild leaves out.
    pub left_out: &'a HashSet<u64>,
    /// Limits on the length of a line; a longer one becomes a dead letter.
    pub limits: LineLimits,
    /// Reused memory of chunks and rows.
    pub buffers: &'a Buffers,
    /// Held while lines longer than a chunk are joined.
    pub long_lines: &'a Mutex<()>,
    /// The timestamp of new rows.
    pub stamp: &'a str,
    /// Timestamps of rows that were there before, which they keep.
    pub kept_stamps: &'a KeptStamps,
    /// The same, milliseconds since 1970.
    pub now_ms: u64,
    /// Whether scored lines wait until an unterminated last line of the evidence is read or known to be torn. A batch does
    /// so, because it requires no settle time.
    pub settle_first: bool,
}

/// The result of a read.
#[derive(Debug)]
pub struct PairRead {
    /// The outcome of the new lines; `None` where a source changed or cannot be read.
    pub outcome: Option<JoinOutcome>,
    /// Sources that must be read again from their start before anything else.
    pub rewritten: Vec<(Stream, SourceChange)>,
    /// Sources that could not be read.
    pub unreadable: Vec<(Stream, io::Error)>,
    /// Sources that were read before and do not exist now.
    pub deleted: Vec<Stream>,
    /// The memory of the next read.
    pub memory: PairMemory,
    /// Whether more can be read at once.
    pub more: bool,
    /// Bytes that exist and are not read, unterminated last lines included.
    pub unread_bytes: u64,
    /// Last change of the inode of either source, milliseconds since 1970.
    pub changed_ms: u64,
    /// The timestamp of the rows, milliseconds since 1970.
    pub wall_ms: u64,
}

impl PairRead {
    fn new(memory: PairMemory, wall_ms: u64) -> Self {
        Self {
            outcome: None,
            rewritten: Vec::new(),
            unreadable: Vec::new(),
            deleted: Vec::new(),
            memory,
            more: false,
            unread_bytes: 0,
            changed_ms: 0,
            wall_ms,
        }
    }
}

/// Reads a pair. `settled`: which of its unterminated last lines were unchanged for the settle time.
///
/// # Errors
/// Errors of the state. Errors of a source are in the [`PairRead`].
pub fn read_pair(
    pair: &ActivePair,
    path: &PairPath,
    memory: PairMemory,
    settled: Settled,
    ctx: &ReadContext<'_>,
) -> Result<PairRead, StateError> {
    let mut opened = open_sources(pair, path, memory, ctx);
    let mut unreadable = opened.unreadable.iter();
    if let Some(at) = unreadable.position(|(_, error)| is_out_of_files(error)) {
        return Err(StateError::Io(opened.unreadable.swap_remove(at).1));
    }
    let read = PairRead {
        rewritten: opened.rewritten,
        unreadable: opened.unreadable,
        deleted: opened.deleted,
        ..PairRead::new(opened.memory, ctx.now_ms)
    };
    // Half a pair is not joined: the evidence of a run may be in the unreadable half, which was read already and would not
    // be read again for the run.
    if !read.rewritten.is_empty() || !read.unreadable.is_empty() {
        return Ok(read);
    }
    let sources = &opened.sources;
    let mut lines = read_chunks(sources, pair, read.memory, settled, ctx);
    if !lines.unreadable.is_empty() {
        return Ok(PairRead {
            unreadable: std::mem::take(&mut lines.unreadable),
            memory: lines.memory,
            ..read
        });
    }
    let read = match join(sources, pair, &lines, ctx) {
        Ok(outcome) => PairRead {
            deleted: read.deleted,
            ..finish_read(sources, pair, &lines, outcome, ctx)
        },
        Err(ReadError::State(error)) => return Err(error),
        Err(ReadError::Source(stream, error)) => PairRead {
            unreadable: vec![(stream, error)],
            memory: lines.memory,
            ..read
        },
    };
    for chunk in [lines.evidence, lines.scored] {
        if let Chunk::Lines(bytes) = chunk {
            ctx.buffers.recycle_chunk(bytes);
        }
    }
    Ok(read)
}

fn join(
    sources: &Sources,
    pair: &ActivePair,
    lines: &NewLines<'_>,
    ctx: &ReadContext<'_>,
) -> Result<JoinOutcome, ReadError> {
    let bodies = SourceBodies {
        scored: sources.scored.as_ref(),
        evidence: sources.evidence.as_ref(),
        export: OnceCell::new(),
        ctx,
    };
    let facts = JoinContext {
        index: &LiveIndex { id: pair.id, ctx },
        bodies: &bodies,
        claims_possible: ctx.claims_possible,
        orders: ctx.orders,
        left_out: ctx.left_out,
        line_bytes_max: ctx.limits.line_bytes_max,
        stamp: ctx.stamp,
        kept_stamps: ctx.kept_stamps,
        now_s: ctx.now_ms / 1_000,
    };
    // Most rows are made of this evidence, and most of a row is its text, so the rows are hardly longer in sum.
    let rows = ctx.buffers.rows(lines.evidence.bytes().len());
    let mut outcome = advance(pair, &lines.evidence, &lines.scored, &facts, rows)?;
    // All lines claimed rows that were there: outcomes that wait for the merge need no memory for rows.
    if outcome.rows.is_empty() {
        ctx.buffers.rows_shown(std::mem::take(&mut outcome.rows));
    }
    Ok(outcome)
}

/// Returns the read with its outcome, what is left to read, and the identities of the sources. The outcome is dropped
/// where a source changed during the read.
fn finish_read(
    sources: &Sources,
    pair: &ActivePair,
    lines: &NewLines<'_>,
    mut outcome: JoinOutcome,
    ctx: &ReadContext<'_>,
) -> PairRead {
    let mut read = PairRead::new(lines.memory, ctx.now_ms);
    let (before, after) = (&pair.checkpoint, &mut outcome.checkpoint);
    read.more = lines.evidence_left
        || has_leftover(&lines.evidence, &before.evidence, &after.evidence)
        || has_leftover(&lines.scored, &before.scored, &after.scored)
        || has_more(&sources.scored, &before.scored, &lines.scored, ctx);
    for (source, offset) in [
        (&sources.evidence, after.evidence.offset),
        (&sources.scored, after.scored.offset),
    ] {
        let Some(source) = source else { continue };
        read.unread_bytes += source.len_bytes().saturating_sub(offset);
        let changed_ms = u64::try_from(source.seen().changed_ns / 1_000_000).unwrap_or(0);
        read.changed_ms = read.changed_ms.max(changed_ms);
    }
    let evidence = identify(
        sources.evidence.as_ref(),
        &before.evidence,
        &mut after.evidence,
        (&lines.evidence, lines.memory.evidence),
        ctx,
    );
    if !read.record_identified(Stream::Evidence, evidence) {
        return read;
    }
    let scored = identify(
        sources.scored.as_ref(),
        &before.scored,
        &mut after.scored,
        (&lines.scored, lines.memory.scored),
        ctx,
    );
    if read.record_identified(Stream::Scored, scored) {
        read.outcome = Some(outcome);
    }
    read
}

/// Writes the identity of a source into its state. Returns false where the source changed during the read.
fn identify(
    source: Option<&Source>,
    before: &SourceState,
    after: &mut SourceState,
    (chunk, memory): (&Chunk, SourceMemory),
    ctx: &ReadContext<'_>,
) -> io::Result<bool> {
    match source {
        Some(source) => remember(source, before, after, chunk, memory, ctx.now_ms),
        None => {
            mark_gone(after);
            Ok(true)
        }
    }
}

impl PairRead {
    /// Records the result of [`identify`]. Returns whether the source is unchanged.
    fn record_identified(&mut self, stream: Stream, identified: io::Result<bool>) -> bool {
        match identified {
            Ok(true) => return true,
            Ok(false) => self.rewritten.push((stream, SourceChange::TailChanged)),
            Err(error) => self.unreadable.push((stream, error)),
        }
        false
    }
}
