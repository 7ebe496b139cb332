//! Owns the answer to "what would you do now?": the looks that a run would take at what is new, each followed in memory
//! alone. It reads from the remembered offsets on, so it costs what is new; it writes nothing and changes nothing.

pub(crate) mod reset;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::engine::read::{PairMemory, PairRead, ReadContext, read_pair};
use crate::engine::relocate::{first_inode, is_moved};
use crate::lake::chunk::LineLimits;
use crate::lake::identity::{SourceChange, seen};
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::walk;
use crate::pair::accounting::{CLASSES_MAX, OTHER, class_of};
use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::index::{PairId, UnclaimedRow};
use crate::pair::verdict::{LineTotals, PerVerdict};
use crate::pair::{ActivePair, JoinOutcome, Overlay};
use crate::platform::buffer_pool::Buffers;
use crate::platform::storage::Storage;
use crate::record::timestamp::stamp;
use crate::store::snapshot::{StateSnapshot, stream_name};
use crate::store::state::error::StateError;

/// Maximum number of day-files that are listed; of more only the number is given.
const NAMED_MAX: usize = 100;

/// Maximum number of rewrites of one day-file during a plan.
const REWRITES_MAX: u32 = 8;

/// The changes that the next run would make. Keys are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// When it was made, RFC 3339.
    pub as_of: String,
    /// Number of pairs that would be read.
    pub pairs: u64,
    /// The changes in total.
    pub total: Delta,
    /// The changes of each source class that has any.
    pub classes: BTreeMap<String, Delta>,
    /// Day-files that are not what was read of them and would be read again from their start, the first ones.
    pub read_again: Vec<AffectedFile>,
    /// The first day-files that would be skipped, and why.
    pub skipped: Vec<AffectedFile>,
}

/// By how much each figure would change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Delta {
    /// Rows that would be written.
    pub rows: i64,
    /// Rows that are in the export already and would be claimed by their lines.
    pub claimed: i64,
    /// Scored lines read.
    pub lines: i64,
    /// Scored lines by verdict, one JSON key each; below 0 if fewer lines have the verdict afterwards.
    #[serde(flatten)]
    pub verdicts: PerVerdict<i64>,
    /// Rows whose evidence was replaced later.
    pub superseded: i64,
    /// Rows whose run was rejected later.
    pub contradicted: i64,
    /// Evidence lines read.
    pub evidence_lines: i64,
    /// Malformed evidence lines.
    pub evidence_malformed: i64,
}

/// A day-file, and what about it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AffectedFile {
    /// `YYYY/MM/DD/NAME.jsonl`, below the stream's directory; or a directory that cannot be listed.
    pub day_file: String,
    /// `scored` or `evidence`.
    pub stream: String,
    /// The reason.
    pub reason: String,
}

/// The inputs of a plan.
pub struct PlanContext<'a> {
    /// The file system.
    pub storage: &'a dyn Storage,
    /// The root, without links in it.
    pub root: &'a Path,
    /// The export.
    pub export_path: &'a Path,
    /// A longer line is a dead letter.
    pub limits: LineLimits,
    /// Milliseconds since 1970.
    pub now_ms: u64,
    /// The state at one moment.
    pub figures: &'a StateSnapshot,
}

/// Computes the changes of the next run, with every line that settles.
///
/// # Errors
/// The state cannot be read. Problems of day-files are part of the plan.
pub fn plan(planning: &PlanContext<'_>) -> Result<Plan, StateError> {
    let mut making = Planner {
        planning,
        claimed: (*planning.figures.claimed).clone(),
        claimable: planning.figures.claimable,
        released: BTreeSet::new(),
        left: BTreeMap::new(),
        long_lines: Mutex::new(()),
        plan: Plan {
            as_of: stamp(planning.now_ms),
            ..Plan::default()
        },
    };
    for path in making.pairs_with_news()? {
        making.follow(&path)?;
    }
    Ok(making.plan)
}

struct Planner<'a> {
    planning: &'a PlanContext<'a>,
    claimed: BTreeSet<UnclaimedRow>,
    claimable: u64,
    /// Rows that would be free for the lines of the pair that is followed, or of any.
    released: BTreeSet<UnclaimedRow>,
    /// Pairs whose scored day-file was moved away.
    left: BTreeMap<PairPath, ActivePair>,
    long_lines: Mutex<()>,
    plan: Plan,
}

/// A pair that no state knows yet has a number that no claim is limited to.
const NEW_PAIR: PairId = PairId(u32::MAX - 1);

