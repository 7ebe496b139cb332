//! Collects rows and lines of the keys in one slice of the differing rows, rereads them until the differences have been
//! stable for long enough, and explains these. Memory is proportional to the rows in the slice, not to the history.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::batch::overruled::Overruled;
use crate::batch::pair::{BatchVerdict, JudgedLine, LakeReader, PairReading, read_pair};
use crate::batch::verify::compare::{KeyRows, LineFact, Signature, Unmatched};
use crate::batch::verify::day_file::Now;
use crate::batch::verify::diagnose::Diagnosis;
use crate::batch::verify::error::VerifyError;
use crate::batch::verify::rows::{ExportLine, ExportReader, RowFact, Slice};
use crate::batch::verify::tally::{Explanation, Tally};
use crate::batch::verify::{Steps, VerifyOptions};
use crate::lake::path::export_path;
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::stat_day_file;
use crate::platform::clock::{Clock as _, HostClock};
use crate::platform::root_lock;
use crate::platform::storage::{FileKind, FileStat};
use crate::record::keys::LocalRowKey;
use crate::record::row::digest_without_stamps;

/// The first pause between two reads; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// A key that still changes after this multiple of the patience is not classified.
const MAX_WAIT_FACTOR: u32 = 4;

/// File metadata of the two day-files of a pair; `None` for a file that cannot be inspected.
type PairStat = [Option<FileStat>; 2];

/// The rows and lines of the keys in a slice.
pub(super) struct Recheck<'a> {
    lake: &'a LakeReader<'a>,
    reading: &'a PairReading<'a>,
    options: &'a VerifyOptions,
    slice: Slice<'a>,
    export: ExportReader<'a>,
    keys: HashMap<LocalRowKey, KeyRows>,
    /// Whether the export may lack rows that later lines overrule.
    pub without_overruled: bool,
    /// Set after the first read; from then on only the keys that differ are read.
    narrowed: bool,
    stats: BTreeMap<Arc<PairPath>, PairStat>,
    pub skipped: BTreeMap<PathBuf, io::Error>,
    /// Number of rows and lines in memory after the first read, the most.
    pub facts_held: u64,
}

/// The unmatched rows and lines of a key and the time since when they have been the same.
struct Since {
    at: Instant,
    signature: Signature,
}

/// Adds the rows and lines of a key in a slice to its tally.
pub(super) type AddToTally<'t> = &'t dyn Fn(&mut Tally);

