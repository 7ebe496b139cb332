//! Compares the rows of one key with its lines and classifies those that do not match. Pure: explanations from the
//! sources are passed in.

use std::sync::Arc;

use crate::batch::line_reader::LineSpan;
use crate::batch::verify::rows::RowFact;
use crate::lake::path::PairPath;
use crate::pair::verdict::VerdictKind;

/// A scored line of a key.
#[derive(Debug, Clone)]
pub(super) struct LineFact {
    pub pair: Arc<PairPath>,
    pub span: LineSpan,
    pub index: u64,
    /// Digest of its row; `None` if the line is refused.
    pub digest: Option<u128>,
    /// Its verdict.
    pub verdict: VerdictKind,
}

/// The rows and lines of one key.
#[derive(Debug, Default)]
pub(super) struct KeyRows {
    pub rows: Vec<RowFact>,
    pub lines: Vec<LineFact>,
}

/// The rows and lines of a key that have no equal on the other side, as indices into [`KeyRows`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Unmatched {
    pub lines: Vec<usize>,
    pub rows: Vec<usize>,
}

impl Unmatched {
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.rows.is_empty()
    }
}

impl KeyRows {
    /// Matches rows and lines with equal digests, one to one, and returns the rest.
    pub(super) fn unmatched(&self) -> Unmatched {
        let exported = (0..self.lines.len()).filter_map(|at| Some((self.lines[at].digest?, at)));
        let mut lines: Vec<_> = exported.collect();
        let mut rows: Vec<_> = (0..self.rows.len())
            .map(|at| (self.rows[at].digest, at))
            .collect();
        lines.sort_unstable();
        rows.sort_unstable();
        let mut left = Unmatched::default();
        let (mut line, mut row) = (0, 0);
        while line < lines.len() || row < rows.len() {
            let order = match (lines.get(line), rows.get(row)) {
                (Some(expected), Some(existing)) => expected.0.cmp(&existing.0),
                (Some(_), None) => std::cmp::Ordering::Less,
                _ => std::cmp::Ordering::Greater,
            };
            match order {
                std::cmp::Ordering::Less => left.lines.push(lines[line].1),
                std::cmp::Ordering::Greater => left.rows.push(rows[row].1),
                std::cmp::Ordering::Equal => {}
            }
            line += usize::from(order.is_le());
            row += usize::from(order.is_ge());
        }
        // By position again, so that the first difference is reported first.
        left.lines.sort_unstable();
        left.rows.sort_unstable();
        left
    }

    /// Returns the cause of a surplus row, if its index shows one: an index that no other row has belonged to a line
    /// of its own.
    pub(super) fn surplus_cause(&self, at: usize) -> &'static str {
        let index = self.rows[at].index;
        let same = self.rows.iter().filter(|row| row.index == index).count();
        if index.is_some() && same == 1 {
            "; no other of these rows has its index, so its own line was removed, or lost in a power cut"
        } else {
            ""
        }
    }

    /// Returns the sorted digests of what is unmatched, to detect changes between two reads.
    pub(super) fn signature(&self, left: &Unmatched) -> Vec<u128> {
        let mut digests: Vec<u128> = left
            .lines
            .iter()
            .filter_map(|at| self.lines[*at].digest)
            .collect();
        digests.sort_unstable();
        let mut rows: Vec<u128> = left.rows.iter().map(|at| self.rows[*at].digest).collect();
        rows.sort_unstable();
        digests.push(u128::MAX);
        digests.extend(rows);
        digests
    }
}

/// The explanation that the sources give for an unmatched row, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Explanation {
    /// The sources are unchanged since the row was written and cannot make it.
    Impossible,
    /// The sources changed after the row was written, so its origin cannot be determined.
    SourceChange,
    /// The present sources make the row in the dialect of the previous exporter.
    OtherDialect,
    /// Evidence in the file makes the row, but is no longer the last of its run.
    Proven,
}

/// The kind of an unmatched row or line, the worst failure first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Forbidden,
    Unreadable,
    Missing,
    Duplicate,
    Altered,
    Unexpected,
    Superseded,
    SourceChange,
    OtherDialect,
    Contradicted,
    RefusedNow,
    Orphaned,
    Pending,
}

impl Kind {
    /// Returns whether the kind is a failure.
    pub(super) fn is_failure(self) -> bool {
        self <= Kind::Unexpected
    }
}

/// An unmatched row or line, or a row in the place of a line's, with its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Finding {
    pub kind: Kind,
    /// Index of the line in the key's list.
    pub line: Option<usize>,
    /// Index of the row in the key's list.
    pub row: Option<usize>,
}

