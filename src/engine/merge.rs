//! Owns how what a look found becomes part of the engine: of the pending batch, of the accounts, of what is counted, and
//! of what was said. It commits only where a batch is full.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::engine::read::{PairMemory, PairRead};
use crate::engine::read_task::ReadRequest;
use crate::engine::{Engine, EngineError, OVERLAY_ENTRIES_MAX};
use crate::lake::path::{PairPath, Stream};
use crate::pair::JoinOutcome;
use crate::pair::accounting::class_of;
use crate::pair::index::DeadLetter;
use crate::pair::verdict::{LineTotals, VerdictKind};
use crate::platform::message_ids;
use crate::record::timestamp::day_of;
use crate::store::journal::batch::PairDelta;

/// In what was said of a pair: that a day-file is gone.
pub(super) const GONE: &str = "gone";

impl Engine {
    /// Puts what a look found into the pending batch, and commits that when it is large.
    pub(super) fn merge(&mut self, job: &ReadRequest, look: PairRead) -> Result<(), EngineError> {
        if let Some((stream, rewritten)) = look.rewritten {
            self.torn.forget(&job.path);
            self.read_again(&job.path, stream, rewritten)?;
            self.hinted.insert(job.path.clone());
            return Ok(());
        }
        if self.is_relocated(job, &look)? {
            self.hinted.insert(job.path.clone());
            return Ok(());
        }
        self.say_sources(job, &look)?;
        if look.more {
            // Of history the rest is history too: what somebody just wrote goes before it.
            let queue = if job.hinted {
                &mut self.hinted
            } else {
                &mut self.backlog
            };
            queue.insert(job.path.clone());
        }
        self.torn.looked(&job.path, &look);
        self.remember(job, look.memory)?;
        if let Some(outcome) = look.outcome {
            self.merge_outcome(&job.path, outcome, look.changed_ms, look.wall_ms)?;
        }
        if look.more {
            self.unread.left(&job.path, look.unread_bytes);
        } else if self.nothing_is_unshown() {
            self.unread.read(&job.path);
        } else {
            self.unread.merged(&job.path);
        }
        if self.pending.rows.len_bytes() >= self.setup.batch_bytes
            || self.overlay_entries >= OVERLAY_ENTRIES_MAX
        {
            self.begin_commit()?;
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
        let rows_offset = self.committed_bytes() + self.pending.rows.len_bytes() as u64;
        outcome.place_rows(rows_offset);
        self.slot(path)?;
        self.say_dead_letters(path, &outcome.overlay.dead_letters);
        let slot = self.slots.get_mut(path).expect("it was just loaded");
        if slot.pair.checkpoint == outcome.checkpoint && outcome.overlay.is_empty() {
            return Ok(());
        }
        slot.changed = true;
        self.any_changed = true;
        self.changed_at_ms = self.setup.clock.monotonic_ms();
        let pair = Arc::make_mut(&mut slot.pair);
        let (before, rows) = (pair.checkpoint.figures(), outcome.new_rows.len() as u64);
        self.account.replace(&pair.checkpoint, &outcome.checkpoint);
        self.account.add_rows(day_of(wall_ms), rows);
        let class = class_of(&outcome.checkpoint.path);
        let class = self.account.class_kept(&class);
        let refused = refused_since(&before, &outcome.checkpoint.figures());
        self.recent.note(class, wall_ms, rows, refused);
        self.meters.merged(class, &pair.checkpoint, &outcome);
        if !outcome.rows.is_empty() {
            self.pending_changed_ms.push(changed_ms);
        }
        // What only the file system said needs no journal: a lost stat is looked at again.
        let read_bytes = outcome.checkpoint.scored.offset - pair.checkpoint.scored.offset
            + outcome.checkpoint.evidence.offset
            - pair.checkpoint.evidence.offset;
        let worth_a_batch = read_bytes > 0 || !outcome.overlay.is_empty();
        self.pass_bytes += read_bytes;
        self.inodes.note(path, &outcome.checkpoint);
        pair.checkpoint = outcome.checkpoint;
        self.claimable -= outcome.overlay.claims.len() as u64;
        if !outcome.overlay.claims.is_empty() {
            Arc::make_mut(&mut self.claimed).extend(outcome.overlay.claims.iter().copied());
        }
        self.overlay_entries += outcome.overlay.len();
        if worth_a_batch {
            if self.pending.delta.pairs.is_empty() {
                self.pending_since_ms = self.setup.clock.monotonic_ms();
            }
            self.pending.delta.pairs.push(PairDelta::new(
                pair.id,
                &pair.checkpoint,
                &outcome.overlay,
            ));
            self.pending.rows.push(outcome.rows);
        }
        pair.overlay.extend(outcome.overlay);
        Ok(())
    }

    /// A batch is in the export.
    pub(super) fn on_appended(&mut self, changed_ms: &[u64]) {
        if self.nothing_is_unshown() {
            self.unread.shown();
        }
        let shown_ms = self.setup.clock.wall_ms();
        for changed_ms in changed_ms {
            self.meters.shown(*changed_ms, shown_ms);
        }
    }

    fn remember(&mut self, job: &ReadRequest, memory: PairMemory) -> Result<(), EngineError> {
        let settles_at_ms = self.setup.clock.monotonic_ms() + self.setup.settle_ms;
        let slot = self.slot(&job.path)?;
        let moved = memory != slot.memory || job.settled;
        slot.memory = memory;
        if !memory.may_settle() {
            self.settling.remove(&job.path);
        } else if moved || !self.settling.contains_key(&job.path) {
            self.settling.insert(job.path.clone(), settles_at_ms);
        }
        Ok(())
    }

    /// Says once what is wrong with a source, and again when it is something else.
    fn say_sources(&mut self, job: &ReadRequest, look: &PairRead) -> Result<(), EngineError> {
        let mut problems: BTreeSet<(Stream, String)> = look
            .unreadable
            .iter()
            .map(|(stream, error)| (*stream, error.to_string()))
            .collect();
        if look.outcome.is_none() {
            // Nothing is remembered of such a look: the next one finds it gone again.
            problems.extend(look.deleted.iter().map(|stream| (*stream, GONE.to_owned())));
        }
        let said = std::mem::replace(&mut self.slot(&job.path)?.said, problems.clone());
        let day_file = |stream: Stream| job.path.path(&self.setup.root, stream);
        for stream in &look.deleted {
            if !said.contains(&(*stream, GONE.to_owned())) {
                tracing::warn!(
                    day_file = %day_file(*stream).display(),
                    "day-file is gone; what was exported of it stays"
                );
            }
        }
        let new_problems = problems.difference(&said);
        for (stream, problem) in new_problems.filter(|(_, problem)| problem != GONE) {
            tracing::warn!(day_file = %day_file(*stream).display(), problem, "day-file passed over");
            self.meters.error("source");
        }
        Ok(())
    }

    /// Says once for each look and day-file that lines of it are no records, however many.
    fn say_dead_letters(&self, path: &PairPath, new_ones: &[DeadLetter]) {
        for stream in Stream::ALL {
            let in_evidence = stream == Stream::Evidence;
            let mut letters = new_ones
                .iter()
                .filter(|letter| letter.in_evidence == in_evidence);
            let Some(first) = letters.next() else {
                continue;
            };
            tracing::warn!(
                message_id = message_ids::DEAD_LETTERS,
                day_file = %path.path(&self.setup.root, stream).display(),
                lines = 1 + letters.count(),
                offset = first.offset,
                reason = first.reason,
                "lines that are no records became dead letters; `distilld dead-letters` shows them"
            );
        }
    }
}

/// Lines that were refused, or became dead letters, between two figures of a pair.
fn refused_since(before: &LineTotals, after: &LineTotals) -> u64 {
    let refused = |totals: &LineTotals| {
        let by_rule = totals.by_verdict().sum_of(VerdictKind::is_refusal);
        by_rule + totals.scored_malformed
    };
    // Less where one that was refused got its row at last.
    refused(after).saturating_sub(refused(before))
}
