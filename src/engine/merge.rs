//! Merges the result of a read into the engine: pair cache, pending batch, books and queue. It commits only when a batch
//! is full.

use std::collections::BTreeSet;
use std::io;

use rustix::io::Errno;

use crate::engine::pairs::bytes_read;
use crate::engine::read::{PairMemory, PairRead};
use crate::engine::read_task::ReadRequest;
use crate::engine::sealed_batch::PairRows;
use crate::engine::{Engine, EngineError};
use crate::lake::path::{PairPath, Stream};
use crate::pair::JoinOutcome;
use crate::pair::accounting::class_of;
use crate::pair::checkpoint::{PairCheckpoint, Review};
use crate::pair::history::minute_of;
use crate::pair::index::{DeadLetter, UnclaimedRow};
use crate::pair::overrule::{RowChange, RowOwner};

/// A reason why a source is not read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SourceProblem {
    /// The day-file was deleted while the other one of its pair cannot be read. The deletion is not part of a checkpoint
    /// then, and the next read finds it again.
    Deleted,
    /// The day-file cannot be read.
    Unreadable {
        /// The error of the file system.
        error: String,
        /// Whether it is a regular file below the root, as far as is known. Another kind of entry never becomes readable.
        is_file: bool,
    },
}

impl Engine {
    /// Merges a read, and begins a commit when the pending batch is large.
    pub(super) fn merge(
        &mut self,
        request: &ReadRequest,
        read: PairRead,
    ) -> Result<(), EngineError> {
        let path = &request.path;
        self.queue.on_merged(request);
        if !read.rewritten.is_empty() {
            self.books.partial_lines.forget(path);
            self.queue.push_reset(request, &read.rewritten);
            self.queue.comparison_begun(path);
            return Ok(());
        }
        if self.is_relocated(path, &read)? {
            self.queue.push(path.clone());
            return Ok(());
        }
        // Reads that run at the same time do not know the claims of each other.
        let outcome = read.outcome.as_ref();
        if outcome.is_some_and(|outcome| {
            self.queue.collides(&outcome.overlay.claimed_rows)
                || self.queue.collides(&unclaimed_of(&outcome.row_changes))
        }) {
            self.queue.put_back(std::slice::from_ref(request));
            return Ok(());
        }
        self.report_problems(path, &read);
        self.queue.on_read(path);
        if read.more || read.memory.is_comparing() {
            self.queue.push_rest(request);
        }
        self.books.partial_lines.on_read(path, &read);
        self.remember(request, read.memory)?;
        self.queue.comparison_begun(path);
        if let Some(outcome) = read.outcome {
            self.merge_outcome(path, outcome, read.changed_ms, read.wall_ms)?;
            // An unterminated line may settle, and overrule the row that its absence would restore.
            if !read.more && !read.memory.may_settle() {
                self.review(path)?;
            }
        }
        let backlog = &mut self.books.backlog;
        if read.more {
            backlog.on_partly_read(path, read.unread_bytes);
        } else if self.commits.all_appended() {
            backlog.on_read(path);
        } else {
            backlog.on_merged(path);
        }
        if self.commits.pending_bytes() >= self.ctx.batch_bytes || self.are_changes_due() {
            self.commits.begin_commit(&self.ctx, &mut self.books)?;
            self.checkpoint_if_due()?;
        }
        Ok(())
    }

    fn merge_outcome(
        &mut self,
        path: &PairPath,
        mut outcome: JoinOutcome,
        changed_ms: u64,
        wall_ms: u64,
    ) -> Result<(), EngineError> {
        let rows_from = self.commits.next_row_offset();
        outcome.place_rows(rows_from);
        self.log_malformed(path, &outcome.overlay.dead_letters);
        // A row that a line of this read takes out may be one that its own line claims further on.
        let may_be_out = self.commits.ledger.has_rows_out() || !outcome.row_changes.is_empty();
        if !outcome.overlay.claimed_rows.is_empty() && may_be_out {
            outcome.checkpoint.review.insert(Review::CLAIMED);
        }
        if self.may_overrule_gone(path, &outcome.overlay)? {
            outcome.checkpoint.review.insert(Review::REREAD);
        }
        let before = &self.pairs.slot(path)?.pair.checkpoint;
        if !is_change(before, &outcome) {
            return Ok(());
        }
        self.row_digests.append(&mut outcome.row_digests);
        let rows_of = PairRows {
            class: class_of(path.as_bytes()),
            minute: minute_of(wall_ms),
            rows: outcome.new_rows.len() as u64,
            len_bytes: outcome.rows.len() as u64,
            changed_ms,
        };
        self.books.record(before, &outcome, rows_of.minute);
        let bytes = bytes_read(before, &outcome.checkpoint);
        self.queue.add_pass_bytes(bytes);
        let now_ms = self.ctx.clock.monotonic_ms();
        let (checkpoint, overlay) = (outcome.checkpoint, outcome.overlay);
        self.queue.add_claims(&overlay.claimed_rows);
        self.record_row_changes(path, &outcome.row_changes, rows_from)?;
        if let Some(delta) = self.pairs.apply(path, checkpoint, overlay, now_ms) {
            self.commits.add(delta, outcome.rows, rows_of, now_ms);
        }
        Ok(())
    }

