//! What the state records of the export, so that a foreign change is recognized. Pure.

use serde::{Deserialize, Serialize};

use crate::store::export::segments::{SEGMENT_BYTES, hash_of};

/// The state's record of the export: length, hash of its end, metadata, hash of the last segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExportMark {
    /// Length that is durable and belongs to this state, bytes.
    pub len_bytes: u64,
    /// Number of bytes before `len_bytes` that the hash covers.
    pub tail_len_bytes: u32,
    /// xxh3-64 of them.
    pub tail_hash: u64,
}

/// Metadata of the export that any change by another process alters. The device is not part of it: some file systems
/// get a new number with each mount.
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
    /// xxh3-64 of the bytes after the last whole segment.
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
