//! Detects changes of the export by another process, beyond the bytes that each append checks. A change alters the
//! file's metadata; then, and only then, the whole file is read again, segment by segment, and compared with the
//! hashes taken when it was written.
//!
//! Two cases are not detected this way: on kernels before 6.13 timestamps are as coarse as the clock's tick, so a
//! change within the tick of our own last append leaves them equal; and silent corruption by the disk. For these,
//! each full scan reads one more segment.

use crate::platform::storage::FileStat;
use crate::store::export::mark::ExportFingerprint;
use crate::store::export::segments::{SEGMENT_BYTES, Segments};

/// The knowledge about the export's bytes: their hashes and what is still to be verified.
#[derive(Debug)]
pub(super) struct Scrubber {
    pub(super) segments: Segments,
    /// Metadata of the file after our own last write or after the last check.
    pub(super) stamp: ExportFingerprint,
    /// The next segment to be held against its hash, after something changed.
    pub(super) scrub_pending: Option<u64>,
    /// The segment that is next in turn without a reason.
    pub(super) round_robin_next: u64,
}

impl Scrubber {
    /// Starts with a file of which nothing is hashed yet.
    pub(super) fn new(stat: &FileStat) -> Self {
        Self {
            segments: Segments::new(SEGMENT_BYTES),
            stamp: stamp_of(stat),
            scrub_pending: None,
            round_robin_next: 0,
        }
    }

    /// Compares the file's metadata with that of our own last write. A difference means that another process touched
    /// the file.
    pub(super) fn compare(&mut self, stat: &FileStat) {
        let found = stamp_of(stat);
        if found != self.stamp {
            self.stamp = found;
            self.scrub_pending = Some(0);
        }
    }

    /// Records the metadata after our own write. A check precedes each write, so that no foreign change is taken for
    /// ours.
    pub(super) fn record_own_write(&mut self, stat: &FileStat) {
        self.stamp = stamp_of(stat);
    }
}

fn stamp_of(stat: &FileStat) -> ExportFingerprint {
    ExportFingerprint {
        inode: stat.inode,
        len_bytes: stat.len_bytes,
        modified_ns: stat.modified_ns,
        changed_ns: stat.changed_ns,
    }
}
