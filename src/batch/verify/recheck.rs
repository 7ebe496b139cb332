//! Collects rows and lines of the keys in differing buckets, rereads them until the differences have been stable for
//! long enough, and classifies these. Memory is proportional to the rows in the buckets, not to the history.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::batch::pair::{BatchVerdict, JudgedLine, LakeReader, PairReading, read_pair};
use crate::batch::verify::compare::{
    Explanation, Finding, KeyRows, Kind, LineFact, Unmatched, classify,
};
use crate::batch::verify::diagnose::{Candidate, Now, examine};
use crate::batch::verify::error::VerifyError;
use crate::batch::verify::rows::{ExportLine, ExportReader, RowFact, bucket_of};
use crate::batch::verify::{DeletedRows, Steps, VerifyOptions};
use crate::lake::path::export_path;
use crate::lake::path::{PairPath, Stream};
use crate::platform::clock::{Clock as _, HostClock};
use crate::platform::storage::{FileKind, FileStat};
use crate::record::keys::RowKey;

/// The first pause between two reads; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// A key that still changes after this multiple of the patience is not classified.
const MAX_WAIT_FACTOR: u32 = 4;

/// File metadata of the two day-files of a pair; `None` for a file that cannot be inspected.
type PairStat = [Option<FileStat>; 2];

/// The rows and lines of the keys in some buckets.
pub(super) struct Recheck<'a> {
    lake: &'a LakeReader<'a>,
    reading: &'a PairReading<'a>,
    options: &'a VerifyOptions,
    /// A flag per bucket: set for those that are compared.
    buckets: &'a [bool],
    pub export: ExportReader<'a>,
    pub keys: HashMap<RowKey, KeyRows>,
    /// Set after the first read; from then on only the keys that differ are read.
    narrowed: bool,
    stats: BTreeMap<Arc<PairPath>, PairStat>,
    pub skipped: Vec<(PathBuf, io::Error)>,
}

/// The unmatched rows and lines of a key and the time since when they have been the same.
struct Since {
    at: Instant,
    signature: Vec<u128>,
}

/// The result of a recheck.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub findings: Vec<(RowKey, Finding)>,
    /// Number of keys that were never stable for long enough.
    pub inconclusive: u64,
}

