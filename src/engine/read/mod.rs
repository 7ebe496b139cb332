//! Owns one look at a pair of day-files: opens both, checks that they are what they were, reads what is new, and
//! has the core work it. It changes nothing that is remembered: its [`PairRead`] says what would follow.

pub mod chunks;
pub(crate) mod cursor;
pub(crate) mod lookup;
pub(crate) mod remember;

use crate::engine::read::chunks::{Chunks, Sources, behind, is_left, open_both, read_both};

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Mutex;

use crate::lake::chunk::{Chunk, LineLimits};
use crate::lake::identity::SourceChange;
use crate::lake::identity::SourceState;
use crate::lake::path::{PairPath, Stream};
use crate::lake::source::Source;
use crate::pair::index::UnclaimedRow;
use crate::pair::{ActivePair, JoinContext, JoinOutcome, advance};
use crate::platform::buffer_pool::Buffers;
use crate::platform::storage::{Storage, is_out_of_files};
use crate::store::state::StateView;
use crate::store::state::error::StateError;
pub use cursor::{PairMemory, SourceMemory};
use lookup::{LiveIndex, LookError, SourceBodies};
pub use remember::is_gone;
use remember::{mark_gone, remember};

/// What a look at a pair needs.
pub struct ReadContext<'a> {
    /// The file system.
    pub storage: &'a dyn Storage,
    /// The root, without links in it.
    pub root: &'a Path,
    /// The export, of which rows that lines claim are read.
    pub export_path: &'a Path,
    /// The state's view.
    pub view: &'a StateView,
    /// Rows claimed since that view was taken.
    pub claimed: &'a BTreeSet<UnclaimedRow>,
    /// Rows that no line has claimed beside those that the view lists.
    pub released: &'a BTreeSet<UnclaimedRow>,
    /// Whether there are rows that no line has claimed.
    pub claims_possible: bool,
    /// A longer line is a dead letter.
    pub limits: LineLimits,
    /// Memory for chunks and rows.
    pub buffers: &'a Buffers,
    /// Held while lines longer than a chunk are worked.
    pub long_lines: &'a Mutex<()>,
    /// Written into new rows.
    pub stamp: &'a str,
    /// Milliseconds since 1970.
    pub now_ms: u64,
    /// Whether scored lines wait until an unterminated last line of the evidence is taken or known to be torn: as a
    /// batch does it, where no source has to be still for a while.
    pub settle_first: bool,
}

/// What a look at a pair found.
#[derive(Debug)]
pub struct PairRead {
    /// What follows from new lines, unless a source was rewritten.
    pub outcome: Option<JoinOutcome>,
    /// Sources that must be read again from their start before anything else.
    pub rewritten: Option<(Stream, SourceChange)>,
    /// Sources that could not be read.
    pub unreadable: Vec<(Stream, io::Error)>,
    /// Sources that were there and are gone.
    pub deleted: Vec<Stream>,
    /// The memory after it.
    pub memory: PairMemory,
    /// Whether there is more to read at once.
    pub more: bool,
    /// Bytes that were there and are not read yet, unterminated last lines included.
    pub unread_bytes: u64,
    /// When the inode of either source last changed, milliseconds since 1970.
    pub changed_ms: u64,
    /// The time in the stamp of its rows, milliseconds since 1970.
    pub wall_ms: u64,
}

