//! Finds the frames of a journal. They begin at any multiple of 64 bytes, between remains of older ones, and their order is
//! that of their seqs.

use std::io;

use crate::platform::storage::{StorageFile, read_full_at};
use crate::store::journal::frame::{FrameHead, checksum, frame_end};
use crate::store::journal::{FRAME_ALIGN, FRAME_HEAD_LEN, MAGIC};

/// Bytes that are searched per read.
const WINDOW_LEN: usize = 1 << 16;

/// A valid frame that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FoundFrame {
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) position: u64,
    /// Where the next frame may begin.
    pub(super) end: u64,
}

/// Returns the valid frames of which `is_wanted` knows epoch and seq, in order of epoch and seq. The payload of no other
/// frame is read.
pub(super) fn find_frames(
    file: &dyn StorageFile,
    is_wanted: impl Fn(u64, u64) -> bool,
) -> io::Result<Vec<FoundFrame>> {
    let mut window = vec![0; WINDOW_LEN + FRAME_HEAD_LEN];
    let (mut found, mut start) = (Vec::new(), 0);
    loop {
        let read = read_full_at(file, &mut window, start)?;
        let mut next = start + WINDOW_LEN as u64;
        for at in (0..read.min(WINDOW_LEN)).step_by(FRAME_ALIGN as usize) {
            let head = window[at..read].first_chunk::<FRAME_HEAD_LEN>();
            let head = head.filter(|head| head.starts_with(&MAGIC));
            let head = head.and_then(FrameHead::of);
            let position = start + at as u64;
            if let Some(head) = head.filter(|head| is_wanted(head.epoch, head.seq))
                && payload_of(file, &head, position)?.is_some()
            {
                let end = frame_end(position, head.payload_len);
                found.push(FoundFrame {
                    epoch: head.epoch,
                    seq: head.seq,
                    position,
                    end,
                });
                // No frame is within another one.
                next = end;
                break;
            }
        }
        if next >= start + read as u64 && read < window.len() {
            break;
        }
        start = next;
    }
    found.sort_unstable_by_key(|frame| (frame.epoch, frame.seq));
    Ok(found)
}

/// Reads the payload of a frame; `None` where it is not what was written.
pub(super) fn payload_of(
    file: &dyn StorageFile,
    head: &FrameHead,
    position: u64,
) -> io::Result<Option<Vec<u8>>> {
    let at = position + FRAME_HEAD_LEN as u64;
    // A length that is not that of a frame must not cost its memory.
    if file.stat()?.len_bytes < at + u64::from(head.payload_len) {
        return Ok(None);
    }
    let mut payload = vec![0; head.payload_len as usize];
    let read = read_full_at(file, &mut payload, at)?;
    let is_whole = read == payload.len()
        && checksum(head.epoch, head.seq, [payload.as_slice()]) == head.checksum;
    Ok(is_whole.then_some(payload))
}
