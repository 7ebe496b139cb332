//! A dry run: reads the new lines of each pair as a run would, in memory, and counts the changes. It reads from the stored
//! offsets, so its cost follows the new input; it writes nothing.

mod delta;
mod ledger;
mod relocate;
pub(crate) mod reset;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::config::Exclude;
use crate::engine::read::{PairMemory, PairRead, ReadContext, Settled, read_pair};
use crate::engine::relocate::first_inode;
use crate::lake::chunk::LineLimits;
use crate::lake::identity::{SourceChange, seen};
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::{stat_day_file, walk};
use crate::pair::accounting::{CLASSES_MAX, OTHER, class_of};
use crate::pair::checkpoint::{PairCheckpoint, Review};
use crate::pair::index::{PairId, UnclaimedRow};
use crate::pair::orders::Orders;
use crate::pair::verdict::LineTotals;
use crate::pair::{ActivePair, Overlay};
use crate::platform::buffer_pool::Buffers;
use crate::platform::storage::Storage;
use crate::record::kept_stamps::KeptStamps;
use crate::record::timestamp::stamp;
use crate::store::snapshot::{StateSnapshot, stream_name};
use crate::store::state::error::StateError;

pub use delta::Delta;

use ledger::PlannedLedger;

/// Maximum number of day-files that are listed; of more only the number is given.
const NAMED_MAX: usize = 100;

/// Maximum number of rewrites of one day-file during a plan.
const REWRITES_MAX: u32 = 8;

/// The changes that the next run would make. Keys are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// Time of the plan, RFC 3339.
    pub as_of: String,
    /// Number of pairs that would be read.
    pub pairs: u64,
    /// The changes in total.
    pub total: Delta,
    /// The changes of each source class that has any.
    pub classes: BTreeMap<String, Delta>,
    /// The first day-files that changed before their offset and would be read again from the start.
    pub read_again: Vec<AffectedFile>,
    /// The first day-files that would be skipped, and why.
    pub skipped: Vec<AffectedFile>,
}

/// A day-file with the reason why it is listed.
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
    /// The root directory, with links resolved.
    pub root: &'a Path,
    /// Path of the export.
    pub export_path: &'a Path,
    /// Line limits; a longer line is malformed.
    pub limits: LineLimits,
    /// Time of the plan, milliseconds since 1970.
    pub now_ms: u64,
    /// Snapshot of the state.
    pub state: &'a StateSnapshot,
    /// The day-files that are not read.
    pub exclude: &'a Exclude,
}

/// Computes the changes of the next run, with every line that settles.
///
/// # Errors
/// The state cannot be read. Problems of day-files are part of the plan.
pub fn plan(context: &PlanContext<'_>) -> Result<Plan, StateError> {
    let mut planner = Planner {
        context,
        claimed: (*context.state.claimed).clone(),
        claimable: context.state.claimable,
        released: BTreeSet::new(),
        unclaimed: None,
        with_unclaimed: None,
        left: BTreeMap::new(),
        new: BTreeMap::new(),
        orders: Arc::clone(&context.state.orders),
        long_lines: Mutex::new(()),
        ledger: PlannedLedger::default(),
        plan: Plan {
            as_of: stamp(context.now_ms),
            ..Plan::default()
        },
    };
    for path in planner.pairs_with_news()? {
        planner.read_new_lines(&path)?;
    }
    Ok(planner.plan)
}

struct Planner<'a> {
    context: &'a PlanContext<'a>,
    claimed: BTreeSet<UnclaimedRow>,
    claimable: u64,
    /// Rows that become claimable for lines of the pair being read, or of any pair.
    released: BTreeSet<UnclaimedRow>,
    /// Rows that were claimable before, by the pair whose lines may claim them; read where a day-file was moved.
    unclaimed: Option<BTreeMap<PairId, Vec<UnclaimedRow>>>,
    /// The pairs that have such rows; read where one grows.
    with_unclaimed: Option<BTreeSet<PairId>>,
    /// Pairs whose scored day-file was moved away.
    left: BTreeMap<PairPath, ActivePair>,
    /// The ids of pairs that the state does not have yet.
    new: BTreeMap<PairPath, PairId>,
    /// The orders, with those that follow a moved day-file.
    orders: Arc<Orders>,
    long_lines: Mutex<()>,
    ledger: PlannedLedger,
    plan: Plan,
}

