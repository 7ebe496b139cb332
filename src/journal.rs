//! Owns the redo log: the one place where a batch becomes durable. A batch is written here and synced *before* the
//! first of its bytes is visible in the export (promise 2), so a start after a crash writes the same bytes again.
//!
//! The file is a run of frames, each at a multiple of 64 bytes:
//!
//! ```text
//! magic "DJF1" | payload length u32 | epoch u64 | seq u64 | xxh3-64 of epoch, seq and payload u64 | payload
//! payload: length of the delta u32 | delta (postcard) | rows, as they stand in the export
//! ```
//!
//! All integers are little-endian. The state's header says which epoch is current and which seq it has taken in. A
//! checkpoint takes everything in, raises the epoch, and the next frame overwrites the file from its start: writing
//! over blocks that exist costs a third of an append, because no length and no extent has to be made durable.
//!
//! One frame is synced before the next is written, so after a crash only the last frame can be torn: the first frame
//! that does not fit ends the log. A sound frame of the same epoch *behind* that place means that bytes which were
//! durable are gone: the journal is damaged, and the state is not to be trusted.

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::export::ExportMark;
use crate::pair::Overlay;
use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::index::{Claim, DeadLetter, EvidenceEntry, PairId, ScoredEntry};
use crate::platform::storage::{StorageFile, read_full_at, write_all_at};
use crate::rows::Rows;

const MAGIC: [u8; 4] = *b"DJF1";
const FRAME_HEAD_LEN: usize = 32;
const FRAME_ALIGN: u64 = 64;
/// A longer payload is none of ours: the engine cuts batches far below it.
const PAYLOAD_LEN_MAX: u32 = 1 << 30;
/// How much of the journal is written again at once.
const COPY_LEN: usize = 1 << 16;

/// What a batch changes of one pair. It holds the state *after* the batch, so that taking it in twice is the same
/// as once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairDelta {
    /// The pair.
    pub id: PairId,
    /// Its checkpoint after the batch.
    pub checkpoint: PairCheckpoint,
    /// Evidence records to put into its index.
    pub evidence: Vec<EvidenceEntry>,
    /// Scored lines to put into its index, or whose verdict changed.
    pub entries: Vec<ScoredEntry>,
    /// Rows that a line of the pair found already written.
    pub claims: Vec<Claim>,
    /// Lines that are no records.
    pub dead_letters: Vec<DeadLetter>,
}

impl PairDelta {
    /// What `overlay` puts over the state of a pair, and its checkpoint with it.
    #[must_use]
    pub fn new(id: PairId, checkpoint: &PairCheckpoint, overlay: &Overlay) -> Self {
        Self {
            id,
            checkpoint: checkpoint.clone(),
            evidence: overlay.evidence_entries().collect(),
            entries: overlay.entries.values().copied().collect(),
            claims: overlay.claims.clone(),
            dead_letters: overlay.dead_letters.clone(),
        }
    }

    /// The overlay that it was made of.
    #[must_use]
    pub fn overlay(&self) -> Overlay {
        Overlay {
            evidence: self
                .evidence
                .iter()
                .map(|entry| (entry.run, entry.place))
                .collect(),
            entries: self
                .entries
                .iter()
                .map(|entry| ((entry.run, entry.offset), *entry))
                .collect(),
            dead_letters: self.dead_letters.clone(),
            claims: self.claims.clone(),
        }
    }
}

/// What a batch changes in the state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BatchDelta {
    /// The export as the last checkpoint left it: by this a journal is known to belong to it even without a state.
    pub mark: ExportMark,
    /// Length of the export before the batch's rows, bytes.
    pub export_from: u64,
    /// What changes of each pair.
    pub pairs: Vec<PairDelta>,
}

/// A batch as it is committed: what changes in the state, and the rows to show.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// What changes in the state.
    pub delta: BatchDelta,
    /// What it shows.
    pub rows: Rows,
}

impl Batch {
    /// Length of the export behind the batch's rows, bytes.
    #[must_use]
    pub fn export_to(&self) -> u64 {
        self.delta.export_from + self.rows.len_bytes() as u64
    }
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk refused; nothing of the batch counts.
    #[error("writing the journal failed: {0}")]
    Io(#[from] io::Error),
    /// A sync failed: nobody knows what is durable. Fatal.
    #[error(
        "syncing the journal failed: {0}; what is on the disk is unknown until the next start looks"
    )]
    Sync(io::Error),
    /// Durable bytes are gone or changed.
    #[error("the journal is damaged: {0}")]
    Damaged(String),
}

/// The open journal.
#[derive(Debug)]
pub struct Journal {
    file: Arc<dyn StorageFile>,
    epoch: u64,
    seq_next: u64,
    position: u64,
}

