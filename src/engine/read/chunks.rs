//! Opens the day-files of a pair and reads the next chunk of each: new whole lines, and an unterminated last line once it
//! has settled.

use std::io;
use std::sync::{MutexGuard, PoisonError};

use crate::engine::read::{PairMemory, ReadContext, Settled, SourceMemory, is_gone};
use crate::lake::chunk::Chunk;
use crate::lake::identity::{SourceChange, SourceState, StatFingerprint};
use crate::lake::path::{PairPath, Stream};
use crate::lake::read_digest::{Compared, Comparison};
use crate::lake::source::{CHUNK_LEN, Source};
use crate::pair::ActivePair;
use crate::record::parse;

/// The chunk of a source without new lines, or of one that does not exist.
const NO_LINES: Chunk = Chunk::PartialLine { len_bytes: 0 };

/// The open day-files of a pair; `None` where one does not exist.
pub(super) struct Sources {
    pub(super) evidence: Option<Source>,
    pub(super) scored: Option<Source>,
}

/// The result of opening both day-files of a pair.
pub(super) struct OpenedPair {
    pub(super) sources: Sources,
    /// Sources whose day-files do not hold what was read of them.
    pub(super) rewritten: Vec<(Stream, SourceChange)>,
    pub(super) unreadable: Vec<(Stream, io::Error)>,
    /// Sources that were read before and do not exist now.
    pub(super) deleted: Vec<Stream>,
    /// The given memory, empty for a source that is not open.
    pub(super) memory: PairMemory,
}

/// The new lines of a pair.
pub(super) struct NewLines<'a> {
    pub(super) evidence: Chunk,
    pub(super) scored: Chunk,
    /// Whether unread evidence is left, which must be joined before the scored lines.
    pub(super) evidence_left: bool,
    pub(super) unreadable: Vec<(Stream, io::Error)>,
    /// The memory after the read.
    pub(super) memory: PairMemory,
    /// Held until lines longer than a chunk are joined: of these, one read at a time.
    long_line_guard: Option<MutexGuard<'a, ()>>,
}

/// Opens both day-files and verifies that they hold what was read of them.
pub(super) fn open_sources(
    pair: &ActivePair,
    path: &PairPath,
    memory: PairMemory,
    ctx: &ReadContext<'_>,
) -> OpenedPair {
    let mut opened = OpenedPair {
        sources: Sources {
            evidence: None,
            scored: None,
        },
        rewritten: Vec::new(),
        unreadable: Vec::new(),
        deleted: Vec::new(),
        memory,
    };
    opened.sources.evidence = opened.open(path, Stream::Evidence, &pair.checkpoint.evidence, ctx);
    opened.sources.scored = opened.open(path, Stream::Scored, &pair.checkpoint.scored, ctx);
    opened
}

impl OpenedPair {
    /// Opens one source, or records why it is not open.
    fn open(
        &mut self,
        path: &PairPath,
        stream: Stream,
        state: &SourceState,
        ctx: &ReadContext<'_>,
    ) -> Option<Source> {
        let memory = self.memory.of_mut(stream);
        match open_unchanged(path, stream, state, memory, ctx) {
            Ok(Opened::Unchanged(source)) => return Some(source),
            Ok(Opened::Changed(change)) => self.rewritten.push((stream, change)),
            Ok(Opened::Absent) => {
                if state.identity.is_some() && !is_gone(state) {
                    self.deleted.push(stream);
                }
            }
            Err(error) => self.unreadable.push((stream, error)),
        }
        *self.memory.of_mut(stream) = SourceMemory::default();
        None
    }
}

/// An opened day-file.
enum Opened {
    /// It holds what was read of it.
    Unchanged(Source),
    /// It does not hold what was read of it.
    Changed(SourceChange),
    /// It does not exist.
    Absent,
}

fn open_unchanged(
    path: &PairPath,
    stream: Stream,
    state: &SourceState,
    memory: &mut SourceMemory,
    ctx: &ReadContext<'_>,
) -> io::Result<Opened> {
    let Some(source) = Source::open(ctx.storage, ctx.root, stream, path)? else {
        return Ok(Opened::Absent);
    };
    Ok(match source.rewritten(state)? {
        Some(change) => Opened::Changed(change),
        None if has_other_bytes(&source, state, memory)? => Opened::Changed(SourceChange::Edited),
        None => Opened::Unchanged(source),
    })
}

/// Compares what was read of a source: all of it if a scan asked for that or the time of modification suggests it, and its
/// samples if the time of change suggests it or an earlier process read it: while none ran, a restored day-file may have
/// grown.
///
/// The time of modification alone proves nothing: an append sets it before it sets the length.
fn has_other_bytes(
    source: &Source,
    state: &SourceState,
    memory: &mut SourceMemory,
) -> io::Result<bool> {
    let was_known = std::mem::replace(&mut memory.is_known, true);
    let mut comparison = memory.comparison.take();
    if state.identity.is_none() {
        return Ok(false);
    }
    if source.is_overwritten(state) {
        comparison = Some(Comparison::default());
    }
    if let Some(done) = comparison {
        match source.compare(state, done)? {
            Compared::Equal => return Ok(false),
            Compared::Different => return Ok(true),
            Compared::Unfinished(done) => memory.comparison = Some(done),
        }
    }
    let is_suspect = !was_known || source.may_be_overwritten(state);
    Ok(is_suspect && !source.has_samples(state)?)
}

