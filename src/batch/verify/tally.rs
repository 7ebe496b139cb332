//! Sums the unmatched rows and lines of one key over all slices and classifies them, in memory that depends only on
//! the number of pairs. Pure: explanations from the sources are passed in.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::batch::verify::compare::{KeyRows, LineFact, PairLines, Unmatched};
use crate::lake::path::PairPath;

/// The explanation that the sources give for an unmatched row, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Explanation {
    /// The sources are unchanged since the row was written and cannot make it.
    Impossible,
    /// The sources changed after the row was written, and so did the export around it.
    ExportChange,
    /// The sources changed after the row was written; whether the row changed too is not known.
    Undetermined,
    /// The sources changed after the row was written, and the row is as it was written.
    SourceChange,
    /// The present sources make the row in the dialect of the previous exporter.
    OtherDialect,
    /// Evidence in the file makes the row, but is no longer the last of its run.
    Proven,
}

impl Explanation {
    /// The best first: a proven row takes a line's place before others.
    const BEST_FIRST: [Explanation; 6] = [
        Explanation::Proven,
        Explanation::OtherDialect,
        Explanation::SourceChange,
        Explanation::Undetermined,
        Explanation::ExportChange,
        Explanation::Impossible,
    ];
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
    Ledger,
    Unretracted,
    Unfounded,
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
        self <= Kind::Unfounded
    }
}

/// A row that represents others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowExample {
    /// Offset of its first byte in the export.
    pub offset: u64,
    /// Whether no other row of the key has its index. Unknown, and false, for a key in several slices.
    pub has_lone_index: bool,
}

/// Unmatched rows or lines, or rows in the place of lines', of one kind, with the first of them; with the last where
/// the first has another kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub kind: Kind,
    pub count: u64,
    pub line: Option<LineFact>,
    pub row: Option<RowExample>,
    /// That of the rows.
    pub explanation: Option<Explanation>,
}

/// Rows of one explanation, or lines of one pair: their number, the first and the last.
#[derive(Debug)]
struct Run<T> {
    count: u64,
    first: T,
    last: T,
}

impl<T: Clone> Run<T> {
    fn add(run: &mut Option<Run<T>>, count: u64, example: T, position: impl Fn(&T) -> u64) {
        let run = run.get_or_insert_with(|| Run {
            count: 0,
            first: example.clone(),
            last: example.clone(),
        });
        run.count += count;
        if position(&example) < position(&run.first) {
            run.first = example;
        } else if position(&example) > position(&run.last) {
            run.last = example;
        }
    }
}

/// The unclassified remainder of a run.
struct Remainder<'t, T> {
    run: &'t Run<T>,
    count: u64,
}

impl<'t, T: Clone> Remainder<'t, T> {
    fn of(run: &'t Run<T>) -> Remainder<'t, T> {
        Remainder {
            run,
            count: run.count,
        }
    }

    fn take(&mut self, count: u64) -> T {
        let is_whole = self.count == self.run.count;
        self.count -= count;
        match is_whole {
            true => self.run.first.clone(),
            false => self.run.last.clone(),
        }
    }
}

/// Maximum rows of a key whose day-files are looked up.
const OFFSETS_MAX: usize = 64;

/// Turns up to `orphaned` duplicates, whose lines are gone, into orphaned rows.
pub(super) fn excuse_orphaned(findings: Vec<Finding>, mut orphaned: u64) -> Vec<Finding> {
    let mut excused = Vec::new();
    for finding in findings {
        let count = match finding.kind {
            Kind::Duplicate => orphaned.min(finding.count),
            _ => 0,
        };
        orphaned -= count;
        if count > 0 {
            excused.push(Finding {
                kind: Kind::Orphaned,
                count,
                ..finding.clone()
            });
        }
        if count < finding.count {
            excused.push(Finding {
                count: finding.count - count,
                ..finding
            });
        }
    }
    excused
}

/// The unmatched rows and lines of a key in the slices so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    rows: [Option<Run<RowExample>>; 6],
    /// By whether the export may lack their rows, and whether the daemon may not have taken the lines yet: those come last.
    lines: BTreeMap<(bool, bool, Arc<PairPath>), Option<Run<LineFact>>>,
    /// Number of rows of the key, matched ones included.
    pub rows_total: u64,
    /// All lines of the key, matched ones included.
    pub pairs: Vec<PairLines>,
    /// Offsets of rows of the key, at most [`OFFSETS_MAX`]; of equal rows the first and the last.
    pub offsets: Vec<u64>,
    /// Offsets of unmatched rows whose index no other row of the key has, at most [`OFFSETS_MAX`]: their own lines are gone.
    pub lone: Vec<u64>,
}