    /// Keeps the memory of a read, and starts or stops the settle timer of its unterminated lines.
    fn remember(&mut self, request: &ReadRequest, memory: PairMemory) -> Result<(), EngineError> {
        let settles_at_ms = self.ctx.clock.monotonic_ms() + self.ctx.settle_ms;
        let slot = self.pairs.slot(&request.path)?;
        let before = std::mem::replace(&mut slot.memory, memory);
        // Each source has a timer of its own: while one grows, the last line of the other settles.
        for stream in Stream::ALL {
            let (path, now) = (&request.path, memory.of(stream));
            if now.may_settle() {
                let is_other = now.unterminated != before.of(stream).unterminated;
                let restart = is_other || request.settled.of(stream);
                (self.queue.settling).start(path, stream, settles_at_ms, restart);
            } else {
                self.queue.settling.stop(path, stream);
            }
        }
        Ok(())
    }

    /// Reports each problem of a source once, and again when it is another one.
    fn report_problems(&mut self, path: &PairPath, read: &PairRead) {
        let day_file = |stream: Stream| path.path(&self.ctx.root, stream);
        let problems = problems_of(read);
        let reported = self.pairs.replace_problems(path, problems.clone());
        for stream in &read.deleted {
            if !reported.contains(&(*stream, SourceProblem::Deleted)) {
                self.books.log.on_deleted(day_file(*stream));
            }
        }
        for (stream, problem) in problems.difference(&reported) {
            if let SourceProblem::Unreadable { error, .. } = problem {
                let (day_file, error) = (day_file(*stream), error.clone());
                self.books.log.on_skipped(day_file, error);
                self.books.metrics.error("source");
            }
        }
    }

    fn log_malformed(&mut self, path: &PairPath, dead_letters: &[DeadLetter]) {
        for stream in Stream::ALL {
            let in_evidence = stream == Stream::Evidence;
            let mut of_stream = dead_letters
                .iter()
                .filter(|letter| letter.in_evidence == in_evidence);
            let Some(first) = of_stream.next() else {
                continue;
            };
            let (day_file, lines) = (path.path(&self.ctx.root, stream), 1 + of_stream.count());
            (self.books.log).on_malformed(day_file, lines, first.offset, &first.reason);
        }
    }
}

/// Returns whether a read changed anything of its pair.
fn is_change(before: &PairCheckpoint, outcome: &JoinOutcome) -> bool {
    *before != outcome.checkpoint || !outcome.overlay.is_empty()
}

/// Returns the rows without an owner among those that a read changes.
fn unclaimed_of(changes: &[RowChange]) -> Vec<UnclaimedRow> {
    let unclaimed = changes.iter().filter_map(|change| match change.owner {
        RowOwner::Unclaimed(claim) => Some(claim),
        RowOwner::Line(..) => None,
    });
    unclaimed.collect()
}

fn unreadable(error: &io::Error) -> SourceProblem {
    let kind_errors = [Errno::NXIO, Errno::LOOP, Errno::ISDIR];
    // An error without a number was made here: the entry is of another kind, or a link that leaves the root.
    let is_file = error
        .raw_os_error()
        .is_some_and(|number| !kind_errors.iter().any(|kind| kind.raw_os_error() == number));
    SourceProblem::Unreadable {
        error: error.to_string(),
        is_file,
    }
}

/// Returns the problems that are to be remembered as reported.
fn problems_of(read: &PairRead) -> BTreeSet<(Stream, SourceProblem)> {
    let unreadable = read
        .unreadable
        .iter()
        .map(|(stream, error)| (*stream, unreadable(error)));
    let mut problems: BTreeSet<_> = unreadable.collect();
    if read.outcome.is_none() {
        // The deletion is not part of a checkpoint, so the next read finds it again.
        let deleted = read.deleted.iter();
        problems.extend(deleted.map(|stream| (*stream, SourceProblem::Deleted)));
    }
    problems
}
