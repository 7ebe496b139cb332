//! The fold of a ledger: the rows that are retracted after its events, and the rules that hold from line to line.

use std::collections::HashMap;

use crate::record::ledger::{ExportId, LedgerError, LedgerLine, Op, RowSpan};

/// Number of recent changes that are kept apart from the sorted list at least.
const RECENT_MIN: usize = 4_096;

/// A line that breaks a rule of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {} of the ledger, at byte {at_byte}: {fault}", line + 1)]
pub struct FoldError {
    /// Index of the line, from 0.
    pub line: u64,
    /// Offset of the line in the ledger.
    pub at_byte: u64,
    /// The rule.
    pub fault: Fault,
}

/// A rule that a line breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No event.
    #[error(transparent)]
    Line(#[from] LedgerError),
    /// The line has no newline: its writer has not finished it, or was cut off.
    #[error("the last line is not complete")]
    Torn,
    /// The first line is not `begin`, or a later one is.
    #[error("{op} is at a place where it never is: the first line alone is begin")]
    Begin {
        /// The line's kind.
        op: &'static str,
    },
    /// The number of the line is not the next one.
    #[error("seq is {found}, and {expected} follows: lines are missing or repeated")]
    Seq {
        /// The next number.
        expected: u64,
        /// The line's number.
        found: u64,
    },
    /// The line belongs to another export than the first one.
    #[error("the line belongs to the export {found}, and the ledger to {expected}")]
    Export {
        /// The first line's export.
        expected: ExportId,
        /// The line's export.
        found: ExportId,
    },
    /// The export was longer at an earlier event.
    #[error("export_len falls from {before} to {found}")]
    Shrunk {
        /// The length of the line before.
        before: u64,
        /// The line's length.
        found: u64,
    },
    /// A retraction of a row that is retracted, or a restoration of one that is not.
    #[error("{op} of the row at {row_offset} does not alternate with the event before it")]
    Alternation {
        /// The line's kind.
        op: &'static str,
        /// The row.
        row_offset: u64,
    },
}

/// The state after the lines read so far. Holds 16 bytes for each retracted row, and an eighth of them twice.
#[derive(Debug, Default)]
pub struct Fold {
    /// Events at a longer export are checked and have no effect.
    export_len_max: Option<u64>,
    export: Option<ExportId>,
    export_len: u64,
    next_seq: u64,
    lines: u64,
    len_bytes: u64,
    /// Retracted rows by offset, without the recent changes.
    sorted: Vec<RowSpan>,
    /// Rows that differ from `sorted`: their length if they are retracted.
    recent: HashMap<u64, Option<u64>>,
}

impl Fold {
    /// Begins a fold of all events, or of the events at an export of at most `export_len_max` bytes.
    #[must_use]
    pub fn new(export_len_max: Option<u64>) -> Fold {
        Fold {
            export_len_max,
            ..Fold::default()
        }
    }

    /// Reads the next line, with its newline. The fold continues after an error as well as it can, so that a caller
    /// may collect them; a reader stops at the first one.
    ///
    /// # Errors
    /// The line is no event, or breaks a rule that holds between lines.
    pub fn read(&mut self, line: &[u8]) -> Result<LedgerLine, FoldError> {
        let (at_byte, number) = (self.len_bytes, self.lines);
        self.len_bytes += line.len() as u64;
        self.lines += 1;
        self.read_line(line).map_err(|fault| FoldError {
            line: number,
            at_byte,
            fault,
        })
    }

    fn read_line(&mut self, line: &[u8]) -> Result<LedgerLine, Fault> {
        if line.last() != Some(&b'\n') {
            return Err(Fault::Torn);
        }
        let event = LedgerLine::parse(line)?;
        self.apply(&event)?;
        Ok(event)
    }

