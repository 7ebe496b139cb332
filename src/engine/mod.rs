//! The pipeline: reads pairs of day-files, commits the rows that follow, and appends them to the export. It reaches the
//! disk only through [`crate::platform::storage`] and the time only through [`crate::platform::clock`], so that a test
//! can crash it at any call.
//!
//! The rules, in the order of a batch's life; each is asserted here, and cited by number in the tests:
//!
//! 1. Commit before append: the journal holds a batch, durable, before its first row is appended to the export.
//! 2. A source's offset is a low watermark: each line before it is exported, refused, a dead letter, or waiting, and
//!    that is in the same batch as the offset.
//! 3. Final check: the bytes to be appended are read again, and a row that is not accepted stops the daemon.
//! 4. The accounts of every pair in a batch, and the totals, balance before it is committed.
//! 5. A row is exported once: a line whose row is already in the export claims it instead.
//! 6. A failed step is retried with the same bytes at the same offset, or the daemon stops; nothing is skipped.
//!
//! A batch without rows may wait for the next one: its lines are read again from the sources if it is lost.
//!
//! The engine consists of parts with their own methods: `WorkQueue` (pairs to read), `PairCache` (what is known of
//! each pair), `Committer` (journal, state and export) and `Books` (accounting, lag, metrics). A pass connects them.

mod books;
mod commit;
mod committer;
mod concerned;
mod devices;
mod error;
pub mod gone_lines;
mod lag;
mod ledger;
mod merge;
pub mod metrics;
mod open_files;
mod order_moves;
mod orders;
mod pairs;
mod pass;
mod pass_log;
mod problems;
mod queue;
pub mod read;
mod read_task;
mod recent;
pub mod relocate;
mod replaced;
mod report;
mod reset;
mod review;
mod schedule;
mod scrub;
mod sealed_batch;
mod settling;
mod setup;
mod turns;
mod workers;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::engine::metrics::Metrics;
use crate::lake::path::PairPath;
use crate::record::kept_stamps::KeptStamps;
use crate::store::export::Export;
use crate::store::journal::Journal;
use crate::store::state::State;

use books::Books;
use committer::Committer;
pub use error::EngineError;
use gone_lines::{Reread, RunsWithoutLines};
pub use lag::{Lag, UnterminatedLines};
pub(crate) use ledger::{Ledger, shortened_id};
pub use orders::{OrderError, OrderRequest, OrderResult};
use pairs::PairCache;
pub use pass::PassReport;
use queue::WorkQueue;
use replaced::Replaced;
pub use setup::{BATCH_BYTES, CLAIMS_HELD_MAX, LedgerOrigin, Reconfigure, Setup};

/// The pipeline.
#[derive(Debug)]
pub struct Engine {
    pub(crate) ctx: Setup,
    pub(crate) pairs: PairCache,
    queue: WorkQueue,
    commits: Committer,
    pub(crate) books: Books,
    kept_stamps: Arc<KeptStamps>,
    /// The digests of merged rows that a rebuild compares with those of the old export.
    row_digests: Vec<u64>,
    left_out: Arc<HashSet<u64>>,
    reread: Reread,
    runs_without_lines: RunsWithoutLines,
    replaced: Replaced,
    /// Whether a pass ends with a pair of which more is to be read.
    ends_pass_with_rest: bool,
}

impl Engine {
    /// Makes an engine of the parts that recovery opened.
    pub(crate) fn assemble(
        ctx: Setup,
        state: State,
        state_path: PathBuf,
        journal: Journal,
        export: Export,
        ledger: Ledger,
    ) -> Result<Self, EngineError> {
        let header = state.header().clone();
        let view = Arc::new(state.view()?);
        let commits = Committer::new(&ctx, state, state_path, journal, export, ledger)?;
        Ok(Self {
            pairs: PairCache::new(view, &header, ctx.clock.monotonic_ms()),
            queue: WorkQueue::default(),
            commits,
            books: Books::new(header.account),
            kept_stamps: Arc::default(),
            row_digests: Vec::new(),
            left_out: Arc::default(),
            reread: Reread::default(),
            runs_without_lines: RunsWithoutLines::default(),
            replaced: Replaced::default(),
            ends_pass_with_rest: false,
            ctx,
        })
    }

    /// Queues a pair for the next pass, unless it is excluded.
    pub fn enqueue(&mut self, path: PairPath) {
        if self.ctx.exclude.matches(path.as_path()) {
            return;
        }
        self.books
            .backlog
            .on_change(&path, self.ctx.clock.monotonic_ms());
        self.queue.push(path);
    }

    /// Begins to wait for a read of each of these pairs that is queued; see [`Self::awaits_read`].
    pub fn await_reads<'p>(&mut self, paths: impl IntoIterator<Item = &'p PairPath>) {
        for path in paths {
            self.queue.await_read(path);
        }
    }

    /// Queues a pair to compare all that was read of its day-files with what they hold now.
    pub fn enqueue_comparison(&mut self, path: PairPath) {
        if !self.ctx.exclude.matches(path.as_path()) {
            self.queue.push_comparison(path);
        }
    }

    /// Queues a pair after all that [`Self::enqueue`] queued.
    pub fn enqueue_backlog(&mut self, path: PairPath) {
        if self.ctx.exclude.matches(path.as_path()) {
            return;
        }
        self.books
            .backlog
            .on_change(&path, self.ctx.clock.monotonic_ms());
        self.queue.push_backlog(path);
    }

    /// Makes passes commit full batches only. See [`Committer::commit_full_batches`].
    pub(crate) fn commit_full_batches(&mut self) {
        self.commits.commit_full_batches();
    }

    /// Makes new rows keep the timestamps that they had in another export.
    pub(crate) fn keep_stamps(&mut self, stamps: Arc<KeptStamps>) {
        self.kept_stamps = stamps;
    }

    /// Takes the digests of all rows that were merged since [`Self::keep_stamps`].
    pub(crate) fn take_row_digests(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.row_digests)
    }

    /// Makes the scored lines at these offsets of the pairs that are read next earn no row.
    pub(crate) fn leave_out(&mut self, lines: HashSet<u64>) {
        self.left_out = Arc::new(lines);
    }

    /// Sets the flag that ends a pass sooner while it is set.
    pub fn set_interrupt_flag(&mut self, interrupt: Arc<AtomicBool>) {
        self.queue.set_interrupt_flag(interrupt);
    }

    /// Replaces the metrics registry.
    pub fn measure_with(&mut self, metrics: Arc<Metrics>) {
        self.books.metrics = metrics;
    }
}
