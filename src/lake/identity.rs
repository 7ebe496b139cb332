//! FIXME: lake::identity

use crate::platform::storage::FileStat;
use serde::{Deserialize, Serialize};

/// Offsets into day-files are packed into five bytes.
pub const OFFSET_MAX: u64 = 1 << 40;

/// Why a source must be read again from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceChange {
    /// Another file stands under its path.
    Replaced,
    /// It lies under another path now.
    Moved,
    /// It is shorter than what was read of it.
    Shortened,
    /// Its beginning changed.
    Head,
    /// The bytes before the offset changed.
    Tail,
    /// Its last line was taken without a newline, and then went on.
    Extended,
    /// Somebody said that it was mended in place.
    Mended,
}

impl SourceChange {
    /// A short name that never changes.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            SourceChange::Replaced => "replaced",
            SourceChange::Moved => "moved",
            SourceChange::Shortened => "shortened",
            SourceChange::Head => "head-changed",
            SourceChange::Tail => "tail-changed",
            SourceChange::Extended => "line-went-on",
            SourceChange::Mended => "mended",
        }
    }
}

/// What is remembered of a stat.
#[must_use]
pub fn seen(stat: &FileStat) -> StatFingerprint {
    StatFingerprint {
        len_bytes: stat.len_bytes,
        modified_ns: stat.modified_ns,
        changed_ns: stat.changed_ns,
    }
}

/// What the file system said of a source when it was last looked at. Equal values mean: not looked at again by
/// the reconciling scan. A hint still has it verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StatFingerprint {
    /// Length in bytes.
    pub len_bytes: u64,
    /// Last change of content, nanoseconds since 1970.
    pub modified_ns: i128,
    /// Last change of the inode, nanoseconds since 1970.
    pub changed_ns: i128,
}

/// By what a source is known again. All of it must fit before reading goes on behind the offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceIdentity {
    /// The device that holds the file.
    pub device: u64,
    /// Its inode on that device; reused by file systems, so it proves nothing alone.
    pub inode: u64,
    /// How many of the first bytes `head_hash` covers.
    pub head_len_bytes: u32,
    /// xxh3-64 of the first `head_len_bytes` bytes.
    pub head_hash: u64,
    /// How many bytes before the offset `tail_hash` covers.
    pub tail_len_bytes: u32,
    /// xxh3-64 of the `tail_len_bytes` bytes before the offset.
    pub tail_hash: u64,
}

/// How far one day-file has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SourceState {
    /// By what it is known; `None` until its first byte was read.
    pub identity: Option<SourceIdentity>,
    /// Where the first line starts that has no verdict yet, in bytes from the start.
    pub offset: u64,
    /// Start of an overlong line that `offset` is in the middle of.
    pub overlong_from: Option<u64>,
    /// Well-formed records before `offset`; the next one's index.
    pub records: u64,
    /// Lines before `offset` that are not blank.
    pub lines: u64,
    /// Lines before `offset` that became dead letters.
    pub malformed: u64,
    /// What the file system said when `offset` was reached.
    pub seen: StatFingerprint,
}
