//! The ownership of rows that already exist in the export.
//!
//! # The life of a row
//!
//! | state | meaning | entered by |
//! |---|---|---|
//! | unclaimed | the row is in the export and no scored line owns it | an export adopted without a state, or a day-file that is read again from its start |
//! | claimed | a scored line owns the row; no second row is written for it | an admitted line with the row's [`RowKey`], or the line the row was written for |
//! | superseded | claimed, and evidence that differs arrived after the row was written | new evidence, or a claim whose row differs from what its line gives today |
//! | contradicted | a later line overrules the row: its category is refused, or it has a row of its own | a later line with the same run, or with the same key for an unclaimed row (see `pair::overrule`) |
//! | released | unclaimed again: its day-file was replaced, moved or rewritten | a reset of the pair, outside this module |
//!
//! Lines of several days may have one row key. A released row is for the lines of its own pair, or of the pair to which
//! its day-file was moved. Lines of other pairs, where its line may be by now, claim only a row that they would give
//! themselves: with any other one their own row would be lost, and the row's own line would write it again.
//!
//! A row never leaves the export. Superseded and contradicted are marks, of which a row may have both.
//!
//! # The sets
//!
//! - [`StateLookup::claimable`](crate::pair::StateLookup::claimable): the unclaimed and released rows that the state
//!   holds, less those claimed since its last checkpoint.
//! - [`Overlay::claimed_rows`](crate::pair::Overlay::claimed_rows): the rows claimed since that checkpoint. The next
//!   checkpoint removes them from the state's unclaimed rows.
//! - `Joiner::claimed`: the rows claimed in this step, which the lookup does not exclude yet.
//! - `Joiner::current_rows`: per run with a row or a refusal in this step, the line exported since the last one that
//!   overrules. A further one marks only this one as contradicted, because the earlier ones are marked.
//! - `Joiner::refused_keys`: per run, the row keys of its refused lines. An unclaimed row of the pair with such a key
//!   counts as contradicted once, however many lines refuse it, and no longer when a line claims it.

use crate::pair::evidence_chunk::NewEvidence;
use crate::pair::index::{ClaimRight, ScoredLine, UnclaimedRow};
use crate::pair::join::{Joiner, LONG_TEXT_LEN};
use crate::pair::overrule::{RowChange, RowOwner};
use crate::pair::verdict::Verdict;
use crate::record::firewall::AdmittedRun;
use crate::record::json::escape::Dialect;
use crate::record::keys::{RowKey, RunKey};
use crate::record::ledger::Cause;
use crate::record::row::{same_row, same_sample};

/// Maximum length, bytes, of a row that is compared with the row of its line: a comparison needs the memory twice.
const COMPARED_LEN_MAX: usize = 2 * LONG_TEXT_LEN;
/// Maximum rows of one key that a line is compared with, so that many rows of one key cost no time without bound.
const COMPARED_ROWS_MAX: usize = 64;

