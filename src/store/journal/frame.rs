//! Frames of the journal: encoding, decoding and writing one.

use crate::platform::storage::{StorageFile, write_all_at};
use crate::store::journal::*;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// The place of a frame that is to be written.
#[derive(Debug)]
pub struct FrameSlot {
    pub(super) file: Arc<dyn StorageFile>,
    pub(super) epoch: u64,
    pub(super) seq: u64,
    pub(super) room: Room,
}

/// A durable frame that [`Journal::advance`](crate::store::journal::Journal::advance) must still record.
#[derive(Debug)]
pub struct FrameReceipt {
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    /// Offset of the frame.
    pub(crate) position: u64,
    /// Offset of the next frame.
    pub(crate) end: u64,
}

impl FrameSlot {
    /// Writes the frame of a batch and makes it durable. On an error nothing of it counts.
    ///
    /// # Errors
    /// Those of [`Journal::append`].
    pub fn write(&self, batch: &Batch) -> Result<FrameReceipt, JournalError> {
        let delta = postcard::to_stdvec(&batch.delta).map_err(|error| {
            JournalError::Damaged(format!("a batch cannot be encoded: {error}"))
        })?;
        let payload_len = u32::try_from(4 + delta.len() + batch.rows.len_bytes())
            .ok()
            .filter(|len| *len <= PAYLOAD_LEN_MAX)
            .expect("no batch is longer: the engine asserts it");
        let delta_len = u32::try_from(delta.len())
            .expect("shorter than the payload")
            .to_le_bytes();
        let parts = [delta_len.as_slice(), delta.as_slice()];
        let parts = parts.into_iter().chain(batch.rows.pieces());
        let checksum = checksum(self.epoch, self.seq, parts);

        let mut front = Vec::with_capacity(FRAME_HEAD_LEN + 4 + delta.len());
        front.extend_from_slice(&MAGIC);
        front.extend_from_slice(&payload_len.to_le_bytes());
        front.extend_from_slice(&self.epoch.to_le_bytes());
        front.extend_from_slice(&self.seq.to_le_bytes());
        front.extend_from_slice(&checksum.to_le_bytes());
        front.extend_from_slice(&delta_len);
        front.extend_from_slice(&delta);
        let position = self.room.place(frame_end(0, payload_len));
        write_all_at(&*self.file, &front, position)?;
        for (at, rows) in batch.rows.placed(position + front.len() as u64) {
            write_all_at(&*self.file, rows, at)?;
        }
        self.file.sync_data().map_err(JournalError::Sync)?;
        Ok(FrameReceipt {
            epoch: self.epoch,
            seq: self.seq,
            position,
            end: frame_end(position, payload_len),
        })
    }
}

#[derive(Debug)]
pub(crate) struct FrameHead {
    pub(crate) payload_len: u32,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    pub(crate) checksum: u64,
}

impl FrameHead {
    pub(crate) fn of(bytes: &[u8; FRAME_HEAD_LEN]) -> Option<Self> {
        let u32_at = |at: usize| bytes[at..at + 4].try_into().map(u32::from_le_bytes).ok();
        let u64_at = |at: usize| bytes[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        let frame = Self {
            payload_len: u32_at(4)?,
            epoch: u64_at(8)?,
            seq: u64_at(16)?,
            checksum: u64_at(24)?,
        };
        (bytes.starts_with(&MAGIC) && frame.payload_len <= PAYLOAD_LEN_MAX).then_some(frame)
    }
}

pub(crate) fn frame_end(position: u64, payload_len: u32) -> u64 {
    (position + FRAME_HEAD_LEN as u64 + u64::from(payload_len)).next_multiple_of(FRAME_ALIGN)
}

pub(crate) fn checksum<'p>(
    epoch: u64,
    seq: u64,
    payload: impl IntoIterator<Item = &'p [u8]>,
) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&epoch.to_le_bytes());
    hash.update(&seq.to_le_bytes());
    payload.into_iter().for_each(|part| hash.update(part));
    hash.digest()
}

pub(crate) fn decode(mut payload: Vec<u8>) -> Option<Batch> {
    let delta_len = u32::from_le_bytes(payload.get(..4)?.try_into().ok()?) as usize;
    let rows_from = 4usize.checked_add(delta_len)?;
    let delta = postcard::from_bytes(payload.get(4..rows_from)?).ok()?;
    payload.drain(..rows_from);
    Some(Batch {
        delta,
        rows: payload.into(),
    })
}
