//! The record of a pair of day-files: how far each is read, the verdicts of its lines, and the account that must
//! balance. Pure.
//!
//! The persisted forms are defined next to their types; `tests/suite/formats.rs` pins their bytes. A change of any of
//! them raises [`FORMAT`], and a state of another format is rebuilt from the sources and the export.

use crate::pair::verdict::{LineTotals, VerdictCounts};

use crate::lake::identity::SourceState;

use serde::{Deserialize, Serialize};

use crate::lake::path::Stream;

/// The version of everything persisted under the state directory.
pub const FORMAT: u32 = 4;

/// Everything remembered of a pair but its packed indexes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PairCheckpoint {
    /// Relative path, `YYYY/MM/DD/NAME.jsonl`, as the file system has it.
    pub path: Vec<u8>,
    /// The scored day-file.
    pub scored: SourceState,
    /// The evidence day-file.
    pub evidence: SourceState,
    /// Counts of the verdicts of scored lines.
    pub counts: VerdictCounts,
    /// No run of the pair waits since before this second of 1970; 0 where none waits. A bound: the run that set it
    /// may have found its evidence while others wait.
    pub waiting_since_s: u64,
}

/// The account of a pair does not balance: lines vanished or were counted twice. Only a bug can do this.
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
    counts: VerdictCounts,
}

impl PairCheckpoint {
    /// A pair of which nothing has been read.
    #[must_use]
    pub fn new(path: Vec<u8>) -> Self {
        Self {
            path,
            ..Self::default()
        }
    }

    /// Returns how far one of its day-files is read.
    #[must_use]
    pub fn source(&self, stream: Stream) -> &SourceState {
        match stream {
            Stream::Scored => &self.scored,
            Stream::Evidence => &self.evidence,
        }
    }

    /// The inode of its scored day-file when that was last read.
    #[must_use]
    pub fn scored_inode(&self) -> Option<u64> {
        Some(self.scored.identity?.inode)
    }

    /// A run begins to wait.
    pub fn begin_to_wait(&mut self, now_s: u64) {
        if self.waiting_since_s == 0 || now_s < self.waiting_since_s {
            self.waiting_since_s = now_s;
        }
    }

    /// Returns the counts that [`LineTotals`] sums.
    #[must_use]
    pub fn figures(&self) -> LineTotals {
        LineTotals {
            scored_lines: self.scored.lines,
            scored_malformed: self.scored.malformed,
            evidence_lines: self.evidence.lines,
            evidence_malformed: self.evidence.malformed,
            counts: self.counts,
        }
    }

    /// Promise 5: lines read = exported + firewalled + refused by reason + waiting + malformed.
    ///
    /// # Errors
    /// [`AccountingMismatch`] where they differ; the daemon must stop.
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
            counts: self.counts,
        })
    }
}
