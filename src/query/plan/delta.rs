//! The change of each figure between two accounts.

use serde::{Deserialize, Serialize};

use crate::pair::verdict::{LineTotals, PerVerdict};

/// The change of each figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Delta {
    /// Rows that would be written.
    pub rows: i64,
    /// Rows that are in the export already and would be claimed by their lines.
    pub claimed: i64,
    /// Rows that the retraction ledger would take out of the effective set.
    #[serde(default)]
    pub retracted: i64,
    /// Rows that it would bring back.
    #[serde(default)]
    pub restored: i64,
    /// Scored lines read.
    pub lines: i64,
    /// Scored lines by verdict, one JSON key each; below 0 if fewer lines have the verdict afterwards.
    #[serde(flatten)]
    pub verdicts: PerVerdict<i64>,
    /// Rows whose evidence was replaced later.
    pub superseded: i64,
    /// Rows that a later line of the same run overrules.
    pub contradicted: i64,
    /// Evidence lines read.
    pub evidence_lines: i64,
    /// Malformed evidence lines.
    pub evidence_malformed: i64,
}

impl Delta {
    /// Returns the change from one account to another, without rows, claims and events of the ledger.
    #[must_use]
    pub fn between(before: &LineTotals, after: &LineTotals) -> Self {
        let step = |before: u64, after: u64| after as i64 - before as i64;
        let (old, new) = (before.by_verdict(), after.by_verdict());
        Self {
            rows: 0,
            claimed: 0,
            retracted: 0,
            restored: 0,
            lines: step(before.scored_lines, after.scored_lines),
            verdicts: PerVerdict::from_fn(|kind| step(old[kind], new[kind])),
            superseded: step(before.counts.superseded, after.counts.superseded),
            contradicted: step(before.counts.contradicted, after.counts.contradicted),
            evidence_lines: step(before.evidence_lines, after.evidence_lines),
            evidence_malformed: step(before.evidence_malformed, after.evidence_malformed),
        }
    }

    /// Adds the changes of another account.
    pub(super) fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.claimed += other.claimed;
        self.retracted += other.retracted;
        self.restored += other.restored;
        self.lines += other.lines;
        self.verdicts += other.verdicts;
        self.superseded += other.superseded;
        self.contradicted += other.contradicted;
        self.evidence_lines += other.evidence_lines;
        self.evidence_malformed += other.evidence_malformed;
    }

    /// Returns each figure with its name, in the order in which a table prints them.
    #[must_use]
    pub fn changes(&self) -> Vec<(String, i64)> {
        let first = [
            ("rows", self.rows),
            ("claimed", self.claimed),
            ("retracted", self.retracted),
            ("restored", self.restored),
            ("lines", self.lines),
        ];
        let last = [
            ("superseded", self.superseded),
            ("contradicted", self.contradicted),
            ("evidence lines", self.evidence_lines),
            ("evidence malformed", self.evidence_malformed),
        ];
        let named = |(name, change): (&str, i64)| (name.to_owned(), change);
        let verdicts = self
            .verdicts
            .iter()
            .map(|(kind, change)| (kind.title(), change));
        (first.map(named).into_iter())
            .chain(verdicts)
            .chain(last.map(named))
            .collect()
    }
}
