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
//! A checkpoint that is written while frames follow it ([`Journal::mark`], [`Journal::release`]) leaves the epoch. The next
//! frames take the room before those that it has not applied, and continue after them where that is used up. Therefore
//! a frame is found by its seq, at any position (`scan`).
//!
//! A frame is synced before the next is written, so after a crash only the last frame can be torn: the first seq that is
//! missing ends the log. A valid frame of the same epoch *after* it means that durable bytes are gone: the journal is
//! damaged and the state cannot be trusted.

pub mod batch;
pub mod error;
pub mod frame;
mod scan;

use crate::store::journal::error::JournalError;

use crate::store::journal::batch::Batch;

use crate::store::journal::frame::{FrameHead, FrameReceipt, FrameSlot, decode};
use crate::store::journal::scan::{FoundFrame, find_frames, payload_of};

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
    room: Room,
    /// Bytes of frames since the last checkpoint.
    len_bytes: u64,
}

/// Where the next frame is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// The start of the frame.
    pub(crate) position: u64,
    /// The start of the next frame that is not applied, which it must not reach.
    pub(crate) limit: u64,
    /// The end of all frames that are not applied, where a frame is written for which there is no room before the limit.
    pub(crate) end: u64,
}

impl Room {
    /// The room of a journal whose frames are all before `end`.
    fn after(end: u64) -> Self {
        Self {
            position: end,
            limit: u64::MAX,
            end,
        }
    }

    /// Returns where a frame of this length begins.
    pub(crate) fn place(&self, frame_len: u64) -> u64 {
        match self.position.saturating_add(frame_len) <= self.limit {
            true => self.position,
            false => self.end,
        }
    }

    fn advance(&mut self, from: u64, to: u64) {
        if from == self.position && to <= self.limit && self.limit != u64::MAX {
            self.position = to;
        } else {
            *self = Self::after(to);
        }
    }
}

/// A place between two frames: what a checkpoint that begins there applies.
#[derive(Debug, Clone, Copy)]
pub struct JournalMark {
    epoch: u64,
    seq: u64,
    position: u64,
    len_bytes: u64,
}

impl Journal {
    /// Returns a journal whose frames all have epochs before `epoch`, so that all of it is applied.
    #[must_use]
    pub fn empty(file: Arc<dyn StorageFile>, epoch: u64, seq_applied: u64) -> Self {
        Self {
            file,
            epoch,
            seq_next: seq_applied + 1,
            room: Room::after(0),
            len_bytes: 0,
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
        let is_unapplied = |of, seq| of > epoch || of == epoch && seq > seq_applied;
        let found = find_frames(&*file, is_unapplied).map_err(|error| E::from(error.into()))?;
        let mut journal = Self::empty(file, epoch, seq_applied);
        for frame in found {
            if frame.epoch > epoch {
                let what = format!("it is of epoch {}, the state of epoch {epoch}", frame.epoch);
                return Err(JournalError::Damaged(what).into());
            }
            if frame.seq != journal.seq_next {
                let what = format!(
                    "it ends after frame {}, but there is frame {} at byte {}",
                    journal.seq(),
                    frame.seq,
                    frame.position
                );
                return Err(JournalError::Damaged(what).into());
            }
            let batch = journal.batch_of(frame).map_err(E::from)?;
            take_in(frame.seq, batch)?;
            journal.room = Room::after(journal.room.end.max(frame.end));
            journal.len_bytes += frame.end - frame.position;
            journal.seq_next = frame.seq + 1;
        }
        Ok(journal)
    }

    /// Reads a frame that was found.
    fn batch_of(&self, frame: FoundFrame) -> Result<Batch, JournalError> {
        let mut head = [0; FRAME_HEAD_LEN];
        let read = read_full_at(&*self.file, &mut head, frame.position)?;
        let head = FrameHead::of(&head).filter(|_| read == FRAME_HEAD_LEN);
        let payload = match head {
            Some(head) => payload_of(&*self.file, &head, frame.position)?,
            None => None,
        };
        payload
            .and_then(decode)
            .ok_or_else(|| JournalError::Damaged(format!("frame {} cannot be decoded", frame.seq)))
    }

    /// Makes the frames that were read durable, regardless of the syncs of earlier processes: after a failed sync
    /// their pages are marked clean, and another sync succeeds although they are not on the disk.
    ///
    /// # Errors
    /// [`JournalError::Sync`]: fatal. [`JournalError::Io`]: try again.
    pub fn rewrite(&self) -> Result<(), JournalError> {
        let mut chunk = vec![0; COPY_LEN];
        let mut at = 0;
        while at < self.room.end {
            let len = (self.room.end - at).min(COPY_LEN as u64) as usize;
            let read = read_full_at(&*self.file, &mut chunk[..len], at)?;
            if read == 0 {
                break;
            }
            write_all_at(&*self.file, &chunk[..read], at)?;
            at += read as u64;
        }
        self.file.sync_data().map_err(JournalError::Sync)
    }

    /// Gives `take_in` every batch of the last epoch of a journal whose state is lost, in order, until it returns false.
    /// Damaged frames are left out. A frame that the disk does not give is not damaged.
    ///
    /// # Errors
    /// The disk's, those of `take_in`.
    pub fn salvage<E: From<JournalError>>(
        file: Arc<dyn StorageFile>,
        mut take_in: impl FnMut(Batch) -> Result<bool, E>,
    ) -> Result<(), E> {
        let found = find_frames(&*file, |_, _| true).map_err(|error| E::from(error.into()))?;
        let epoch = found.last().map_or(0, |last| last.epoch);
        let journal = Self::empty(file, epoch, 0);
        for frame in found.into_iter().filter(|frame| frame.epoch == epoch) {
            let batch = match journal.batch_of(frame) {
                Err(JournalError::Damaged(_)) => return Ok(()),
                other => other.map_err(E::from)?,
            };
            if !take_in(batch)? {
                return Ok(());
            }
        }
        Ok(())
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
            room: self.room,
        }
    }

    /// Advances past a frame that is durable.
    pub fn advance(&mut self, frame: &FrameReceipt) {
        assert_eq!(
            (frame.epoch, frame.seq),
            (self.epoch, self.seq_next),
            "frames are written one at a time"
        );
        self.room.advance(frame.position, frame.end);
        self.len_bytes += frame.end - frame.position;
        self.seq_next += 1;
    }

    /// Returns the place after the last frame.
    #[must_use]
    pub fn mark(&self) -> JournalMark {
        JournalMark {
            epoch: self.epoch,
            seq: self.seq(),
            position: self.room.position,
            len_bytes: self.len_bytes,
        }
    }

    /// The state has durably taken in all frames up to `mark`: the next frames are written over them. A mark that was
    /// taken before that of the last release, or before a restart, must not be released.
    pub fn release(&mut self, mark: &JournalMark) {
        assert_eq!(mark.epoch, self.epoch, "marks end with their epoch");
        self.len_bytes -= mark.len_bytes;
        if self.seq() == mark.seq {
            self.room = Room::after(0);
        } else if mark.position > 0 {
            self.room = Room {
                position: 0,
                limit: mark.position,
                end: self.room.position,
            };
        } else {
            self.room = Room::after(self.room.position);
        }
    }

    /// The state has taken in everything and durably holds `epoch`: write over what is there.
    pub fn restart(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.room = Room::after(0);
        self.len_bytes = 0;
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
        self.len_bytes
    }
}
