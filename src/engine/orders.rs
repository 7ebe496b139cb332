//! Standing orders: an operator takes runs out of the effective set, or ends such an order.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::ledger::Event;
use crate::engine::{Engine, EngineError};
use crate::lake::path::{PairPath, Stream};
use crate::pair::Overlay;
use crate::pair::history::minute_of;
use crate::pair::index::ScoredLine;
use crate::pair::verdict::{Verdict, VerdictKind};
use crate::record::keys::RunKey;
use crate::record::ledger::{Cause, Op};
use crate::store::snapshot::pair_path;

/// An order on runs, or the end of such orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRequest {
    /// The runs.
    pub run_ids: Vec<String>,
    /// The words of the operator; not empty for an order.
    pub reason: String,
    /// The day-file that the order is limited to, as `YYYY/MM/DD/NAME.jsonl`; all without it.
    pub day_file: Option<String>,
    /// Ends the orders instead.
    pub revoke: bool,
    /// Only finds out what would change.
    pub dry_run: bool,
    /// Records orders on runs of which no line is known.
    pub unseen: bool,
}

/// The result of an [`OrderRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OrderResult {
    /// Orders that were added or ended; those that were in that state already are not counted.
    pub orders_changed: u64,
    /// Orders in force.
    pub orders: u64,
    /// Rows that left the effective set, or returned to it.
    pub rows: u64,
    /// Runs of which no line is known.
    pub unknown: Vec<String>,
}

/// The reason why an order is refused.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The reason is missing.
    #[error("an order needs a reason: use --reason TEXT")]
    NoReason,
    /// The day-file is no path of a day-file.
    #[error("{0:?} is no day-file: use YYYY/MM/DD/NAME.jsonl")]
    NoDayFile(String),
    /// The engine failed. Orders that were committed before stay in force.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A pair with lines of the runs of a request.
struct ConcernedPair {
    path: PairPath,
    lines: Vec<ScoredLine>,
}

