//! The join of a pair of day-files: processes its new lines (parse, firewall, join, synthesize) and remembers their
//! verdicts. Pure: no file of this folder does I/O, reads a clock or starts a thread. [`advance`] reads earlier lines
//! and rows through [`StateLookup`] and [`LineLookup`], and returns all effects as one [`JoinOutcome`].
//!
//! A scored line that the firewall admits waits for its evidence, is refused for the role or blank text of its
//! evidence, or is exported. A line that is not exported is rejoined whenever evidence with its run id arrives,
//! because the last evidence with an id counts and a batch over the same bytes would use it.

pub mod accounting;
pub mod checkpoint;
mod claims;
mod evidence_chunk;
pub mod freshness;
pub mod history;
pub mod index;
mod join;
mod line;
pub mod orders;
pub mod overrule;
mod per_verdict;
mod rejoin;
mod totals;
pub mod verdict;

use std::collections::{BTreeMap, HashSet};

use crate::lake::chunk::Chunk;
use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::index::{
    DeadLetter, EvidenceLine, EvidenceLocation, PairId, ScoredLine, UnclaimedRow,
};
use crate::pair::join::Joiner;
pub(crate) use crate::pair::join::ROWS_BYTES_MAX;
pub(crate) use crate::pair::line::day_file_name;
use crate::pair::orders::Orders;
use crate::pair::overrule::{RowChange, RowOwner};
use crate::pair::verdict::{Verdict, VerdictKind};
use crate::record::kept_stamps::KeptStamps;
use crate::record::keys::{RowKey, RunKey};

/// Lookups in the state's part of a pair, which does not include the pair's [`Overlay`].
pub trait StateLookup<E> {
    /// Returns the location of the evidence for a run.
    ///
    /// # Errors
    /// The state cannot be read.
    fn evidence(&self, run: RunKey) -> Result<Option<EvidenceLocation>, E>;
    /// Returns the scored lines of a run, in order of offset.
    ///
    /// # Errors
    /// The state cannot be read.
    fn entries(&self, run: RunKey) -> Result<Vec<ScoredLine>, E>;
    /// Returns the rows with this key that were unclaimed before this step, those of all pairs, in order.
    ///
    /// # Errors
    /// The state cannot be read.
    fn claimable(&self, row: RowKey) -> Result<Vec<UnclaimedRow>, E>;
}

/// Reads lines of the pair, and rows, at known locations. `None`: the file is gone or was truncated.
pub trait LineLookup<E> {
    /// Reads a line of the scored day-file.
    ///
    /// # Errors
    /// The file cannot be read.
    fn scored(&self, offset: u64, len_bytes: u32) -> Result<Option<Vec<u8>>, E>;
    /// Reads a line of the evidence day-file.
    ///
    /// # Errors
    /// The file cannot be read.
    fn evidence(&self, place: EvidenceLocation) -> Result<Option<Vec<u8>>, E>;
    /// Reads the row at an offset of the export, without its newline; `None` if it cannot be read or is longer than
    /// `len_max`. A row of at most `len_likely` bytes costs one read.
    ///
    /// # Errors
    /// Never for a fault of the export: a row is only compared.
    fn row(&self, offset: u64, len_likely: usize, len_max: usize) -> Result<Option<Vec<u8>>, E>;
}

/// The changes to a pair since the state's last checkpoint. They take precedence over the state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlay {
    /// New evidence records.
    pub evidence: BTreeMap<RunKey, EvidenceLocation>,
    /// Scored lines that are new or whose verdict changed, by run and offset.
    pub entries: BTreeMap<(RunKey, u64), ScoredLine>,
    /// New dead letters; those of one source are in order of their offsets.
    pub dead_letters: Vec<DeadLetter>,
    /// Rows that lines have claimed.
    pub claimed_rows: Vec<UnclaimedRow>,
}

impl Overlay {
    /// Returns the number of changes, which is what the next checkpoint has to write.
    #[must_use]
    pub fn len(&self) -> usize {
        self.evidence.len() + self.entries.len() + self.dead_letters.len() + self.claimed_rows.len()
    }

    /// Returns the new evidence records, ordered by run.
    pub fn evidence_entries(&self) -> impl Iterator<Item = EvidenceLine> {
        self.evidence.iter().map(|(run, place)| EvidenceLine {
            run: *run,
            place: *place,
        })
    }

    /// Adds newer changes, which replace existing ones with the same key.
    pub fn extend(&mut self, newer: Overlay) {
        if self.is_empty() {
            *self = newer;
            return;
        }
        self.evidence.extend(newer.evidence);
        self.entries.extend(newer.entries);
        self.add_dead_letters(newer.dead_letters);
        self.claimed_rows.extend(newer.claimed_rows);
    }

    /// Adds newer dead letters. A source is read forward: one that is known at the place of a newer one or after it is of
    /// an earlier reading of the source, which is being read again.
    fn add_dead_letters(&mut self, newer: Vec<DeadLetter>) {
        for in_evidence in [false, true] {
            let is_of_source = |letter: &&DeadLetter| letter.in_evidence == in_evidence;
            let Some(first) = newer.iter().find(is_of_source) else {
                continue;
            };
            let last = self.dead_letters.iter().rfind(is_of_source);
            if last.is_some_and(|last| last.offset >= first.offset) {
                self.dead_letters.retain(|letter| {
                    letter.in_evidence != in_evidence || letter.offset < first.offset
                });
            }
        }
        self.dead_letters.extend(newer);
    }

