//! Standing orders: an operator takes runs out of the effective set, or ends such an order.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::concerned::{ByRun, Concerned, Found};
use crate::engine::ledger::Event;
use crate::engine::{Engine, EngineError};
use crate::lake::path::PairPath;
use crate::pair::Overlay;
use crate::pair::history::minute_of;
use crate::pair::index::ScoredLine;
use crate::pair::orders::Orders;
use crate::pair::verdict::{Verdict, VerdictKind};
use crate::record::keys::RunKey;
use crate::record::ledger::{Cause, Op};

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

    pub(super) fn carry_out(
        &mut self,
        request: &OrderRequest,
        day_file: &str,
    ) -> Result<OrderResult, EngineError> {
        // From here on the state knows every line.
        self.checkpoint()?;
        let runs = request.run_ids.iter().map(|id| RunKey::from_run_id(id));
        let only = PairPath::from_relative(day_file.as_ref());
        let known = self.concerned(&runs.collect(), only.as_ref())?;
        // An order on a run that never arrived can be ended.
        let orders = Arc::clone(&self.commits.ledger.orders);
        let is_known = |id: &&String| {
            let run = RunKey::from_run_id(id);
            known.contains_key(&run) || request.revoke && orders.contains(run, day_file.as_bytes())
        };
        let unknown = request.run_ids.iter().filter(|id| !is_known(id));
        let mut result = OrderResult {
            unknown: unknown.cloned().collect(),
            ..OrderResult::default()
        };
        let accepts_all = request.unseen || request.revoke;
        let accepted = request.run_ids.iter();
        // What is known of a run is true until its order is carried out.
        let accepted: BTreeSet<&String> =
            accepted.filter(|id| accepts_all || is_known(id)).collect();
        // A second owner would make each change copy all orders.
        drop(orders);
        let (day_file, reason) = (Arc::from(day_file), Arc::from(request.reason.as_str()));
        for run_id in accepted {
            self.order_run(request, run_id, (&day_file, &reason), &known, &mut result)?;
        }
        self.commits.commit(&self.ctx, &mut self.books)?;
        result.orders = self.commits.ledger.orders.len() as u64;
        Ok(result)
    }

    /// Carries out the order on one run. All of it is in one frame of the journal: after a crash the order is in force
    /// with its consequences, or neither is there.
    fn order_run(
        &mut self,
        request: &OrderRequest,
        run_id: &str,
        (day_file, reason): (&Arc<str>, &Arc<str>),
        known: &ByRun,
        result: &mut OrderResult,
    ) -> Result<(), EngineError> {
        let run = RunKey::from_run_id(run_id);
        if !request.dry_run {
            let is_changed = self.push_order(request, run_id, day_file, reason);
            result.orders_changed += u64::from(is_changed);
        }
        let mut orders = Arc::clone(&self.commits.ledger.orders);
        if request.dry_run && request.revoke {
            Arc::make_mut(&mut orders).remove(run, day_file.as_bytes());
        }
        let of_run = known.get(&run).map_or(&[][..], Vec::as_slice);
        result.rows += if request.revoke {
            self.end_order(of_run, &orders, reason, request.dry_run)?
        } else {
            self.order_out(of_run, (day_file, reason), request.dry_run)?
        };
        self.commit_if_full()
    }

    /// Adds the event of the order itself. Returns whether it changes anything.
    fn push_order(
        &mut self,
        request: &OrderRequest,
        run_id: &str,
        day_file: &Arc<str>,
        reason: &Arc<str>,
    ) -> bool {
        let op = if request.revoke {
            Op::Revoke
        } else {
            Op::Order
        };
        self.commits.begin_pending(self.ctx.clock.monotonic_ms());
        self.commits.ledger.push_order(Event {
            op,
            cause: Cause::Operator,
            row_offset: None,
            run_id: run_id.to_owned(),
            day_file: Arc::clone(day_file),
            line_offset: None,
            reason: Arc::clone(reason),
        })
    }

    /// Commits the pending batch if it is full, so that frames stay bounded.
    pub(super) fn commit_if_full(&mut self) -> Result<(), EngineError> {
        if self.commits.pending_bytes() >= self.ctx.batch_bytes {
            self.commits.commit(&self.ctx, &mut self.books)?;
            self.checkpoint_if_due()?;
        }
        Ok(())
    }

    /// Takes the rows of a run out, and gives the lines that have none yet the verdict `ordered`. Returns the number of
    /// rows.
    fn order_out(
        &mut self,
        of_run: &[Concerned],
        (day_file, reason): (&Arc<str>, &Arc<str>),
        dry_run: bool,
    ) -> Result<u64, EngineError> {
        let mut rows = 0;
        for concerned in of_run {
            let (row_offset, line_offset) = match &concerned.found {
                Found::Unclaimed { row, .. } => (row.row_offset, None),
                Found::Line(line) => match line.verdict {
                    Verdict::Exported { row_offset, .. } => (row_offset, Some(line.offset)),
                    verdict => {
                        if let Some(index) = verdict.index_to_join().filter(|_| !dry_run) {
                            self.give_verdict(concerned, line, Verdict::Ordered { index })?;
                        }
                        continue;
                    }
                },
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
                day_file: concerned.day_file().unwrap_or_else(|| Arc::clone(day_file)),
                line_offset,
                reason: Arc::clone(reason),
            };
            self.commits.begin_pending(self.ctx.clock.monotonic_ms());
            self.commits.ledger.push_row(event, row_offset, before);
        }
        Ok(rows)
    }

    /// Restores the rows of a run that nothing else keeps out, and lets its lines with the verdict `ordered` wait for
    /// their evidence, which is read again. Returns the number of rows.
    fn end_order(
        &mut self,
        of_run: &[Concerned],
        orders: &Orders,
        reason: &Arc<str>,
        dry_run: bool,
    ) -> Result<u64, EngineError> {
        let is_refused = of_run.iter().any(Concerned::is_refused);
        let mut restored = 0;
        for concerned in of_run {
            if concerned.is_ordered(orders) {
                continue;
            }
            let row_offset = match &concerned.found {
                Found::Unclaimed { row, .. } => {
                    let flags = self
                        .commits
                        .ledger
                        .flags(self.pairs.view(), row.row_offset)?;
                    if is_refused
                        || flags.cause() != Some(Cause::Operator)
                        || self.is_overruled(concerned, row)?
                    {
                        continue;
                    }
                    row.row_offset
                }
                Found::Line(line) => match line.verdict {
                    Verdict::Exported {
                        row_offset,
                        contradicted: false,
                        ..
                    } => row_offset,
                    Verdict::Ordered { index } if !dry_run => {
                        self.await_evidence(concerned, line, index)?;
                        continue;
                    }
                    _ => continue,
                },
            };
            restored += if dry_run {
                let flags = self.commits.ledger.flags(self.pairs.view(), row_offset)?;
                u64::from(flags.is_out())
            } else {
                let day_file = concerned.day_file().unwrap_or_default();
                self.restore_rows(&day_file, &[row_offset], reason)?
            };
        }
        Ok(restored)
    }

    /// Lets a line wait, and has the evidence of its pair read again from its start.
    fn await_evidence(
        &mut self,
        concerned: &Concerned,
        line: &ScoredLine,
        index: u32,
    ) -> Result<(), EngineError> {
        let since_s = self.ctx.clock.wall_ms() / 1_000;
        self.give_verdict(concerned, line, Verdict::Waiting { index, since_s })?;
        if let Some(path) = &concerned.pair {
            self.enqueue((**path).clone());
        }
        Ok(())
    }

    /// Gives a line without a row another verdict. A line that waits has the evidence of its pair read again: both are
    /// in the pending frame, so that the next start after a crash reads it.
    fn give_verdict(
        &mut self,
        concerned: &Concerned,
        line: &ScoredLine,
        verdict: Verdict,
    ) -> Result<(), EngineError> {
        let Some(path) = &concerned.pair else {
            return Ok(());
        };
        let slot = self.pairs.slot(path)?;
        let before = slot.pair.checkpoint.clone();
        let mut checkpoint = before.clone();
        checkpoint.counts[line.verdict.kind()] -= 1;
        checkpoint.counts[verdict.kind()] += 1;
        if let Verdict::Waiting { since_s, .. } = verdict {
            checkpoint.begin_to_wait(since_s);
            checkpoint.evidence = Default::default();
            slot.memory = Default::default();
        } else if checkpoint.counts[VerdictKind::Waiting] == 0 {
            checkpoint.waiting_since_s = 0;
        }
        let mut overlay = Overlay::default();
        let line = ScoredLine { verdict, ..*line };
        overlay.entries.insert((line.run, line.offset), line);
        let minute = minute_of(self.ctx.clock.wall_ms());
        self.books.replace(&before, &checkpoint, minute);
        let now_ms = self.ctx.clock.monotonic_ms();
        if let Some(delta) = self.pairs.apply(path, checkpoint, overlay, now_ms) {
            self.commits.add_delta(delta, now_ms);
        }
        Ok(())
    }
}
