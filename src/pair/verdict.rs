//! Verdicts on scored lines, their counts, and the sums of those counts over pairs.

use crate::pair::checkpoint::*;
use serde::{Deserialize, Serialize};

/// Counts of the verdicts of a pair. Each line is in exactly one of the first six, or malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VerdictCounts {
    /// Lines with a row in the export.
    pub exported: u64,
    /// Refused by the firewall.
    pub firewalled: u64,
    /// Lines with an unknown category.
    pub unknown_category: u64,
    /// Refused: the evidence's model role gives no sample.
    pub role: u64,
    /// Refused: the evidence's text is blank.
    pub blank_text: u64,
    /// Waits for its evidence.
    pub waiting: u64,
    /// Exported lines whose evidence was replaced by different evidence after the row was written.
    pub superseded: u64,
    /// Exported lines whose run was scored `rejected` or `needs_human_review` later.
    pub contradicted: u64,
}

impl VerdictCounts {
    /// Returns the number of lines with a verdict, waiting ones included. Counts that overflow come from a damaged
    /// state; they fail the account instead of ending the process.
    #[must_use]
    pub fn records(&self) -> u64 {
        let refused = [self.unknown_category, self.role, self.blank_text];
        [self.exported, self.firewalled, self.waiting]
            .into_iter()
            .chain(refused)
            .fold(0, u64::saturating_add)
    }

    /// The count that a verdict is kept under.
    pub fn of_mut(&mut self, verdict: Verdict) -> &mut u64 {
        match verdict {
            Verdict::Exported { .. } => &mut self.exported,
            Verdict::Firewalled => &mut self.firewalled,
            Verdict::UnknownCategory => &mut self.unknown_category,
            Verdict::Role { .. } => &mut self.role,
            Verdict::BlankText { .. } => &mut self.blank_text,
            Verdict::Waiting { .. } => &mut self.waiting,
        }
    }
}

/// Sums over pairs, stored so that a status needs no walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LineTotals {
    /// Scored lines read.
    pub scored_lines: u64,
    /// Scored lines that became dead letters.
    pub scored_malformed: u64,
    /// Evidence lines read.
    pub evidence_lines: u64,
    /// Evidence lines that became dead letters.
    pub evidence_malformed: u64,
    /// Counts of the verdicts of scored lines.
    pub counts: VerdictCounts,
}

impl LineTotals {
    /// Takes a pair's figures out (`before`) and puts its new ones in (`after`).
    pub fn replace(&mut self, before: &PairCheckpoint, after: &PairCheckpoint) {
        let (old, new) = (before.figures(), after.figures());
        self.step(&new, u64::wrapping_add);
        // Totals of a damaged state may be less than a pair's: they fail the account then.
        self.step(&old, u64::wrapping_sub);
    }

    /// Adds other sums.
    pub fn add(&mut self, other: &LineTotals) {
        self.step(other, u64::wrapping_add);
    }

    fn step(&mut self, other: &LineTotals, step: impl Fn(u64, u64) -> u64) {
        let LineTotals {
            scored_lines,
            scored_malformed,
            evidence_lines,
            evidence_malformed,
            counts,
        } = self;
        let (to, from) = (counts, &other.counts);
        for (total, figure) in [
            (scored_lines, other.scored_lines),
            (scored_malformed, other.scored_malformed),
            (evidence_lines, other.evidence_lines),
            (evidence_malformed, other.evidence_malformed),
            (&mut to.exported, from.exported),
            (&mut to.firewalled, from.firewalled),
            (&mut to.unknown_category, from.unknown_category),
            (&mut to.role, from.role),
            (&mut to.blank_text, from.blank_text),
            (&mut to.waiting, from.waiting),
            (&mut to.superseded, from.superseded),
            (&mut to.contradicted, from.contradicted),
        ] {
            *total = step(*total, figure);
        }
    }

    /// Promise 5 over all pairs.
    #[must_use]
    pub fn balanced(&self) -> bool {
        let accounted = self.counts.records().checked_add(self.scored_malformed);
        accounted == Some(self.scored_lines)
    }
}

/// The verdict on a well-formed scored line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// No evidence yet; joined again when evidence with its run id arrives.
    Waiting {
        /// Its index among the well-formed records of its day-file.
        index: u32,
        /// When it began to wait, seconds since 1970.
        since_s: u64,
    },
    /// Refused for its evidence's model role; joined again like a waiting run.
    Role {
        /// Its index among the well-formed records of its day-file.
        index: u32,
    },
    /// Refused for its evidence's blank text; joined again like a waiting run.
    BlankText {
        /// Its index among the well-formed records of its day-file.
        index: u32,
    },
    /// Its row is in the export.
    Exported {
        /// Offset of its row in the export, bytes.
        row_offset: u64,
        /// Digest of the evidence line that the row was made from; of a row that was claimed, of the one that counted
        /// then; 0 where an earlier version did not note it.
        evidence_digest: u32,
        /// Evidence that differs came later.
        superseded: bool,
        /// The run was rejected later.
        contradicted: bool,
    },
    /// Refused by the firewall; final.
    Firewalled,
    /// Refused for an unknown category; final.
    UnknownCategory,
}
