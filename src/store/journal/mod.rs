//! The redo log, the one place where a batch becomes durable. A batch is written here and synced *before* its first
//! byte is visible in the export (promise 2), so that a start after a crash writes the same bytes again.
//!
//! The file is a sequence of frames, each at a multiple of 64 bytes:
//!
//! ```text
//!   magic "DJF1" | payload length u32 | epoch u64 | seq u64 | xxh3-64 of epoch, seq and payload u64 | payload
//!   payload: length of the delta u32 | delta (postcard) | rows as they are in the export
//! ```
//!
//! All integers are little-endian. The state's header names the current epoch and the last applied seq. A checkpoint
//! applies everything and raises the epoch, and the next frame overwrites the file from its start: writing to
//! allocated blocks costs a third of an append, because neither length nor extents have to become durable.
//!
//! A frame is synced before the next is written, so after a crash only the last frame can be torn: the first invalid
//! frame ends the log. A valid frame of the same epoch *after* that place means that durable bytes are gone: the
//! journal is damaged and the state cannot be trusted.

pub mod batch;
pub mod error;
pub mod frame;

use crate::store::journal::error::JournalError;

use crate::store::journal::batch::Batch;

use crate::store::journal::frame::{
    Frame, FrameHead, FrameReceipt, FrameSlot, checksum, decode, frame_end,
};

use std::sync::Arc;

use crate::platform::storage::{StorageFile, read_full_at, write_all_at};

pub(super) const MAGIC: [u8; 4] = *b"DJF1";
pub(super) const FRAME_HEAD_LEN: usize = 32;
pub(super) const FRAME_ALIGN: u64 = 64;
/// A longer payload is none of ours: the engine asserts that its batches are shorter.
pub(crate) const PAYLOAD_LEN_MAX: u32 = 1 << 30;
/// Bytes of the journal that are rewritten per call.
const COPY_LEN: usize = 1 << 16;

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    file: Arc<dyn StorageFile>,
    epoch: u64,
    seq_next: u64,
    position: u64,
}

impl Journal {
    /// Returns a journal whose frames all have epochs before `epoch`, so that all of it is applied.
    #[must_use]
    pub fn empty(file: Arc<dyn StorageFile>, epoch: u64, seq_applied: u64) -> Self {
        Self {
            file,
            epoch,
            seq_next: seq_applied + 1,
            position: 0,
        }
    }

    /// Reads every batch after `seq_applied` in order and passes each to `take_in` with its seq.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] as the module documentation describes; the errors of `take_in`.
    pub fn replay<E: From<JournalError>>(
        file: Arc<dyn StorageFile>,
        epoch: u64,
        seq_applied: u64,
        mut take_in: impl FnMut(u64, Batch) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut journal = Self::empty(file, epoch, seq_applied);
        while let Some(frame) = journal.read_frame(journal.position).map_err(E::from)? {
            if frame.seq != journal.seq_next {
                let what = format!(
                    "found frame {} where {} was expected",
                    frame.seq, journal.seq_next
                );
                return Err(JournalError::Damaged(what).into());
            }
            take_in(frame.seq, frame.batch)?;
            journal.position = frame_end(journal.position, frame.payload_len);
            journal.seq_next = frame.seq + 1;
        }
        journal.refuse_frames_behind().map_err(E::from)?;
        Ok(journal)
    }

    /// Makes the frames that were read durable, regardless of the syncs of earlier processes: after a failed sync
    /// their pages are marked clean, and another sync succeeds although they are not on the disk.
    ///
    /// # Errors
    /// [`JournalError::Sync`]: fatal. [`JournalError::Io`]: try again.
    pub fn rewrite(&self) -> Result<(), JournalError> {
        let mut chunk = vec![0; COPY_LEN];
        let mut at = 0;
        while at < self.position {
            let len = (self.position - at).min(COPY_LEN as u64) as usize;
            let read = read_full_at(&*self.file, &mut chunk[..len], at)?;
            if read == 0 {
                break;
            }
            write_all_at(&*self.file, &chunk[..read], at)?;
            at += read as u64;
        }
        self.file.sync_data().map_err(JournalError::Sync)
    }