impl Planner<'_> {
    /// Returns the pairs that a run would read, in its order.
    fn pairs_with_news(&mut self) -> Result<BTreeSet<PairPath>, StateError> {
        let PlanContext {
            storage,
            root,
            figures,
            ..
        } = *self.planning;
        let mut with_news = BTreeSet::new();
        for stream in Stream::ALL {
            let walked = match walk(storage, root, stream) {
                Ok(walked) => walked,
                Err(error) => {
                    self.skip(&stream.base(root).display().to_string(), stream, &error);
                    continue;
                }
            };
            for path in walked.day_files {
                let known = figures.pair(&path)?;
                let is_known = |pair: Arc<ActivePair>| {
                    let stat = storage.stat(&path.path(root, stream));
                    stat.is_ok_and(|stat| pair.checkpoint.source(stream).seen == seen(&stat))
                };
                if !known.is_some_and(is_known) {
                    with_news.insert(path);
                }
            }
        }
        Ok(with_news)
    }

    /// Reads a pair as a run would.
    fn follow(&mut self, path: &PairPath) -> Result<(), StateError> {
        self.plan.pairs += 1;
        let mut pair = self.pair(path)?.unwrap_or_else(|| new_pair(path));
        let before = pair.checkpoint.figures();
        let (mut rows, mut claimed) = (0, 0);
        let mut memory = PairMemory::default();
        let mut settled = false;
        let mut rewrites = 0;
        loop {
            let found = self.look(&pair, path, memory, settled)?;
            for (stream, error) in &found.unreadable {
                self.skip(&path.to_string(), *stream, error);
            }
            if let Some((stream, why)) = found.rewritten {
                name(&mut self.plan.read_again, path, stream, why.code());
                rewrites += 1;
                if rewrites > REWRITES_MAX {
                    break;
                }
                pair = self.again(pair, stream, why)?;
                memory = PairMemory::default();
                continue;
            }
            let Some(outcome) = found.outcome else { break };
            if self.release_relocated_rows(path, &pair, &outcome)? {
                continue;
            }
            let moved = found.more || outcome.checkpoint != pair.checkpoint;
            rows += outcome.new_rows.len() as i64;
            claimed += outcome.overlay.claimed_rows.len() as i64;
            self.claim(&outcome.overlay.claimed_rows);
            pair.checkpoint = outcome.checkpoint;
            pair.overlay.extend(outcome.overlay);
            memory = found.memory;
            if found.more {
                continue;
            }
            // Settled once with nothing gained: what is left is torn.
            if !memory.may_settle() || settled && !moved {
                break;
            }
            settled = true;
        }
        self.sum_up(&pair.checkpoint, &before, rows, claimed);
        self.released.retain(|claim| claim.scope == PairId::ANY);
        Ok(())
    }

    /// The pair as a run would know it by now.
    fn pair(&self, path: &PairPath) -> Result<Option<ActivePair>, StateError> {
        if let Some(pair) = self.left.get(path) {
            return Ok(Some(pair.clone()));
        }
        let known = self.planning.figures.pair(path)?;
        Ok(known.map(|pair| (*pair).clone()))
    }

    fn again(
        &mut self,
        pair: ActivePair,
        stream: Stream,
        why: SourceChange,
    ) -> Result<ActivePair, StateError> {
        let (pair, released) = reset::again(self.planning, pair, stream, why)?;
        self.released.extend(released);
        Ok(pair)
    }

    /// Releases the rows of a day-file that was moved here, and returns whether there were any, so that the pair is
    /// read again.
    fn release_relocated_rows(
        &mut self,
        path: &PairPath,
        pair: &ActivePair,
        outcome: &JoinOutcome,
    ) -> Result<bool, StateError> {
        let PlanContext {
            storage,
            root,
            figures,
            ..
        } = *self.planning;
        let Some(inode) = first_inode(&pair.checkpoint, &outcome.checkpoint) else {
            return Ok(false);
        };
        for (from, known) in figures.pairs_with_inode(inode)? {
            if self.left.contains_key(&from)
                || !is_moved(storage, root, &from, &known.checkpoint, path)
            {
                continue;
            }
            name(
                &mut self.plan.read_again,
                &from,
                Stream::Scored,
                SourceChange::Moved.code(),
            );
            let left = self.again((*known).clone(), Stream::Scored, SourceChange::Moved)?;
            self.sum_up(&left.checkpoint, &known.checkpoint.figures(), 0, 0);
            self.left.insert(from, left);
            return Ok(true);
        }
        Ok(false)
    }

    fn look(
        &self,
        pair: &ActivePair,
        path: &PairPath,
        memory: PairMemory,
        settled: bool,
    ) -> Result<PairRead, StateError> {
        let planning = self.planning;
        let looking = ReadContext {
            buffers: &Buffers::default(),
            storage: planning.storage,
            root: planning.root,
            export_path: planning.export_path,
            view: &planning.figures.view,
            claimed: &self.claimed,
            released: &self.released,
            claims_possible: self.claimable > 0 || !self.released.is_empty(),
            limits: planning.limits,
            long_lines: &self.long_lines,
            stamp: &self.plan.as_of,
            now_ms: planning.now_ms,
            settle_first: false,
        };
        read_pair(pair, path, memory, settled, &looking)
    }

    fn claim(&mut self, claims: &[UnclaimedRow]) {
        let listed = claims.iter().filter(|claim| !self.released.contains(claim));
        self.claimable = self.claimable.saturating_sub(listed.count() as u64);
        self.claimed.extend(claims.iter().copied());
    }

    fn sum_up(
        &mut self,
        checkpoint: &PairCheckpoint,
        before: &LineTotals,
        rows: i64,
        claimed: i64,
    ) {
        let changes = Delta {
            rows,
            claimed,
            ..Delta::between(before, &checkpoint.figures())
        };
        if changes != Delta::default() {
            self.plan.total.add(&changes);
            let mut class = class_of(&checkpoint.path);
            if self.plan.classes.len() >= CLASSES_MAX && !self.plan.classes.contains_key(&class) {
                OTHER.clone_into(&mut class);
            }
            self.plan.classes.entry(class).or_default().add(&changes);
        }
    }

    fn skip(&mut self, what: &str, stream: Stream, error: &io::Error) {
        if self.plan.skipped.len() < NAMED_MAX {
            self.plan.skipped.push(AffectedFile {
                day_file: what.to_owned(),
                stream: stream_name(stream).to_owned(),
                reason: error.to_string(),
            });
        }
    }
}

