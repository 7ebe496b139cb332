//! The committer: owns state, journal, export and the pending batch, and moves merged rows into them in order: journal
//! first, then export. It knows neither day-files nor the pair cache.

pub(super) mod background;
mod checkpoint;
mod compaction;
mod events;

use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::books::Books;
use crate::engine::ledger::{LINE_BYTES, Ledger};
use crate::engine::open_files::OpenFileGuard;
use crate::engine::scrub::ScrubTimer;
use crate::engine::sealed_batch::{Committing, Durable, PairRows, Sealed, Unappended, rows_in};
use crate::engine::{EngineError, Setup};
use crate::pair::accounting::Account;
use crate::platform::background::BackgroundTask;
use crate::platform::buffer_pool::Buffers;
use crate::store::export::{Export, ExportError};
use crate::store::files::JOURNAL_FILE;
use crate::store::journal::Journal;
use crate::store::journal::batch::{Batch, PairDelta};
use crate::store::row_buffer::Rows;
use crate::store::state::State;

/// Maximum bytes of a batch that is committed in the background. A larger one holds long texts, of which only a few may be
/// in memory at once.
const BACKGROUND_BYTES_MAX: usize = 12 << 20;

/// The durable files, and the batch on its way into them.
#[derive(Debug)]
pub(crate) struct Committer {
    pub(super) state: State,
    state_path: PathBuf,
    /// Whether a call to the state failed. redb refuses all further calls then, reads included, until it is reopened.
    state_failed: bool,
    /// State and journal.
    open_files: [OpenFileGuard; 2],
    journal: Journal,
    pub(super) export: Export,
    pub(super) ledger: Ledger,
    /// Merged rows that are not committed.
    pending: Batch,
    pending_since_ms: u64,
    /// The rows of each pair in the pending batch, in order.
    pending_rows_of: Vec<PairRows>,
    /// A sealed batch that another thread writes to the journal. Only within a pass.
    committing: Option<Committing>,
    /// Batches that are committed and not appended to the export, in order.
    unappended: Vec<Unappended>,
    /// A sync of the export on another thread.
    syncing: Option<BackgroundTask<Result<(), ExportError>>>,
    /// A checkpoint that another thread writes.
    checkpointing: Option<background::Checkpointing>,
    /// Whether a pass commits its rows however few they are.
    commits_each_pass: bool,
    pub(super) scrub: ScrubTimer,
    copy: compaction::StateCopy,
    /// Reused memory of chunks and rows.
    pub(super) buffers: Arc<Buffers>,
}

impl Committer {
    pub(super) fn new(
        ctx: &Setup,
        state: State,
        state_path: PathBuf,
        journal: Journal,
        mut export: Export,
        mut ledger: Ledger,
    ) -> Result<Self, EngineError> {
        export.remember_tail()?;
        ledger.file.remember_tail()?;
        let journal_path = state_path.with_file_name(JOURNAL_FILE);
        let open_files = [
            OpenFileGuard::new(&*ctx.storage, &state_path)?,
            OpenFileGuard::new(&*ctx.storage, &journal_path)?,
        ];
        let now_ms = ctx.clock.monotonic_ms();
        Ok(Self {
            state,
            state_path,
            state_failed: false,
            open_files,
            journal,
            export,
            ledger,
            pending: Batch::default(),
            pending_since_ms: now_ms,
            pending_rows_of: Vec::new(),
            committing: None,
            unappended: Vec::new(),
            syncing: None,
            checkpointing: None,
            commits_each_pass: true,
            scrub: ScrubTimer::new(now_ms),
            copy: compaction::StateCopy::default(),
            buffers: Arc::default(),
        })
    }

    /// Begins the time of the pending batch, if it is empty.
    pub(super) fn begin_pending(&mut self, now_ms: u64) {
        if !self.has_pending() {
            self.pending_since_ms = now_ms;
        }
    }

    /// Adds the outcome of a read to the pending batch. `rows_of` are its rows in figures; `now_ms` is monotonic.
    pub(super) fn add(&mut self, delta: PairDelta, rows: Vec<u8>, rows_of: PairRows, now_ms: u64) {
        self.begin_pending(now_ms);
        if !rows.is_empty() {
            self.pending_rows_of.push(rows_of);
        }
        self.pending.delta.pairs.push(delta);
        self.pending.rows.push(rows);
    }

    /// Adds changes of a pair without a row to the pending batch.
    pub(super) fn add_delta(&mut self, delta: PairDelta, now_ms: u64) {
        self.begin_pending(now_ms);
        self.pending.delta.pairs.push(delta);
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.delta.pairs.is_empty() || !self.ledger.pending.is_empty()
    }

    /// Returns whether readers would see anything of the pending batch.
    pub(super) fn has_pending_output(&self) -> bool {
        !self.pending.rows.is_empty() || !self.ledger.pending.is_empty()
    }

