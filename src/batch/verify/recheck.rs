//! Owns the closer look: everything that is known of the keys in buckets that differ, looked at again until what
//! differs has stayed the same for long enough, then judged. Memory follows what differs, not the history.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::batch::pair::{BatchVerdict, JudgedLine, LakeReader, PairReading, read_pair};
use crate::batch::verify::compare::{Explanation, Finding, KeyRows, LineFact, Unmatched, judge};
use crate::batch::verify::diagnose::{Candidate, Now, examine};
use crate::batch::verify::error::VerifyError;
use crate::batch::verify::rows::{ExportLine, ExportReader, RowFact, bucket_of};
use crate::batch::verify::{Steps, VerifyOptions};
use crate::lake::path::export_path;
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::walk;
use crate::platform::clock::{Clock as _, HostClock};
use crate::platform::storage::{FileKind, FileStat};
use crate::record::keys::RowKey;

/// The first pause between two looks; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// A key that still changes after so many times the patience is not judged.
const LONGEST_LOOK: u32 = 4;

/// What the file system says of the two day-files of a pair.
type Seen = [Option<FileStat>; 2];

/// What is known of the keys looked at.
pub(super) struct Recheck<'a> {
    lake: &'a LakeReader<'a>,
    reading: &'a PairReading<'a>,
    options: &'a VerifyOptions,
    /// The buckets looked at.
    wanted: &'a [bool],
    pub export: ExportReader<'a>,
    pub keys: HashMap<RowKey, KeyRows>,
    /// Whether all has been read once, and only keys that differ are still wanted.
    narrowed: bool,
    seen: BTreeMap<Arc<PairPath>, Seen>,
    pub passed_over: Vec<(PathBuf, io::Error)>,
}

/// What of a key has been left for how long.
struct Since {
    at: Instant,
    signature: Vec<u128>,
}

/// What came of a look.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub findings: Vec<(RowKey, Finding)>,
    /// Keys that never stayed the same for long enough.
    pub inconclusive: u64,
}