/// Reads the next chunk of both sources. Scored lines are read once no evidence is left, because the last evidence of a
/// run counts.
pub(super) fn read_chunks<'a>(
    sources: &Sources,
    pair: &ActivePair,
    memory: PairMemory,
    settled: Settled,
    ctx: &ReadContext<'a>,
) -> NewLines<'a> {
    let settled_before = memory.evidence.unterminated.is_some();
    let mut lines = NewLines {
        evidence: NO_LINES,
        scored: NO_LINES,
        evidence_left: false,
        unreadable: Vec::new(),
        memory,
        long_line_guard: None,
    };
    let state = &pair.checkpoint.evidence;
    lines.evidence = lines.read(
        &sources.evidence,
        Stream::Evidence,
        state,
        settled.evidence,
        ctx,
    );
    let is_settling = ctx.settle_first
        && matches!(lines.evidence, Chunk::PartialLine { len_bytes } if len_bytes > 0)
        && !settled_before;
    lines.evidence_left = has_more(&sources.evidence, state, &lines.evidence, ctx) || is_settling;
    if !lines.evidence_left {
        let state = &pair.checkpoint.scored;
        lines.scored = lines.read(&sources.scored, Stream::Scored, state, settled.scored, ctx);
    }
    lines
}

impl<'a> NewLines<'a> {
    /// Reads the next chunk of one source, or records the error.
    fn read(
        &mut self,
        source: &Option<Source>,
        stream: Stream,
        state: &SourceState,
        settled: bool,
        ctx: &ReadContext<'a>,
    ) -> Chunk {
        let Some(source) = source else {
            return NO_LINES;
        };
        if self.long_line_guard.is_none() && source.next_line_exceeds_chunk(state).unwrap_or(false)
        {
            // The lock guards no data, so a panic of its holder leaves nothing inconsistent.
            let guard = ctx.long_lines.lock();
            self.long_line_guard = Some(guard.unwrap_or_else(PoisonError::into_inner));
        }
        let memory = self.memory.of_mut(stream);
        next_chunk(source, state, memory, settled, ctx).unwrap_or_else(|error| {
            self.unreadable.push((stream, error));
            NO_LINES
        })
    }
}

/// Reads the next chunk of a source, including an unterminated last line that has settled and is a whole value.
fn next_chunk(
    source: &Source,
    state: &SourceState,
    memory: &mut SourceMemory,
    settled: bool,
    ctx: &ReadContext<'_>,
) -> io::Result<Chunk> {
    let seen = source.seen();
    let has_settled = settled && memory.unterminated == Some(seen) && !memory.never_settles;
    // Bytes that were searched for a newline changed in place, and it is unknown which.
    let is_changed = |before: StatFingerprint| before != seen && before.len_bytes >= seen.len_bytes;
    if memory.unterminated.is_some_and(is_changed) {
        memory.scanned_to = 0;
    }
    let scanned_to = &mut memory.scanned_to;
    let (limits, buffers) = (ctx.limits, ctx.buffers);
    let chunk = source.next_chunk(state, scanned_to, limits, has_settled, buffers)?;
    if let Chunk::Lines(bytes) = &chunk
        && !bytes.ends_with(b"\n")
    {
        if parse::is_whole_value(parse::trim(bytes)) {
            *memory = SourceMemory::default();
            return Ok(chunk);
        }
        memory.never_settles = true;
        return Ok(Chunk::PartialLine {
            len_bytes: memory.unterminated_bytes,
        });
    }
    let rest = source.len_bytes().saturating_sub(end_offset(state, &chunk));
    memory.unterminated_bytes = rest;
    if rest == 0 {
        memory.unterminated = None;
        memory.never_settles = false;
    } else if memory.unterminated != Some(seen) {
        memory.unterminated = Some(seen);
        memory.never_settles = false;
    } else if has_settled && matches!(chunk, Chunk::PartialLine { .. }) {
        // It ends in zero bytes, which are room for its rest.
        memory.never_settles = true;
    }
    Ok(chunk)
}

/// Returns the offset of the first byte after a chunk.
fn end_offset(state: &SourceState, chunk: &Chunk) -> u64 {
    match chunk {
        Chunk::Lines(bytes) => state.offset + bytes.len() as u64,
        Chunk::OversizedLine { offset, .. } => *offset,
        Chunk::PartialLine { .. } => state.offset,
    }
}

/// Returns whether more than an unterminated line may follow a chunk. Where unterminated lines settle at once, one counts
/// as well.
pub(super) fn has_more(
    source: &Option<Source>,
    state: &SourceState,
    chunk: &Chunk,
    ctx: &ReadContext<'_>,
) -> bool {
    let Some(source) = source else { return false };
    let has_rest = end_offset(state, chunk) < source.len_bytes();
    match chunk {
        // A chunk ends at the last newline of its window or has all lines that it may have. Otherwise only an unterminated
        // line can follow within the window.
        Chunk::Lines(_) => {
            let is_cut = || source.len_bytes() > state.offset + CHUNK_LEN || chunk.has_all_lines();
            has_rest && (ctx.settle_first || is_cut())
        }
        Chunk::OversizedLine { .. } => has_rest,
        Chunk::PartialLine { .. } => false,
    }
}

/// Returns whether the join left lines of a chunk for the next read.
pub(super) fn has_leftover(chunk: &Chunk, before: &SourceState, after: &SourceState) -> bool {
    matches!(chunk, Chunk::Lines(_)) && after.offset < end_offset(before, chunk)
}
