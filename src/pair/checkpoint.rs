//! The persisted checkpoint of a pair: the read position of each day-file, the counts by verdict, and the check that
//! they balance.
//!
//! `tests/suite/formats.rs` pins the bytes of all persisted types. A change of any of them raises [`FORMAT`]; a state
//! of another format is rebuilt from the sources and the export.

use serde::{Deserialize, Serialize};

use crate::lake::identity::SourceState;
use crate::lake::path::Stream;
use crate::lake::read_digest::all_are_samples;
use crate::pair::verdict::{LineTotals, VerdictCounts};

/// The version of all formats below the state directory.
pub const FORMAT: u32 = 6;

/// The persisted data of a pair, except its packed indexes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PairCheckpoint {
    /// Relative path, `YYYY/MM/DD/NAME.jsonl`, in the bytes of the file system.
    pub path: Vec<u8>,
    /// The scored day-file.
    pub scored: SourceState,
    /// The evidence day-file.
    pub evidence: SourceState,
    /// The scored lines by verdict.
    pub counts: VerdictCounts,
    /// Lower bound of the time since when runs of the pair wait, seconds since 1970; 0 if none waits. The run that set it
    /// may have received its evidence while others wait.
    pub waiting_since_s: u64,
    /// What is to be examined of its rows once it is read to its end.
    pub review: Review,
}

/// What is to be examined of the rows of a pair once it is read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Review(u8);

impl Review {
    /// Its lines claimed rows again: rows may be out although no line overrules them any more.
    pub const CLAIMED: Self = Self(1);
    /// Its scored day-file is read again from the start: it may have lost the lines of some rows, and hold others of their
    /// runs.
    pub const REREAD: Self = Self(2);

    /// Returns whether it contains all of `other`.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Adds `other`.
    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Removes `other`.
    pub fn remove(&mut self, other: Self) {
        self.0 &= !other.0;
    }
}

/// The counts of a pair do not balance: lines were lost or counted twice. Only a bug can cause this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the account of day-file {path} does not balance: {lines} lines read, {accounted} accounted for \
     ({counts:?}, {malformed} malformed)"
)]
pub struct AccountingMismatch {
    path: String,
    lines: u64,
    accounted: u64,
    malformed: u64,
    counts: Box<VerdictCounts>,
}

impl PairCheckpoint {
    /// Makes the checkpoint of a pair that has not been read.
    #[must_use]
    pub fn new(path: Vec<u8>) -> Self {
        Self {
            path,
            ..Self::default()
        }
    }

    /// Returns the read position of one of its day-files.
    #[must_use]
    pub fn source(&self, stream: Stream) -> &SourceState {
        match stream {
            Stream::Scored => &self.scored,
            Stream::Evidence => &self.evidence,
        }
    }

    /// Returns the read position of a day-file, to change it.
    pub fn source_mut(&mut self, stream: Stream) -> &mut SourceState {
        match stream {
            Stream::Scored => &mut self.scored,
            Stream::Evidence => &mut self.evidence,
        }
    }

    /// Returns the inode of its scored day-file at the last read.
    #[must_use]
    pub fn scored_inode(&self) -> Option<u64> {
        Some(self.scored.identity?.inode)
    }

    /// Records that a run begins to wait.
    pub fn begin_to_wait(&mut self, now_s: u64) {
        if self.waiting_since_s == 0 || now_s < self.waiting_since_s {
            self.waiting_since_s = now_s;
        }
    }

    /// Returns the pair's contribution to [`LineTotals`].
    #[must_use]
    pub fn line_totals(&self) -> LineTotals {
        let sources = [&self.scored, &self.evidence].into_iter();
        let sampled = sources.filter(|source| !all_are_samples(source.offset));
        LineTotals {
            sampled: sampled.count() as u64,
            scored_lines: self.scored.lines,
            scored_malformed: self.scored.malformed,
            evidence_lines: self.evidence.lines,
            evidence_malformed: self.evidence.malformed,
            counts: self.counts,
        }
    }

    /// Checks promise 5: lines read = exported + firewalled + refused by reason + waiting + malformed.
    ///
    /// # Errors
    /// [`AccountingMismatch`] if they differ; the daemon must stop.
    pub fn balance(&self) -> Result<(), AccountingMismatch> {
        let accounted = self.counts.records().saturating_add(self.scored.malformed);
        let evidence_accounted = self
            .evidence
            .records
            .saturating_add(self.evidence.malformed);
        if self.scored.lines == accounted
            && self.scored.records == self.counts.records()
            && self.evidence.lines == evidence_accounted
        {
            return Ok(());
        }
        Err(AccountingMismatch {
            path: String::from_utf8_lossy(&self.path).into_owned(),
            lines: self.scored.lines,
            accounted,
            malformed: self.scored.malformed,
            counts: Box::new(self.counts),
        })
    }
}
