//! The sums of line counts over pairs.

use serde::{Deserialize, Serialize};

use crate::pair::verdict::{PerVerdict, VerdictCounts, VerdictKind};

/// Sums of line counts over pairs, kept up to date so that a status does not walk the pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LineTotals {
    /// Scored lines read.
    pub scored_lines: u64,
    /// Malformed scored lines.
    pub scored_malformed: u64,
    /// Evidence lines read.
    pub evidence_lines: u64,
    /// Malformed evidence lines.
    pub evidence_malformed: u64,
    /// Day-files that are so long that their samples do not cover all that was read of them.
    pub sampled: u64,
    /// Scored records by verdict.
    pub counts: VerdictCounts,
}

impl LineTotals {
    /// Returns the scored lines by verdict, the malformed ones included.
    #[must_use]
    pub fn by_verdict(&self) -> PerVerdict<u64> {
        PerVerdict::from_fn(|kind| match kind {
            VerdictKind::Malformed => self.scored_malformed,
            record => self.counts[record],
        })
    }

    /// Returns the scored lines that a rule refused: neither exported, nor waiting, nor malformed.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.by_verdict().sum_of(VerdictKind::is_refusal)
    }

    /// Replaces the totals of a pair: subtracts `before` and adds `after`.
    pub fn replace(&mut self, before: &LineTotals, after: &LineTotals) {
        self.combine(after, u64::wrapping_add);
        // Totals of a damaged state may be less than a pair's: they wrap, and fail the account.
        self.combine(before, u64::wrapping_sub);
    }

    /// Adds other totals.
    pub fn add(&mut self, other: &LineTotals) {
        self.combine(other, u64::wrapping_add);
    }

    fn combine(&mut self, other: &LineTotals, combine: impl Fn(u64, u64) -> u64) {
        let LineTotals {
            scored_lines,
            scored_malformed,
            evidence_lines,
            evidence_malformed,
            sampled,
            counts,
        } = self;
        for (total, figure) in [
            (scored_lines, other.scored_lines),
            (scored_malformed, other.scored_malformed),
            (evidence_lines, other.evidence_lines),
            (evidence_malformed, other.evidence_malformed),
            (sampled, other.sampled),
            (&mut counts.superseded, other.counts.superseded),
            (&mut counts.contradicted, other.counts.contradicted),
        ]
        .into_iter()
        .chain(counts.records.iter_mut().zip(other.counts.records))
        {
            *total = combine(*total, figure);
        }
    }

    /// Returns whether each scored line that was read has a verdict (promise 5), over all pairs.
    #[must_use]
    pub fn balanced(&self) -> bool {
        let accounted = self.counts.records().checked_add(self.scored_malformed);
        accounted == Some(self.scored_lines)
    }
}