impl Journal {
    /// A journal whose frames all lie in `epochs` before `epoch`: what it holds is taken in.
    #[must_use]
    pub fn empty(file: Arc<dyn StorageFile>, epoch: u64, seq_applied: u64) -> Self {
        Self {
            file,
            epoch,
            seq_next: seq_applied + 1,
            position: 0,
        }
    }

    /// Reads back, in order, every batch behind `seq_applied`, and gives each to `take_in` with its seq.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] as the head of this file says; the errors of `take_in`.
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
                    "frame {} stands where {} was expected",
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

    /// Makes durable, whatever became of the syncs of an earlier process, the frames that were read: after a sync
    /// that failed their pages look written, and a further sync says so too, but they are not on the disk.
    ///
    /// # Errors
    /// [`JournalError::Sync`]: fatal. [`JournalError::Io`]: try again.
    pub fn write_again(&self) -> Result<(), JournalError> {
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
        self.wrote(&written);
        Ok(self.seq())
    }

    /// All that is needed to write the next frame, on whatever thread. One at a time.
    #[must_use]
    pub fn next_frame(&self) -> NextFrame {
        NextFrame {
            file: Arc::clone(&self.file),
            epoch: self.epoch,
            seq: self.seq_next,
            position: self.position,
        }
    }

    /// The next frame is durable.
    pub fn wrote(&mut self, frame: &WrittenFrame) {
        assert_eq!(
            (frame.epoch, frame.seq),
            (self.epoch, self.seq_next),
            "one frame is written behind the other"
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

    /// Bytes behind the last checkpoint.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.position
    }

    /// The sound frame of the current epoch at `position`, if one stands there.
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

    /// Looks behind the end of the log for a frame that says the end is none.
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
                        "it ends at byte {} behind frame {}, but frame {} stands at byte {position}",
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

/// The place of a frame that is to be written.
#[derive(Debug)]
pub struct NextFrame {
    file: Arc<dyn StorageFile>,
    epoch: u64,
    seq: u64,
    position: u64,
}

/// A frame that is durable, and that [`Journal::wrote`] has yet to be told of.
#[derive(Debug)]
pub struct WrittenFrame {
    epoch: u64,
    seq: u64,
    /// Where the next one starts.
    end: u64,
}

impl NextFrame {
    /// Writes the frame of a batch and makes it durable. On an error nothing of it counts.
    ///
    /// # Errors
    /// Those of [`Journal::append`].
    pub fn write(&self, batch: &Batch) -> Result<WrittenFrame, JournalError> {
        let delta = postcard::to_stdvec(&batch.delta).map_err(|error| {
            JournalError::Damaged(format!("a batch cannot be encoded: {error}"))
        })?;
        let payload_len = u32::try_from(4 + delta.len() + batch.rows.len_bytes())
            .ok()
            .filter(|len| *len <= PAYLOAD_LEN_MAX)
            .expect("the engine cuts batches far below a GiB");
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
        write_all_at(&*self.file, &front, self.position)?;
        for (at, rows) in batch.rows.placed(self.position + front.len() as u64) {
            write_all_at(&*self.file, rows, at)?;
        }
        self.file.sync_data().map_err(JournalError::Sync)?;
        Ok(WrittenFrame {
            epoch: self.epoch,
            seq: self.seq,
            end: frame_end(self.position, payload_len),
        })
    }
}

/// A sound frame.
struct Frame {
    seq: u64,
    payload_len: u32,
    batch: Batch,
}

#[derive(Debug)]
struct FrameHead {
    payload_len: u32,
    epoch: u64,
    seq: u64,
    checksum: u64,
}

impl FrameHead {
    fn of(bytes: &[u8; FRAME_HEAD_LEN]) -> Option<Self> {
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

fn frame_end(position: u64, payload_len: u32) -> u64 {
    (position + FRAME_HEAD_LEN as u64 + u64::from(payload_len)).next_multiple_of(FRAME_ALIGN)
}

fn checksum<'p>(epoch: u64, seq: u64, payload: impl IntoIterator<Item = &'p [u8]>) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&epoch.to_le_bytes());
    hash.update(&seq.to_le_bytes());
    payload.into_iter().for_each(|part| hash.update(part));
    hash.digest()
}

fn decode(mut payload: Vec<u8>) -> Option<Batch> {
    let delta_len = u32::from_le_bytes(payload.get(..4)?.try_into().ok()?) as usize;
    let rows_from = 4usize.checked_add(delta_len)?;
    let delta = postcard::from_bytes(payload.get(4..rows_from)?).ok()?;
    payload.drain(..rows_from);
    Some(Batch {
        delta,
        rows: payload.into(),
    })
}
