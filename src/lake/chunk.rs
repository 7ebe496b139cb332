//! FIXME: lake::chunk

/// What is new in a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Whole lines from the offset on; the last may lack its newline only if unterminated ones were asked for.
    Lines(Vec<u8>),
    /// Bytes of a line that is longer than the limit, which are not kept.
    OversizedLine {
        /// Where the line starts.
        line_start: u64,
        /// Up to where it has been passed over.
        offset: u64,
        /// Whether that is behind its newline.
        ended: bool,
    },
    /// No whole line. `len_bytes` stand unterminated behind the offset.
    PartialLine {
        /// How many.
        len_bytes: u64,
    },
}

impl Chunk {
    /// The bytes of its lines, of which there may be none.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Lines(bytes) => bytes,
            Chunk::OversizedLine { .. } | Chunk::PartialLine { .. } => &[],
        }
    }
}

/// How lines are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineLimits {
    /// A longer line is a dead letter, bytes.
    pub line_bytes_max: u64,
}
