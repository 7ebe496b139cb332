//! The persisted read position of a day-file, and the identity by which a later read recognizes the same file.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::lake::read_digest::ReadDigest;
use crate::platform::storage::FileStat;

/// Upper bound of a day-file's length, bytes: offsets are packed into five bytes.
pub const OFFSET_MAX: u64 = 1 << 40;

/// The reason why a source must be read again from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceChange {
    /// Its path names another file.
    Replaced,
    /// The file has moved to another path.
    Moved,
    /// The file is shorter than the offset.
    Truncated,
    /// The first bytes of the file changed.
    HeadChanged,
    /// The bytes before the offset changed.
    TailChanged,
    /// The last line was read without a newline and has since been extended.
    Extended,
    /// The file was edited in place: other bytes are where it was read, or an operator reported it.
    Edited,
}

impl SourceChange {
    /// Returns a short, stable name.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            SourceChange::Replaced => "replaced",
            SourceChange::Moved => "moved",
            SourceChange::Truncated => "truncated",
            SourceChange::HeadChanged => "head-changed",
            SourceChange::TailChanged => "tail-changed",
            SourceChange::Extended => "extended",
            SourceChange::Edited => "edited",
        }
    }
}

/// Returns the part of a stat that is remembered.
#[must_use]
pub fn seen(stat: &FileStat) -> StatFingerprint {
    StatFingerprint {
        len_bytes: stat.len_bytes,
        modified_ns: stat.modified_ns,
        changed_ns: stat.changed_ns,
    }
}

/// The length and times of a source at its last read. The reconciling scan skips a source whose values are equal; a
/// change event still has it verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StatFingerprint {
    /// Length in bytes.
    pub len_bytes: u64,
    /// Last change of content, nanoseconds since 1970.
    pub modified_ns: i128,
    /// Last change of the inode, nanoseconds since 1970.
    pub changed_ns: i128,
}

/// The identity of a source. All fields must match before reading continues at the offset; in place of the device, samples of
/// what was read may match. The hashes detect accidents; who can write the day-file can rewrite it unnoticed, which concerns
/// its own rows alone and is a difference in `verify`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceIdentity {
    /// The device that holds the file.
    pub device: u64,
    /// The inode on that device. File systems reuse inodes, so it proves nothing alone.
    pub inode: u64,
    /// Number of leading bytes that `head_hash` covers.
    pub head_len_bytes: u32,
    /// xxh3-64 of the first `head_len_bytes` bytes.
    pub head_hash: u64,
    /// Number of bytes before the offset that `tail_hash` covers.
    pub tail_len_bytes: u32,
    /// xxh3-64 of the `tail_len_bytes` bytes before the offset.
    pub tail_hash: u64,
}

/// The bit that marks the device number of a deleted source, whose other bits are inverted too. No kernel uses it, so that
/// a new day-file at the path never matches. The inode is kept, by which the file is found if it was moved.
const GONE_BIT: u64 = 1 << 63;

impl SourceIdentity {
    /// Returns whether the source was deleted after it was read.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.device & GONE_BIT != 0
    }

    /// Returns the device that held the source when it was last read.
    #[must_use]
    pub fn last_device(&self) -> u64 {
        match self.is_gone() {
            true => !self.device,
            false => self.device,
        }
    }

    /// Returns the identity of the same file before anything was read of it at another path.
    #[must_use]
    pub fn unread(self) -> SourceIdentity {
        SourceIdentity {
            device: self.last_device(),
            tail_len_bytes: 0,
            tail_hash: xxh3_64(b""),
            ..self
        }
    }
}

/// The read position of one day-file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SourceState {
    /// The identity of the file; `None` until its first byte is read, or until it is known to have been moved here.
    pub identity: Option<SourceIdentity>,
    /// Start of the first line without a verdict, bytes from the start of the file.
    pub offset: u64,
    /// Start of the oversized line that contains `offset`, if there is one.
    pub overlong_from: Option<u64>,
    /// Number of well-formed records before `offset`, which is the index of the next one.
    pub records: u64,
    /// Number of lines before `offset` that are not blank.
    pub lines: u64,
    /// Number of lines before `offset` that became dead letters.
    pub malformed: u64,
    /// The file's length and times when `offset` was reached.
    pub seen: StatFingerprint,
    /// The digest of the bytes before `offset`.
    pub digest: ReadDigest,
}