    /// Returns the bytes that the pending batch appends, those of the ledger estimated.
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending.rows.len_bytes() + self.ledger.pending.len() * LINE_BYTES
    }

    /// Returns when the first delta of the pending batch was added, monotonic milliseconds; `None` where it has none.
    pub(super) fn pending_since_ms(&self) -> Option<u64> {
        self.has_pending().then_some(self.pending_since_ms)
    }

    /// Returns the offset that the next merged row gets in the export.
    pub(super) fn next_row_offset(&self) -> u64 {
        self.committed_bytes() + self.pending.rows.len_bytes() as u64
    }

    /// Returns the length of the export when all sealed batches are appended.
    fn committed_bytes(&self) -> u64 {
        let committing = self.committing.as_ref().map(|it| &it.sealed);
        match committing.or(self.unappended.last().map(|it| &it.sealed)) {
            Some(last) => last.batch.export_to(),
            None => self.export.len_bytes(),
        }
    }

    /// Returns whether all merged rows are in the export, and all events in the ledger.
    pub(super) fn all_appended(&self) -> bool {
        !self.has_pending_output() && self.committing.is_none() && self.unappended.is_empty()
    }

    /// Returns the number of merged rows that are not in the export.
    pub(super) fn rows_pending(&self) -> u64 {
        let committing = self.committing.as_ref();
        let unappended = self.unappended.iter().map(|it| rows_in(&it.rows_of));
        rows_in(&self.pending_rows_of)
            + committing.map_or(0, |it| rows_in(&it.sealed.rows_of))
            + unappended.sum::<u64>()
    }

    pub(super) fn journal_bytes(&self) -> u64 {
        self.journal.len_bytes()
    }

    /// Makes a pass commit nothing until a batch is full: each commit is a sync, and a long history has many small
    /// day-files. For work whose rows no reader sees before all of it is done.
    pub(super) fn commit_full_batches(&mut self) {
        self.commits_each_pass = false;
    }

    /// Commits the merged rows, unless only full batches are to be committed.
    pub(super) fn commit_rows(
        &mut self,
        ctx: &Setup,
        books: &mut Books,
    ) -> Result<(), EngineError> {
        if self.commits_each_pass && self.has_pending_output() {
            self.commit(ctx, books)?;
        }
        Ok(())
    }

    /// Commits the pending batch and appends its rows to the export.
    ///
    /// # Errors
    /// Violations of rules 3 and 4; errors of journal and export.
    pub(super) fn commit(&mut self, ctx: &Setup, books: &mut Books) -> Result<(), EngineError> {
        self.finish_commit(books)?;
        self.append_committed(ctx, books)?;
        if !self.has_pending() {
            return Ok(());
        }
        let sealed = self.seal(ctx, &books.account)?;
        self.commit_sealed(sealed, ctx, books)?;
        self.append_committed(ctx, books)
    }

    fn commit_sealed(
        &mut self,
        sealed: Arc<Sealed>,
        ctx: &Setup,
        books: &Books,
    ) -> Result<(), EngineError> {
        let durable = sealed.make_durable(&self.journal.next_frame(), &*ctx.clock);
        self.on_durable(sealed, durable, books)
    }

    /// Commits the pending batch on another thread, and meanwhile appends the batch committed before, so that rows are made
    /// while the disk syncs. With one thread, and with long texts, all is done in order.
    ///
    /// # Errors
    /// As [`Self::commit`], errors of the commit before included.
    pub(super) fn begin_commit(
        &mut self,
        ctx: &Setup,
        books: &mut Books,
    ) -> Result<(), EngineError> {
        if ctx.threads == 1 || self.pending.rows.len_bytes() > BACKGROUND_BYTES_MAX {
            return self.commit(ctx, books);
        }
        self.finish_commit(books)?;
        // The events of the pending batch name rows of batches before it.
        if !self.has_pending() || !self.ledger.pending.is_empty() {
            self.append_committed(ctx, books)?;
        }
        if !self.has_pending() {
            return Ok(());
        }
        let sealed = self.seal(ctx, &books.account)?;
        let clock = Arc::clone(&ctx.clock);
        match Committing::begin(&sealed, self.journal.next_frame(), clock) {
            Ok(committing) => self.committing = Some(committing),
            // No thread can be started.
            Err(_) => self.commit_sealed(sealed, ctx, books)?,
        }
        self.append_committed(ctx, books)
    }

    /// Waits for the background commit, if one runs.
    ///
    /// # Errors
    /// Errors of that commit; its batch is pending again then.
    pub(super) fn finish_commit(&mut self, books: &Books) -> Result<(), EngineError> {
        let Some(Committing { sealed, durable }) = self.committing.take() else {
            return Ok(());
        };
        self.on_durable(sealed, durable.finish(), books)
    }

    /// Waits for the background commit of a pass that failed with `error`. Returns the error of that commit where it is
    /// the worse one.
    pub(super) fn abort_pass(&mut self, error: EngineError, books: &Books) -> EngineError {
        self.state_failed |= error.is_store_failure();
        match self.finish_commit(books) {
            Err(of_commit) if error.is_transient() => of_commit,
            _ => error,
        }
    }

    /// Takes the pending batch as one that is to be committed. Asserts rule 4.
    fn seal(&mut self, ctx: &Setup, account: &Account) -> Result<Arc<Sealed>, EngineError> {
        // Once the journal holds a batch, the next start writes it to its place, over any bytes that others appended.
        self.export.check()?;
        self.ledger.file.check()?;
        for delta in &self.pending.delta.pairs {
            delta.checkpoint.balance()?;
        }
        if !account.balanced() {
            return Err(EngineError::LineTotals(Box::new(account.clone())));
        }
        self.pending.delta.mark = self.state.header().export;
        self.pending.delta.export_from = self.committed_bytes();
        let events = self.seal_events(ctx)?;
        Ok(Arc::new(Sealed {
            batch: std::mem::take(&mut self.pending),
            rows_of: std::mem::take(&mut self.pending_rows_of),
            events,
        }))
    }

    fn on_durable(
        &mut self,
        sealed: Arc<Sealed>,
        durable: Result<Durable, EngineError>,
        books: &Books,
    ) -> Result<(), EngineError> {
        match durable {
            Ok(Durable { frame, took_us }) => {
                self.journal.advance(&frame);
                books.metrics.committed(took_us);
                self.unappended.push(Unappended::new(sealed));
                Ok(())
            }
            Err(error) => {
                self.unseal(Arc::unwrap_or_clone(sealed));
                Err(error)
            }
        }
    }

    /// Puts a batch that was not committed before the pending one: its rows keep their offsets.
    fn unseal(&mut self, sealed: Sealed) {
        let Sealed {
            mut batch,
            mut rows_of,
            events,
        } = sealed;
        self.ledger.unseal(events);
        batch.delta.ledger = None;
        let merged_since = std::mem::take(&mut self.pending);
        batch.delta.pairs.extend(merged_since.delta.pairs);
        batch.rows.extend([merged_since.rows]);
        rows_of.append(&mut self.pending_rows_of);
        self.pending = batch;
        self.pending_rows_of = rows_of;
    }

    /// Appends all committed batches to the export.
    pub(super) fn append_committed(
        &mut self,
        ctx: &Setup,
        books: &mut Books,
    ) -> Result<(), EngineError> {
        while let Some(first) = self.unappended.first_mut() {
            let batch = &first.sealed.batch;
            // A reader who sees a row sees every retraction that was committed with it, or before it.
            if let Some(lines) = &batch.delta.ledger {
                let rows = Rows::from(lines.lines.clone());
                self.ledger.file.append(lines.from, &rows)?;
            }
            if !batch.rows.is_empty()
                && let Err(error) = self.export.append(batch.delta.export_from, &batch.rows)
            {
                let shown = first.take_shown(self.export.shown_bytes());
                books.on_appended(&shown, false, &*ctx.clock);
                return Err(error.into());
            }
            let appended = self.unappended.remove(0);
            self.ledger.on_appended(&appended.sealed.events);
            if let Some(lines) = &appended.sealed.batch.delta.ledger {
                books.on_ledger_lines(&appended.sealed.events, &lines.lines);
            }
            books.on_appended(&appended.rows_of, self.all_appended(), &*ctx.clock);
            if let Some(appended) = Arc::into_inner(appended.sealed) {
                let pieces = appended.batch.rows.into_pieces();
                pieces.for_each(|rows| self.buffers.rows_shown(rows));
            }
        }
        self.sync_early(ctx)
    }

    /// Starts a background fsync of the export once a batch's worth is unsynced, so that the next checkpoint does not stall
    /// on one large fsync.
    fn sync_early(&mut self, ctx: &Setup) -> Result<(), EngineError> {
        if self.syncing.as_ref().is_some_and(|it| !it.is_done()) {
            return Ok(());
        }
        // A failed sync is reported with the next row, not with the next full batch.
        self.finish_sync()?;
        let is_due = self.export.unsynced_bytes() >= ctx.batch_bytes as u64;
        if ctx.threads == 1 || !is_due {
            return Ok(());
        }
        let sync = self.export.begin_sync();
        // Where no thread can be started, the checkpoint syncs all of it.
        self.syncing = BackgroundTask::spawn("sync", move || sync.sync()).ok();
        Ok(())
    }

    fn finish_sync(&mut self) -> Result<(), EngineError> {
        match self.syncing.take() {
            Some(syncing) => Ok(syncing.finish()?),
            None => Ok(()),
        }
    }
}
