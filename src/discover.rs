//! Owns the names of the two streams of day-files.

/// One of the two streams of day-files under `<root>/data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Scored runs, one a line.
    Scored,
    /// What each run saw and said.
    Evidence,
}

impl Stream {
    /// Both streams.
    pub const ALL: [Stream; 2] = [Stream::Scored, Stream::Evidence];

    /// The name of the stream's directory under `<root>/data`.
    #[must_use]
    pub fn dir_name(self) -> &'static str {
        match self {
            Stream::Scored => "scored-runs",
            Stream::Evidence => "evidence",
        }
    }
}
