//! Owns the pipeline: which pairs are looked at, what of that is committed, and when it is shown. It reaches the
//! disk only through [`crate::platform::storage`] and the time only through [`crate::platform::clock`], so that a test can crash it at any call.
//!
//! The rules, in the order of a batch's life; each is asserted here, and cited by number in the tests:
//!
//! 1. Commit, then show: the journal holds a batch, durable, before the first of its rows is appended to the export.
//! 2. A source's offset is a low watermark: each line before it is exported, refused, a dead letter, or waiting, and
//!    that is in the same batch as the offset.
//! 3. Closed: the bytes about to be shown are read again, and a row that is not accepted stops the daemon.
//! 4. The accounts of every pair in a batch, and the totals, balance before it is committed.
//! 5. A row is shown once: a line whose row is already in the export claims it instead.
//! 6. What fails is tried again with the same bytes at the same offset, or the daemon stops; nothing is skipped.
//!
//! A batch that shows nothing may wait for the next one: what it holds is read again from the sources if it is lost.

mod commit;
mod error;
pub mod lag;
mod merge;
pub mod metrics;
pub(crate) mod open_files;
pub(crate) mod pairs;
pub mod read;
pub(crate) mod read_task;
pub mod relocate;
pub(crate) mod report;
pub(crate) mod reset;
pub(crate) mod schedule;
pub(crate) mod scrub;
pub(crate) mod sealed_batch;
mod setup;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::engine::metrics::Metrics;
use crate::engine::read::PairMemory;
use crate::lake::path::{PairPath, Stream};
use crate::pair::ActivePair;
use crate::pair::accounting::Account;
use crate::pair::history::Recent;
use crate::pair::index::UnclaimedRow;
use crate::pair::verdict::VerdictKind;
use crate::platform::background::Beside;
use crate::platform::buffer_pool::Buffers;
use crate::store::export::{Export, ExportError};
use crate::store::files::JOURNAL_FILE;
use crate::store::journal::Journal;
use crate::store::journal::batch::Batch;
use crate::store::state::{State, StateView};

pub use error::EngineError;
use lag::{Backlog, Lag, PartialLines};
use open_files::OpenFileGuard;
use relocate::Inodes;
use sealed_batch::{Committing, Sealed};
pub use setup::Reconfigure;
pub use setup::{BATCH_BYTES, Setup};

/// Entries of all overlays at which a checkpoint is due: about 8 MiB of memory.
const OVERLAY_ENTRIES_MAX: usize = 64 << 10;
/// A batch that shows nothing is committed when it is this old.
const QUIET_COMMIT_MS: u64 = 1_000;
/// When nothing changed for so long, what the journal holds is taken into the state.
const QUIET_CHECKPOINT_MS: u64 = 30_000;

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PassReport {
    /// Pairs looked at.
    pub pairs: u64,
    /// Rows shown.
    pub rows: u64,
    /// Scored lines read.
    pub scored_lines: u64,
    /// Evidence lines read.
    pub evidence_lines: u64,
    /// Lines that became dead letters.
    pub malformed: u64,
    /// Bytes of sources that were read.
    pub source_bytes: u64,
}

/// A pair in memory.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) pair: Arc<ActivePair>,
    pub(crate) memory: PairMemory,
    /// Changed since the last checkpoint, in a way that a checkpoint writes.
    pub(crate) changed: bool,
    /// What is wrong with its sources has been said.
    pub(crate) said: BTreeSet<(Stream, String)>,
}

impl Slot {
    pub(crate) fn new(pair: ActivePair) -> Self {
        Self {
            pair: Arc::new(pair),
            memory: PairMemory::default(),
            changed: false,
            said: BTreeSet::new(),
        }
    }
}