impl Engine {
    /// Carries out an order. Durable on return; a repetition changes nothing.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub fn order(&mut self, request: &OrderRequest) -> Result<OrderResult, OrderError> {
        if !request.revoke && request.reason.trim().is_empty() {
            return Err(OrderError::NoReason);
        }
        let day_file = request.day_file.as_deref().unwrap_or("");
        let is_day_file = PairPath::from_relative(day_file.as_ref()).is_some();
        if !day_file.is_empty() && !is_day_file {
            return Err(OrderError::NoDayFile(day_file.to_owned()));
        }
        let result = self
            .reopen_state_if_failed()
            .and_then(|()| self.carry_out(request, day_file));
        self.books.log.flush(self.queue.has_backlog());
        Ok(self.commits.mark_state_failed(result)?)
    }

    fn carry_out(
        &mut self,
        request: &OrderRequest,
        day_file: &str,
    ) -> Result<OrderResult, EngineError> {
        // From here on the state knows every line.
        self.checkpoint()?;
        let runs = request.run_ids.iter().map(|id| RunKey::from_run_id(id));
        let runs: BTreeSet<RunKey> = runs.collect();
        let pairs = self.concerned_pairs(&runs, day_file.as_bytes())?;
        let known = pairs.iter().flat_map(|pair| &pair.lines);
        let known: BTreeSet<RunKey> = known.map(|line| line.run).collect();
        let is_known = |id: &String| known.contains(&RunKey::from_run_id(id));
        let mut result = OrderResult::default();
        let (known_ids, unknown): (Vec<_>, Vec<_>) =
            request.run_ids.iter().cloned().partition(is_known);
        let accepted = if request.unseen || request.revoke {
            request.run_ids.clone()
        } else {
            known_ids
        };
        result.unknown = unknown;
        let reason = Arc::<str>::from(request.reason.as_str());
        if !request.dry_run {
            result.orders_changed = self.push_orders(request, &accepted, day_file, &reason)?;
        }
        for pair in pairs {
            result.rows += if request.revoke {
                self.end_orders_in(pair, &reason, request.dry_run)?
            } else {
                self.order_out(pair, &reason, request.dry_run)?
            };
            self.commit_if_full()?;
        }
        self.commits.commit(&self.ctx, &mut self.books)?;
        result.orders = self.commits.ledger.orders.len() as u64;
        Ok(result)
    }

    /// Adds the events of the orders themselves. Returns how many changed.
    fn push_orders(
        &mut self,
        request: &OrderRequest,
        run_ids: &[String],
        day_file: &str,
        reason: &Arc<str>,
    ) -> Result<u64, EngineError> {
        let op = if request.revoke {
            Op::Revoke
        } else {
            Op::Order
        };
        let day_file = Arc::<str>::from(day_file);
        let mut changed = 0;
        for run_id in run_ids {
            self.commits.begin_pending(self.ctx.clock.monotonic_ms());
            let is_changed = self.commits.ledger.push_order(Event {
                op,
                cause: Cause::Operator,
                row_offset: None,
                run_id: run_id.clone(),
                day_file: Arc::clone(&day_file),
                line_offset: None,
                reason: Arc::clone(reason),
            });
            changed += u64::from(is_changed);
            self.commit_if_full()?;
        }
        Ok(changed)
    }

    /// Commits the pending batch if it is full, so that frames stay bounded.
    pub(super) fn commit_if_full(&mut self) -> Result<(), EngineError> {
        if self.commits.pending_bytes() >= self.ctx.batch_bytes {
            self.commits.commit(&self.ctx, &mut self.books)?;
            self.checkpoint_if_due()?;
        }
        Ok(())
    }

    /// Returns the pairs with lines of these runs, of all pairs or of one.
    fn concerned_pairs(
        &self,
        runs: &BTreeSet<RunKey>,
        only: &[u8],
    ) -> Result<Vec<ConcernedPair>, EngineError> {
        let view = self.pairs.view();
        let mut ids = Vec::new();
        view.for_each_pair(|id, checkpoint| {
            let is_concerned = only.is_empty() || checkpoint.path == only;
            if let Some(path) = pair_path(&checkpoint).filter(|_| is_concerned) {
                ids.push((id, path));
            }
        })?;
        let mut pairs = Vec::new();
        for (id, path) in ids {
            let mut lines = Vec::new();
            view.for_each_entry(id, |line| {
                if runs.contains(&line.run) {
                    lines.push(line);
                }
            })?;
            if !lines.is_empty() {
                pairs.push(ConcernedPair { path, lines });
            }
        }
        Ok(pairs)
    }

    /// Takes the rows of a pair's lines out, and gives the lines that have none yet the verdict `ordered`. Returns the
    /// number of rows.
    fn order_out(
        &mut self,
        pair: ConcernedPair,
        reason: &Arc<str>,
        dry_run: bool,
    ) -> Result<u64, EngineError> {
        let ConcernedPair { path, lines } = pair;
        let day_file = Arc::<str>::from(path.as_path().to_string_lossy());
        let mut rows = 0;
        let mut refused = Vec::new();
        for line in lines {
            let Verdict::Exported { row_offset, .. } = line.verdict else {
                refused.extend(line.verdict.index_to_join().map(|index| (line, index)));
                continue;
            };
            let before = self.commits.ledger.flags(self.pairs.view(), row_offset)?;
            if before.is_out() {
                continue;
            }
            rows += 1;
            if dry_run {
                continue;
            }
            let event = Event {
                op: Op::Retract,
                cause: Cause::Operator,
                row_offset: Some(row_offset),
                run_id: String::new(),
                day_file: Arc::clone(&day_file),
                line_offset: Some(line.offset),
                reason: Arc::clone(reason),
            };
            self.commits.begin_pending(self.ctx.clock.monotonic_ms());
            self.commits.ledger.push_row(event, row_offset, before);
            self.commit_if_full()?;
        }
        if !dry_run {
            self.give_verdicts(&path, &refused, |index| Verdict::Ordered { index })?;
        }
        Ok(rows)
    }

    /// Gives lines without a row another verdict, by their indexes.
    fn give_verdicts(
        &mut self,
        path: &PairPath,
        lines: &[(ScoredLine, u32)],
        verdict: impl Fn(u32) -> Verdict,
    ) -> Result<(), EngineError> {
        if lines.is_empty() {
            return Ok(());
        }
        let before = self.pairs.slot(path)?.pair.checkpoint.clone();
        let mut checkpoint = before.clone();
        let mut overlay = Overlay::default();
        for (line, index) in lines {
            let verdict = verdict(*index);
            if let Verdict::Waiting { since_s, .. } = verdict {
                checkpoint.begin_to_wait(since_s);
            }
            checkpoint.counts[line.verdict.kind()] -= 1;
            checkpoint.counts[verdict.kind()] += 1;
            let line = ScoredLine { verdict, ..*line };
            overlay.entries.insert((line.run, line.offset), line);
        }
        if checkpoint.counts[VerdictKind::Waiting] == 0 {
            checkpoint.waiting_since_s = 0;
        }
        let minute = minute_of(self.ctx.clock.wall_ms());
        self.books.replace(&before, &checkpoint, minute);
        let now_ms = self.ctx.clock.monotonic_ms();
        if let Some(delta) = self.pairs.apply(path, checkpoint, overlay, now_ms) {
            self.commits.add_delta(delta, now_ms);
        }
        Ok(())
    }

    /// Restores the rows of a pair's lines that nothing else keeps out, and reads the evidence of lines with the verdict
    /// `ordered` again, so that they are joined. Returns the number of rows.
    fn end_orders_in(
        &mut self,
        pair: ConcernedPair,
        reason: &Arc<str>,
        dry_run: bool,
    ) -> Result<u64, EngineError> {
        let ConcernedPair { path, lines } = pair;
        let orders = Arc::clone(&self.commits.ledger.orders);
        let mut rows = Vec::new();
        let mut refused = Vec::new();
        for line in lines {
            if orders.apply_to(line.run, path.as_bytes()) && !dry_run {
                continue;
            }
            match line.verdict {
                Verdict::Exported {
                    row_offset,
                    contradicted: false,
                    ..
                } => rows.push(row_offset),
                Verdict::Ordered { index } => refused.push((line, index)),
                _ => {}
            }
        }
        if dry_run {
            let mut out = 0;
            for row_offset in rows {
                let flags = self.commits.ledger.flags(self.pairs.view(), row_offset)?;
                out += u64::from(flags.is_out());
            }
            return Ok(out);
        }
        let restored = self.restore_rows(&path, &rows, reason)?;
        if !refused.is_empty() {
            let since_s = self.ctx.clock.wall_ms() / 1_000;
            self.give_verdicts(&path, &refused, |index| Verdict::Waiting { index, since_s })?;
            self.reset_for_retry(&path, Stream::Evidence)?;
            self.enqueue(path);
        }
        Ok(restored)
    }
}
