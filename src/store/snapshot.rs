//! Owns all that is remembered at one moment, and the looking up in it: what the state had taken in, and over it what
//! only memory or the journal knew. Every question of an operator is answered from here, with a daemon and without.
//! It never changes anything, and may be read at leisure on any thread.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use crate::lake::path::{PairPath, Stream};
use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::index::{DeadLetter, EvidenceLocation, PairId, ScoredLine, UnclaimedRow};
use crate::pair::orders::Orders;
use crate::pair::verdict::Verdict;
use crate::pair::{ActivePair, Overlay};
use crate::record::keys::RunKey;
use crate::store::ledger::RowFlags;
use crate::store::state::StateView;
use crate::store::state::error::StateError;

/// All that is remembered of pairs and lines at one moment. It keeps pages of the state alive: drop it soon.
#[derive(Debug, Clone)]
pub struct StateSnapshot {
    /// The state as of its last checkpoint.
    pub view: Arc<StateView>,
    /// Pairs of which memory knows more than the state, in their order; their overlays go before it.
    pub changed: Vec<(PairPath, Arc<ActivePair>)>,
    /// Claims that the state still lists.
    pub claimed: Arc<BTreeSet<UnclaimedRow>>,
    /// Rows that no line has claimed.
    pub claimable: u64,
    /// The standing orders of operators.
    pub orders: Arc<Orders>,
    /// The flags of rows in the retraction ledger, as far as the state does not have them yet.
    pub recent_flags: Arc<BTreeMap<u64, RowFlags>>,
}

/// The lines of one run in one pair.
#[derive(Debug, Clone)]
pub struct RunOccurrences {
    /// The pair, without what the state has taken in of its lines.
    pub pair: Arc<ActivePair>,
    /// Its scored lines, in order.
    pub entries: Vec<ScoredLine>,
    /// The last evidence with its id.
    pub evidence: Option<EvidenceLocation>,
}

