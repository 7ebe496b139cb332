//! Owns what becomes of the new lines of a pair of day-files: parse, firewall, join, synthesize; who waits, who is
//! looked at again, which row is already there. The heart of the pure core: it does no I/O and reads no clock, asks
//! for what it needs through [`StateLookup`] and [`LineLookup`], and gives all that follows as one [`JoinOutcome`].
//!
//! A scored line that the firewall admits has one of five verdicts: it waits, it is refused for its evidence's role
//! or blank text, or it is exported. The first three are looked at again whenever evidence with their run id
//! arrives, because the last evidence with an id counts and a batch over the same bytes would see it.

pub mod accounting;
pub mod checkpoint;
mod claims;
pub mod evidence_chunk;
pub mod history;
pub mod index;
pub(crate) mod join;
mod line;
pub mod verdict;

use std::collections::BTreeMap;

use crate::lake::chunk::Chunk;
use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::index::{
    DeadLetter, EvidenceLine, EvidenceLocation, PairId, ScoredLine, UnclaimedRow,
};
use crate::pair::verdict::{Verdict, VerdictKind};
use crate::record::keys::{RowKey, RunKey};
use join::Joiner;

/// What the state has taken in of a pair, without what its [`Overlay`] holds.
pub trait StateLookup<E> {
    /// Where the evidence for a run lies.
    ///
    /// # Errors
    /// The state's.
    fn evidence(&self, run: RunKey) -> Result<Option<EvidenceLocation>, E>;
    /// The scored lines of a run, in order.
    ///
    /// # Errors
    /// The state's.
    fn entries(&self, run: RunKey) -> Result<Vec<ScoredLine>, E>;
    /// Rows with this key that no line has claimed before this step, in order.
    ///
    /// # Errors
    /// The state's.
    fn claimable(&self, row: RowKey) -> Result<Vec<UnclaimedRow>, E>;
}

/// Lines of the pair, and rows, whose place is known. `None`: the file is gone or shorter by now.
pub trait LineLookup<E> {
    /// A line of the scored day-file.
    ///
    /// # Errors
    /// The disk's.
    fn scored(&self, offset: u64, len_bytes: u32) -> Result<Option<Vec<u8>>, E>;
    /// A line of the evidence day-file.
    ///
    /// # Errors
    /// The disk's.
    fn evidence(&self, place: EvidenceLocation) -> Result<Option<Vec<u8>>, E>;
    /// The row that starts at an offset of the export, without its newline; `None` where it cannot be read, or is longer
    /// than `len_max`. It costs least where it is not longer than `len_likely`.
    ///
    /// # Errors
    /// None that the disk of the export gives: what a row says is only compared.
    fn row(&self, offset: u64, len_likely: usize, len_max: usize) -> Result<Option<Vec<u8>>, E>;
}

/// What is known of a pair since the state's last checkpoint; it goes before what the state says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlay {
    /// New evidence records.
    pub evidence: BTreeMap<RunKey, EvidenceLocation>,
    /// New scored lines, and those whose verdict changed, by run and offset.
    pub entries: BTreeMap<(RunKey, u64), ScoredLine>,
    /// New dead letters.
    pub dead_letters: Vec<DeadLetter>,
    /// Claims that found their row.
    pub claims: Vec<UnclaimedRow>,
}

impl Overlay {
    /// Entries it holds: what a checkpoint would have to write.
    #[must_use]
    pub fn len(&self) -> usize {
        self.evidence.len() + self.entries.len() + self.dead_letters.len() + self.claims.len()
    }

    /// New evidence records, by run.
    pub fn evidence_entries(&self) -> impl Iterator<Item = EvidenceLine> {
        self.evidence.iter().map(|(run, place)| EvidenceLine {
            run: *run,
            place: *place,
        })
    }

    /// Puts what is newer over what is there.
    pub fn extend(&mut self, newer: Overlay) {
        if self.is_empty() {
            *self = newer;
            return;
        }
        self.evidence.extend(newer.evidence);
        self.entries.extend(newer.entries);
        self.dead_letters.extend(newer.dead_letters);
        self.claims.extend(newer.claims);
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A pair that is being worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivePair {
    /// Its number in the state.
    pub id: PairId,
    /// How far it is read and what became of its lines.
    pub checkpoint: PairCheckpoint,
    /// What the state has not taken in yet.
    pub overlay: Overlay,
    /// Whether the state has ever taken in anything of it; if not, nobody asks.
    pub persisted: bool,
}

/// What the step needs to know beside the lines.
pub struct JoinContext<'a, E> {
    /// What the state has taken in.
    pub index: &'a dyn StateLookup<E>,
    /// Lines read before.
    pub bodies: &'a dyn LineLookup<E>,
    /// Whether there are rows that no line has claimed.
    pub claims_possible: bool,
    /// A longer line is a dead letter, bytes.
    pub line_bytes_max: u64,
    /// RFC 3339 UTC with milliseconds, written into new rows.
    pub stamp: &'a str,
    /// Seconds since 1970, remembered of runs that begin to wait.
    pub now_s: u64,
}

/// All that follows from new lines of one pair. Nothing has happened yet.
#[derive(Debug, Default)]
pub struct JoinOutcome {
    /// The checkpoint after them.
    pub checkpoint: PairCheckpoint,
    /// What to put over the state. Row offsets of `new_rows` count from the start of `rows`.
    pub overlay: Overlay,
    /// New rows, each with its newline.
    pub rows: Vec<u8>,
    /// The scored lines that `rows` are of, in order.
    pub new_rows: Vec<(RunKey, u64)>,
    /// Evidence that differs came for so many rows already written.
    pub superseded: u64,
}

impl JoinOutcome {
    /// Counts row offsets from the start of the export instead of `rows`.
    pub fn place_rows(&mut self, rows_offset: u64) {
        for key in &self.new_rows {
            if let Some(ScoredLine {
                verdict: Verdict::Exported { row_offset, .. },
                ..
            }) = self.overlay.entries.get_mut(key)
            {
                *row_offset += rows_offset;
            }
        }
    }
}

/// Works new lines of a pair: evidence first, so that a run and its evidence that arrive together never wait. Rows are
/// written into `room`, which is empty.
///
/// # Errors
/// Those of the index and the bodies; then nothing follows.
pub fn advance<E>(
    pair: &ActivePair,
    evidence: &Chunk,
    scored: &Chunk,
    facts: &JoinContext<'_, E>,
    room: Vec<u8>,
) -> Result<JoinOutcome, E> {
    let mut step = Joiner::new(pair, facts, room);
    let given = step.ingest_evidence(evidence);
    let all_joined = step.out.checkpoint.scored.records == 0 || step.rejoin(&given)?;
    if all_joined {
        step.ingest_scored(scored, &given)?;
    } else {
        step.defer_evidence();
    }
    if step.out.checkpoint.counts[VerdictKind::Waiting] == 0 {
        step.out.checkpoint.waiting_since_s = 0;
    }
    Ok(step.out)
}