impl<'a> Recheck<'a> {
    pub(super) fn new(
        lake: &'a LakeReader<'a>,
        reading: &'a PairReading<'a>,
        options: &'a VerifyOptions,
        buckets: &'a [bool],
    ) -> Recheck<'a> {
        Recheck {
            lake,
            reading,
            options,
            buckets,
            export: ExportReader::new(lake.storage, &export_path(&lake.root)),
            keys: HashMap::new(),
            narrowed: false,
            stats: BTreeMap::new(),
            skipped: Vec::new(),
        }
    }

    /// Reads all rows and lines, waits for late ones, and classifies the persistent differences.
    pub(super) fn judge(&mut self, steps: &mut Steps<'_>) -> Result<Judged, VerifyError> {
        self.read_export()?;
        self.read_sources(steps)?;
        self.keys.retain(|_, facts| !facts.unmatched().is_empty());
        self.narrowed = true;
        let inconclusive = self.wait_until_stable()?;
        let mut judged = self.classify_all()?;
        judged.inconclusive = inconclusive;
        Ok(judged)
    }

    /// Turns duplicates into orphaned rows, of each key as many as it has rows of deleted day-files: which of several equal
    /// rows has lost its line is not known.
    pub(super) fn excuse_deleted(
        &self,
        findings: &mut [(RowKey, Finding)],
        deleted_rows: DeletedRows<'_>,
    ) {
        let duplicates = findings
            .iter_mut()
            .filter(|(_, finding)| finding.kind == Kind::Duplicate);
        let duplicates: Vec<_> = duplicates.collect();
        let keys: BTreeSet<RowKey> = duplicates.iter().map(|(key, _)| *key).collect();
        let rows = keys.iter().flat_map(|key| &self.keys[key].rows);
        let rows: Vec<u64> = rows.map(|row| row.offset).collect();
        if rows.is_empty() {
            return;
        }
        let deleted = deleted_rows(&rows);
        let mut left: HashMap<RowKey, usize> = HashMap::new();
        for key in keys {
            let rows = self.keys[&key].rows.iter();
            left.insert(
                key,
                rows.filter(|row| deleted.contains(&row.offset)).count(),
            );
        }
        for (key, finding) in duplicates {
            if let Some(left) = left.get_mut(key).filter(|left| **left > 0) {
                *left -= 1;
                finding.kind = Kind::Orphaned;
            }
        }
    }

    /// Rereads until all remaining keys are stable. Drops keys that have become equal, and those that never become
    /// stable, and returns the number of the latter.
    fn wait_until_stable(&mut self) -> Result<u64, VerifyError> {
        let started = Instant::now();
        let patience = self.options.patience;
        let mut since: HashMap<RowKey, Since> = HashMap::new();
        let mut pause = FIRST_PAUSE.min(patience);
        loop {
            self.update_differences(&mut since);
            let is_stable = |key: &RowKey| {
                since
                    .get(key)
                    .is_some_and(|since| since.at.elapsed() >= patience)
            };
            if self.keys.keys().all(is_stable) {
                return Ok(0);
            }
            if started.elapsed() > patience * MAX_WAIT_FACTOR {
                let before = self.keys.len();
                self.keys.retain(|key, _| is_stable(key));
                return Ok((before - self.keys.len()) as u64);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(patience);
            // Sources first: every line was there before its row.
            self.read_sources(&mut Steps::silent())?;
            self.read_export()?;
            // A row read just now may belong to a line that is newer than the sources' last read.
            self.read_sources(&mut Steps::silent())?;
        }
    }

    fn update_differences(&mut self, since: &mut HashMap<RowKey, Since>) {
        self.keys.retain(|key, facts| {
            let left = facts.unmatched();
            let signature = facts.signature(&left);
            let known = since
                .get(key)
                .is_some_and(|since| since.signature == signature);
            if !known {
                let at = Instant::now();
                since.insert(*key, Since { at, signature });
            }
            !left.is_empty()
        });
    }

    fn read_export(&mut self) -> Result<(), VerifyError> {
        let (keys, buckets, narrowed) = (&mut self.keys, self.buckets, self.narrowed);
        self.export.read_appended(&mut |offset, line| {
            let ExportLine::Row(row) = line else { return };
            let facts = match narrowed {
                true => keys.get_mut(&row.key),
                false if buckets[bucket_of(row.key)] => Some(keys.entry(row.key).or_default()),
                false => None,
            };
            if let Some(facts) = facts {
                facts.rows.push(RowFact::new(offset, &row));
            }
        })
    }

    /// Reads the pairs that are new or have changed since they were last read.
    fn read_sources(&mut self, steps: &mut Steps<'_>) -> Result<(), VerifyError> {
        let walked = self.lake.walk();
        let walked = walked.map_err(|source| VerifyError::Walk {
            path: Stream::Scored.base(&self.lake.root),
            source,
        })?;
        let mut changed = Vec::new();
        let mut gone = std::mem::take(&mut self.stats);
        for pair in walked.day_files {
            let pair = Arc::new(pair);
            let now = self.stat_pair(&pair);
            let before = gone.remove(&pair);
            if before.is_none_or(|before| before != now || is_link(&now)) {
                changed.push((Arc::clone(&pair), before.is_some()));
            }
            self.stats.insert(pair, now);
        }
        let known = changed.iter().filter(|(_, known)| *known);
        let stale: BTreeSet<&Arc<PairPath>> =
            known.map(|(pair, _)| pair).chain(gone.keys()).collect();
        if !stale.is_empty() {
            for facts in self.keys.values_mut() {
                facts.lines.retain(|line| !stale.contains(&line.pair));
            }
        }
        let total_bytes = changed.iter().map(|(pair, _)| self.len_bytes(pair)).sum();
        let mut done_bytes = 0;
        for (pair, _) in &changed {
            self.read_pair(pair)?;
            done_bytes += self.len_bytes(pair);
            steps.step("rechecking", done_bytes, total_bytes);
        }
        Ok(())
    }

    /// Returns the last known total size of a pair's day-files in bytes.
    fn len_bytes(&self, pair: &Arc<PairPath>) -> u64 {
        let stats = self.stats.get(pair).into_iter().flatten();
        stats.flatten().map(|stat| stat.len_bytes).sum()
    }

    fn stat_pair(&self, pair: &PairPath) -> PairStat {
        Stream::ALL.map(|stream| {
            let path = pair.path(&self.lake.root, stream);
            self.lake.storage.stat(&path).ok()
        })
    }

    fn read_pair(&mut self, pair: &Arc<PairPath>) -> Result<(), VerifyError> {
        let name = pair.file_name();
        let (keys, buckets, narrowed) = (&mut self.keys, self.buckets, self.narrowed);
        let read = read_pair(self.lake, pair, self.reading, &mut |line| {
            let Some(run) = line.run else {
                return ControlFlow::Continue(());
            };
            let key = RowKey::from_scored(&name, run);
            let facts = match line.verdict {
                BatchVerdict::Exported if !narrowed && buckets[bucket_of(key)] => {
                    Some(keys.entry(key).or_default())
                }
                _ => keys.get_mut(&key),
            };
            if let Some(facts) = facts {
                facts.lines.push(line_fact(pair, line));
            }
            ControlFlow::Continue(())
        });
        match read {
            Err(fault) if fault.is_partial => Err(VerifyError::Pair(fault)),
            Err(fault) if fault.source.kind() != io::ErrorKind::NotFound => {
                let known = self.skipped.iter().any(|(path, _)| *path == fault.path);
                if !known {
                    self.skipped.push((fault.path, fault.source));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn classify_all(&self) -> Result<Judged, VerifyError> {
        let mut left: Vec<Left<'_>> = self.keys.iter().map(Left::from_key).collect();
        let mut by_pair: BTreeMap<&PairPath, Vec<(usize, usize)>> = BTreeMap::new();
        for (key, Left { facts, .. }) in left.iter().enumerate() {
            for (line, fact) in facts.lines.iter().enumerate() {
                by_pair.entry(&fact.pair).or_default().push((key, line));
            }
        }
        for (pair, places) in by_pair {
            self.explain(pair, &places, &mut left)?;
        }
        let mut judged = Judged::default();
        for left in &left {
            let settling = left.left.lines.iter().map(|line| left.settling[*line]);
            let settling: Vec<bool> = settling.collect();
            let findings = classify(left.facts, &left.left, &left.explanations, &settling);
            let findings = findings.into_iter().map(|finding| (left.key, finding));
            judged.findings.extend(findings);
        }
        Ok(judged)
    }

    /// Reads explanations from the pair's day-files for the lines at `places`: the indices of a key and of its line.
    fn explain(
        &self,
        pair: &PairPath,
        places: &[(usize, usize)],
        left: &mut [Left<'_>],
    ) -> Result<(), VerifyError> {
        let now = Now {
            wall_ms: HostClock::new().wall_ms(),
            settle: self.options.settle,
        };
        let candidates = places.iter().map(|(key, line)| left[*key].candidate(*line));
        let mut candidates: Vec<Candidate<'_>> = candidates.collect();
        let max_line_bytes = self.options.max_line_bytes;
        examine(self.lake, pair, max_line_bytes, now, &mut candidates).map_err(|source| {
            VerifyError::Examine {
                pair: pair.to_string(),
                source,
            }
        })?;
        for ((key, line), candidate) in places.iter().zip(candidates) {
            left[*key].settling[*line] = candidate.settling;
            // The best explanation by any line of the key counts.
            for (best, more) in left[*key]
                .explanations
                .iter_mut()
                .zip(candidate.explanations)
            {
                *best = (*best).max(more);
            }
        }
        Ok(())
    }
}

/// The unmatched rows and lines of a key, with the explanations from the sources.
struct Left<'k> {
    key: RowKey,
    facts: &'k KeyRows,
    left: Unmatched,
    /// One for each unmatched row.
    explanations: Vec<Explanation>,
    /// One for each line, matched or not.
    settling: Vec<bool>,
}

impl<'k> Left<'k> {
    fn from_key((key, facts): (&RowKey, &'k KeyRows)) -> Left<'k> {
        let left = facts.unmatched();
        Left {
            key: *key,
            facts,
            explanations: vec![Explanation::Impossible; left.rows.len()],
            settling: vec![false; facts.lines.len()],
            left,
        }
    }

    fn candidate(&self, line: usize) -> Candidate<'k> {
        let rows = self.left.rows.iter().map(|row| &self.facts.rows[*row]);
        Candidate {
            line: &self.facts.lines[line],
            rows: rows.collect(),
            explanations: vec![Explanation::Impossible; self.left.rows.len()],
            settling: false,
        }
    }
}

fn is_link(stats: &PairStat) -> bool {
    stats
        .iter()
        .flatten()
        .any(|stat| stat.kind == FileKind::Link)
}

fn line_fact(pair: &Arc<PairPath>, line: &JudgedLine<'_>) -> LineFact {
    let digest =
        || crate::record::row::digest_without_stamps(line.row).expect("our own rows are JSON");
    LineFact {
        pair: Arc::clone(pair),
        span: line.span,
        index: line.index.unwrap_or_default(),
        digest: (line.verdict == BatchVerdict::Exported).then(digest),
        verdict: line.verdict.kind(),
    }
}
