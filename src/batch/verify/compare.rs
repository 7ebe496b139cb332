//! The rows and lines of one key, and those that have no equal on the other side. Pure.

use std::collections::HashSet;
use std::sync::Arc;

use crate::batch::line_reader::LineSpan;
use crate::batch::verify::fact::RowFact;
use crate::batch::verify::few::Few;
use crate::lake::path::PairPath;
use crate::pair::verdict::VerdictKind;

/// Minimum number of facts of a key after which equal rows are merged.
const MERGE_MIN: usize = 64;

/// Maximum number of runs of refused lines that are distinguished in a pair.
const REFUSED_RUNS_MAX: usize = 64;

/// A scored line of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LineFact {
    pub pair: Arc<PairPath>,
    pub span: LineSpan,
    pub index: u64,
    pub verdict: VerdictKind,
    /// Whether the export may lack its row.
    pub is_dispensable: bool,
}

/// The number of scored lines of a key in one pair.
#[derive(Debug, Clone)]
pub(super) struct PairLines {
    pub first: LineFact,
    pub exported: u64,
    /// Numbers of consecutive lines without a row, and whether the firewall refused them. From [`REFUSED_RUNS_MAX`] on,
    /// they are added to the last runs of their kind.
    pub refused: Vec<(bool, u64)>,
}

impl PairLines {
    /// Returns the number of lines.
    pub(super) fn count(&self) -> u64 {
        self.exported + self.refused.iter().map(|(_, count)| count).sum::<u64>()
    }

    fn add(&mut self, verdict: VerdictKind) {
        if verdict == VerdictKind::Exported {
            self.exported += 1;
            return;
        }
        let is_firewalled = verdict == VerdictKind::Firewalled;
        let runs = &mut self.refused;
        let known = match runs.len() < REFUSED_RUNS_MAX {
            true => runs.last_mut().filter(|run| run.0 == is_firewalled),
            false => runs.iter_mut().rfind(|run| run.0 == is_firewalled),
        };
        match known {
            Some((_, count)) => *count += 1,
            None => runs.push((is_firewalled, 1)),
        }
    }
}

/// The rows and lines of one key in one slice.
#[derive(Debug, Default)]
pub(super) struct KeyRows {
    /// The rows of the slice.
    pub rows: Few<RowFact>,
    /// Number of rows, those of other slices included.
    pub rows_total: u64,
    merge_at: usize,
    /// The lines whose rows belong into the slice, with the digests of these.
    pub lines: Few<(u128, LineFact)>,
    /// All lines, those of other slices included.
    pub pairs: Few<PairLines>,
    /// Whether no other slice has rows of the key; known once lines are dispensable.
    is_whole: bool,
}

/// An unmatched part of a [`RowFact`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnmatchedRow {
    /// Index in [`KeyRows::rows`].
    pub at: usize,
    /// Number of unmatched rows; the others have lines.
    pub count: u64,
    /// Offset of one of them, the first if none has a line.
    pub offset: u64,
}

/// The rows and lines of a key that have no equal on the other side.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Unmatched {
    /// Indices in [`KeyRows::lines`].
    pub lines: Vec<usize>,
    pub rows: Vec<UnmatchedRow>,
}

impl Unmatched {
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.rows.is_empty()
    }
}

/// A number that differs for different sets of unmatched rows and lines, to detect changes between two reads.
pub(super) type Signature = [(u64, u128); 2];

impl KeyRows {
    /// Adds a row of the slice. Equal rows are merged from time to time, so that repeated rows take no memory.
    pub(super) fn push_row(&mut self, row: RowFact) {
        self.rows.push(row);
        if self.rows.len() >= self.merge_at.max(MERGE_MIN) {
            let rows = self.rows.as_vec();
            rows.sort_unstable_by_key(|row| (row.digest, row.offset));
            rows.dedup_by(|row, first| {
                let is_equal = row.digest == first.digest;
                if is_equal {
                    first.merge(row);
                }
                is_equal
            });
            self.merge_at = rows.len() * 2;
        }
    }

    /// Adds a line. `digest`: that of its row, if it has one and that is in the slice.
    pub(super) fn push_line(&mut self, line: LineFact, digest: Option<u128>) {
        let is_new = (self.pairs.last()).is_none_or(|last| last.first.pair != line.pair);
        if is_new {
            let first = PairLines {
                first: line.clone(),
                exported: 0,
                refused: Vec::new(),
            };
            self.pairs.push(first);
        }
        if let Some(pair) = self.pairs.last_mut() {
            pair.add(line.verdict);
        }
        if let Some(digest) = digest {
            self.lines.push((digest, line));
        }
    }

