//! The heart of the pure core: new lines of a pair of day-files become verdicts and rows. It parses, applies the
//! firewall, joins, synthesizes, decides which runs wait or are joined again, and which rows exist already. It does
//! no I/O and reads no clock; it gets what it needs through [`StateLookup`] and [`LineLookup`] and returns one
//! [`JoinOutcome`].
//!
//! A scored line that the firewall admits waits, is refused for its evidence's role or blank text, or is exported.
//! The first three are joined again whenever evidence with their run id arrives, because the last evidence with an id
//! counts, and a batch over the same bytes would use it.

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
use crate::pair::verdict::Verdict;
use crate::record::keys::{RowKey, RunKey};
use join::Joiner;

/// The persisted part of a pair, without its [`Overlay`].
pub trait StateLookup<E> {
    /// Returns the location of a run's evidence.
    ///
    /// # Errors
    /// The state cannot be read.
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
    /// Returns the row at an offset of the export, without its newline, or `None` if it cannot be read or is longer
    /// than `len_max`. Rows up to `len_likely` cost least.
    ///
    /// # Errors
    /// Errors of the export's disk are not reported: a row is only compared.
    fn row(&self, offset: u64, len_likely: usize, len_max: usize) -> Result<Option<Vec<u8>>, E>;
}

/// Changes of a pair since the last checkpoint of the state. They take precedence over the state.
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

    /// Returns whether it holds nothing.
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
    /// Offsets and counts of the pair.
    pub checkpoint: PairCheckpoint,
    /// Changes that the state does not have yet.
    pub overlay: Overlay,
    /// Whether the state has entries of the pair; without them it is not queried.
    pub persisted: bool,
}

/// The inputs of a join besides the lines.
pub struct JoinContext<'a, E> {
    /// The persisted part of the pair.
    pub index: &'a dyn StateLookup<E>,
    /// Lines read before.
    pub bodies: &'a dyn LineLookup<E>,
    /// Whether there are unclaimed rows.
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
    /// Changes of the pair. Row offsets of `new_rows` count from the start of `rows`.
    pub overlay: Overlay,
    /// New rows, each with its newline.
    pub rows: Vec<u8>,
    /// The scored lines that `rows` are of, in order.
    pub new_rows: Vec<(RunKey, u64)>,
    /// Number of rows already written whose evidence was replaced by different evidence.
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
    if step.out.checkpoint.counts.waiting == 0 {
        step.out.checkpoint.waiting_since_s = 0;
    }
    Ok(step.out)
}
