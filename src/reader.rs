//! Owns one look at a pair of day-files: opens both, checks that they are what they were, reads what is new, and
//! has the core work it. It changes nothing that is remembered: its [`Look`] says what would follow.

mod asked;
mod known;
mod memory;

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::lake::chunk::{Chunk, LineLimits};
use crate::lake::identity::Rewritten;
use crate::lake::identity::{Seen, SourceState};
use crate::lake::path::{PairPath, Stream};
use crate::lake::source::{CHUNK_LEN, Source};
use crate::pair::index::Claim;
use crate::pair::{ActivePair, Facts, Outcome, advance};
use crate::platform::buffer_pool::Buffers;
use crate::platform::storage::{Storage, is_out_of_files};
use crate::record::parse;
use crate::store::state::StateView;
use crate::store::state::error::StateError;
use asked::{LiveIndex, LookError, SourceBodies};
pub use known::is_gone;
use known::{mark_gone, remember};
pub use memory::{PairMemory, SourceMemory};

/// What a look at a pair needs.
pub struct Looking<'a> {
    /// The file system.
    pub storage: &'a dyn Storage,
    /// The root, without links in it.
    pub root: &'a Path,
    /// The export, of which rows that lines claim are read.
    pub export_path: &'a Path,
    /// The state's view.
    pub view: &'a StateView,
    /// Rows claimed since that view was taken.
    pub claimed: &'a BTreeSet<Claim>,
    /// Rows that no line has claimed beside those that the view lists.
    pub released: &'a BTreeSet<Claim>,
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
pub struct Look {
    /// What follows from new lines, unless a source was rewritten.
    pub outcome: Option<Outcome>,
    /// Sources that must be read again from their start before anything else.
    pub rewritten: Option<(Stream, Rewritten)>,
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
/// The state's. What is wrong with a source is in the [`Look`].
pub fn look(
    pair: &ActivePair,
    path: &PairPath,
    memory: PairMemory,
    settled: bool,
    looking: &Looking<'_>,
) -> Result<Look, StateError> {
    let mut found = Look {
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
        Ok(outcome) => conclude(&sources, pair, &chunks, looking, outcome, &mut found),
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

/// What of a pair could be opened.
struct Sources {
    evidence: Option<Source>,
    scored: Option<Source>,
}

/// What is new in both, and whether evidence is left that goes before the scored lines.
struct Chunks {
    evidence: Chunk,
    scored: Chunk,
    evidence_behind: bool,
}

fn open_both(
    pair: &ActivePair,
    path: &PairPath,
    looking: &Looking<'_>,
    found: &mut Look,
) -> Sources {
    let mut open = |stream, state: &SourceState| {
        let source = open_source(looking, path, stream, state, found);
        if source.is_none() {
            *found.memory.of_mut(stream) = SourceMemory::default();
        }
        source
    };
    let evidence = open(Stream::Evidence, &pair.checkpoint.evidence);
    let scored = open(Stream::Scored, &pair.checkpoint.scored);
    Sources { evidence, scored }
}

fn read_both<'a>(
    sources: &Sources,
    pair: &ActivePair,
    settled: bool,
    looking: &Looking<'a>,
    alone: &mut Option<MutexGuard<'a, ()>>,
    found: &mut Look,
) -> Chunks {
    let settled_before = found.memory.evidence.unterminated.is_some();
    let mut read = |source: &Option<Source>, stream, state: &SourceState| {
        let Some(source) = source else { return NOTHING };
        if alone.is_none() && source.long_line_ahead(state).unwrap_or(false) {
            // One look at a time: nothing but the memory is shared, so a panic elsewhere harms nothing.
            *alone = Some(
                looking
                    .long_lines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
        let memory = found.memory.of_mut(stream);
        next_chunk(source, state, memory, settled, looking).unwrap_or_else(|error| {
            found.unreadable.push((stream, error));
            NOTHING
        })
    };
    let evidence = read(
        &sources.evidence,
        Stream::Evidence,
        &pair.checkpoint.evidence,
    );
    // The last evidence with an id counts: scored lines wait until all evidence that is there has been read.
    let evidence_behind = behind(
        &sources.evidence,
        &pair.checkpoint.evidence,
        &evidence,
        looking,
    ) || looking.settle_first
        && matches!(evidence, Chunk::Unterminated { len_bytes } if len_bytes > 0)
        && !settled_before;
    let scored = if evidence_behind {
        NOTHING
    } else {
        read(&sources.scored, Stream::Scored, &pair.checkpoint.scored)
    };
    Chunks {
        evidence,
        scored,
        evidence_behind,
    }
}

/// The chunk of a source that has nothing new, or is not there.
const NOTHING: Chunk = Chunk::Unterminated { len_bytes: 0 };

fn work(
    sources: &Sources,
    pair: &ActivePair,
    chunks: &Chunks,
    looking: &Looking<'_>,
) -> Result<Outcome, LookError> {
    let bodies = SourceBodies {
        scored: sources.scored.as_ref(),
        evidence: sources.evidence.as_ref(),
        export: OnceCell::new(),
        looking,
    };
    let facts = Facts {
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
fn conclude(
    sources: &Sources,
    pair: &ActivePair,
    chunks: &Chunks,
    looking: &Looking<'_>,
    mut outcome: Outcome,
    found: &mut Look,
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
                Ok(false) => found.rewritten = Some((stream, Rewritten::Tail)),
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

fn open_source(
    looking: &Looking<'_>,
    path: &PairPath,
    stream: Stream,
    state: &SourceState,
    found: &mut Look,
) -> Option<Source> {
    match Source::open(looking.storage, looking.root, stream, path) {
        Ok(Some(source)) => match source.rewritten(state) {
            Ok(None) => Some(source),
            Ok(Some(what)) => {
                found.rewritten = Some((stream, what));
                None
            }
            Err(error) => {
                found.unreadable.push((stream, error));
                None
            }
        },
        Ok(None) => {
            if state.identity.is_some() && !is_gone(state) {
                found.deleted.push(stream);
            }
            None
        }
        Err(error) => {
            found.unreadable.push((stream, error));
            None
        }
    }
}

/// The next chunk of a source, an unterminated last line included once it has settled and is a whole value.
fn next_chunk(
    source: &Source,
    state: &SourceState,
    memory: &mut SourceMemory,
    settled: bool,
    looking: &Looking<'_>,
) -> io::Result<Chunk> {
    let seen = source.seen();
    let has_settled = settled && memory.unterminated == Some(seen) && !memory.torn_for_good;
    // Bytes that were looked at changed in place: nobody knows which.
    let is_changed = |before: Seen| before != seen && before.len_bytes >= seen.len_bytes;
    if memory.unterminated.is_some_and(is_changed) {
        memory.scanned_to = 0;
    }
    let scanned_to = &mut memory.scanned_to;
    let (limits, buffers) = (looking.limits, looking.buffers);
    let chunk = source.next_chunk(state, scanned_to, limits, has_settled, buffers)?;
    if let Chunk::Lines(bytes) = &chunk
        && !bytes.ends_with(b"\n")
    {
        if parse::is_whole_value(parse::trim(bytes)) {
            *memory = SourceMemory::default();
            return Ok(chunk);
        }
        memory.torn_for_good = true;
        return Ok(Chunk::Unterminated {
            len_bytes: memory.unterminated_bytes,
        });
    }
    let rest = source
        .len_bytes()
        .saturating_sub(offset_behind(state, &chunk));
    memory.unterminated_bytes = rest;
    if rest == 0 {
        memory.unterminated = None;
        memory.torn_for_good = false;
    } else if memory.unterminated != Some(seen) {
        memory.unterminated = Some(seen);
        memory.torn_for_good = false;
    }
    Ok(chunk)
}

fn offset_behind(state: &SourceState, chunk: &Chunk) -> u64 {
    match chunk {
        Chunk::Lines(bytes) => state.offset + bytes.len() as u64,
        Chunk::Overlong { offset, .. } => *offset,
        Chunk::Unterminated { .. } => state.offset,
    }
}

/// Whether more than an unterminated line may be left behind a chunk. Where the rest is settled at once it counts too.
fn behind(
    source: &Option<Source>,
    state: &SourceState,
    chunk: &Chunk,
    looking: &Looking<'_>,
) -> bool {
    let Some(source) = source else { return false };
    let has_rest = offset_behind(state, chunk) < source.len_bytes();
    match chunk {
        // The last newline was looked for from the end of the window: within it nothing but a torn line is left.
        Chunk::Lines(_) => {
            has_rest && (looking.settle_first || source.len_bytes() > state.offset + CHUNK_LEN)
        }
        Chunk::Overlong { .. } => has_rest,
        Chunk::Unterminated { .. } => false,
    }
}

/// Whether the step left lines of its chunk for the next one.
fn is_left(chunk: &Chunk, before: &SourceState, after: &SourceState) -> bool {
    matches!(chunk, Chunk::Lines(_)) && after.offset < offset_behind(before, chunk)
}
