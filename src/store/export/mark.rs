//! Owns what a state remembers of the export, so that a changed one is told from ours. Pure.

use serde::{Deserialize, Serialize};

use crate::store::export::segments::{SEGMENT_BYTES, hash_of};

/// What the state says of the export: enough to tell a changed one from ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExportMark {
    /// Length that is durable and belongs to this state, bytes.
    pub len_bytes: u64,
    /// How many bytes before `len_bytes` the hash covers.
    pub tail_len_bytes: u32,
    /// xxh3-64 of them.
    pub tail_hash: u64,
}

/// What the file system says of the export: somebody else's change of any of its bytes shows in it. Not the device:
/// some file systems get another number with each mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportFingerprint {
    /// Its inode.
    pub inode: u64,
    /// Length in bytes.
    pub len_bytes: u64,
    /// Last change of content, nanoseconds since 1970.
    pub modified_ns: i128,
    /// Last change of content, name or rights, nanoseconds since 1970.
    pub changed_ns: i128,
}

/// By what a change in the middle of the export is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubState {
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// xxh3-64 of what stands behind the last whole segment.
    pub open_hash: u64,
    /// The file as we left it; `None` where it was touched and is not proven yet.
    pub stamp: Option<ExportFingerprint>,
}

impl Default for ScrubState {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES,
            open_hash: hash_of(&[]),
            stamp: None,
        }
    }
}
