//! Owns the comparison of the rows of one key with the lines of that key: which are equal, and of what kind the rest
//! is. Pure: it is told what the sources say of a row and reads nothing itself.

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
    /// Of the row that it earns; `None`: it is refused.
    pub digest: Option<u128>,
    /// Its verdict.
    pub verdict: VerdictKind,
}

/// Rows and lines that came from the same.
#[derive(Debug, Default)]
pub(super) struct KeyRows {
    pub rows: Vec<RowFact>,
    pub lines: Vec<LineFact>,
}

/// What is left when equal rows are taken away: numbers in the lists of the key.
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
    pub(super) fn leftover(&self) -> Unmatched {
        let earned = (0..self.lines.len()).filter_map(|at| Some((self.lines[at].digest?, at)));
        let mut lines: Vec<_> = earned.collect();
        let mut rows: Vec<_> = (0..self.rows.len())
            .map(|at| (self.rows[at].digest, at))
            .collect();
        lines.sort_unstable();
        rows.sort_unstable();
        let mut left = Unmatched::default();
        let (mut line, mut row) = (0, 0);
        while line < lines.len() || row < rows.len() {
            let order = match (lines.get(line), rows.get(row)) {
                (Some(earned), Some(found)) => earned.0.cmp(&found.0),
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
        // By place again, so that the first difference is the first.
        left.lines.sort_unstable();
        left.rows.sort_unstable();
        left
    }

    /// What the number of a surplus row says: one that no other row has was given to a line of its own.
    pub(super) fn why_surplus(&self, at: usize) -> &'static str {
        let number = self.rows[at].index;
        let same = self.rows.iter().filter(|row| row.index == number).count();
        if number.is_some() && same == 1 {
            "; no other of these rows has its number, so it is of a line like that one which is gone: removed, or lost \
             in a power cut"
        } else {
            ""
        }
    }

    /// Names what is left, so that a later look can tell whether it is still the same.
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

/// What the sources say of a row that no line earns as it is, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Explanation {
    /// Nothing that is or may have been in the sources makes this row.
    Impossible,
    /// Its sources were changed after it was written: nobody can tell any more.
    SourceChange,
    /// The sources as they stand make it in the dialect of the exporter that came before.
    OtherDialect,
    /// Evidence that still stands makes it, but is no longer the last.
    Proven,
}

/// What a row or a line that is left is.
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
    /// Whether it breaks the promise.
    pub(super) fn is_failure(self) -> bool {
        self <= Kind::Unexpected
    }
}

/// A kind, and what has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Finding {
    pub kind: Kind,
    /// Number of the line in the key's list.
    pub line: Option<usize>,
    /// Number of the row in the key's list.
    pub row: Option<usize>,
}

/// Says what each leftover is. `standings` and `settling` are those of `left.rows` and `left.lines`.
pub(super) fn judge(
    facts: &KeyRows,
    left: &Unmatched,
    standings: &[Explanation],
    settling: &[bool],
) -> Vec<Finding> {
    let mut rows: Vec<(usize, Explanation)> = left
        .rows
        .iter()
        .copied()
        .zip(standings.iter().copied())
        .collect();
    // The best first: a row that is proven takes a line's place before one that is not.
    rows.sort_by_key(|(at, standing)| (std::cmp::Reverse(*standing), *at));
    let mut lines: Vec<(usize, bool)> = left
        .lines
        .iter()
        .copied()
        .zip(settling.iter().copied())
        .collect();
    // Lines that the daemon may not have taken yet are the last to have a row.
    lines.sort_by_key(|(at, settling)| (*settling, *at));

    let stands_in = rows.len().min(lines.len());
    let mut findings = Vec::new();
    for ((row, standing), (line, _)) in rows.iter().zip(&lines) {
        findings.push(Finding {
            kind: in_place_of_another(*standing),
            line: Some(*line),
            row: Some(*row),
        });
    }
    for (line, settling) in &lines[stands_in..] {
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
    let earns = facts.lines.iter().any(|line| line.digest.is_some());
    for (row, standing) in &rows[stands_in..] {
        let kind = match (facts.lines.is_empty(), refused.next()) {
            (true, _) => Kind::Orphaned,
            (false, None) => Kind::Duplicate,
            (false, Some(line)) => surplus_beside(line, earns, *standing),
        };
        findings.push(Finding {
            kind,
            line: None,
            row: Some(*row),
        });
    }
    findings
}

fn in_place_of_another(standing: Explanation) -> Kind {
    match standing {
        Explanation::Impossible => Kind::Altered,
        Explanation::SourceChange => Kind::SourceChange,
        Explanation::OtherDialect => Kind::OtherDialect,
        Explanation::Proven => Kind::Superseded,
    }
}

/// A row beside a line that is refused. Where another line of the key earns a row, only proof excuses it: it may as
/// well be that line's row, written twice.
fn surplus_beside(line: &LineFact, another_earns: bool, standing: Explanation) -> Kind {
    match standing {
        Explanation::Proven => {}
        _ if another_earns => return Kind::Duplicate,
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

    fn check(rows: &[u128], lines: &[Option<u128>], standing: Explanation, wanted: &[Kind]) {
        let facts = facts(rows, lines);
        let left = facts.leftover();
        let standings = vec![standing; left.rows.len()];
        let settling = vec![false; left.lines.len()];
        let kinds: Vec<Kind> = judge(&facts, &left, &standings, &settling)
            .iter()
            .map(|finding| finding.kind)
            .collect();
        assert_eq!(kinds, wanted, "{rows:?} {lines:?} {standing:?}");
    }

    #[test]
    fn equal_rows_leave_nothing_whatever_their_order() {
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
    fn what_is_left_has_its_kind() {
        use Explanation::*;
        check(&[], &[Some(1)], Impossible, &[Kind::Missing]);
        check(&[1], &[Some(1), Some(1)], Impossible, &[Kind::Missing]);
        for standing in [Impossible, SourceChange, OtherDialect, Proven] {
            check(&[1, 1], &[Some(1)], standing, &[Kind::Duplicate]);
            check(&[1], &[], standing, &[Kind::Orphaned]);
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
    fn beside_a_line_that_earns_only_proof_excuses_a_surplus_row() {
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
