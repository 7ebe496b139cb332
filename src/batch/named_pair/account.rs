//! The printed results of a named pair: what was read, and what became of each line.

use serde::Serialize;

use crate::batch::named_pair::NamedPair;
use crate::batch::pair::PairTotals;
use crate::pair::verdict::{PerVerdict, VerdictKind};

/// What was read of a pair. Lines = the sum of the verdicts, and rows = those that are `exported`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PairAccount {
    /// Whether both day-files were read to their ends, and the output was written. Otherwise the figures mean nothing.
    pub complete: bool,
    /// The reason why not; empty if complete.
    pub error: String,
    /// `NAME.jsonl`, which rows have in `id`.
    pub name: String,
    /// Length up to which the scored day-file was read.
    pub scored_bytes: u64,
    /// Length up to which the evidence was read, 0 without evidence.
    pub evidence_bytes: u64,
    /// Scored lines that are not blank.
    pub lines: u64,
    /// Scored lines by verdict.
    pub verdicts: PerVerdict<u64>,
    /// Malformed evidence lines.
    pub malformed_evidence: u64,
    /// Rows of the pair.
    pub rows: u64,
}

/// The account of a pair whose rows were written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PairExport {
    /// What was read of the pair.
    #[serde(flatten)]
    pub account: PairAccount,
    /// Bytes of the rows.
    pub rows_bytes: u64,
    /// SHA-256 of these bytes, hexadecimal; empty unless complete.
    pub rows_sha256: String,
}

impl PairAccount {
    /// Adds the names and lengths of a pair that was opened.
    pub(super) fn on_open(&mut self, pair: &NamedPair) {
        self.name.clone_from(&pair.name);
        self.scored_bytes = pair.scored.end;
        self.evidence_bytes = pair.evidence.end;
    }

    /// Adds the totals of the pair. Rows that were left out because later lines overrule them have a verdict of their own.
    pub(super) fn on_read(&mut self, totals: &PairTotals) {
        self.verdicts = totals.counts.verdicts;
        self.verdicts[VerdictKind::Exported] -= totals.overruled;
        self.verdicts[VerdictKind::Overruled] += totals.overruled;
        self.lines = self.verdicts.sum_of(|_| true);
        self.malformed_evidence = totals.counts.malformed_evidence;
    }
}

/// The comparison of given rows with those of a pair. The numbers from `missing` to `unreadable` are failures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PairVerification {
    /// Whether the rows are those of the pair, timestamps and order aside.
    pub equal: bool,
    /// The rows that were given.
    pub given: u64,
    /// Rows of the pair that were not given.
    pub missing: u64,
    /// Rows that were given more often than lines earn them.
    pub duplicate: u64,
    /// Rows that no line of the pair earns.
    pub unexpected: u64,
    /// Lines that are not rows.
    pub unreadable: u64,
    /// What was read of the pair.
    #[serde(flatten)]
    pub account: PairAccount,
}