/// The pipeline.
#[derive(Debug)]
pub struct Engine {
    pub(crate) setup: Setup,
    pub(crate) state: State,
    /// Where the open state's file lies.
    pub(crate) state_path: PathBuf,
    /// State and journal.
    kept_files: [OpenFileGuard; 2],
    pub(crate) view: Arc<StateView>,
    pub(crate) journal: Journal,
    pub(crate) export: Export,
    pub(crate) account: Account,
    /// The last day, minute by minute.
    recent: Recent,
    pub(crate) pair_next: u32,
    pub(crate) claimable: u64,
    /// Claims that the state still lists.
    pub(crate) claimed: Arc<BTreeSet<UnclaimedRow>>,
    pub(crate) slots: BTreeMap<PairPath, Slot>,
    /// Memory that passes use again and again.
    pub(crate) buffers: Arc<Buffers>,
    /// Looked at first: somebody said that they changed.
    hinted: BTreeSet<PairPath>,
    /// Looked at when nothing is hinted: found by a scan.
    backlog: BTreeSet<PairPath>,
    pub(crate) inodes: Inodes,
    /// Day-files that were moved, from where and to where: nothing of them is looked at before their rows are released.
    moves: BTreeSet<(PairPath, PairPath)>,
    /// In this pass rows were released that the lines of any pair may claim.
    released_globally: bool,
    /// When the unterminated line of a pair will have been still for long enough.
    pub(crate) settling: BTreeMap<PairPath, u64>,
    /// Whether a pair changed since the last checkpoint.
    pub(crate) any_changed: bool,
    /// Whether somebody waits for the end of the pass: hints, questions, a stop.
    awaited: Arc<AtomicBool>,
    /// Whether a pass commits the rows that it found, however few.
    commits_each_pass: bool,
    /// Bytes of sources that were merged in this pass.
    pass_bytes: u64,
    /// Entries of all overlays.
    pub(crate) overlay_entries: usize,
    /// Merged, not committed.
    pub(crate) pending: Batch,
    pending_since_ms: u64,
    /// Sealed, its frame being written by another thread. Only within a pass.
    committing: Option<Committing>,
    /// A sync of the export that another thread makes.
    pub(crate) syncing: Option<Beside<Result<(), ExportError>>>,
    /// Committed, not shown, in order: an append failed, or is the next thing to be done.
    unappended: Vec<Arc<Sealed>>,
    /// When something last changed in memory that a checkpoint would take in.
    changed_at_ms: u64,
    /// Whether the state failed to take a checkpoint, and must be opened anew.
    state_failed: bool,
    /// When the next segment of an export that was touched is looked at, monotonic milliseconds.
    prove_at_ms: u64,
    /// A segment could not be read, and that was said.
    unread_said: bool,
    /// What is known to be unread, and since when.
    unread: Backlog,
    /// Last lines that wait for their newline.
    torn: PartialLines,
    /// When the day-files behind each pair's rows of the pending batch last changed, milliseconds since 1970.
    pending_changed_ms: Vec<u64>,
    /// What is counted.
    pub(crate) meters: Arc<Metrics>,
}

impl Engine {
    /// The parts that recovery found or made.
    pub(crate) fn assemble(
        setup: Setup,
        state: State,
        state_path: PathBuf,
        journal: Journal,
        mut export: Export,
    ) -> Result<Self, EngineError> {
        export.remember_tail()?;
        let view = Arc::new(state.view()?);
        let header = state.header().clone();
        let now_ms = setup.clock.monotonic_ms();
        let journal_path = state_path.with_file_name(JOURNAL_FILE);
        let storage = &*setup.storage;
        let kept_files = [
            OpenFileGuard::new(storage, &state_path)?,
            OpenFileGuard::new(storage, &journal_path)?,
        ];
        let recent = Recent::new(setup.clock.wall_ms());
        Ok(Self {
            setup,
            state,
            state_path,
            kept_files,
            view,
            journal,
            export,
            account: header.account,
            recent,
            pair_next: header.pair_next,
            claimable: header.claimable,
            claimed: Arc::default(),
            slots: BTreeMap::new(),
            buffers: Arc::default(),
            hinted: BTreeSet::new(),
            backlog: BTreeSet::new(),
            inodes: Inodes::default(),
            moves: BTreeSet::new(),
            released_globally: false,
            settling: BTreeMap::new(),
            any_changed: false,
            awaited: Arc::default(),
            commits_each_pass: true,
            pass_bytes: 0,
            overlay_entries: 0,
            pending: Batch::default(),
            pending_since_ms: now_ms,
            committing: None,
            syncing: None,
            unappended: Vec::new(),
            changed_at_ms: now_ms,
            state_failed: false,
            prove_at_ms: now_ms,
            unread_said: false,
            unread: Backlog::default(),
            torn: PartialLines::default(),
            pending_changed_ms: Vec::new(),
            meters: Arc::default(),
        })
    }

    /// Has a pair looked at in the next pass.
    pub fn enqueue(&mut self, path: PairPath) {
        self.unread.heard(&path, self.setup.clock.monotonic_ms());
        self.hinted.insert(path);
    }

    /// Has a pair looked at when no other is hinted at.
    pub fn enqueue_backlog(&mut self, path: PairPath) {
        self.unread.heard(&path, self.setup.clock.monotonic_ms());
        self.backlog.insert(path);
    }

    /// The pairs in memory.
    #[must_use]
    pub fn active_paths(&self) -> Vec<PairPath> {
        self.slots.keys().cloned().collect()
    }

    /// Whether something kept the last look at a pair from reading all of it.
    pub(crate) fn was_passed_over(&self, path: &PairPath) -> bool {
        self.slots
            .get(path)
            .is_some_and(|slot| !slot.said.is_empty())
    }

    /// Pairs that are still to be looked at.
    #[must_use]
    pub fn behind(&self) -> usize {
        self.hinted.len() + self.backlog.len()
    }

    /// From now on a pass commits nothing until a batch is full: for work that shows nobody a row before all is done.
    /// Each commit is a sync, and a history has many small day-files.
    pub(crate) fn commit_full_batches(&mut self) {
        self.commits_each_pass = false;
    }

    /// Has a pass end sooner while this is set.
    pub fn set_interrupt_flag(&mut self, awaited: Arc<AtomicBool>) {
        self.awaited = awaited;
    }