impl Tally {
    /// Adds a slice. `explanations` belong to `left.rows`, `settling` to `left.lines`. `is_whole`: no other slice has
    /// rows of the key.
    pub(super) fn add(
        &mut self,
        facts: &KeyRows,
        left: &Unmatched,
        explanations: &[Explanation],
        settling: &[bool],
        is_whole: bool,
    ) {
        let lone = match is_whole {
            true => facts.lone_indices(left),
            false => vec![false; left.rows.len()],
        };
        for ((row, explanation), has_lone_index) in left.rows.iter().zip(explanations).zip(lone) {
            let example = RowExample {
                offset: row.offset,
                has_lone_index,
            };
            if has_lone_index && self.lone.len() < OFFSETS_MAX {
                self.lone.push(row.offset);
            }
            let run = &mut self.rows[*explanation as usize];
            Run::add(run, row.count, example, |row| row.offset);
        }
        for (line, settling) in left.lines.iter().zip(settling) {
            let (_, line) = &facts.lines[*line];
            let key = (line.is_dispensable, *settling, Arc::clone(&line.pair));
            let run = (self.lines).entry(key);
            Run::add(run.or_default(), 1, line.clone(), |line| line.span.offset);
        }
        for row in &*facts.rows {
            let ends = [row.offset, row.last_offset];
            let distinct = 1 + usize::from(row.offset != row.last_offset);
            let space = OFFSETS_MAX.saturating_sub(self.offsets.len());
            self.offsets.extend(&ends[..distinct.min(space)]);
        }
        self.rows_total = facts.rows_total;
        self.pairs = facts.pairs.to_vec();
    }

    /// Returns the number of lines that have a row in the batch.
    pub(super) fn lines_exported(&self) -> u64 {
        self.pairs.iter().map(|pair| pair.exported).sum()
    }

    /// Classifies the unmatched rows and lines.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let rows = Explanation::BEST_FIRST
            .into_iter()
            .filter_map(|explanation| {
                let run = self.rows[explanation as usize].as_ref()?;
                Some((explanation, Remainder::of(run)))
            });
        let mut rows: VecDeque<_> = rows.collect();
        let lines = self.lines.iter();
        let lines = lines.filter_map(|((_, settling, _), run)| Some((*settling, run.as_ref()?)));
        let mut lines: VecDeque<_> = lines
            .map(|(settling, run)| (settling, Remainder::of(run)))
            .collect();
        let mut findings = Vec::new();
        while let (Some((explanation, row)), Some((_, line))) =
            (rows.front_mut(), lines.front_mut())
        {
            let count = row.count.min(line.count);
            findings.push(Finding {
                kind: replacement_kind(*explanation),
                count,
                line: Some(line.take(count)),
                row: Some(row.take(count)),
                explanation: Some(*explanation),
            });
            rows.pop_front_if(|(_, row)| row.count == 0);
            lines.pop_front_if(|(_, line)| line.count == 0);
        }
        let due = lines
            .into_iter()
            .filter(|(_, line)| !line.run.first.is_dispensable);
        for (settling, mut line) in due {
            findings.push(Finding {
                kind: if settling {
                    Kind::Pending
                } else {
                    Kind::Missing
                },
                count: line.count,
                line: Some(line.take(line.count)),
                row: None,
                explanation: None,
            });
        }
        self.add_surplus(rows, &mut findings);
        findings
    }

    /// Classifies the rows for which no unmatched line is left.
    fn add_surplus(
        &self,
        mut rows: VecDeque<(Explanation, Remainder<'_, RowExample>)>,
        findings: &mut Vec<Finding>,
    ) {
        let refused = self.pairs.iter().flat_map(|pair| &pair.refused);
        let mut refused: VecDeque<(bool, u64)> = refused.copied().collect();
        let any_exported = self.lines_exported() > 0;
        while let Some((explanation, row)) = rows.front_mut() {
            let (kind, count) = match refused.front() {
                _ if self.pairs.is_empty() => (Kind::Orphaned, row.count),
                None => (Kind::Duplicate, row.count),
                Some((is_firewalled, lines)) => {
                    let kind = surplus_kind(*is_firewalled, any_exported, *explanation);
                    (kind, row.count.min(*lines))
                }
            };
            findings.push(Finding {
                kind,
                count,
                line: None,
                row: Some(row.take(count)),
                explanation: Some(*explanation),
            });
            if let Some((_, lines)) = refused.front_mut() {
                *lines -= count;
            }
            rows.pop_front_if(|(_, row)| row.count == 0);
            refused.pop_front_if(|(_, lines)| *lines == 0);
        }
    }
}

