//! What is kept of a source between reads, in memory only: losing it costs a repeated read, nothing else.

use crate::lake::identity::StatFingerprint;
use crate::lake::path::Stream;
use crate::lake::read_digest::Comparison;

/// The memory of one source between reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceMemory {
    /// Offset up to which no newline was found after the offset of the source.
    pub scanned_to: u64,
    /// Stat of the day-file when an unterminated line was last found at its end.
    pub unterminated: Option<StatFingerprint>,
    /// Length of that line, bytes.
    pub unterminated_bytes: u64,
    /// Whether that line has settled and is not a whole value.
    pub never_settles: bool,
    /// Whether this process has read the source, or compared the samples of what an earlier one read.
    pub is_known: bool,
    /// The comparison of all that was read of the source, while it is to be continued.
    pub comparison: Option<Comparison>,
}

/// Of which sources of a pair the unterminated last line was unchanged for the settle time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settled {
    /// That of the scored day-file.
    pub scored: bool,
    /// That of the evidence day-file.
    pub evidence: bool,
}

impl Settled {
    /// Both were.
    pub const BOTH: Settled = Settled {
        scored: true,
        evidence: true,
    };

    /// Returns whether that of one stream was.
    #[must_use]
    pub fn of(self, stream: Stream) -> bool {
        match stream {
            Stream::Scored => self.scored,
            Stream::Evidence => self.evidence,
        }
    }
}

impl SourceMemory {
    /// Returns whether a line at the end of the source may still settle.
    #[must_use]
    pub fn may_settle(&self) -> bool {
        self.unterminated.is_some() && !self.never_settles
    }
}

/// The memory of both sources of a pair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PairMemory {
    /// The memory of the scored day-file.
    pub scored: SourceMemory,
    /// The memory of the evidence day-file.
    pub evidence: SourceMemory,
}

impl PairMemory {
    /// Returns the memory of one stream.
    #[must_use]
    pub fn of(&self, stream: Stream) -> &SourceMemory {
        match stream {
            Stream::Scored => &self.scored,
            Stream::Evidence => &self.evidence,
        }
    }

    /// Returns the memory of one stream.
    pub fn of_mut(&mut self, stream: Stream) -> &mut SourceMemory {
        match stream {
            Stream::Scored => &mut self.scored,
            Stream::Evidence => &mut self.evidence,
        }
    }

    /// Begins a comparison of all that was read of both sources.
    pub fn compare(&mut self) {
        for source in [&mut self.scored, &mut self.evidence] {
            source.comparison.get_or_insert_default();
        }
    }

    /// Returns whether a comparison is to be continued.
    #[must_use]
    pub fn is_comparing(&self) -> bool {
        self.scored.comparison.is_some() || self.evidence.comparison.is_some()
    }

    /// Returns whether a line at the end of either source may still settle.
    #[must_use]
    pub fn may_settle(&self) -> bool {
        [self.scored, self.evidence]
            .iter()
            .any(SourceMemory::may_settle)
    }
}