    /// Applies an event that follows those applied so far.
    ///
    /// # Errors
    /// The event breaks a rule that holds between lines.
    pub fn apply(&mut self, event: &LedgerLine) -> Result<(), Fault> {
        let is_first = self.export.is_none();
        let expected = *self.export.get_or_insert(event.export);
        let expected_seq = std::mem::replace(&mut self.next_seq, event.seq.saturating_add(1));
        let before = std::mem::replace(&mut self.export_len, event.export_len);
        let op = event.op.code();
        if event.seq != expected_seq {
            return Err(Fault::Seq {
                expected: expected_seq,
                found: event.seq,
            });
        }
        if is_first != (event.op == Op::Begin) {
            return Err(Fault::Begin { op });
        }
        if event.export != expected {
            return Err(Fault::Export {
                expected,
                found: event.export,
            });
        }
        if event.export_len < before {
            return Err(Fault::Shrunk {
                before,
                found: event.export_len,
            });
        }
        let counts = self
            .export_len_max
            .is_none_or(|max| event.export_len <= max);
        match event.row {
            Some(row) if counts => self.turn(event.op, row),
            _ => Ok(()),
        }
    }

    fn turn(&mut self, op: Op, row: RowSpan) -> Result<(), Fault> {
        let retracts = match op {
            Op::Retract => true,
            Op::Restore => false,
            Op::Begin | Op::Note | Op::Order | Op::Revoke => return Ok(()),
        };
        if self.is_retracted(row.offset) == retracts {
            return Err(Fault::Alternation {
                op: op.code(),
                row_offset: row.offset,
            });
        }
        self.recent
            .insert(row.offset, retracts.then_some(row.len_bytes));
        if self.recent.len() > RECENT_MIN.max(self.sorted.len() / 8) {
            self.merge_recent();
        }
        Ok(())
    }

    /// Returns whether the row at an offset is retracted.
    #[must_use]
    pub fn is_retracted(&self, row_offset: u64) -> bool {
        match self.recent.get(&row_offset) {
            Some(len_bytes) => len_bytes.is_some(),
            None => self.find(row_offset).is_ok(),
        }
    }

    fn find(&self, row_offset: u64) -> Result<usize, usize> {
        self.sorted
            .binary_search_by_key(&row_offset, |row| row.offset)
    }

    /// Moves the recent changes into the sorted list, in place: a second list would double the memory.
    fn merge_recent(&mut self) {
        let recent = std::mem::take(&mut self.recent);
        self.sorted.retain(|row| !recent.contains_key(&row.offset));
        let mut added: Vec<RowSpan> = recent
            .into_iter()
            .filter_map(|(offset, len_bytes)| {
                len_bytes.map(|len_bytes| RowSpan { offset, len_bytes })
            })
            .collect();
        added.sort_unstable();
        let mut old_len = self.sorted.len();
        self.sorted.reserve_exact(added.len());
        self.sorted.extend_from_slice(&added);
        // From the end, the larger of the two last ones goes to the last free place.
        while let Some(last) = added.last() {
            let place = old_len + added.len() - 1;
            match old_len.checked_sub(1).map(|at| self.sorted[at]) {
                Some(old) if old > *last => {
                    self.sorted[place] = old;
                    old_len -= 1;
                }
                _ => {
                    self.sorted[place] = *last;
                    added.pop();
                }
            }
        }
    }

    /// Returns the retracted rows by offset.
    pub fn retracted(&mut self) -> &[RowSpan] {
        self.merge_recent();
        &self.sorted
    }

    /// Returns the export that the first line names.
    #[must_use]
    pub fn export(&self) -> Option<ExportId> {
        self.export
    }

    /// Returns the length of the export at the last event, whether it had an effect or not.
    #[must_use]
    pub fn export_len(&self) -> u64 {
        self.export_len
    }

    /// Returns the number of the event that follows.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Returns the length of the lines read by [`Fold::read`].
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::record::ledger::Cause;

    const ID: ExportId = ExportId([7; 8]);

    fn event(seq: u64, op: Op, offset: u64, export_len: u64) -> LedgerLine {
        LedgerLine {
            seq,
            op,
            export: ID,
            export_len,
            row: op.has_row().then_some(RowSpan {
                offset,
                len_bytes: offset % 7 + 1,
            }),
            row_hash: [0; 16],
            id: String::new(),
            source_run_id: String::new(),
            cause: match op {
                Op::Begin => Cause::Created,
                _ => Cause::Rejected,
            },
            day_file: String::new(),
            line_offset: None,
            reason: String::new(),
            at: String::new(),
        }
    }

