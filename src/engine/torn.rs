//! Owns which day-files end in a line that has no newline, by the last look at each: they wait for it, and are no lag. A
//! pair may leave the memory meanwhile. It is for telling alone.

use std::collections::BTreeMap;

use crate::engine::Engine;
use crate::engine::read::{Look, SourceMemory};
use crate::lake::path::{PairPath, Stream};

/// The torn last lines of the lake, as far as they were looked at.
#[derive(Debug, Default)]
pub(super) struct Torn {
    pairs: BTreeMap<PairPath, Lines>,
}

/// Bytes of the torn line of each source; 0 where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lines {
    scored: u64,
    evidence: u64,
}

impl Lines {
    fn of(look: &Look) -> Self {
        let bytes = |source: &SourceMemory, stream| {
            // Of a line that is too long the beginning has been passed over already.
            let after = look
                .outcome
                .as_ref()
                .map(|found| found.checkpoint.source(stream));
            let passed_over = after.and_then(|after| Some(after.offset - after.overlong_from?));
            let kept = source.unterminated.map_or(0, |_| source.unterminated_bytes);
            passed_over.unwrap_or(0) + kept
        };
        Self {
            scored: bytes(&look.memory.scored, Stream::Scored),
            evidence: bytes(&look.memory.evidence, Stream::Evidence),
        }
    }

    fn of_stream(self, stream: Stream) -> u64 {
        match stream {
            Stream::Scored => self.scored,
            Stream::Evidence => self.evidence,
        }
    }
}

impl Torn {
    /// What a look left. While there is more to read at once, nobody knows yet where the last line begins.
    pub(super) fn looked(&mut self, path: &PairPath, look: &Look) {
        let lines = Lines::of(look);
        if look.more || lines.scored + lines.evidence == 0 {
            self.forget(path);
        } else {
            self.pairs.insert(path.clone(), lines);
        }
    }

    /// The pair is read again.
    pub(super) fn forget(&mut self, path: &PairPath) {
        self.pairs.remove(path);
    }

    /// Whether a day-file ended in one.
    pub(super) fn is_in(&self, path: &PairPath, stream: Stream) -> bool {
        self.pairs
            .get(path)
            .is_some_and(|lines| lines.of_stream(stream) > 0)
    }
}

impl Engine {
    /// Last lines without a newline, by the last look at each day-file, and their bytes.
    #[must_use]
    pub fn unterminated(&self) -> (u64, u64) {
        let sources = (self.torn.pairs.values())
            .flat_map(|lines| [lines.scored, lines.evidence])
            .filter(|bytes| *bytes > 0);
        sources.fold((0, 0), |(lines, sum), bytes| (lines + 1, sum + bytes))
    }
}
