//! Compacts the state in idle moments, a few milliseconds at a time, so that a long live load leaves a file as small as
//! a backfill does. A checkpoint ends a copy that is not complete: it would be of an older state.

use crate::engine::committer::Committer;
use crate::engine::open_files::OpenFileGuard;
use crate::engine::{EngineError, Setup};
use crate::store::state::compact::{Compaction, Progress, len_worth_keeping};
use crate::store::state::error::StateError;
use crate::store::state::{Generation, State};

/// Returns the length that makes another copy worth its cost, also where the estimate is too low.
const fn worth_another_copy(len_bytes: u64) -> u64 {
    len_bytes + len_bytes / 4
}

/// Which state was found small enough, and the copy of one that was not.
#[derive(Debug, Default)]
pub(super) struct StateCopy {
    /// The state that needs no further look.
    examined: Option<Generation>,
    /// A shorter file is not copied again, bytes.
    len_min: u64,
    running: Option<Box<Compaction>>,
}

impl Committer {
    /// Returns whether the state is being copied.
    pub(in crate::engine) fn is_compacting(&self) -> bool {
        self.copy.running.is_some()
    }

    /// Returns whether the length of this state was not examined yet.
    pub(in crate::engine) fn may_compact(&self) -> bool {
        !self.state_failed && self.copy.examined.as_ref() != Some(&self.state.generation())
    }

    /// Examines the state: returns whether its file is longer than its entries need.
    pub(in crate::engine) fn is_state_long(&mut self, ctx: &Setup) -> bool {
        self.copy.examined = Some(self.state.generation());
        self.state_bytes(ctx) > len_worth_keeping(self.state.header()).max(self.copy.len_min)
    }

    /// Returns the bytes that the state takes on its disk, 0 if they are unknown: no reason to copy it.
    fn state_bytes(&self, ctx: &Setup) -> u64 {
        let stat = ctx.storage.stat(&self.state_path);
        stat.map_or(0, |stat| stat.allocated_bytes.min(stat.len_bytes))
    }

    /// Begins a copy of the state, unless it is provisional: the next start would not remove the copy of such a file.
    pub(in crate::engine) fn begin_compaction(&mut self, ctx: &Setup) {
        if self.is_provisional() {
            return;
        }
        self.copy.examined = Some(self.state.generation());
        match Compaction::begin(&*ctx.storage, &self.state, &self.state_path) {
            Ok(copy) => self.copy.running = Some(Box::new(copy)),
            Err(error) => give_up(ctx, &error),
        }
    }

    /// Copies for a few milliseconds. Returns true when the copy has taken the place of the state.
    ///
    /// # Errors
    /// The state cannot be read, it is unknown under which name the disk has the copy, or the copy cannot be opened.
    pub(in crate::engine) fn compact(&mut self, ctx: &Setup) -> Result<bool, EngineError> {
        let Some(mut copy) = self.copy.running.take() else {
            return Ok(false);
        };
        if !copy.is_of(&self.state) {
            abandon(ctx, *copy);
            return Ok(false);
        }
        match copy.step() {
            Ok(Progress::Partial) => self.copy.running = Some(copy),
            Ok(Progress::Complete) => return self.replace_state(ctx, *copy),
            Ok(Progress::Failed(error)) => {
                abandon(ctx, *copy);
                give_up(ctx, &error);
            }
            Err(error) => {
                abandon(ctx, *copy);
                return Err(error.into());
            }
        }
        Ok(false)
    }

    /// Ends a copy that is not complete.
    pub(in crate::engine) fn end_compaction(&mut self, ctx: &Setup) {
        if let Some(copy) = self.copy.running.take() {
            abandon(ctx, *copy);
        }
    }

    fn replace_state(&mut self, ctx: &Setup, copy: Compaction) -> Result<bool, EngineError> {
        let storage = &*ctx.storage;
        let before = self.state_bytes(ctx);
        let guard = OpenFileGuard::new(storage, copy.path());
        let replaced = guard.and_then(|mut guard| {
            let copied = copy.path().to_owned();
            copy.replace(storage, &self.state_path)
                .inspect_err(|_| drop(storage.remove_file(&copied)))?;
            guard.renamed(&self.state_path);
            Ok(guard)
        });
        match replaced {
            Ok(guard) => self.open_files[0] = guard,
            Err(error) => {
                give_up(ctx, &error);
                return Ok(false);
            }
        }
        // Either name leads to the same entries until the next checkpoint, which must not go to a file without one.
        storage
            .sync_dir(&ctx.state_dir)
            .map_err(|error| StateError::Sync(error.to_string()))?;
        self.state_failed = true;
        let state = State::open(storage, &self.state_path)?;
        std::mem::replace(&mut self.state, state).retire();
        self.state_failed = false;
        self.copy.examined = Some(self.state.generation());
        let after = self.state_bytes(ctx);
        self.copy.len_min = worth_another_copy(after);
        tracing::debug!(before, after, "compacted the state");
        Ok(true)
    }
}

fn abandon(ctx: &Setup, copy: Compaction) {
    if let Err(error) = copy.abandon(&*ctx.storage) {
        give_up(ctx, &StateError::Io(error));
    }
}

/// The state is as it was, only longer than it could be. The next checkpoint is a new occasion.
fn give_up(ctx: &Setup, error: &StateError) {
    let dir = ctx.state_dir.display();
    tracing::debug!(%error, "cannot compact the state in {dir}: {error}");
}