    /// Marks those of the lines that were added last, which are of this pair, whose rows the export may lack.
    pub(super) fn mark_dispensable(
        &mut self,
        pair: &Arc<PairPath>,
        lines: &HashSet<u64>,
        is_whole: bool,
    ) {
        self.is_whole = is_whole;
        let last = self.lines.iter_mut().rev();
        for (_, line) in last.take_while(|(_, line)| line.pair == *pair) {
            line.is_dispensable = lines.contains(&line.span.offset);
        }
    }

    /// Removes the lines of pairs that are read again.
    pub(super) fn forget(&mut self, is_stale: impl Fn(&Arc<PairPath>) -> bool) {
        let lines = self.lines.as_vec();
        lines.retain(|(_, line)| !is_stale(&line.pair));
        let pairs = self.pairs.as_vec();
        pairs.retain(|pair| !is_stale(&pair.first.pair));
    }

    /// Returns whether a row or a line has no equal on the other side.
    pub(super) fn differs(&self) -> bool {
        match (&*self.rows, &*self.lines) {
            ([row], [(digest, _)]) => row.count > 1 || row.digest != *digest,
            _ => !self.unmatched().is_empty(),
        }
    }

    /// Matches rows and lines with equal digests, one to one, and returns the rest. Dispensable lines are left only where a row may
    /// be in the place of theirs.
    pub(super) fn unmatched(&self) -> Unmatched {
        let mut lines: Vec<usize> = (0..self.lines.len()).collect();
        lines.sort_unstable_by_key(|at| {
            let (digest, line) = &self.lines[*at];
            (*digest, line.is_dispensable, *at)
        });
        let mut rows: Vec<usize> = (0..self.rows.len()).collect();
        rows.sort_unstable_by_key(|at| (self.rows[*at].digest, self.rows[*at].offset));
        let mut lines = lines.into_iter().peekable();
        let mut left = Unmatched::default();
        for at in rows {
            let row = &self.rows[at];
            while let Some(line) = lines.next_if(|line| self.lines[*line].0 < row.digest) {
                left.lines.push(line);
            }
            let mut count = row.count;
            while count > 0 && (lines.next_if(|line| self.lines[*line].0 == row.digest)).is_some() {
                count -= 1;
            }
            let offset = match count == row.count {
                true => row.offset,
                false => row.last_offset,
            };
            if count > 0 {
                left.rows.push(UnmatchedRow { at, count, offset });
            }
        }
        left.lines.extend(lines);
        if left.rows.is_empty() && self.is_whole {
            left.lines.retain(|at| !self.lines[*at].1.is_dispensable);
        }
        // By position again, so that the first difference is reported first.
        left.lines.sort_unstable();
        left.rows.sort_unstable_by_key(|row| row.offset);
        left
    }

    /// Returns for each unmatched row whether no other row of the key has its index.
    pub(super) fn lone_indices(&self, left: &Unmatched) -> Vec<bool> {
        let mut indices: Vec<(Option<u64>, u64)> = (self.rows.iter())
            .map(|row| (row.index, row.count))
            .collect();
        indices.sort_unstable();
        let is_lone = |row: &UnmatchedRow| {
            let index = self.rows[row.at].index;
            let from = indices.partition_point(|(other, _)| *other < index);
            let same = (indices[from..].iter()).take_while(|(other, _)| *other == index);
            index.is_some() && same.take(2).map(|(_, count)| count).sum::<u64>() == 1
        };
        left.rows.iter().map(is_lone).collect()
    }

    /// Returns the signature of what is unmatched.
    pub(super) fn signature(&self, left: &Unmatched) -> Signature {
        let mut signature = Signature::default();
        let mut add = |side: usize, count: u64, digest: u128| {
            let (counts, digests) = &mut signature[side];
            *counts += count;
            *digests = digests.wrapping_add(digest.wrapping_mul(u128::from(count)));
        };
        left.lines
            .iter()
            .for_each(|at| add(0, 1, self.lines[*at].0));
        (left.rows.iter()).for_each(|row| add(1, row.count, self.rows[row.at].digest));
        signature
    }
}
