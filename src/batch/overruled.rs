//! Which rows of a pair later lines overrule, which of its runs other pairs may concern, and the lines of runs with an order.
//!
//! Memory: about 20 bytes for each run of the pair, and 16 for each overruled row.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use crate::batch::pair::{
    BatchVerdict, JudgedLine, LakeReader, PairReadError, PairReading, read_pair,
};
use crate::lake::path::PairPath;
use crate::record::keys::{LocalRowKey, RunKey};
use crate::record::synthesize::Refusal;

/// Returns the offsets of the lines of a pair whose rows later lines of their runs overrule.
///
/// # Errors
/// Those of [`read_pair`].
pub fn overruled_lines(
    lake: &LakeReader<'_>,
    pair: &PairPath,
    reading: &PairReading<'_>,
) -> Result<HashSet<u64>, PairReadError> {
    let mut overruled = Overruled::default();
    read_pair(lake, pair, reading, &mut |line| {
        overruled.add(line);
        ControlFlow::Continue(())
    })?;
    Ok(overruled.lines)
}

/// The last verdict on a run in a pair, as far as it matters to other pairs.
#[derive(Debug, Clone, Copy)]
enum LastVerdict {
    /// It has a row, of the line at this offset.
    Row(u64),
    /// Its category is refused.
    Refused,
    /// It has no evidence.
    Waiting,
    /// Its category is admitted, and its evidence or an order refuses it.
    Other,
}

/// The lines of a pair whose rows later lines overrule.
#[derive(Debug, Default)]
pub struct Overruled {
    last: HashMap<RunKey, LastVerdict>,
    /// Their offsets.
    pub lines: HashSet<u64>,
    /// Their runs.
    runs: HashSet<RunKey>,
}

/// The runs of a pair that other pairs may concern.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PairRuns {
    /// Runs whose last verdict is a refusal for the category.
    pub refused: Vec<RunKey>,
    /// Runs that have no evidence in the pair.
    pub waiting: Vec<RunKey>,
    /// Runs with an overruled row and a later one that counts.
    pub rescored: Vec<RunKey>,
}

impl PairRuns {
    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.refused.is_empty() && self.waiting.is_empty() && self.rescored.is_empty()
    }
}

impl Overruled {
    /// Adds the next line.
    pub fn add(&mut self, line: &JudgedLine<'_>) {
        let Some(run) = line.run else { return };
        let last = match line.verdict {
            BatchVerdict::Exported => LastVerdict::Row(line.span.offset),
            BatchVerdict::Firewalled | BatchVerdict::Refused(Refusal::UnknownCategory) => {
                LastVerdict::Refused
            }
            BatchVerdict::NoEvidence => LastVerdict::Waiting,
            _ => LastVerdict::Other,
        };
        let run = RunKey::from_text(&run.evidence_run_id);
        if let Some(LastVerdict::Row(offset)) = self.last.insert(run, last) {
            self.lines.insert(offset);
            self.runs.insert(run);
        }
    }

    /// Returns the runs that other pairs may concern.
    #[must_use]
    pub fn into_runs(self) -> PairRuns {
        let mut runs = PairRuns::default();
        for (run, last) in self.last {
            match last {
                LastVerdict::Row(_) if self.runs.contains(&run) => runs.rescored.push(run),
                LastVerdict::Row(_) | LastVerdict::Other => {}
                LastVerdict::Refused => runs.refused.push(run),
                LastVerdict::Waiting => runs.waiting.push(run),
            }
        }
        runs
    }
}

/// A line of a run with a standing order, as far as it matters to a row of the run that was written before the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderedLine {
    /// The run.
    pub run: RunKey,
    /// The key and the index of the row that the line may have; `None` for a line whose category is refused.
    pub row: Option<(LocalRowKey, u64)>,
}

/// The lines of a pair's runs with a standing order, in order. A refused line is among them after another line of its run.
#[derive(Debug)]
pub struct OrderedLines {
    day_file_name: String,
    runs: HashSet<RunKey>,
    /// The lines.
    pub lines: Vec<OrderedLine>,
}

impl OrderedLines {
    /// Returns a list without lines for a day-file with this name.
    #[must_use]
    pub fn new(day_file_name: String) -> Self {
        Self {
            day_file_name,
            runs: HashSet::new(),
            lines: Vec::new(),
        }
    }

    /// Adds the next line of the pair.
    pub fn add(&mut self, line: &JudgedLine<'_>) {
        let (Some(scored), Some(index)) = (line.run, line.index) else {
            return;
        };
        let run = || RunKey::from_text(&scored.evidence_run_id);
        match line.verdict {
            BatchVerdict::Refused(Refusal::Ordered) => {
                let key = LocalRowKey::from_scored(&self.day_file_name, scored);
                let row = Some((key, index));
                self.runs.insert(run());
                self.lines.push(OrderedLine { run: run(), row });
            }
            BatchVerdict::Firewalled | BatchVerdict::Refused(Refusal::UnknownCategory)
                if !self.runs.is_empty() && self.runs.contains(&run()) =>
            {
                let (run, row) = (run(), None);
                self.lines.push(OrderedLine { run, row });
            }
            _ => {}
        }
    }
}