    fn fault(events: &[LedgerLine]) -> Fault {
        let mut fold = Fold::new(None);
        let faults = events.iter().filter_map(|event| fold.apply(event).err());
        let faults: Vec<Fault> = faults.collect();
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults.into_iter().next().unwrap()
    }

    #[test]
    fn the_fold_is_the_naive_one_for_random_events() {
        for seed in 0..20 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (rows, max) = (rng.u64(1..60_000), 1_000_000 + rng.u64(..40_000));
            let (mut fold, mut limited) = (Fold::new(None), Fold::new(Some(max)));
            let (mut naive, mut naive_limited) = (BTreeMap::new(), BTreeMap::new());
            for seq in 0..40_000 {
                let offset = rng.u64(..rows) * 10;
                let op = match (seq, rng.u8(..20)) {
                    (0, _) => Op::Begin,
                    (_, 0) => Op::Note,
                    (_, 1) => Op::Order,
                    _ if naive.contains_key(&offset) => Op::Restore,
                    _ => Op::Retract,
                };
                let event = event(seq, op, offset, 1_000_000 + seq);
                fold.apply(&event).unwrap();
                limited.apply(&event).unwrap();
                let naives = [(&mut naive, u64::MAX), (&mut naive_limited, max)];
                for (naive, max) in naives {
                    match (op, event.row) {
                        (Op::Retract, Some(row)) if event.export_len <= max => {
                            naive.insert(offset, row);
                        }
                        (Op::Restore, _) if event.export_len <= max => {
                            naive.remove(&offset);
                        }
                        _ => {}
                    }
                }
                assert_eq!(fold.is_retracted(offset), naive.contains_key(&offset));
            }
            for (fold, naive) in [(&mut fold, naive), (&mut limited, naive_limited)] {
                let expected: Vec<RowSpan> = naive.into_values().collect();
                assert_eq!(fold.retracted(), expected, "seed {seed}");
                assert_eq!(fold.next_seq(), 40_000);
            }
        }
    }

    #[test]
    fn each_broken_rule_is_found_once_and_named() {
        let begin = || event(0, Op::Begin, 0, 100);
        let retract = |seq| event(seq, Op::Retract, 50, 100);
        let restore = |seq| event(seq, Op::Restore, 50, 100);
        assert_eq!(
            fault(&[begin(), retract(2)]),
            Fault::Seq {
                expected: 1,
                found: 2
            }
        );
        assert_eq!(
            fault(&[begin(), retract(1), event(2, Op::Begin, 0, 100)]),
            Fault::Begin { op: "begin" }
        );
        assert_eq!(
            fault(&[event(0, Op::Order, 0, 100)]),
            Fault::Begin { op: "order" }
        );
        assert_eq!(
            fault(&[begin(), retract(1), retract(2), restore(3)]),
            Fault::Alternation {
                op: "retract",
                row_offset: 50
            }
        );
        assert_eq!(
            fault(&[begin(), restore(1)]),
            Fault::Alternation {
                op: "restore",
                row_offset: 50
            }
        );
        assert_eq!(
            fault(&[begin(), event(1, Op::Order, 0, 99)]),
            Fault::Shrunk {
                before: 100,
                found: 99
            }
        );
        let other = LedgerLine {
            export: ExportId([8; 8]),
            ..retract(1)
        };
        assert_eq!(
            fault(&[begin(), other]),
            Fault::Export {
                expected: ID,
                found: ExportId([8; 8])
            }
        );
    }

    #[test]
    fn an_error_names_line_and_offset() {
        let mut lines = Vec::new();
        event(0, Op::Begin, 0, 100).write(&mut lines);
        let mut fold = Fold::new(None);
        fold.read(&lines).unwrap();
        let error = fold.read(b"{}\n").unwrap_err();
        assert_eq!((error.line, error.at_byte), (1, lines.len() as u64));
        let text = error.to_string();
        let start = format!("line 2 of the ledger, at byte {}: ", lines.len());
        assert!(text.starts_with(&start), "{text}");
        let torn = fold.read(&lines[..lines.len() - 1]).unwrap_err();
        assert_eq!((torn.line, torn.fault), (2, Fault::Torn));
        assert_eq!(fold.len_bytes(), 2 * lines.len() as u64 + 2);
    }
}
