//! Determines whether rows of the export are as they were written: compares their segments with the hashes in a state,
//! without an engine. Each segment is read once.

use std::collections::HashMap;

use crate::platform::storage::{StorageFile, read_full_at};
use crate::store::export::hash_of;
use crate::store::state::StateView;
use crate::store::state::error::StateError;

/// What is known of the bytes of a row in the export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowBytes {
    /// They are as they were when they were written, or when the state was made of the export.
    AsWritten,
    /// Nothing is known.
    Unknown,
    /// Bytes in their segment have changed.
    Changed,
}

/// A segment that was compared.
#[derive(Debug, Clone, Copy)]
struct ComparedSegment {
    bytes: RowBytes,
    /// Offset of its last newline: a row that starts later continues in the next segment.
    last_newline: Option<u64>,
}

/// The segments that were compared. Memory: 32 bytes for each, thus 32 MB for an export of 1 TB.
#[derive(Debug, Default)]
pub struct ComparedSegments {
    compared: HashMap<u64, ComparedSegment>,
}

/// The export and the state with its hashes.
struct Hashed<'a> {
    export: &'a dyn StorageFile,
    state: &'a StateView,
    /// Length of the export in the state, bytes.
    len_bytes: u64,
    /// The size of a segment, bytes.
    segment_bytes: u64,
    /// Hash of the last segment, which is not whole.
    open_hash: u64,
}

impl ComparedSegments {
    /// Returns what is known of the rows at these offsets. Rows after the last checkpoint of the state are unknown.
    ///
    /// # Errors
    /// The state or the export cannot be read.
    pub fn rows(
        &mut self,
        offsets: &[u64],
        export: &dyn StorageFile,
        state: &StateView,
    ) -> Result<Vec<RowBytes>, StateError> {
        let header = state.header()?;
        let hashed = Hashed {
            export,
            state,
            len_bytes: header.export.len_bytes,
            segment_bytes: header.guard.segment_bytes.max(1),
            open_hash: header.guard.open_hash,
        };
        let rows = offsets.iter().map(|offset| self.row(*offset, &hashed));
        rows.collect()
    }

    fn row(&mut self, offset: u64, hashed: &Hashed<'_>) -> Result<RowBytes, StateError> {
        if offset >= hashed.len_bytes {
            return Ok(RowBytes::Unknown);
        }
        let mut bytes = RowBytes::AsWritten;
        for number in offset / hashed.segment_bytes.. {
            let segment = match self.compared.get(&number) {
                Some(segment) => *segment,
                None => *(self.compared.entry(number)).or_insert(hashed.compare(number)?),
            };
            bytes = bytes.max(segment.bytes);
            let ends = segment.last_newline.is_some_and(|at| at >= offset);
            if ends || bytes == RowBytes::Changed || hashed.is_last(number) {
                break;
            }
        }
        Ok(bytes)
    }
}

impl Hashed<'_> {
    fn is_last(&self, number: u64) -> bool {
        number >= self.len_bytes / self.segment_bytes
    }

    fn compare(&self, number: u64) -> Result<ComparedSegment, StateError> {
        let start = number * self.segment_bytes;
        let (len_bytes, known) = match self.is_last(number) {
            true => (self.len_bytes - start, Some(self.open_hash)),
            false => (self.segment_bytes, self.state.segment(number)?),
        };
        let mut bytes = vec![0; len_bytes as usize];
        let read = read_full_at(self.export, &mut bytes, start).map_err(StateError::Io)?;
        let newline = memchr::memrchr(b'\n', &bytes[..read]);
        Ok(ComparedSegment {
            bytes: match known {
                None => RowBytes::Unknown,
                Some(hash) if read == bytes.len() && hash_of(&bytes) == hash => RowBytes::AsWritten,
                Some(_) => RowBytes::Changed,
            },
            last_newline: newline.map(|at| start + at as u64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::storage::{OsStorage, Storage as _};
    use crate::store::export::{ExportMark, ScrubState, Segments};
    use crate::store::state::State;
    use crate::store::state::header::Header;
    use std::fs;
    use std::path::Path;

    /// Returns a state with the hashes of an export of these bytes.
    fn state_of(path: &Path, bytes: &[u8], segment_bytes: u64) -> State {
        let mut segments = Segments::new(segment_bytes);
        segments.extend(bytes);
        let mut state = State::create(&OsStorage, path).unwrap();
        state.record_segments(segments.finished());
        let header = Header {
            export: ExportMark {
                len_bytes: bytes.len() as u64,
                ..ExportMark::default()
            },
            guard: ScrubState {
                segment_bytes,
                open_hash: segments.open().1,
                stamp: None,
            },
            ..Header::new()
        };
        state.write_header(header).unwrap();
        state
    }

    #[test]
    fn rows_in_a_segment_with_a_changed_byte_have_changed() {
        let mut rng = fastrand::Rng::with_seed(11);
        let dir = tempfile::tempdir().unwrap();
        let export = dir.path().join("export");
        for case in 0..40 {
            let segment_bytes = rng.u64(1..60);
            let (mut bytes, mut rows) = (Vec::new(), Vec::new());
            for _ in 0..rng.usize(1..20) {
                rows.push(bytes.len() as u64);
                bytes.extend(vec![b'x'; rng.usize(..90)]);
                bytes.push(b'\n');
            }
            let state = state_of(&dir.path().join(case.to_string()), &bytes, segment_bytes);
            let mut found = bytes.clone();
            let changed = rng.usize(..bytes.len());
            if found[changed] == b'x' {
                found[changed] = b'y';
            }
            let changed_segment = (found != bytes).then_some(changed as u64 / segment_bytes);
            // A row that the state does not know yet.
            found.extend(b"new\n");
            fs::write(&export, &found).unwrap();
            let file = OsStorage.open_read(&export).unwrap();
            let ends = rows[1..].iter().copied().chain([bytes.len() as u64]);
            let expected = rows.iter().zip(ends).map(|(start, end)| {
                let segments = start / segment_bytes..=(end - 1) / segment_bytes;
                match changed_segment.is_some_and(|number| segments.contains(&number)) {
                    true => RowBytes::Changed,
                    false => RowBytes::AsWritten,
                }
            });
            let expected: Vec<RowBytes> = expected.chain([RowBytes::Unknown]).collect();
            rows.push(bytes.len() as u64);
            let mut compared = ComparedSegments::default();
            for _ in 0..2 {
                let view = state.view().unwrap();
                let known = compared.rows(&rows, &*file, &view).unwrap();
                assert_eq!(known, expected, "case {case}");
            }
        }
    }
}