impl<'a> Recheck<'a> {
    pub(super) fn new(
        lake: &'a LakeReader<'a>,
        reading: &'a PairReading<'a>,
        options: &'a VerifyOptions,
        slice: Slice<'a>,
    ) -> Recheck<'a> {
        let path = export_path(&lake.root);
        Recheck {
            lake,
            reading,
            options,
            slice,
            export: ExportReader::new(lake.storage, &path, options.max_line_bytes),
            keys: HashMap::new(),
            without_overruled: false,
            narrowed: false,
            stats: BTreeMap::new(),
            skipped: BTreeMap::new(),
            facts_held: 0,
        }
    }

    /// Reads all rows and lines of the slice, waits for late ones, and keeps the keys that persistently differ. Returns
    /// the keys that were never stable for long enough.
    pub(super) fn collect(
        &mut self,
        steps: &mut Steps<'_>,
    ) -> Result<Vec<LocalRowKey>, VerifyError> {
        self.read_export()?;
        self.read_sources(steps)?;
        let facts = self.keys.values();
        let facts = facts.map(|facts| facts.rows.len() + facts.lines.len());
        self.facts_held = facts.sum::<usize>() as u64;
        self.keys.retain(|_, facts| !facts.unmatched().is_empty());
        self.narrowed = true;
        self.wait_until_stable()
    }

    /// Rereads until all remaining keys are stable. Drops keys that have become equal, and those that never become
    /// stable, and returns the latter. Waits only while a daemon runs or files change: otherwise nothing arrives.
    fn wait_until_stable(&mut self) -> Result<Vec<LocalRowKey>, VerifyError> {
        let started = Instant::now();
        let patience = self.options.patience;
        let mut since: HashMap<LocalRowKey, Since> = HashMap::new();
        let mut pause = FIRST_PAUSE.min(patience);
        let mut changes = false;
        loop {
            self.update_differences(&mut since);
            let is_stable = |key: &LocalRowKey| {
                since
                    .get(key)
                    .is_some_and(|since| since.at.elapsed() >= patience)
            };
            if self.keys.keys().all(is_stable) {
                return Ok(Vec::new());
            }
            if started.elapsed() > patience * MAX_WAIT_FACTOR {
                let unstable = self.keys.extract_if(|key, _| !is_stable(key));
                return Ok(unstable.map(|(key, _)| key).collect());
            }
            let is_served = root_lock::is_held(&self.lake.root);
            if is_served || changes {
                thread::sleep(pause);
                pause = (pause * 2).min(patience);
            }
            // Sources first: every line was there before its row.
            changes = self.read_sources(&mut Steps::silent())?;
            changes |= self.read_export()?;
            // A row read just now may belong to a line that is newer than the sources' last read.
            changes |= self.read_sources(&mut Steps::silent())?;
            if !is_served && !changes {
                return Ok(Vec::new());
            }
        }
    }

    fn update_differences(&mut self, since: &mut HashMap<LocalRowKey, Since>) {
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

    /// Reads new rows. Returns whether there were any.
    fn read_export(&mut self) -> Result<bool, VerifyError> {
        let (keys, slice, narrowed) = (&mut self.keys, self.slice, self.narrowed);
        self.export.read_appended(&mut |offset, bytes, line| {
            let ExportLine::Row(row) = line else { return };
            let facts = match narrowed {
                true => keys.get_mut(&row.key),
                false if slice.has_key(row.key) => Some(keys.entry(row.key).or_default()),
                false => None,
            };
            let Some(facts) = facts else { return };
            facts.rows_total += 1;
            if slice.has_digest(row.digest) {
                facts.push_row(RowFact::new(offset, &row, bytes));
            }
        })
    }

    /// Reads the pairs that are new or have changed since they were last read. Returns whether there were any.
    fn read_sources(&mut self, steps: &mut Steps<'_>) -> Result<bool, VerifyError> {
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
                facts.forget(|pair| stale.contains(pair));
            }
        }
        let any = !changed.is_empty() || !gone.is_empty();
        let total_bytes = changed.iter().map(|(pair, _)| self.len_bytes(pair)).sum();
        let mut done_bytes = 0;
        for (pair, _) in &changed {
            self.read_pair(pair)?;
            done_bytes += self.len_bytes(pair);
            steps.step("rechecking", done_bytes, total_bytes);
        }
        Ok(any)
    }

    /// Returns the last known total size of a pair's day-files in bytes.
    fn len_bytes(&self, pair: &Arc<PairPath>) -> u64 {
        let stats = self.stats.get(pair).into_iter().flatten();
        stats.flatten().map(|stat| stat.len_bytes).sum()
    }

    fn stat_pair(&self, pair: &PairPath) -> PairStat {
        Stream::ALL
            .map(|stream| stat_day_file(self.lake.storage, &self.lake.root, stream, pair).ok())
    }

    fn read_pair(&mut self, pair: &Arc<PairPath>) -> Result<(), VerifyError> {
        let name = pair.file_name();
        let (keys, slice, narrowed) = (&mut self.keys, self.slice, self.narrowed);
        let without_overruled = self.without_overruled;
        let mut overruled = Overruled::default();
        let mut touched = BTreeSet::new();
        let read = read_pair(self.lake, pair, self.reading, &mut |line| {
            if without_overruled {
                overruled.add(line);
            }
            let Some(run) = line.run else {
                return ControlFlow::Continue(());
            };
            let key = LocalRowKey::from_scored(&name, run);
            let facts = match line.verdict {
                BatchVerdict::Exported if !narrowed && slice.has_key(key) => {
                    Some(keys.entry(key).or_default())
                }
                _ => keys.get_mut(&key),
            };
            if let Some(facts) = facts {
                let digest = row_digest(line).filter(|digest| slice.has_digest(*digest));
                facts.push_line(line_fact(pair, line), digest);
                if without_overruled {
                    touched.insert(key);
                }
            }
            ControlFlow::Continue(())
        });
        for key in touched {
            if let Some(facts) = keys.get_mut(&key) {
                facts.mark_dispensable(pair, &overruled.lines, slice.group.parts == 1);
            }
        }
        match read {
            Err(fault) if fault.is_partial => Err(VerifyError::Pair(fault)),
            Err(fault) if fault.source.kind() != io::ErrorKind::NotFound => {
                self.skipped.entry(fault.path).or_insert(fault.source);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Explains the rows and lines of the remaining keys and passes each key to `on_key`, with a
    /// function that adds them to the key's tally. Returns the number of rows made of lines and evidence.
    pub(super) fn explain(
        &self,
        on_key: &mut dyn FnMut(LocalRowKey, AddToTally<'_>) -> Result<(), VerifyError>,
    ) -> Result<u64, VerifyError> {
        let mut diagnosis = Diagnosis::default();
        let left: Vec<(LocalRowKey, &KeyRows, Unmatched)> = (self.keys.iter())
            .map(|(key, facts)| (*key, facts, facts.unmatched()))
            .collect();
        for (key, facts, left) in &left {
            diagnosis.add_key(*key);
            for row in &left.rows {
                diagnosis.add_row(*key, &facts.rows[row.at]);
            }
        }
        self.diagnose(&mut diagnosis)?;
        let is_whole = self.slice.group.parts == 1;
        let mut first_row = 0;
        for (key, facts, left) in &left {
            let rows = first_row..first_row + left.rows.len();
            first_row = rows.end;
            let explanations: Vec<Explanation> =
                rows.map(|row| diagnosis.explanation(row)).collect();
            let lines = left.lines.iter().map(|line| &facts.lines[*line].1);
            let settling: Vec<bool> = lines
                .map(|line| diagnosis.is_settling(*key, line))
                .collect();
            on_key(*key, &|tally| {
                tally.add(facts, left, &explanations, &settling, is_whole);
            })?;
        }
        Ok(diagnosis.rows_made())
    }

    /// Reads the pairs of all lines of the remaining keys.
    fn diagnose(&self, diagnosis: &mut Diagnosis<'_>) -> Result<(), VerifyError> {
        let now = Now {
            wall_ms: HostClock::new().wall_ms(),
            settle: self.options.settle,
        };
        let mut by_pair: BTreeMap<&Arc<PairPath>, Vec<(LocalRowKey, u64)>> = BTreeMap::new();
        for (key, facts) in &self.keys {
            for pair in &facts.pairs {
                let lines = by_pair.entry(&pair.first.pair).or_default();
                lines.push((*key, pair.count()));
            }
        }
        let max_line_bytes = self.options.max_line_bytes;
        for (pair, lines) in by_pair {
            let read = diagnosis.read_pair(self.lake, pair, max_line_bytes, now, &lines);
            read.map_err(|source| VerifyError::Examine {
                pair: pair.to_string(),
                source,
            })?;
        }
        Ok(())
    }
}

fn is_link(stats: &PairStat) -> bool {
    stats
        .iter()
        .flatten()
        .any(|stat| stat.kind == FileKind::Link)
}

/// Returns the digest of the line's row, if it has one.
fn row_digest(line: &JudgedLine<'_>) -> Option<u128> {
    let digest = || digest_without_stamps(line.row).expect("our own rows are JSON");
    (line.verdict == BatchVerdict::Exported).then(digest)
}

fn line_fact(pair: &Arc<PairPath>, line: &JudgedLine<'_>) -> LineFact {
    LineFact {
        pair: Arc::clone(pair),
        span: line.span,
        index: line.index.unwrap_or_default(),
        verdict: line.verdict.kind(),
        is_dispensable: false,
    }
}