fn new_pair(path: &PairPath) -> ActivePair {
    ActivePair {
        id: NEW_PAIR,
        checkpoint: PairCheckpoint::new(path.as_bytes().to_vec()),
        overlay: Overlay::default(),
        persisted: false,
    }
}

fn name(named: &mut Vec<AffectedFile>, path: &PairPath, stream: Stream, reason: &str) {
    if named.len() < NAMED_MAX {
        named.push(AffectedFile {
            day_file: path.to_string(),
            stream: stream_name(stream).to_owned(),
            reason: reason.to_owned(),
        });
    }
}

impl Delta {
    /// Returns the change from one account to another, without rows and claims.
    #[must_use]
    pub fn between(before: &LineTotals, after: &LineTotals) -> Self {
        let step = |before: u64, after: u64| after as i64 - before as i64;
        let (old, new) = (before.by_verdict(), after.by_verdict());
        Self {
            rows: 0,
            claimed: 0,
            lines: step(before.scored_lines, after.scored_lines),
            verdicts: PerVerdict::from_fn(|kind| step(old[kind], new[kind])),
            superseded: step(before.counts.superseded, after.counts.superseded),
            contradicted: step(before.counts.contradicted, after.counts.contradicted),
            evidence_lines: step(before.evidence_lines, after.evidence_lines),
            evidence_malformed: step(before.evidence_malformed, after.evidence_malformed),
        }
    }

    fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.claimed += other.claimed;
        self.lines += other.lines;
        self.verdicts += other.verdicts;
        self.superseded += other.superseded;
        self.contradicted += other.contradicted;
        self.evidence_lines += other.evidence_lines;
        self.evidence_malformed += other.evidence_malformed;
    }

    /// Returns each figure with its name, in the order in which a table prints them.
    #[must_use]
    pub fn figures(&self) -> Vec<(String, i64)> {
        let first = [
            ("rows", self.rows),
            ("claimed", self.claimed),
            ("lines", self.lines),
        ];
        let last = [
            ("superseded", self.superseded),
            ("contradicted", self.contradicted),
            ("evidence lines", self.evidence_lines),
            ("evidence malformed", self.evidence_malformed),
        ];
        let named = |(name, change): (&str, i64)| (name.to_owned(), change);
        let verdicts = self
            .verdicts
            .iter()
            .map(|(kind, change)| (kind.title(), change));
        (first.map(named).into_iter())
            .chain(verdicts)
            .chain(last.map(named))
            .collect()
    }
}
