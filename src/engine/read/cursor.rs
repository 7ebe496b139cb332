//! Owns what is remembered of a source between looks, in memory only: losing it costs a second look, nothing else.

use crate::lake::identity::StatFingerprint;
use crate::lake::path::Stream;

/// What is remembered of a source between looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceMemory {
    /// No newline stands between the offset and here.
    pub scanned_to: u64,
    /// What the file system said when an unterminated line was last found at its end.
    pub unterminated: Option<StatFingerprint>,
    /// Bytes of that line.
    pub unterminated_bytes: u64,
    /// Whether that line was looked at after it had settled, and is no whole value.
    pub never_settles: bool,
}

/// The memory of both sources of a pair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PairMemory {
    /// Of the scored day-file.
    pub scored: SourceMemory,
    /// Of the evidence day-file.
    pub evidence: SourceMemory,
}

impl PairMemory {
    /// That of one stream.
    pub fn of_mut(&mut self, stream: Stream) -> &mut SourceMemory {
        match stream {
            Stream::Scored => &mut self.scored,
            Stream::Evidence => &mut self.evidence,
        }
    }

    /// Whether a line at the end of either source may still settle.
    #[must_use]
    pub fn may_settle(&self) -> bool {
        [self.scored, self.evidence]
            .iter()
            .any(|memory| memory.unterminated.is_some() && !memory.never_settles)
    }
}
