//! The result of reading a day-file from an offset, and the limits under which it is read.

/// Maximum lines of a chunk that are not empty. What is kept of a line takes more memory than a short line itself, so the
/// bytes of a chunk do not bound it.
const CHUNK_LINES_MAX: usize = 16 << 10;

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

    /// Returns whether it has as many lines as a chunk may have, so that whole lines may follow it.
    #[must_use]
    pub fn has_all_lines(&self) -> bool {
        line_ends(self.bytes()).nth(CHUNK_LINES_MAX - 1).is_some()
    }
}

/// Returns the length of as many lines as a chunk may have, at most all of `bytes`.
pub(super) fn first_lines_len(bytes: &[u8]) -> usize {
    let last = line_ends(bytes).nth(CHUNK_LINES_MAX - 1);
    last.map_or(bytes.len(), |newline| newline + 1)
}

/// Iterates over the newlines that end a line. Empty lines, of which nothing is kept, do not count.
fn line_ends(bytes: &[u8]) -> impl Iterator<Item = usize> {
    memchr::memchr_iter(b'\n', bytes).filter(|at| *at > 0 && bytes[at - 1] != b'\n')
}

/// Limits for reading lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineLimits {
    /// Maximum length of a line, bytes. A longer line becomes a dead letter.
    pub line_bytes_max: u64,
}