impl<E> Joiner<'_, E> {
    /// Returns the unclaimed rows with this key and the right of the pair's lines to each, in order.
    pub(super) fn claimable(&self, row: RowKey) -> Result<Vec<(ClaimRight, UnclaimedRow)>, E> {
        let claims = self.context.index.claimable(row)?;
        let with_right = |claim: UnclaimedRow| (claim.right_of(self.pair.id), claim);
        let claims = claims.into_iter().map(with_right);
        Ok(claims
            .filter(|(_, claim)| !self.claimed.contains(claim))
            .collect())
    }

    /// Returns the row that the line of a run claims, and whether it is superseded; `None` where it has to write its own,
    /// which is at `row_from` of the new rows.
    pub(super) fn find_claim(
        &mut self,
        admitted: &AdmittedRun<'_, '_>,
        index: u32,
        evidence: &NewEvidence<'_>,
        row_from: usize,
    ) -> Result<Option<(UnclaimedRow, bool)>, E> {
        if !self.context.claims_possible {
            return Ok(None);
        }
        let key = RowKey::from_scored(&self.day_file_name, admitted.run());
        let claims = self.claimable(key)?;
        let of = |wanted: ClaimRight| {
            let of_right = claims.iter().filter(move |(right, _)| *right == wanted);
            of_right.map(|(_, claim)| *claim)
        };
        if let Some(claim) = of(ClaimRight::Own).next() {
            let superseded = self.is_superseded(claim, admitted, index, evidence, row_from)?;
            return Ok(Some((claim, superseded)));
        }
        let unknown = of(ClaimRight::Unknown).next();
        // A single row of unknown origin is claimed in any case.
        if unknown.is_none() || claims.len() > 1 {
            let candidates = of(ClaimRight::Unknown).take(COMPARED_ROWS_MAX);
            for claim in candidates.chain(of(ClaimRight::IfEqual).take(COMPARED_ROWS_MAX)) {
                if self.is_row_of(claim, admitted, index, evidence, row_from)? {
                    return Ok(Some((claim, false)));
                }
            }
        }
        let Some(claim) = unknown else {
            return Ok(None);
        };
        let superseded = self.is_superseded(claim, admitted, index, evidence, row_from)?;
        Ok(Some((claim, superseded)))
    }

    /// Returns whether an unclaimed row is the one that a line gives today, at `row_from` of the new rows, in either dialect.
    /// A row that cannot be read is not.
    fn is_row_of(
        &mut self,
        claim: UnclaimedRow,
        admitted: &AdmittedRun<'_, '_>,
        index: u32,
        evidence: &NewEvidence<'_>,
        row_from: usize,
    ) -> Result<bool, E> {
        let row_to = self.out.rows.len();
        let len_likely = row_to - row_from;
        let len_max = COMPARED_LEN_MAX.max(len_likely);
        let bodies = self.context.bodies;
        let Some(existing) = bodies.row(claim.row_offset, len_likely, len_max)? else {
            return Ok(false);
        };
        if same_row(&existing, &self.out.rows[row_from..]) {
            return Ok(true);
        }
        if evidence.evidence.text.raw_len() >= LONG_TEXT_LEN {
            return Ok(false);
        }
        let made = self.make_row(admitted, index, evidence, Dialect::Go);
        let is_same = made.is_ok() && same_row(&existing, &self.out.rows[row_to..]);
        self.out.rows.truncate(row_to);
        Ok(is_same)
    }

    /// Returns whether a row being claimed differs from the row that its line gives today, at `row_from` of the new rows:
    /// then its evidence changed after the row was written. A row that cannot be read is assumed to be equal, so that
    /// later evidence that differs is counted.
    fn is_superseded(
        &mut self,
        claim: UnclaimedRow,
        admitted: &AdmittedRun<'_, '_>,
        index: u32,
        evidence: &NewEvidence<'_>,
        row_from: usize,
    ) -> Result<bool, E> {
        if evidence.evidence.text.raw_len() >= LONG_TEXT_LEN {
            return Ok(false);
        }
        let bodies = self.context.bodies;
        // The index in its id may have more digits.
        let len_likely = self.out.rows.len() - row_from + 20;
        let Some(existing) = bodies.row(claim.row_offset, len_likely, COMPARED_LEN_MAX)? else {
            return Ok(false);
        };
        if same_sample(&existing, &self.out.rows[row_from..]) {
            return Ok(false);
        }
        // The Go exporter ignores some fields; rows that differ in these alone are not superseded.
        self.out.rows.truncate(row_from);
        let made = self.make_row(admitted, index, evidence, Dialect::Go);
        Ok(made.is_ok() && !same_sample(&existing, &self.out.rows[row_from..]))
    }

    /// Records the claim of a run's line on a row.
    pub(super) fn take_claim(
        &mut self,
        claim: UnclaimedRow,
        run: RunKey,
        superseded: bool,
    ) -> Result<(), E> {
        self.out.overlay.claimed_rows.push(claim);
        self.claimed.insert(claim);
        let counts = &mut self.out.checkpoint.counts;
        counts.superseded += u64::from(superseded);
        // The row was counted as contradicted while it was unclaimed and a line with its key was refused; a row that may be
        // of another pair was not.
        let was_counted = claim.right_of(self.pair.id) == ClaimRight::Own;
        if was_counted && self.refused_keys(run)?.contains(&claim.row) {
            let counts = &mut self.out.checkpoint.counts;
            counts.contradicted = counts.contradicted.saturating_sub(1);
        }
        Ok(())
    }

    /// Marks the row of a scored line as superseded.
    pub(super) fn supersede(&mut self, entry: ScoredLine) -> Result<(), E> {
        let latest = self.out.overlay.entries.get(&(entry.run, entry.offset));
        let mut entry = latest.copied().unwrap_or(entry);
        if let Verdict::Exported { superseded, .. } = &mut entry.verdict {
            *superseded = true;
            self.put(entry);
            self.out.checkpoint.counts.superseded += 1;
            self.out.superseded += 1;
            self.note_superseded((entry.run, entry.offset))?;
        }
        Ok(())
    }

    /// Records for the ledger that the evidence of a line was replaced after its row was written.
    pub(super) fn note_superseded(&mut self, line: (RunKey, u64)) -> Result<(), E> {
        let evidence = self.find_evidence(line.0)?;
        self.out.row_changes.push(RowChange {
            row_offset: 0,
            owner: RowOwner::Line(line.0, line.1),
            cause: Cause::Superseded,
            line_offset: evidence.map_or(0, |evidence| evidence.offset),
        });
        Ok(())
    }
}