/// Returns the kind of a row in the place of a line's row.
fn replacement_kind(explanation: Explanation) -> Kind {
    match explanation {
        Explanation::Impossible | Explanation::ExportChange => Kind::Altered,
        Explanation::SourceChange | Explanation::Undetermined => Kind::SourceChange,
        Explanation::OtherDialect => Kind::OtherDialect,
        Explanation::Proven => Kind::Superseded,
    }
}

/// Returns the kind of a surplus row of a key with a refused line. If another line of the key is exported, the row may
/// be that line's, written twice, and only a proof excuses it.
fn surplus_kind(is_firewalled: bool, another_exported: bool, explanation: Explanation) -> Kind {
    match explanation {
        Explanation::Proven => {}
        _ if another_exported => return Kind::Duplicate,
        Explanation::Impossible | Explanation::ExportChange => return Kind::Unexpected,
        Explanation::Undetermined | Explanation::SourceChange | Explanation::OtherDialect => {}
    }
    match is_firewalled {
        true => Kind::Contradicted,
        false => Kind::RefusedNow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::line_reader::LineSpan;
    use crate::batch::verify::fact::RowFact;
    use crate::pair::verdict::VerdictKind;
    use std::path::Path;

    fn facts(rows: &[u128], lines: &[Option<u128>]) -> KeyRows {
        let pair = PairPath::from_relative(Path::new("y/m/d/n.jsonl")).unwrap();
        let pair = Arc::new(pair);
        let mut facts = KeyRows::default();
        for (at, digest) in rows.iter().enumerate() {
            facts.rows_total += 1;
            facts.push_row(RowFact {
                offset: at as u64,
                last_offset: at as u64,
                count: 1,
                digest: *digest,
                parts: None,
                index: Some(0),
                category: Some(0),
                created_at: None,
            });
        }
        for (at, digest) in lines.iter().enumerate() {
            let line = LineFact {
                pair: Arc::clone(&pair),
                span: LineSpan {
                    offset: at as u64,
                    len_bytes: 0,
                },
                index: at as u64,
                verdict: match digest {
                    Some(_) => VerdictKind::Exported,
                    None => VerdictKind::WrongRole,
                },
                is_dispensable: false,
            };
            facts.push_line(line, *digest);
        }
        facts
    }

    fn tally(rows: &[u128], lines: &[Option<u128>], explanation: Explanation) -> Tally {
        let facts = facts(rows, lines);
        let left = facts.unmatched();
        let explanations = vec![explanation; left.rows.len()];
        let settling = vec![false; left.lines.len()];
        let mut tally = Tally::default();
        tally.add(&facts, &left, &explanations, &settling, true);
        tally
    }

    fn check(rows: &[u128], lines: &[Option<u128>], explanation: Explanation, expected: &[Kind]) {
        let kinds: Vec<Kind> = (tally(rows, lines, explanation).findings().iter())
            .flat_map(|finding| vec![finding.kind; finding.count as usize])
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

    #[test]
    fn repeated_rows_are_one_fact_and_are_counted() {
        let rows = [vec![7; 100_000], vec![8, 9]].concat();
        assert!(facts(&rows, &[]).rows.len() < 128);
        let tally = tally(&rows, &[Some(7), Some(9)], Explanation::Impossible);
        let findings = tally.findings();
        let counts: Vec<(Kind, u64)> = (findings.iter())
            .map(|finding| (finding.kind, finding.count))
            .collect();
        assert_eq!(counts, [(Kind::Duplicate, 100_000)]);
        assert_eq!(tally.rows_total, 100_002);
    }

    #[test]
    fn a_key_in_several_slices_is_classified_as_a_whole() {
        let mut whole = Tally::default();
        for (rows, lines) in [
            (&[1, 2][..], &[][..]),
            (&[], &[Some(3), Some(4)]),
            (&[5], &[]),
        ] {
            let facts = facts(rows, lines);
            let left = facts.unmatched();
            let explanations = vec![Explanation::Proven; left.rows.len()];
            let settling = vec![false; left.lines.len()];
            whole.add(&facts, &left, &explanations, &settling, false);
            // Lines are listed in each slice, whichever their row is in.
            whole.pairs = super::tests::facts(&[], &[Some(3), Some(4)]).pairs.to_vec();
        }
        let counts: Vec<(Kind, u64)> = (whole.findings().iter())
            .map(|finding| (finding.kind, finding.count))
            .collect();
        assert_eq!(counts, [(Kind::Superseded, 2), (Kind::Duplicate, 1)]);
    }
}
