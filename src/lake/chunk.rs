//! The result of reading a day-file from an offset, and the limits under which it is read.

/// The unread content of a source from an offset on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Whole lines from the offset on. The last one lacks its newline only if the caller takes unterminated lines.
    Lines(Vec<u8>),
    /// Part of a line that exceeds the limit; its bytes are not kept.
    OversizedLine {
        /// Start of the line, bytes.
        line_start: u64,
        /// End of the skipped part, bytes.
        offset: u64,
        /// True if the skipped part ends with the line's newline.
        is_complete: bool,
    },
    /// No whole line: the file ends before the next newline.
    PartialLine {
        /// Number of unterminated bytes after the offset.
        len_bytes: u64,
    },
}

impl Chunk {
    /// Returns the bytes of the whole lines, which may be empty.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Lines(bytes) => bytes,
            Chunk::OversizedLine { .. } | Chunk::PartialLine { .. } => &[],
        }
    }
}

/// Limits for reading lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineLimits {
    /// Maximum length of a line, bytes. A longer line becomes a dead letter.
    pub line_bytes_max: u64,
}