    /// Returns whether there are no changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A pair in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivePair {
    /// Its number in the state.
    pub id: PairId,
    /// Its read positions and counts.
    pub checkpoint: PairCheckpoint,
    /// Its changes since the state's last checkpoint.
    pub overlay: Overlay,
    /// True if the state holds anything of it; if not, no lookup in the state is made.
    pub persisted: bool,
}

/// The input of a step other than the new lines.
pub struct JoinContext<'a, E> {
    /// Lookups in the state.
    pub index: &'a dyn StateLookup<E>,
    /// Reads earlier lines and rows.
    pub bodies: &'a dyn LineLookup<E>,
    /// True if there are unclaimed rows.
    pub claims_possible: bool,
    /// The standing orders of operators.
    pub orders: &'a Orders,
    /// Offsets of scored lines that earn no row because later lines of their runs overrule them: a rebuild leaves such
    /// rows out.
    pub left_out: &'a HashSet<u64>,
    /// Maximum length of a line, bytes. A longer line becomes a dead letter.
    pub line_bytes_max: u64,
    /// Timestamp of new rows, RFC 3339 UTC with milliseconds.
    pub stamp: &'a str,
    /// Timestamps of rows that were there before, which they keep.
    pub kept_stamps: &'a KeptStamps,
    /// Start time of runs that begin to wait, seconds since 1970.
    pub now_s: u64,
}

/// The effects of new lines of one pair, none of them applied yet.
#[derive(Debug, Default)]
pub struct JoinOutcome {
    /// The checkpoint after the lines.
    pub checkpoint: PairCheckpoint,
    /// The changes to the state. Row offsets of `new_rows` count from the start of `rows`.
    pub overlay: Overlay,
    /// New rows, each with its newline.
    pub rows: Vec<u8>,
    /// The run and offset of the scored line of each new row, sorted.
    pub new_rows: Vec<(RunKey, u64)>,
    /// Number of existing rows for which evidence that differs arrived.
    pub superseded: u64,
    /// The digests of the new rows, where a rebuild compares them with those of another export.
    pub row_digests: Vec<u64>,
    /// Rows that lines overrule, and rows that are superseded, in the order in which that was found.
    pub row_changes: Vec<RowChange>,
}

impl JoinOutcome {
    /// Makes the offsets of new rows count from the start of the export instead of `rows`.
    pub fn place_rows(&mut self, rows_offset: u64) {
        let mut new_rows = self.new_rows.iter().peekable();
        for (key, line) in &mut self.overlay.entries {
            if new_rows.next_if_eq(&key).is_some()
                && let Verdict::Exported { row_offset, .. } = &mut line.verdict
            {
                *row_offset += rows_offset;
            }
        }
        for change in &mut self.row_changes {
            if let RowOwner::Line(run, offset) = change.owner
                && let Some(line) = self.overlay.entries.get(&(run, offset))
                && let Verdict::Exported { row_offset, .. } = line.verdict
            {
                change.row_offset = row_offset;
            }
        }
    }
}

/// Processes new lines of a pair: evidence first, so that a run never waits for evidence that arrives with it. Appends
/// the rows to `buffer`, which must be empty.
///
/// # Errors
/// A lookup failed; then there are no effects.
pub fn advance<E>(
    pair: &ActivePair,
    evidence: &Chunk,
    scored: &Chunk,
    context: &JoinContext<'_, E>,
    buffer: Vec<u8>,
) -> Result<JoinOutcome, E> {
    let mut joiner = Joiner::new(pair, context, buffer);
    let new_evidence = joiner.ingest_evidence(evidence);
    let all_rejoined = joiner.out.checkpoint.scored.records == 0 || joiner.rejoin(&new_evidence)?;
    if all_rejoined {
        joiner.ingest_scored(scored, &new_evidence)?;
    } else {
        joiner.defer_evidence();
    }
    if joiner.out.checkpoint.counts[VerdictKind::Waiting] == 0 {
        joiner.out.checkpoint.waiting_since_s = 0;
    }
    joiner.out.new_rows.sort_unstable();
    Ok(joiner.out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(letters: &[(bool, u64, &str)]) -> Overlay {
        let letters = letters
            .iter()
            .map(|(in_evidence, offset, reason)| DeadLetter {
                in_evidence: *in_evidence,
                offset: *offset,
                len_bytes: 1,
                reason: (*reason).to_owned(),
            });
        Overlay {
            dead_letters: letters.collect(),
            ..Overlay::default()
        }
    }

    #[test]
    fn dead_letters_of_a_source_that_is_read_again_replace_the_earlier_ones() {
        let mut known = overlay(&[(true, 0, "a"), (true, 7, "a"), (false, 3, "a")]);
        known.extend(overlay(&[(true, 9, "a"), (false, 5, "a")]));
        assert_eq!(known.dead_letters.len(), 5);
        known.extend(overlay(&[(true, 0, "b")]));
        known.extend(overlay(&[(true, 7, "b")]));
        let expected = [
            (false, 3, "a"),
            (false, 5, "a"),
            (true, 0, "b"),
            (true, 7, "b"),
        ];
        assert_eq!(known, overlay(&expected));
    }
}