impl Planner<'_> {
    /// Returns the pairs that a run would read, in its order.
    fn pairs_with_news(&mut self) -> Result<BTreeSet<PairPath>, StateError> {
        let PlanContext {
            storage,
            root,
            state,
            ..
        } = *self.context;
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
                if self.context.exclude.matches(path.as_path()) {
                    continue;
                }
                let known = state.pair(&path)?;
                let is_known = |pair: Arc<ActivePair>| {
                    let stat = stat_day_file(storage, root, stream, &path);
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
    fn read_new_lines(&mut self, path: &PairPath) -> Result<(), StateError> {
        self.plan.pairs += 1;
        let state = self.context.state;
        let known = self.pair(path)?;
        let mut pair = known.unwrap_or_else(|| new_pair(self.id_of_new(path), path));
        let mut before = pair.checkpoint.line_totals();
        let mut made = Delta::default();
        let mut memory = PairMemory::default();
        let mut settled = Settled::default();
        let mut rewrites = 0;
        loop {
            let read = self.read(&pair, path, memory, settled)?;
            for (stream, error) in &read.unreadable {
                self.skip(&path.to_string(), *stream, error);
            }
            if !read.rewritten.is_empty() {
                rewrites += 1;
                if rewrites > REWRITES_MAX {
                    break;
                }
                if !self.left.contains_key(path) {
                    self.release_moved_rows(path)?;
                    if let Some(left) = self.left.get(path) {
                        pair = left.clone();
                        before = pair.checkpoint.line_totals();
                    }
                }
                for (stream, why) in read.rewritten {
                    // Otherwise it was reset as one that was moved.
                    if pair.checkpoint.source(stream).identity.is_some() {
                        name(&mut self.plan.read_again, path, stream, why.code());
                        pair = self.reset(pair, stream, why, None)?;
                    }
                }
                memory = PairMemory::default();
                continue;
            }
            let Some(mut outcome) = read.outcome else {
                break;
            };
            let is_first_read = first_inode(&pair.checkpoint, &outcome.checkpoint).is_some();
            if is_first_read && self.release_moved_rows(path)? {
                pair.checkpoint.review.insert(Review::REREAD);
                continue;
            }
            let moved = read.more || outcome.checkpoint != pair.checkpoint;
            made.rows += outcome.new_rows.len() as i64;
            made.claimed += outcome.overlay.claimed_rows.len() as i64;
            self.claim(&outcome.overlay.claimed_rows);
            made.retracted += self.ledger.retract(state, &mut outcome)?;
            let review = self.review_after(pair.id, &outcome.overlay)?;
            pair.checkpoint = outcome.checkpoint;
            pair.checkpoint.review.insert(review);
            pair.overlay.extend(outcome.overlay);
            memory = read.memory;
            if read.more {
                continue;
            }
            // Unless the unterminated line settled without a result: the rest is partial then.
            if memory.may_settle() && (settled != Settled::BOTH || moved) {
                settled = Settled::BOTH;
                continue;
            }
            self.review(&pair, &mut made)?;
            break;
        }
        self.sum_up(&pair.checkpoint, &before, &made);
        Ok(())
    }

    /// Examines the rows of a pair that is read to its end, as a run would.
    fn review(&mut self, pair: &ActivePair, made: &mut Delta) -> Result<(), StateError> {
        let (state, review) = (self.context.state, pair.checkpoint.review);
        if review.contains(Review::CLAIMED) {
            made.restored += self.ledger.restore(state, pair, &self.orders)?;
        }
        if review.contains(Review::REREAD) {
            made.retracted += self.retract_rows_of_gone_lines(pair)?;
        }
        Ok(())
    }

    /// Returns the id of a pair that the state does not have yet; the state counts from the other end.
    fn id_of_new(&mut self, path: &PairPath) -> PairId {
        let next = PairId(PairId::MAX.0 - self.new.len() as u32);
        *self.new.entry(path.clone()).or_insert(next)
    }

    /// Returns the pair as a run would have it at this point.
    fn pair(&self, path: &PairPath) -> Result<Option<ActivePair>, StateError> {
        if let Some(pair) = self.left.get(path) {
            return Ok(Some(pair.clone()));
        }
        let known = self.context.state.pair(path)?;
        Ok(known.map(|pair| (*pair).clone()))
    }

    fn reset(
        &mut self,
        pair: ActivePair,
        stream: Stream,
        why: SourceChange,
        heir: Option<PairId>,
    ) -> Result<ActivePair, StateError> {
        let (pair, released) = reset::reset(self.context, pair, stream, why, heir)?;
        self.released.extend(released);
        Ok(pair)
    }

    fn read(
        &self,
        pair: &ActivePair,
        path: &PairPath,
        memory: PairMemory,
        settled: Settled,
    ) -> Result<PairRead, StateError> {
        let context = self.context;
        let reading = ReadContext {
            buffers: &Buffers::default(),
            storage: context.storage,
            root: context.root,
            export_path: context.export_path,
            view: &context.state.view,
            claimed: &self.claimed,
            released: &self.released,
            claims_possible: self.claimable > 0 || !self.released.is_empty(),
            orders: &self.orders,
            left_out: &HashSet::new(),
            limits: context.limits,
            long_lines: &self.long_lines,
            stamp: &self.plan.as_of,
            kept_stamps: &KeptStamps::default(),
            now_ms: context.now_ms,
            settle_first: false,
        };
        read_pair(pair, path, memory, settled, &reading)
    }

    fn claim(&mut self, claims: &[UnclaimedRow]) {
        let listed = claims.iter().filter(|claim| !self.released.contains(claim));
        self.claimable = self.claimable.saturating_sub(listed.count() as u64);
        self.claimed.extend(claims.iter().copied());
    }

    /// Adds what a run does to a pair: `made`, and the change of its account.
    fn sum_up(&mut self, checkpoint: &PairCheckpoint, before: &LineTotals, made: &Delta) {
        let mut changes = Delta::between(before, &checkpoint.line_totals());
        changes.add(made);
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

fn new_pair(id: PairId, path: &PairPath) -> ActivePair {
    ActivePair {
        id,
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
