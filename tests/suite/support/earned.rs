//! The rows that changing day-files earn, and how many of each there may be: for each key at least as many as the
//! day-files earn now, and at most as many as each pair ever earned at once. And lines of few runs, for such histories.

use std::collections::BTreeMap;

use super::naive::{Pairs, naive_batch, row_key};

/// The number of rows by their keys.
pub type Rows = BTreeMap<String, usize>;

/// The maximum of what the day-files ever earned.
#[derive(Debug, Default)]
pub struct Peaks {
    /// By pair: for each key, the maximum number of rows that its scored day-file ever earned at once.
    rows: BTreeMap<String, Rows>,
    /// The same of day-files that were moved away.
    moved_away: Vec<Rows>,
    /// What was noted last.
    last: Pairs,
}

impl Peaks {
    /// Records how many rows the day-files earn now.
    pub fn note(&mut self, pairs: &Pairs) {
        let changed = pairs
            .iter()
            .filter(|(name, files)| self.last.get(*name) != Some(*files));
        let changed = changed.map(|(name, files)| (name.clone(), files.clone()));
        let changed: Pairs = changed.collect();
        self.last = pairs.clone();
        for (pair, rows) in earned_by_pair(&changed) {
            let peaks = self.rows.entry(pair).or_default();
            for (key, count) in rows {
                let peak = peaks.entry(key).or_default();
                *peak = (*peak).max(count);
            }
        }
    }

    /// The scored day-files of pairs were moved to others. Their rows moved with them: what is made in the old place earns
    /// rows of its own. What they earn in the new place counts there again, because the daemon cannot know a day-file that
    /// was rewritten before it saw the move, or that a power cut left under both names. Where it can know,
    /// [`moved`](crate::moved) and [`moved_on`](crate::moved_on) demand exactly one row for each line.
    pub fn moved_from<'p>(&mut self, pairs: impl IntoIterator<Item = &'p String>) {
        for pair in pairs {
            self.moved_away.extend(self.rows.remove(pair));
        }
    }

    /// Returns a row that is missing in the export, or is there too often, if there is one.
    pub fn fault(&self, export: &[u8], pairs: &Pairs) -> Option<String> {
        let rows = rows_of(export);
        let missing = missing_row(&rows, pairs);
        let peaks = sums(self.rows.values().chain(&self.moved_away));
        let excess = rows
            .iter()
            .find(|(key, count)| *count > peaks.get(*key).unwrap_or(&0));
        missing.or_else(|| {
            excess
                .map(|(key, count)| format!("{count} rows are there, more than were earned: {key}"))
        })
    }
}

/// Returns the rows of an export.
pub fn rows_of(export: &[u8]) -> Rows {
    counted(std::str::from_utf8(export).unwrap().lines())
}

/// Returns a row that these day-files earn and that is not among `rows`, or not as often.
pub fn missing_row(rows: &Rows, pairs: &Pairs) -> Option<String> {
    let now = sums(earned_by_pair(pairs).values());
    let found = |key| *rows.get(key).unwrap_or(&0);
    let missing = now.iter().find(|(key, count)| found(*key) < **count);
    missing.map(|(key, count)| format!("{} of {count} rows are there: {key}", found(key)))
}

/// Returns the rows that each pair earns.
fn earned_by_pair(pairs: &Pairs) -> BTreeMap<String, Rows> {
    let of_pair = |(name, files): (&String, &_)| {
        let alone = Pairs::from([(name.clone(), Clone::clone(files))]);
        let batch = naive_batch(&alone, false);
        (name.clone(), counted(batch.rows.iter().map(String::as_str)))
    };
    pairs.iter().map(of_pair).collect()
}

fn counted<'r>(rows: impl Iterator<Item = &'r str>) -> Rows {
    let mut counts = Rows::new();
    for row in rows {
        *counts.entry(row_key(row)).or_default() += 1;
    }
    counts
}

fn sums<'r>(rows: impl Iterator<Item = &'r Rows>) -> Rows {
    let mut sums = Rows::new();
    for (key, count) in rows.flatten() {
        *sums.entry(key.clone()).or_default() += count;
    }
    sums
}

/// Returns a scored line of a run.
pub fn scored_line(run: &str, category: &str) -> String {
    format!(
        "{{\"evidence_run_id\":\"{run}\",\"category\":\"{category}\",\"provenance\":{{\"source_file\":\"s\",\
         \"line_offset\":7,\"sig_hash\":\"hash of {run}\",\"recorded_at\":\"2026-01-01T00:00:00Z\"}}}}\n"
    )
}

/// Returns an evidence line of a run.
pub fn evidence_line(run: &str, text: &str) -> String {
    format!(
        "{{\"run_id\":\"{run}\",\"model_role\":\"executor\",\"text\":\"{text}\",\"source_files\":[\"a.rs\"],\
         \"provenance\":{{\"source_file\":\"data/_kb/audits.jsonl\"}}}}\n"
    )
}