    /// Gives `take_in` every batch from the start of a journal whose state is lost, in order, as long as one follows the
    /// other. Damage ends it: what is read is what was written. A frame that the disk does not give is not damaged.
    ///
    /// # Errors
    /// The disk's, those of `take_in`.
    pub fn salvage<E: From<JournalError>>(
        file: Arc<dyn StorageFile>,
        mut take_in: impl FnMut(Batch) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut head = [0; FRAME_HEAD_LEN];
        let read = read_full_at(&*file, &mut head, 0).map_err(|error| E::from(error.into()))?;
        let Some(first) = FrameHead::of(&head).filter(|_| read == FRAME_HEAD_LEN) else {
            return Ok(());
        };
        let mut journal = Self::empty(file, first.epoch, first.seq.saturating_sub(1));
        loop {
            let frame = match journal.read_frame(journal.position) {
                Ok(None) | Err(JournalError::Damaged(_)) => return Ok(()),
                other => other.map_err(E::from)?,
            };
            let Some(frame) = frame.filter(|frame| frame.seq == journal.seq_next) else {
                return Ok(());
            };
            if !take_in(frame.batch)? {
                return Ok(());
            }
            journal.position = frame_end(journal.position, frame.payload_len);
            journal.seq_next = frame.seq + 1;
        }
    }

    /// Makes a batch durable and gives its seq. On an error nothing of it counts; it may be tried again unless the
    /// error is [`JournalError::Sync`].
    ///
    /// # Errors
    /// As above.
    pub fn append(&mut self, batch: &Batch) -> Result<u64, JournalError> {
        let written = self.next_frame().write(batch)?;
        self.advance(&written);
        Ok(self.seq())
    }

    /// Returns what any thread needs to write the next frame. Only one may exist at a time.
    #[must_use]
    pub fn next_frame(&self) -> FrameSlot {
        FrameSlot {
            file: Arc::clone(&self.file),
            epoch: self.epoch,
            seq: self.seq_next,
            position: self.position,
        }
    }

    /// Advances past a frame that is durable.
    pub fn advance(&mut self, frame: &FrameReceipt) {
        assert_eq!(
            (frame.epoch, frame.seq),
            (self.epoch, self.seq_next),
            "frames are written one at a time"
        );
        self.position = frame.end;
        self.seq_next += 1;
    }

    /// The state has taken in everything and durably holds `epoch`: write over what is there.
    pub fn restart(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.position = 0;
    }

    /// The epoch that frames are written under.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The seq of the last durable frame.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq_next - 1
    }

    /// Returns the number of bytes since the last checkpoint.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.position
    }

    /// Returns the valid frame of the current epoch at `position`, if there is one.
    fn read_frame(&self, position: u64) -> Result<Option<Frame>, JournalError> {
        let mut head = [0; FRAME_HEAD_LEN];
        if read_full_at(&*self.file, &mut head, position)? < FRAME_HEAD_LEN {
            return Ok(None);
        }
        let Some(frame) = FrameHead::of(&head).filter(|frame| frame.epoch >= self.epoch) else {
            return Ok(None);
        };
        let mut payload = vec![0; frame.payload_len as usize];
        let read = read_full_at(&*self.file, &mut payload, position + FRAME_HEAD_LEN as u64)?;
        if read < payload.len()
            || checksum(frame.epoch, frame.seq, [payload.as_slice()]) != frame.checksum
        {
            return Ok(None);
        }
        if frame.epoch > self.epoch {
            let what = format!(
                "it is of epoch {}, the state of epoch {}",
                frame.epoch, self.epoch
            );
            return Err(JournalError::Damaged(what));
        }
        let batch = decode(payload).ok_or_else(|| {
            JournalError::Damaged(format!("frame {} cannot be decoded", frame.seq))
        })?;
        Ok(Some(Frame {
            seq: frame.seq,
            payload_len: frame.payload_len,
            batch,
        }))
    }

    /// Fails if a valid frame follows the end of the log.
    fn refuse_frames_behind(&self) -> Result<(), JournalError> {
        const WINDOW_LEN: usize = 1 << 16;
        let mut window = vec![0; WINDOW_LEN];
        let mut start = self.position;
        loop {
            let read = read_full_at(&*self.file, &mut window, start)?;
            for at in (0..read).step_by(FRAME_ALIGN as usize) {
                let position = start + at as u64;
                if !window[at..read].starts_with(&MAGIC) || position == self.position {
                    continue;
                }
                if let Some(frame) = self.read_frame(position)? {
                    let what = format!(
                        "it ends at byte {} after frame {}, but there is frame {} at byte {position}",
                        self.position,
                        self.seq(),
                        frame.seq
                    );
                    return Err(JournalError::Damaged(what));
                }
            }
            if read < WINDOW_LEN {
                return Ok(());
            }
            start += WINDOW_LEN as u64;
        }
    }
}