impl<'a> Recheck<'a> {
    pub(super) fn new(
        lake: &'a LakeReader<'a>,
        reading: &'a PairReading<'a>,
        options: &'a VerifyOptions,
        wanted: &'a [bool],
    ) -> Recheck<'a> {
        Recheck {
            lake,
            reading,
            options,
            wanted,
            export: ExportReader::new(lake.storage, &export_path(&lake.root)),
            keys: HashMap::new(),
            narrowed: false,
            seen: BTreeMap::new(),
            passed_over: Vec::new(),
        }
    }

    /// Reads all, waits out what is only late, and judges what stays.
    pub(super) fn judge(&mut self, steps: &mut Steps<'_>) -> Result<Judged, VerifyError> {
        self.read_export()?;
        self.read_sources(steps)?;
        self.keys.retain(|_, facts| !facts.leftover().is_empty());
        self.narrowed = true;
        let inconclusive = self.wait_for_what_is_late()?;
        let mut judged = self.judge_what_stays()?;
        judged.inconclusive = inconclusive;
        Ok(judged)
    }

    /// Keys that are equal by now are dropped, and those that never stay the same: how many those are is said.
    fn wait_for_what_is_late(&mut self) -> Result<u64, VerifyError> {
        let started = Instant::now();
        let patience = self.options.patience;
        let mut since: HashMap<RowKey, Since> = HashMap::new();
        let mut pause = FIRST_PAUSE.min(patience);
        loop {
            self.note_what_differs(&mut since);
            let is_old = |key: &RowKey| {
                since
                    .get(key)
                    .is_some_and(|since| since.at.elapsed() >= patience)
            };
            if self.keys.keys().all(is_old) {
                return Ok(0);
            }
            if started.elapsed() > patience * LONGEST_LOOK {
                let before = self.keys.len();
                self.keys.retain(|key, _| is_old(key));
                return Ok((before - self.keys.len()) as u64);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(patience);
            // Sources first: every row that is in the export by then had its line before.
            self.read_sources(&mut Steps::silent())?;
            self.read_export()?;
            // A row read just now may be of a line that was written just now.
            self.read_sources(&mut Steps::silent())?;
        }
    }

    fn note_what_differs(&mut self, since: &mut HashMap<RowKey, Since>) {
        self.keys.retain(|key, facts| {
            let left = facts.leftover();
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
        let (keys, wanted, narrowed) = (&mut self.keys, self.wanted, self.narrowed);
        self.export.read_on(&mut |offset, line| {
            let ExportLine::Row(row) = line else { return };
            let facts = match narrowed {
                true => keys.get_mut(&row.key),
                false if wanted[bucket_of(row.key)] => Some(keys.entry(row.key).or_default()),
                false => None,
            };
            if let Some(facts) = facts {
                facts.rows.push(RowFact::new(offset, &row));
            }
        })
    }

    /// Reads the pairs that are new or were changed since they were last read.
    fn read_sources(&mut self, steps: &mut Steps<'_>) -> Result<(), VerifyError> {
        let walked = walk(self.lake.storage, &self.lake.root, Stream::Scored);
        let walked = walked.map_err(|source| VerifyError::Walk {
            path: Stream::Scored.base(&self.lake.root),
            source,
        })?;
        let mut changed = Vec::new();
        let mut gone = std::mem::take(&mut self.seen);
        for pair in walked.day_files {
            let pair = Arc::new(pair);
            let now = self.seen_now(&pair);
            let before = gone.remove(&pair);
            if before.is_none_or(|before| before != now || is_link(&now)) {
                changed.push((Arc::clone(&pair), before.is_some()));
            }
            self.seen.insert(pair, now);
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
            steps.step("looking closer", done_bytes, total_bytes);
        }
        Ok(())
    }

    /// Length of a pair's day-files when they were last seen.
    fn len_bytes(&self, pair: &Arc<PairPath>) -> u64 {
        let seen = self.seen.get(pair).into_iter().flatten();
        seen.flatten().map(|stat| stat.len_bytes).sum()
    }

    fn seen_now(&self, pair: &PairPath) -> Seen {
        Stream::ALL.map(|stream| {
            let path = pair.path(&self.lake.root, stream);
            self.lake.storage.stat(&path).ok()
        })
    }

    fn read_pair(&mut self, pair: &Arc<PairPath>) -> Result<(), VerifyError> {
        let name = pair.file_name();
        let (keys, wanted, narrowed) = (&mut self.keys, self.wanted, self.narrowed);
        let read = read_pair(self.lake, pair, self.reading, &mut |line| {
            let Some(run) = line.run else {
                return ControlFlow::Continue(());
            };
            let key = RowKey::from_scored(&name, run);
            let facts = match line.verdict {
                BatchVerdict::Exported if !narrowed && wanted[bucket_of(key)] => {
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
                let known = self.passed_over.iter().any(|(path, _)| *path == fault.path);
                if !known {
                    self.passed_over.push((fault.path, fault.source));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn judge_what_stays(&self) -> Result<Judged, VerifyError> {
        let mut left: Vec<Left<'_>> = self.keys.iter().map(Left::of).collect();
        let mut by_pair: BTreeMap<&PairPath, Vec<(usize, usize)>> = BTreeMap::new();
        for (key, Left { facts, .. }) in left.iter().enumerate() {
            for (line, fact) in facts.lines.iter().enumerate() {
                by_pair.entry(&fact.pair).or_default().push((key, line));
            }
        }
        for (pair, places) in by_pair {
            self.ask_sources(pair, &places, &mut left)?;
        }
        let mut judged = Judged::default();
        for left in &left {
            let settling = left.left.lines.iter().map(|line| left.settling[*line]);
            let settling: Vec<bool> = settling.collect();
            let findings = judge(left.facts, &left.left, &left.standings, &settling);
            let findings = findings.into_iter().map(|finding| (left.key, finding));
            judged.findings.extend(findings);
        }
        Ok(judged)
    }

    /// Has the pair's day-files looked at for the lines at `places`: numbers of a key and of a line of that key.
    fn ask_sources(
        &self,
        pair: &PairPath,
        places: &[(usize, usize)],
        left: &mut [Left<'_>],
    ) -> Result<(), VerifyError> {
        let now = Now {
            wall_ms: HostClock::new().wall_ms(),
            settle: self.options.settle,
        };
        let cases = places.iter().map(|(key, line)| left[*key].case(*line));
        let mut cases: Vec<Candidate<'_>> = cases.collect();
        let max_line_bytes = self.options.max_line_bytes;
        examine(self.lake, pair, max_line_bytes, now, &mut cases).map_err(|source| {
            VerifyError::Examine {
                pair: pair.to_string(),
                source,
            }
        })?;
        for ((key, line), case) in places.iter().zip(cases) {
            left[*key].settling[*line] = case.settling;
            // The best that any line of a key says of a row counts.
            for (best, more) in left[*key].standings.iter_mut().zip(case.standings) {
                *best = (*best).max(more);
            }
        }
        Ok(())
    }
}

/// A key with what is left of it, and what the sources say of that.
struct Left<'k> {
    key: RowKey,
    facts: &'k KeyRows,
    left: Unmatched,
    /// Of the rows that are left.
    standings: Vec<Explanation>,
    /// Of all lines.
    settling: Vec<bool>,
}

impl<'k> Left<'k> {
    fn of((key, facts): (&RowKey, &'k KeyRows)) -> Left<'k> {
        let left = facts.leftover();
        Left {
            key: *key,
            facts,
            standings: vec![Explanation::Impossible; left.rows.len()],
            settling: vec![false; facts.lines.len()],
            left,
        }
    }

    fn case(&self, line: usize) -> Candidate<'k> {
        let rows = self.left.rows.iter().map(|row| &self.facts.rows[*row]);
        Candidate {
            line: &self.facts.lines[line],
            rows: rows.collect(),
            standings: vec![Explanation::Impossible; self.left.rows.len()],
            settling: false,
        }
    }
}

fn is_link(seen: &Seen) -> bool {
    let kinds = seen.iter().flatten();
    kinds.into_iter().any(|stat| stat.kind == FileKind::Link)
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