/// Classifies the unmatched rows and lines of a key. `explanations` belong to `left.rows`, `settling` to `left.lines`.
pub(super) fn classify(
    facts: &KeyRows,
    left: &Unmatched,
    explanations: &[Explanation],
    settling: &[bool],
) -> Vec<Finding> {
    let mut rows: Vec<(usize, Explanation)> = left
        .rows
        .iter()
        .copied()
        .zip(explanations.iter().copied())
        .collect();
    // The best explanation first: a proven row takes a line's place before others.
    rows.sort_by_key(|(at, explanation)| (std::cmp::Reverse(*explanation), *at));
    let mut lines: Vec<(usize, bool)> = left
        .lines
        .iter()
        .copied()
        .zip(settling.iter().copied())
        .collect();
    // Lines that the daemon may not have taken yet come last.
    lines.sort_by_key(|(at, settling)| (*settling, *at));

    let replaced = rows.len().min(lines.len());
    let mut findings = Vec::new();
    for ((row, explanation), (line, _)) in rows.iter().zip(&lines) {
        findings.push(Finding {
            kind: replacement_kind(*explanation),
            line: Some(*line),
            row: Some(*row),
        });
    }
    for (line, settling) in &lines[replaced..] {
        let kind = if *settling {
            Kind::Pending
        } else {
            Kind::Missing
        };
        findings.push(Finding {
            kind,
            line: Some(*line),
            row: None,
        });
    }
    let mut refused = facts.lines.iter().filter(|line| line.digest.is_none());
    let any_exported = facts.lines.iter().any(|line| line.digest.is_some());
    for (row, explanation) in &rows[replaced..] {
        let kind = match (facts.lines.is_empty(), refused.next()) {
            (true, _) => Kind::Orphaned,
            (false, None) => Kind::Duplicate,
            (false, Some(line)) => surplus_kind(line, any_exported, *explanation),
        };
        findings.push(Finding {
            kind,
            line: None,
            row: Some(*row),
        });
    }
    findings
}

/// Returns the kind of a row in the place of a line's row.
fn replacement_kind(explanation: Explanation) -> Kind {
    match explanation {
        Explanation::Impossible => Kind::Altered,
        Explanation::SourceChange => Kind::SourceChange,
        Explanation::OtherDialect => Kind::OtherDialect,
        Explanation::Proven => Kind::Superseded,
    }
}

/// Returns the kind of a surplus row of a key with a refused line. If another line of the key is exported, the row may
/// be that line's, written twice, and only a proof excuses it.
fn surplus_kind(line: &LineFact, another_exported: bool, explanation: Explanation) -> Kind {
    match explanation {
        Explanation::Proven => {}
        _ if another_exported => return Kind::Duplicate,
        Explanation::Impossible => return Kind::Unexpected,
        Explanation::SourceChange | Explanation::OtherDialect => {}
    }
    match line.verdict {
        VerdictKind::Firewalled => Kind::Contradicted,
        _ => Kind::RefusedNow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn facts(rows: &[u128], lines: &[Option<u128>]) -> KeyRows {
        let pair = PairPath::from_relative(Path::new("y/m/d/n.jsonl")).unwrap();
        let pair = Arc::new(pair);
        let row = |(at, digest): (usize, &u128)| RowFact {
            offset: at as u64,
            digest: *digest,
            index: Some(0),
            created_at: "".into(),
            quality_score: "accepted".into(),
        };
        let line = |digest: &Option<u128>| LineFact {
            pair: Arc::clone(&pair),
            span: LineSpan {
                offset: 0,
                len_bytes: 0,
            },
            index: 0,
            digest: *digest,
            verdict: if digest.is_some() {
                VerdictKind::Exported
            } else {
                VerdictKind::WrongRole
            },
        };
        KeyRows {
            rows: rows.iter().enumerate().map(row).collect(),
            lines: lines.iter().map(line).collect(),
        }
    }

    fn check(rows: &[u128], lines: &[Option<u128>], explanation: Explanation, expected: &[Kind]) {
        let facts = facts(rows, lines);
        let left = facts.unmatched();
        let explanations = vec![explanation; left.rows.len()];
        let settling = vec![false; left.lines.len()];
        let kinds: Vec<Kind> = classify(&facts, &left, &explanations, &settling)
            .iter()
            .map(|finding| finding.kind)
            .collect();
        assert_eq!(kinds, expected, "{rows:?} {lines:?} {explanation:?}");
    }

    #[test]
    fn equal_rows_match_in_any_order() {
        use Explanation::*;
        check(
            &[1, 2, 2],
            &[Some(2), Some(1), None, Some(2)],
            Impossible,
            &[],
        );
        check(&[], &[None], Impossible, &[]);
    }

    #[test]
    fn unmatched_rows_and_lines_have_their_kinds() {
        use Explanation::*;
        check(&[], &[Some(1)], Impossible, &[Kind::Missing]);
        check(&[1], &[Some(1), Some(1)], Impossible, &[Kind::Missing]);
        for explanation in [Impossible, SourceChange, OtherDialect, Proven] {
            check(&[1, 1], &[Some(1)], explanation, &[Kind::Duplicate]);
            check(&[1], &[], explanation, &[Kind::Orphaned]);
        }
        check(&[2], &[Some(1)], Impossible, &[Kind::Altered]);
        check(&[2], &[Some(1)], SourceChange, &[Kind::SourceChange]);
        check(&[2], &[Some(1)], OtherDialect, &[Kind::OtherDialect]);
        check(&[2], &[Some(1)], Proven, &[Kind::Superseded]);
        check(
            &[3, 2],
            &[Some(1)],
            Proven,
            &[Kind::Superseded, Kind::Duplicate],
        );
    }

    #[test]
    fn next_to_an_exported_line_only_proof_excuses_a_surplus_row() {
        use Explanation::*;
        check(&[1], &[None], SourceChange, &[Kind::RefusedNow]);
        check(&[1], &[None], Impossible, &[Kind::Unexpected]);
        check(
            &[1, 2],
            &[None],
            Proven,
            &[Kind::RefusedNow, Kind::Duplicate],
        );
        check(&[1, 2], &[Some(1), None], Proven, &[Kind::RefusedNow]);
        check(&[1, 2], &[Some(1), None], SourceChange, &[Kind::Duplicate]);
    }
}
