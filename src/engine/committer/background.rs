//! Checkpoints that another thread writes while further batches are committed: rows that come meanwhile do not wait for
//! the state. The state takes in what is committed when the checkpoint begins; later frames of the journal stay.

use std::sync::Arc;

use crate::engine::committer::Committer;
use crate::engine::{EngineError, Setup};
use crate::lake::path::PairPath;
use crate::pair::ActivePair;
use crate::platform::background::BackgroundTask;
use crate::store::journal::JournalMark;
use crate::store::state::PairWrite;
use crate::store::state::blocks::packed;
use crate::store::state::header::{Header, LedgerMark};

/// Interval at which an idle engine tests whether a checkpoint is written, milliseconds.
const TEST_INTERVAL_MS: u64 = 20;

/// The pairs that a checkpoint writes, as they are when it begins.
pub(in crate::engine) type CheckpointPairs = Arc<Vec<(PairPath, Arc<ActivePair>)>>;

/// A checkpoint that another thread writes.
#[derive(Debug)]
pub(super) struct Checkpointing {
    mark: JournalMark,
    /// Segments of the export that it takes in.
    segments: usize,
    pairs: CheckpointPairs,
    started_us: u64,
    /// When an idle engine tests whether it is written, monotonic milliseconds.
    test_at_ms: u64,
    written: BackgroundTask<Result<Header, EngineError>>,
}

/// A checkpoint that was written.
#[derive(Debug)]
pub(in crate::engine) struct Checkpointed {
    pub(in crate::engine) pairs: CheckpointPairs,
    pub(in crate::engine) started_us: u64,
}

impl Committer {
    /// Returns whether another thread writes a checkpoint.
    pub(in crate::engine) fn is_checkpointing(&self) -> bool {
        self.checkpointing.is_some()
    }

    /// Returns whether another thread has written a checkpoint.
    pub(in crate::engine) fn has_checkpointed(&self) -> bool {
        let checkpointing = self.checkpointing.as_ref();
        checkpointing.is_some_and(|running| running.written.is_done())
    }

    /// Returns when an idle engine tests whether the checkpoint of another thread is written, monotonic milliseconds.
    pub(in crate::engine) fn test_due_ms(&self) -> Option<u64> {
        self.checkpointing
            .as_ref()
            .map(|running| running.test_at_ms)
    }

    /// Sets when an idle engine tests again.
    pub(in crate::engine) fn test_later(&mut self, now_ms: u64) {
        if let Some(running) = &mut self.checkpointing {
            running.test_at_ms = now_ms + TEST_INTERVAL_MS;
        }
    }

    /// Returns whether a checkpoint that begins now could be written by another thread. One with events of the ledger is
    /// not, which are rare and are synced with it, nor one that removes claims from memory.
    pub(in crate::engine) fn may_checkpoint_aside(&self, ctx: &Setup) -> bool {
        let ledger = &self.ledger;
        let is_same = ledger.file.len_bytes() == self.state.header().ledger.file.len_bytes;
        let changes_state_alone = !ledger.has_changes() && !self.state.holds_claims();
        ctx.threads > 1 && self.commits_each_pass && is_same && changes_state_alone
    }

    /// Returns the header of a checkpoint that another thread writes, whose accounts the caller fills in. All batches are
    /// committed and appended.
    pub(in crate::engine) fn next_header_aside(&self) -> Result<Header, EngineError> {
        let ledger = LedgerMark {
            guard: self.ledger.file.guard(),
            ..self.state.header().ledger
        };
        let export = self.export.mark_at(self.export.len_bytes())?;
        Ok(Header {
            journal_epoch: self.journal.epoch(),
            ..self.next_header((export, ledger))
        })
    }

    /// Begins to write a checkpoint on another thread. Returns false where none can be started: nothing has changed then.
    pub(in crate::engine) fn begin_checkpoint(
        &mut self,
        ctx: &Setup,
        header: Header,
        pairs: Vec<(PairPath, Arc<ActivePair>)>,
    ) -> bool {
        let (pairs, segments) = (Arc::new(pairs), self.export.finished_segments().len());
        self.state.record_segments(self.export.finished_segments());
        let checkpoint = self.state.begin_checkpoint(header);
        let (sync, to_write) = (self.export.begin_sync(), Arc::clone(&pairs));
        let written = BackgroundTask::spawn("checkpoint", move || {
            sync.sync()?;
            let writes = to_write.iter().map(|(_, pair)| pair_write(pair));
            Ok(checkpoint.write(&writes.collect::<Vec<_>>())?)
        });
        let Ok(written) = written else {
            return false;
        };
        self.checkpointing = Some(Checkpointing {
            mark: self.journal.mark(),
            segments,
            pairs,
            started_us: ctx.clock.monotonic_us(),
            test_at_ms: ctx.clock.monotonic_ms() + TEST_INTERVAL_MS,
            written,
        });
        true
    }

    /// Waits for the checkpoint that another thread writes, if one does.
    ///
    /// # Errors
    /// Those of the sync of the export and of the state. The next checkpoint writes what this one did not.
    pub(in crate::engine) fn end_checkpoint(
        &mut self,
    ) -> Result<Option<Checkpointed>, EngineError> {
        let Some(running) = self.checkpointing.take() else {
            return Ok(None);
        };
        let written = running.written.finish();
        let header = written.inspect_err(|_| self.state_failed = true)?;
        self.state.end_checkpoint(header);
        self.export.segments_applied(running.segments);
        self.journal.release(&running.mark);
        Ok(Some(Checkpointed {
            pairs: running.pairs,
            started_us: running.started_us,
        }))
    }
}

/// Returns what a checkpoint writes of a pair.
pub(in crate::engine) fn pair_write(pair: &ActivePair) -> PairWrite<'_> {
    PairWrite {
        id: pair.id,
        is_new: !pair.persisted,
        checkpoint: &pair.checkpoint,
        evidence: packed(pair.overlay.evidence_entries()),
        entries: packed(pair.overlay.entries.values().copied()),
        dead_letters: &pair.overlay.dead_letters,
        claims: &pair.overlay.claimed_rows,
    }
}
