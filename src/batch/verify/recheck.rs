//! Collects rows and lines of the keys in one slice of the differing rows, rereads them until the differences have been
//! stable for long enough, and explains these. Memory is proportional to the rows in the slice, not to the history.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::batch::pair::{LakeReader, PairReadError, PairReading, PairTotals};
use crate::batch::parts::read_in_order;
use crate::batch::verify::collect::{CollectedLines, LineCollector};
use crate::batch::verify::compare::{KeyRows, LineFact, Signature};
use crate::batch::verify::error::VerifyError;
use crate::batch::verify::fact::RowFact;
use crate::batch::verify::rows::{ExportLine, ExportReader, Slice};
use crate::batch::verify::stamps::Stamps;
use crate::batch::verify::{Steps, UNKNOWN_ROWS, VerifyOptions};
use crate::lake::path::export_path;
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::stat_day_file;
use crate::pair::verdict::VerdictKind;
use crate::platform::root_lock;
use crate::platform::storage::{FileKind, FileStat};
use crate::record::keys::LocalRowKey;
use crate::store::written::RowBytes;

/// The first pause between two reads; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// A key that still changes after this multiple of the patience is not classified.
const MAX_WAIT_FACTOR: u32 = 4;

/// File metadata of the two day-files of a pair; `None` for a file that cannot be inspected.
type PairStat = [Option<FileStat>; 2];

/// The rows and lines of the keys in a slice.
pub(super) struct Recheck<'a> {
    pub(super) lake: &'a LakeReader<'a>,
    reading: &'a PairReading<'a>,
    pub(super) options: &'a VerifyOptions,
    pub(super) slice: Slice<'a>,
    export: ExportReader<'a>,
    pub(super) keys: HashMap<LocalRowKey, Box<KeyRows>>,
    /// Whether the export may lack rows that later lines overrule.
    pub without_overruled: bool,
    /// Returns for each of the rows at these offsets whether it is as it was written.
    pub(super) written_rows: &'a dyn Fn(&[u64]) -> Vec<RowBytes>,
    /// The timestamps of the export.
    pub(super) stamps: Arc<Stamps>,
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
            written_rows: UNKNOWN_ROWS.written,
            stamps: Arc::default(),
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
        self.keys.retain(|_, facts| facts.differs());
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
        if !root_lock::is_held(&self.lake.root) {
            changes = self.reread()?;
            if !changes {
                return Ok(Vec::new());
            }
        }
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
            changes = self.reread()?;
            if !is_served && !changes {
                return Ok(Vec::new());
            }
        }
    }

    /// Reads what is new. Returns whether there was anything.
    fn reread(&mut self) -> Result<bool, VerifyError> {
        // Sources first: every line was there before its row.
        let mut changes = self.read_sources(&mut Steps::silent())?;
        changes |= self.read_export()?;
        // A row read just now may belong to a line that is newer than the sources' last read.
        changes |= self.read_sources(&mut Steps::silent())?;
        Ok(changes)
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
        let map = |offset: u64, _: &[u8], line: ExportLine<'_>| match line {
            ExportLine::Row(row) if slice.has_key(row.key) => {
                let fact = RowFact::new(offset, &row);
                Some((row.key, slice.has_digest(fact.digest).then_some(fact)))
            }
            _ => None,
        };
        self.export.read_appended(&map, &mut |_, (key, row)| {
            let facts = match narrowed {
                true => keys.get_mut(&key),
                false => Some(keys.entry(key).or_default()),
            };
            let Some(facts) = facts else { return };
            facts.rows_total += 1;
            if let Some(row) = row {
                facts.push_row(row);
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
        let pairs = walked.day_files.into_iter();
        for pair in pairs.filter(|pair| self.slice.may_have_keys_of(pair)) {
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
        let lens: Vec<u64> = (changed.iter())
            .map(|(pair, _)| self.len_bytes(pair))
            .collect();
        let reader = LineCollector {
            lake: self.lake,
            reading: self.reading,
            slice: self.slice,
            with_overruled: self.without_overruled,
        };
        let mut pairs = changed.iter().map(|(pair, _)| pair).zip(lens);
        let mut touched = BTreeSet::new();
        let read = |(pair, _): &(Arc<PairPath>, bool),
                    send: &mut dyn FnMut(CollectedLines) -> bool| {
            reader.collect(pair, send);
        };
        read_in_order(&changed, &read, &mut |part: CollectedLines| {
            for (key, line, digest) in part.lines {
                self.add_line(key, line, digest, &mut touched);
            }
            let Some((read, overruled)) = part.end else {
                return Ok(());
            };
            if let Some((pair, len_bytes)) = pairs.next() {
                self.end_pair(pair, read, &overruled, std::mem::take(&mut touched))?;
                done_bytes += len_bytes;
                steps.step("rechecking", done_bytes, total_bytes);
            }
            Ok(())
        })?;
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

    fn add_line(
        &mut self,
        key: LocalRowKey,
        line: LineFact,
        digest: Option<u128>,
        touched: &mut BTreeSet<LocalRowKey>,
    ) {
        let is_exported = line.verdict == VerdictKind::Exported;
        let facts = match is_exported && !self.narrowed {
            true => Some(self.keys.entry(key).or_default()),
            false => self.keys.get_mut(&key),
        };
        if let Some(facts) = facts {
            facts.push_line(line, digest);
            if self.without_overruled {
                touched.insert(key);
            }
        }
    }

    fn end_pair(
        &mut self,
        pair: &Arc<PairPath>,
        read: Result<PairTotals, PairReadError>,
        overruled: &HashSet<u64>,
        touched: BTreeSet<LocalRowKey>,
    ) -> Result<(), VerifyError> {
        for key in touched {
            if let Some(facts) = self.keys.get_mut(&key) {
                facts.mark_dispensable(pair, overruled, self.slice.group.parts == 1);
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
}

fn is_link(stats: &PairStat) -> bool {
    stats
        .iter()
        .flatten()
        .any(|stat| stat.kind == FileKind::Link)
}