/// Looks at a pair. `settled`: its unterminated last lines have been still for long enough to be taken.
///
/// # Errors
/// The state's. What is wrong with a source is in the [`PairRead`].
pub fn look(
    pair: &ActivePair,
    path: &PairPath,
    memory: PairMemory,
    settled: bool,
    looking: &ReadContext<'_>,
) -> Result<PairRead, StateError> {
    let mut found = PairRead {
        outcome: None,
        rewritten: None,
        unreadable: Vec::new(),
        deleted: Vec::new(),
        memory,
        more: false,
        unread_bytes: 0,
        changed_ms: 0,
        wall_ms: looking.now_ms,
    };
    let sources = open_both(pair, path, looking, &mut found);
    let mut unreadable = found.unreadable.iter();
    if let Some(at) = unreadable.position(|(_, error)| is_out_of_files(error)) {
        return Err(StateError::Io(found.unreadable.swap_remove(at).1));
    }
    // Half a pair is not worked: a run whose evidence cannot be read now would wait for evidence that never comes
    // again, because it was read already.
    if found.rewritten.is_some() || !found.unreadable.is_empty() {
        return Ok(found);
    }
    // Held until the lines are worked.
    let mut alone = None;
    let chunks = read_both(&sources, pair, settled, looking, &mut alone, &mut found);
    if !found.unreadable.is_empty() {
        return Ok(found);
    }
    match work(&sources, pair, &chunks, looking) {
        Ok(outcome) => finish_read(&sources, pair, &chunks, looking, outcome, &mut found),
        Err(LookError::State(error)) => return Err(error),
        Err(LookError::Body(stream, error)) => found.unreadable.push((stream, error)),
    }
    for chunk in [chunks.evidence, chunks.scored] {
        if let Chunk::Lines(bytes) = chunk {
            looking.buffers.chunk_worked(bytes);
        }
    }
    Ok(found)
}

/// The chunk of a source that has nothing new, or is not there.
pub(super) const NOTHING: Chunk = Chunk::PartialLine { len_bytes: 0 };

fn work(
    sources: &Sources,
    pair: &ActivePair,
    chunks: &Chunks,
    looking: &ReadContext<'_>,
) -> Result<JoinOutcome, LookError> {
    let bodies = SourceBodies {
        scored: sources.scored.as_ref(),
        evidence: sources.evidence.as_ref(),
        export: OnceCell::new(),
        looking,
    };
    let facts = JoinContext {
        index: &LiveIndex {
            id: pair.id,
            looking,
        },
        bodies: &bodies,
        claims_possible: looking.claims_possible,
        line_bytes_max: looking.limits.line_bytes_max,
        stamp: looking.stamp,
        now_s: looking.now_ms / 1_000,
    };
    // Most rows are of this evidence, and most of a row is text, so that all of them are hardly longer.
    let room = looking.buffers.rows(chunks.evidence.bytes().len());
    advance(pair, &chunks.evidence, &chunks.scored, &facts, room)
}

/// Says what is left, and by what the sources are known again. Nothing follows from a source that changed meanwhile.
fn finish_read(
    sources: &Sources,
    pair: &ActivePair,
    chunks: &Chunks,
    looking: &ReadContext<'_>,
    mut outcome: JoinOutcome,
    found: &mut PairRead,
) {
    let (before, after) = (&pair.checkpoint, &mut outcome.checkpoint);
    found.more = chunks.evidence_behind
        || is_left(&chunks.evidence, &before.evidence, &after.evidence)
        || is_left(&chunks.scored, &before.scored, &after.scored)
        || behind(&sources.scored, &before.scored, &chunks.scored, looking);
    for (source, offset) in [
        (&sources.evidence, after.evidence.offset),
        (&sources.scored, after.scored.offset),
    ] {
        let Some(source) = source else { continue };
        found.unread_bytes += source.len_bytes().saturating_sub(offset);
        let changed_ms = u64::try_from(source.seen().changed_ns / 1_000_000).unwrap_or(0);
        found.changed_ms = found.changed_ms.max(changed_ms);
    }
    let (evidence, scored) = (found.memory.evidence, found.memory.scored);
    let mut conclude_one =
        |stream, source: &Option<Source>, before, after: &mut SourceState, chunk, memory| {
            let Some(source) = source else {
                mark_gone(after);
                return true;
            };
            match remember(source, before, after, chunk, memory, looking.now_ms) {
                Ok(true) => return true,
                Ok(false) => found.rewritten = Some((stream, SourceChange::TailChanged)),
                Err(error) => found.unreadable.push((stream, error)),
            }
            false
        };
    let (from, to) = (&before.evidence, &mut after.evidence);
    let fits = conclude_one(
        Stream::Evidence,
        &sources.evidence,
        from,
        to,
        &chunks.evidence,
        evidence,
    );
    let (from, to) = (&before.scored, &mut after.scored);
    if fits
        && conclude_one(
            Stream::Scored,
            &sources.scored,
            from,
            to,
            &chunks.scored,
            scored,
        )
    {
        found.outcome = Some(outcome);
    }
}
