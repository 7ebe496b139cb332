//! Adds the findings of keys to the result: counts by kind and by day, and the worst failure with its description.

use std::sync::Arc;

use crate::batch::verify::days::Place;
use crate::batch::verify::error::VerifyError;
use crate::batch::verify::ledger::Ledger;
use crate::batch::verify::tally::{Explanation, Finding, Kind, Tally, excuse_orphaned};
use crate::batch::verify::{DUPLICATED_KEYS_MAX, FirstFailure, Verification};
use crate::lake::path::PairPath;

impl Verification<'_> {
    /// Adds the findings of a key. A key with duplicates waits until it is known which of its rows belong to deleted
    /// day-files, for many keys at once.
    pub(super) fn add_findings(&mut self, key: Tally) -> Result<(), VerifyError> {
        let findings = key.findings();
        if findings
            .iter()
            .all(|finding| finding.kind != Kind::Duplicate)
        {
            return self.add_all(&key, &findings);
        }
        self.duplicated.push(key);
        if self.duplicated.len() < DUPLICATED_KEYS_MAX {
            return Ok(());
        }
        self.add_duplicated()
    }

    /// Adds the findings of the keys with duplicates. Of each key as many duplicates are orphaned as it has rows of
    /// deleted day-files: which of several equal rows has lost its line is not known. So are rows of removed lines that are
    /// out of the effective set.
    pub(super) fn add_duplicated(&mut self) -> Result<(), VerifyError> {
        let keys = std::mem::take(&mut self.duplicated);
        let offsets: Vec<u64> = keys.iter().flat_map(|key| &key.offsets).copied().collect();
        if offsets.is_empty() {
            return Ok(());
        }
        let deleted = (self.known.deleted)(&offsets);
        let ledger = match keys.iter().any(|key| !key.lone.is_empty()) {
            true => self.current_ledger()?,
            false => Ledger::default(),
        };
        keys.iter().try_for_each(|key| {
            let orphaned = key.offsets.iter().filter(|offset| deleted.contains(offset));
            let removed = key.lone.iter().filter(|offset| !deleted.contains(offset));
            let removed = removed.filter(|offset| ledger.is_out(**offset));
            let orphaned = orphaned.count() + removed.count();
            let findings = excuse_orphaned(key.findings(), orphaned as u64);
            self.add_all(key, &findings)
        })
    }

    fn add_all(&mut self, key: &Tally, findings: &[Finding]) -> Result<(), VerifyError> {
        findings
            .iter()
            .try_for_each(|finding| self.add_finding(key, finding))
    }

    fn add_finding(&mut self, key: &Tally, finding: &Finding) -> Result<(), VerifyError> {
        let line = finding.line.as_ref();
        let pair = line.or(key.pairs.first().map(|pair| &pair.first));
        let pair = pair.map(|line| &*line.pair);
        if !finding.kind.is_failure() {
            if finding.explanation == Some(Explanation::Undetermined) {
                self.result.undetermined += finding.count;
                if self.first_undetermined.is_none() {
                    self.first_undetermined = Some(self.describe(key, finding)?);
                }
            }
            self.result.count(finding.kind, finding.count);
            self.days.count(pair, finding.kind, finding.count);
            return Ok(());
        }
        let place = match (finding.row, line) {
            (Some(row), _) => (None, row.offset),
            (None, Some(line)) => (Some(Arc::clone(&line.pair)), line.span.offset),
            (None, None) => (None, 0),
        };
        if self.count_failures(finding.kind, finding.count, pair, &place) {
            let description = self.describe(key, finding)?;
            self.keep(finding.kind, pair, place, description);
        }
        Ok(())
    }

    /// Counts failures and returns whether they need a description: the worst so far, or the first of their day.
    fn count_failures(
        &mut self,
        kind: Kind,
        count: u64,
        pair: Option<&PairPath>,
        place: &Place,
    ) -> bool {
        self.result.count(kind, count);
        self.days.count(pair, kind, count);
        self.is_worst(kind, place) || self.days.is_first(pair, kind, place)
    }

    fn keep(&mut self, kind: Kind, pair: Option<&PairPath>, place: Place, description: String) {
        if self.days.is_first(pair, kind, &place) {
            self.days
                .keep(pair, kind, place.clone(), description.clone());
        }
        if self.is_worst(kind, &place) {
            self.worst = Some(FirstFailure {
                kind,
                place,
                description,
            });
        }
    }

    /// Adds a failure of an export line that has no key.
    pub(super) fn fail_at(&mut self, kind: Kind, offset: u64, describe: impl FnOnce() -> String) {
        let place = (None, offset);
        if self.count_failures(kind, 1, None, &place) {
            self.keep(kind, None, place, describe());
        }
    }

    fn is_worst(&self, kind: Kind, place: &Place) -> bool {
        let worst = self.worst.as_ref();
        worst.is_none_or(|worst| (kind, place) < (worst.kind, &worst.place))
    }
}