    /// Returns the lag as the engine knows it: pairs to read, their measured bytes, and the age of the oldest unread
    /// change.
    #[must_use]
    pub fn lag(&self) -> Lag {
        let (bytes, age_ms) = self.unread.lag(self.setup.clock.monotonic_ms());
        Lag {
            files: self.behind() as u64,
            bytes,
            age_ms,
            ..Lag::default()
        }
    }

    /// What it counts.
    #[must_use]
    pub fn meters(&self) -> &Metrics {
        &self.meters
    }

    /// Counts into these from now on.
    pub fn measure_with(&mut self, meters: Arc<Metrics>) {
        self.meters = meters;
    }

    /// Whether a pass has anything to do now.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.behind() > 0 || !self.nothing_is_unshown()
    }

    /// Whether an unterminated line may still settle.
    #[must_use]
    pub fn may_settle(&self) -> bool {
        !self.settling.is_empty()
    }

    /// When [`Self::tick`] has something to do, in monotonic milliseconds.
    #[must_use]
    pub fn due_ms(&self) -> Option<u64> {
        let settle = self.settling.values().min().copied();
        let commit =
            (!self.pending.delta.pairs.is_empty()).then(|| self.pending_since_ms + QUIET_COMMIT_MS);
        let checkpoint = self
            .has_uncheckpointed()
            .then(|| self.changed_at_ms + QUIET_CHECKPOINT_MS);
        let proof = self.export.scrub_pending().map(|_| self.prove_at_ms);
        [settle, commit, checkpoint, proof]
            .into_iter()
            .flatten()
            .min()
    }

    /// What is due by the clock: lines that have settled, batches that show nothing, a checkpoint after a while of
    /// silence.
    ///
    /// # Errors
    /// Those of a commit.
    pub fn tick(&mut self) -> Result<(), EngineError> {
        let ticked = self
            .reopen_state_if_failed()
            .and_then(|()| self.do_what_is_due());
        self.mark_state_failed(ticked)
    }

    fn do_what_is_due(&mut self) -> Result<(), EngineError> {
        let now_ms = self.setup.clock.monotonic_ms();
        let settled = self.settling.iter().filter(|(_, at_ms)| **at_ms <= now_ms);
        self.hinted.extend(settled.map(|(path, _)| path.clone()));
        if !self.pending.delta.pairs.is_empty() && self.pending_since_ms + QUIET_COMMIT_MS <= now_ms
        {
            self.commit()?;
        }
        if self.has_uncheckpointed() && self.changed_at_ms + QUIET_CHECKPOINT_MS <= now_ms {
            self.checkpoint()?;
            // Idle means idle: the frequent scan has nothing to look at but the newest days.
            self.forget_idle_pairs(0);
        }
        self.prove_a_segment(now_ms)
    }

    /// Looks at pairs that were touched, hinted ones first, a bounded number; commits and shows what
    /// follows; touches again what has more.
    ///
    /// # Errors
    /// Those of the state, of a commit and of showing it; what was merged by then is kept and tried again.
    pub fn pass(&mut self) -> Result<PassReport, EngineError> {
        let passed = self
            .reopen_state_if_failed()
            .and_then(|()| self.look_commit_and_show());
        let passed = passed.map_err(|error| self.abort_pass(error));
        if self.behind() == 0 {
            self.buffers.free();
        }
        self.mark_state_failed(passed)
    }

    fn look_commit_and_show(&mut self) -> Result<PassReport, EngineError> {
        self.append_committed()?;
        if self.commits_each_pass && !self.pending.rows.is_empty() {
            self.commit()?;
        }
        self.release_relocated_rows()?;
        let before = self.account.totals;
        let (paths, hinted) = self.next_paths();
        let looked = match self.read_pairs(&paths, hinted) {
            Ok(looked) => looked,
            Err(error) => {
                // Whatever was not merged is looked at again; looking twice changes nothing.
                self.hinted.extend(paths);
                return Err(error);
            }
        };
        self.hinted
            .extend(paths[looked.min(hinted)..hinted].iter().cloned());
        self.backlog
            .extend(paths[looked.max(hinted)..].iter().cloned());
        self.finish_commit()?;
        self.append_committed()?;
        if self.commits_each_pass && !self.pending.rows.is_empty() {
            self.commit()?;
        }
        self.checkpoint_if_due()?;
        Ok(PassReport {
            pairs: looked as u64,
            source_bytes: self.pass_bytes,
            rows: self.account.totals.counts[VerdictKind::Exported]
                .saturating_sub(before.counts[VerdictKind::Exported]),
            scored_lines: self
                .account
                .totals
                .scored_lines
                .saturating_sub(before.scored_lines),
            evidence_lines: self
                .account
                .totals
                .evidence_lines
                .saturating_sub(before.evidence_lines),
            malformed: (self.account.totals.scored_malformed
                + self.account.totals.evidence_malformed)
                .saturating_sub(before.scored_malformed + before.evidence_malformed),
        })
    }
}
