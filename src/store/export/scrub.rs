//! Compares the export with the hashes of what was written: where the comparison resumes, which segment is next, and
//! whether it matches. The engine decides when to do it.

use crate::store::export::mark::{ExportMark, ScrubState};
use crate::store::export::segments::{Segment, Segments, hash_of};
use crate::store::export::{Export, ExportError};

impl Export {
    /// All rows were read and hashed for a fresh state.
    pub fn hashed(&mut self, segments: Segments) {
        self.guard.segments = segments;
    }

    /// Resumes from the state's mark. The bytes after the last whole segment are compared at once; if the file's
    /// metadata differs from the state's, every segment is pending.
    ///
    /// # Errors
    /// [`ExportError::Changed`]; [`ExportError::Io`].
    pub fn resume_hashes(
        &mut self,
        mark: &ExportMark,
        guard: &ScrubState,
    ) -> Result<(), ExportError> {
        let ScrubState {
            segment_bytes,
            open_hash,
            stamp,
        } = *guard;
        let segment_bytes = segment_bytes.max(1);
        let end = mark.len_bytes;
        let start = end - end % segment_bytes;
        let open = self.read_as_written(start, end, open_hash)?;
        self.guard.segments = Segments::resume(segment_bytes, end, &open);
        self.guard.scrub_pending = (stamp != Some(self.guard.stamp)).then_some(0);
        Ok(())
    }

    /// Returns the mark of the export as it is now, for the state.
    #[must_use]
    pub fn guard(&self) -> ScrubState {
        let guard = &self.guard;
        ScrubState {
            segment_bytes: guard.segments.segment_bytes(),
            open_hash: guard.segments.open().1,
            stamp: guard.scrub_pending.is_none().then_some(guard.stamp),
        }
    }

    /// Whole segments that the state is to take in.
    #[must_use]
    pub fn finished_segments(&self) -> &[Segment] {
        self.guard.segments.finished()
    }

    /// The state has taken in all of them.
    pub fn all_segments_applied(&mut self) {
        self.segments_applied(self.finished_segments().len());
    }

    /// The state has taken in the first `count` of them.
    pub fn segments_applied(&mut self, count: usize) {
        self.guard.segments.taken_in(count);
    }

    /// The next segment that is to be held against its hash, because the file was touched.
    #[must_use]
    pub fn scrub_pending(&self) -> Option<u64> {
        self.guard.scrub_pending
    }

    /// The segment that is next in turn, where there is a whole one.
    pub fn next_round_robin(&mut self) -> Option<u64> {
        let whole = self.guard.segments.len_bytes() / self.guard.segments.segment_bytes();
        let number = self.guard.round_robin_next.checked_rem(whole)?;
        self.guard.round_robin_next = number + 1;
        Some(number)
    }

    /// Returns whether a segment is the last one, which is not whole.
    #[must_use]
    pub fn is_last(&self, number: u64) -> bool {
        let (open_start, _) = self.guard.segments.open();
        number * self.guard.segments.segment_bytes() >= open_start
    }

    /// Holds a segment against its hash: that of a whole one as it is known, `None` for the last one.
    ///
    /// # Errors
    /// [`ExportError::Changed`]; [`ExportError::Io`].
    pub fn prove(&self, number: u64, known: Option<u64>) -> Result<(), ExportError> {
        let segments = &self.guard.segments;
        let start = number * segments.segment_bytes();
        let (_, open_hash) = segments.open();
        let (end, hash) = match known {
            Some(hash) => (start + segments.segment_bytes(), hash),
            None => (segments.len_bytes().max(start), open_hash),
        };
        self.read_as_written(start, end, hash).map(drop)
    }

    /// Records that a segment matches and advances to the next. Returns whether all segments match.
    pub fn scrubbed(&mut self, number: u64) -> bool {
        let last = self.is_last(number);
        self.guard.scrub_pending = (!last).then_some(number + 1);
        last
    }

    /// Records the metadata after our own write. If it cannot be read, the next comparison finds a change, which costs a
    /// scrub and nothing else.
    pub(super) fn record_own_write(&mut self) {
        if let Ok(stat) = self.file.stat() {
            self.guard.record_own_write(&stat);
        }
    }

    fn read_as_written(&self, start: u64, end: u64, hash: u64) -> Result<Vec<u8>, ExportError> {
        let mut bytes = vec![0; (end - start) as usize];
        let read = self.read_at(&mut bytes, start)?;
        if read == bytes.len() && hash_of(&bytes) == hash {
            return Ok(bytes);
        }
        Err(self.changed(format!(
            "the bytes between {start} and {end} differ from what was written there"
        )))
    }
}
