//! FIXME: engine::read::chunks

use crate::engine::read::*;
use crate::lake::chunk::Chunk;
use crate::lake::identity::{SourceState, StatFingerprint};
use crate::lake::path::{PairPath, Stream};
use crate::lake::source::{CHUNK_LEN, Source};
use crate::pair::ActivePair;
use crate::record::parse;
use std::io;
use std::sync::{MutexGuard, PoisonError};

/// What of a pair could be opened.
pub(crate) struct Sources {
    pub(crate) evidence: Option<Source>,
    pub(crate) scored: Option<Source>,
}

/// What is new in both, and whether evidence is left that goes before the scored lines.
pub(crate) struct Chunks {
    pub(crate) evidence: Chunk,
    pub(crate) scored: Chunk,
    pub(crate) evidence_behind: bool,
}

pub(crate) fn open_both(
    pair: &ActivePair,
    path: &PairPath,
    looking: &ReadContext<'_>,
    found: &mut PairRead,
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

pub(crate) fn read_both<'a>(
    sources: &Sources,
    pair: &ActivePair,
    settled: bool,
    looking: &ReadContext<'a>,
    alone: &mut Option<MutexGuard<'a, ()>>,
    found: &mut PairRead,
) -> Chunks {
    let settled_before = found.memory.evidence.unterminated.is_some();
    let mut read = |source: &Option<Source>, stream, state: &SourceState| {
        let Some(source) = source else { return NOTHING };
        if alone.is_none() && source.next_line_exceeds_chunk(state).unwrap_or(false) {
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
        && matches!(evidence, Chunk::PartialLine { len_bytes } if len_bytes > 0)
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

pub(crate) fn open_source(
    looking: &ReadContext<'_>,
    path: &PairPath,
    stream: Stream,
    state: &SourceState,
    found: &mut PairRead,
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
pub(crate) fn next_chunk(
    source: &Source,
    state: &SourceState,
    memory: &mut SourceMemory,
    settled: bool,
    looking: &ReadContext<'_>,
) -> io::Result<Chunk> {
    let seen = source.seen();
    let has_settled = settled && memory.unterminated == Some(seen) && !memory.never_settles;
    // Bytes that were looked at changed in place: nobody knows which.
    let is_changed = |before: StatFingerprint| before != seen && before.len_bytes >= seen.len_bytes;
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
        memory.never_settles = true;
        return Ok(Chunk::PartialLine {
            len_bytes: memory.unterminated_bytes,
        });
    }
    let rest = source
        .len_bytes()
        .saturating_sub(offset_behind(state, &chunk));
    memory.unterminated_bytes = rest;
    if rest == 0 {
        memory.unterminated = None;
        memory.never_settles = false;
    } else if memory.unterminated != Some(seen) {
        memory.unterminated = Some(seen);
        memory.never_settles = false;
    }
    Ok(chunk)
}

pub(crate) fn offset_behind(state: &SourceState, chunk: &Chunk) -> u64 {
    match chunk {
        Chunk::Lines(bytes) => state.offset + bytes.len() as u64,
        Chunk::OversizedLine { offset, .. } => *offset,
        Chunk::PartialLine { .. } => state.offset,
    }
}

/// Whether more than an unterminated line may be left behind a chunk. Where the rest is settled at once it counts too.
pub(crate) fn behind(
    source: &Option<Source>,
    state: &SourceState,
    chunk: &Chunk,
    looking: &ReadContext<'_>,
) -> bool {
    let Some(source) = source else { return false };
    let has_rest = offset_behind(state, chunk) < source.len_bytes();
    match chunk {
        // The last newline was looked for from the end of the window: within it nothing but a torn line is left.
        Chunk::Lines(_) => {
            has_rest && (looking.settle_first || source.len_bytes() > state.offset + CHUNK_LEN)
        }
        Chunk::OversizedLine { .. } => has_rest,
        Chunk::PartialLine { .. } => false,
    }
}

/// Whether the step left lines of its chunk for the next one.
pub(crate) fn is_left(chunk: &Chunk, before: &SourceState, after: &SourceState) -> bool {
    matches!(chunk, Chunk::Lines(_)) && after.offset < offset_behind(before, chunk)
}