impl StateSnapshot {
    /// Brings the pairs in memory into their order.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.changed
            .sort_by(|(path, _), (other, _)| path.cmp(other));
        self
    }

    /// Returns the flags of a row in the retraction ledger.
    ///
    /// # Errors
    /// The state's.
    pub fn row_flags(&self, row_offset: u64) -> Result<RowFlags, StateError> {
        match self.recent_flags.get(&row_offset) {
            Some(flags) => Ok(*flags),
            None => self.view.row_flags(row_offset),
        }
    }

    /// A pair as it is known.
    ///
    /// # Errors
    /// The state's.
    pub fn pair(&self, path: &PairPath) -> Result<Option<Arc<ActivePair>>, StateError> {
        let found = self.changed.binary_search_by(|(other, _)| other.cmp(path));
        if let Ok(at) = found {
            return Ok(Some(Arc::clone(&self.changed[at].1)));
        }
        match self.view.pair_id(path.as_bytes())? {
            Some(id) => self.persisted(id).map(Some),
            None => Ok(None),
        }
    }

    /// Returns the pairs, with their paths, whose scored day-file had this inode when it was last read.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn pairs_with_inode(
        &self,
        inode: u64,
    ) -> Result<Vec<(PairPath, Arc<ActivePair>)>, StateError> {
        let has_inode = |pair: &ActivePair| pair.checkpoint.scored_inode() == Some(inode);
        let changed = self.changed.iter().filter(|(_, pair)| has_inode(pair));
        let mut found: Vec<_> = changed.cloned().collect();
        for id in self.view.pairs_with_inode(inode)? {
            let pair = self.persisted(id)?;
            let Some(path) = pair_path(&pair.checkpoint) else {
                continue;
            };
            if self
                .changed
                .binary_search_by(|(other, _)| other.cmp(&path))
                .is_err()
            {
                found.push((path, pair));
            }
        }
        Ok(found)
    }

    fn persisted(&self, id: PairId) -> Result<Arc<ActivePair>, StateError> {
        Ok(Arc::new(ActivePair {
            id,
            checkpoint: self.view.checkpoint(id)?,
            overlay: Overlay::default(),
            persisted: true,
        }))
    }

    /// Calls `visit` with every pair, those in memory first.
    ///
    /// # Errors
    /// The state's.
    pub fn for_each_pair(
        &self,
        mut visit: impl FnMut(PairId, &PairCheckpoint),
    ) -> Result<(), StateError> {
        let mut in_memory = BTreeSet::new();
        for (_, pair) in &self.changed {
            in_memory.insert(pair.id);
            visit(pair.id, &pair.checkpoint);
        }
        self.view.for_each_pair(|id, checkpoint| {
            if !in_memory.contains(&id) {
                visit(id, &checkpoint);
            }
        })
    }

    /// Calls `visit` with every well-formed scored line of a pair, those in memory first.
    ///
    /// # Errors
    /// The state's.
    pub fn for_each_scored(
        &self,
        pair: &ActivePair,
        mut visit: impl FnMut(ScoredLine),
    ) -> Result<(), StateError> {
        let overlay = &pair.overlay.entries;
        overlay.values().copied().for_each(&mut visit);
        if !pair.persisted {
            return Ok(());
        }
        self.view.for_each_entry(pair.id, |entry| {
            if !overlay.contains_key(&(entry.run, entry.offset)) {
                visit(entry);
            }
        })
    }

    /// Returns the offsets of the rows of a pair that neither a later line nor one of the orders keeps out.
    ///
    /// # Errors
    /// The state's.
    pub fn rows_in_force(
        &self,
        pair: &ActivePair,
        orders: &Orders,
    ) -> Result<Vec<u64>, StateError> {
        let mut rows = Vec::new();
        self.for_each_scored(pair, |line| {
            if let Verdict::Exported {
                row_offset,
                contradicted: false,
                ..
            } = line.verdict
                && !orders.apply_to(line.run, &pair.checkpoint.path)
            {
                rows.push(row_offset);
            }
        })?;
        Ok(rows)
    }

    /// Calls `visit` with every scored line of a pair that is waiting.
    ///
    /// # Errors
    /// The state's.
    pub fn for_each_waiting(
        &self,
        pair: &ActivePair,
        mut visit: impl FnMut(ScoredLine, u64),
    ) -> Result<(), StateError> {
        self.for_each_scored(pair, |entry| {
            if let Verdict::Waiting { since_s, .. } = entry.verdict {
                visit(entry, since_s);
            }
        })
    }

    /// Returns the occurrences of a run in every pair, in the order of their paths.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn find_run(&self, run: RunKey) -> Result<Vec<RunOccurrences>, StateError> {
        let mut found = Vec::new();
        let mut ids: BTreeSet<PairId> = self.view.pairs_with(run)?.into_iter().collect();
        for (_, pair) in &self.changed {
            let persisted = ids.remove(&pair.id);
            let run_in_pair = self.run_in(Arc::clone(pair), run, persisted)?;
            found.extend(run_in_pair);
        }
        for id in ids {
            found.extend(self.run_in(self.persisted(id)?, run, true)?);
        }
        found.sort_by_key(|found| pair_path(&found.pair.checkpoint));
        Ok(found)
    }

    fn run_in(
        &self,
        pair: Arc<ActivePair>,
        run: RunKey,
        persisted: bool,
    ) -> Result<Option<RunOccurrences>, StateError> {
        let entries = entries_in(&self.view, &pair, run, persisted)?;
        let mut evidence = pair.overlay.evidence.get(&run).copied();
        if persisted && evidence.is_none() {
            evidence = self.view.evidence(pair.id, run)?;
        }
        let is_known = !entries.is_empty() || evidence.is_some();
        Ok(is_known.then_some(RunOccurrences {
            pair,
            entries,
            evidence,
        }))
    }

    /// The scored lines of a run in a pair, in order.
    ///
    /// # Errors
    /// The state's.
    pub fn entries_of(
        &self,
        pair: &ActivePair,
        run: RunKey,
    ) -> Result<Vec<ScoredLine>, StateError> {
        entries_in(&self.view, pair, run, pair.persisted)
    }

    /// Calls `visit` with dead letters in the order of pair ids, streams and offsets, each once, until `visit` returns a break.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn dead_letters(
        &self,
        mut visit: impl FnMut(PairId, DeadLetter) -> bool,
    ) -> Result<(), StateError> {
        let mut go_on = true;
        let newer = self.changed.iter().flat_map(|(_, pair)| {
            let letters = pair.overlay.dead_letters.iter();
            letters.map(|letter| (pair.id, letter.clone()))
        });
        let mut newer: Vec<_> = newer.collect();
        let place = |id: PairId, letter: &DeadLetter| (id, letter.place());
        newer.sort_by_key(|(id, letter)| place(*id, letter));
        let mut newer = newer.into_iter().peekable();
        self.view.for_each_dead_letter(|id, letter| {
            let here = place(id, &letter);
            while let Some((id, letter)) =
                newer.next_if(|(id, letter)| go_on && place(*id, letter) < here)
            {
                go_on = visit(id, letter);
            }
            // A source that is read again has its dead letters a second time: the newer one comes next.
            let is_replaced = newer
                .peek()
                .is_some_and(|(id, letter)| place(*id, letter) == here);
            go_on = go_on && (is_replaced || visit(id, letter));
            go_on
        })?;
        for (id, letter) in newer {
            go_on = go_on && visit(id, letter);
        }
        Ok(())
    }
}

/// The scored lines of a run in a pair, in order. `persisted` is whether the state may have any.
///
/// # Errors
/// The state's.
pub fn entries_in(
    view: &StateView,
    pair: &ActivePair,
    run: RunKey,
    persisted: bool,
) -> Result<Vec<ScoredLine>, StateError> {
    let mut entries = BTreeMap::new();
    if persisted {
        let known = view.entries(pair.id, run)?;
        entries.extend(known.into_iter().map(|entry| (entry.offset, entry)));
    }
    let newer = pair.overlay.entries.range((run, 0)..=(run, u64::MAX));
    entries.extend(newer.map(|((_, offset), entry)| (*offset, *entry)));
    Ok(entries.into_values().collect())
}

/// The path that a pair is kept under.
#[must_use]
pub fn pair_path(checkpoint: &PairCheckpoint) -> Option<PairPath> {
    PairPath::from_relative(Path::new(OsStr::from_bytes(&checkpoint.path)))
}

/// A pair's path as a person reads it.
#[must_use]
pub fn shown_path(checkpoint: &PairCheckpoint) -> String {
    String::from_utf8_lossy(&checkpoint.path).into_owned()
}

/// The name of a stream in answers.
#[must_use]
pub fn stream_name(stream: Stream) -> &'static str {
    match stream {
        Stream::Scored => "scored",
        Stream::Evidence => "evidence",
    }
}
