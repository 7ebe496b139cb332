//! Owns the proof that no byte of the export was changed behind our back, further from its end than each append looks.
//! A change shows in what the file system says of the file; then, and only then, all of it is read again, segment by
//! segment, and held against the hashes that were taken when it was written.
//!
//! What is not seen so: on kernels before 6.13 the stamps of files are as coarse as the clock's tick, so that a change
//! within the tick of our own last append leaves the stamp as it was; and what a disk garbles by itself. For these a
//! segment is read again with each full scan, in turn.

use crate::platform::storage::FileStat;
use crate::store::export::mark::ExportFingerprint;
use crate::store::export::segments::{SEGMENT_BYTES, Segments};

/// What is known of the export's bytes.
#[derive(Debug)]
pub(super) struct Scrubber {
    pub(super) segments: Segments,
    /// What the file system said after our own last write, or when it was last looked at.
    pub(super) stamp: ExportFingerprint,
    /// The next segment to be held against its hash, after something changed.
    pub(super) scrub_pending: Option<u64>,
    /// The segment that is next in turn without a reason.
    pub(super) in_turn: u64,
}

impl Scrubber {
    /// Of a file of which nothing was hashed yet.
    pub(super) fn new(stat: &FileStat) -> Self {
        Self {
            segments: Segments::new(SEGMENT_BYTES),
            stamp: stamp_of(stat),
            scrub_pending: None,
            in_turn: 0,
        }
    }

    /// Something looked at the file. What is not as our own last write left it was touched by somebody else.
    pub(super) fn look(&mut self, stat: &FileStat) {
        let found = stamp_of(stat);
        if found != self.stamp {
            self.stamp = found;
            self.scrub_pending = Some(0);
        }
    }

    /// We wrote ourselves, and this is what it looks like. A look came before, so that nobody else's change is taken
    /// for ours.
    pub(super) fn wrote(&mut self, stat: &FileStat) {
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
