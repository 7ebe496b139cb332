//! The rows of runs with a standing order that later lines overrule as well. By the sources these lines earn no row; a row
//! of the export that was written before the order shows which of them has one.
//!
//! Memory: about 40 bytes for each line, and for each row of the export, of a run with an order.

use std::collections::{HashMap, HashSet};

use crate::batch::overruled::OrderedLine;
use crate::record::keys::LocalRowKey;
use crate::record::row;

/// The key of a row and its index.
pub(super) type OrderedRow = (LocalRowKey, u64);

/// The lines and rows of runs with an order.
#[derive(Debug, Default)]
pub(super) struct OrderedRuns {
    /// The lines of each pair, in order.
    pairs: Vec<Vec<OrderedLine>>,
    /// The rows of the export, with their number.
    rows: HashMap<OrderedRow, u64>,
}

impl OrderedRuns {
    /// Adds the lines of a pair.
    pub(super) fn add_pair(&mut self, lines: Vec<OrderedLine>) {
        if !lines.is_empty() {
            self.pairs.push(lines);
        }
    }

    /// Returns what a row of the export is known by; `None` for one whose `id` is not that of a row.
    pub(super) fn row_of(key: LocalRowKey, bytes: &[u8]) -> Option<OrderedRow> {
        let view = row::view(bytes).ok()?;
        let (_name, index) = view.id.rsplit_once(':')?;
        Some((key, index.parse().ok()?))
    }

    /// Adds a row of the export.
    pub(super) fn add_row(&mut self, row: OrderedRow) {
        *self.rows.entry(row).or_default() += 1;
    }

    /// Returns the number of rows that a later line overrules: one whose category is refused, or one with a row.
    pub(super) fn overruled(mut self) -> u64 {
        let mut overruled = 0;
        for lines in self.pairs {
            let mut overrulers = HashSet::new();
            for line in lines.iter().rev() {
                if let Some(row) = line.row {
                    let Some(rows) = self.rows.get_mut(&row).filter(|rows| **rows > 0) else {
                        continue;
                    };
                    *rows -= 1;
                    overruled += u64::from(overrulers.contains(&line.run));
                }
                overrulers.insert(line.run);
            }
        }
        overruled
    }
}
