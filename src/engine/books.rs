//! The books of the engine: accounting, 24-hour history, input lag, metrics, and the log events of a pass. Nothing here
//! decides what is read or committed, except that a commit requires balanced accounts.

use std::sync::Arc;

use crate::engine::lag::{Backlog, PartialLines};
use crate::engine::ledger::Event;
use crate::engine::metrics::Metrics;
use crate::engine::pass_log::PassLog;
use crate::engine::sealed_batch::PairRows;
use crate::pair::JoinOutcome;
use crate::pair::accounting::{Account, class_of};
use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::freshness::FreshnessHistory;
use crate::pair::history::{History, minute_of};
use crate::platform::clock::Clock;

/// Accounting, history, lag, metrics and pending log events.
#[derive(Debug)]
pub(crate) struct Books {
    /// Sums over all pairs, per source class and per day.
    pub(crate) account: Account,
    /// Rows and refused lines of the last day by minute.
    pub(crate) history: History,
    /// The freshness of the last hour by minute.
    pub(crate) freshness: FreshnessHistory,
    /// Whether the history has the rows that the export had at the start, because all of them were read.
    pub(crate) rows_are_counted: bool,
    /// Rows that this process appended to the export.
    pub(super) rows_appended: u64,
    /// Changes that are not exported yet.
    pub(super) backlog: Backlog,
    /// Unterminated last lines.
    pub(super) partial_lines: PartialLines,
    /// Counters of the process.
    pub(super) metrics: Arc<Metrics>,
    /// Log events of the running pass.
    pub(super) log: PassLog,
}

impl Books {
    pub(super) fn new(account: Account) -> Self {
        Self {
            account,
            history: History::default(),
            freshness: FreshnessHistory::default(),
            rows_are_counted: false,
            rows_appended: 0,
            backlog: Backlog::default(),
            partial_lines: PartialLines::default(),
            metrics: Arc::default(),
            log: PassLog::default(),
        }
    }

    /// Records the outcome of a read in a minute since 1970; `before` is the checkpoint of its pair until then. Its rows
    /// count once they are in the export.
    pub(super) fn record(&mut self, before: &PairCheckpoint, outcome: &JoinOutcome, minute: u64) {
        self.replace(before, &outcome.checkpoint, minute);
        let class = class_of(&outcome.checkpoint.path);
        let class = self.account.class_kept(&class);
        self.metrics.merged(class, before, outcome);
    }

    /// Records the change of a pair in a minute since 1970, without counting lines.
    pub(super) fn replace(&mut self, before: &PairCheckpoint, after: &PairCheckpoint, minute: u64) {
        self.account.replace(before, after);
        let class = class_of(&after.path);
        let class = self.account.class_kept(&class);
        if let Some(totals) = self.account.classes.get(class) {
            self.history.follow(class, totals.refused(), minute);
        }
    }

    /// Records that rows are in the export. `all_appended` is whether no other merged row waits.
    pub(super) fn on_appended(
        &mut self,
        rows_of: &[PairRows],
        all_appended: bool,
        clock: &dyn Clock,
    ) {
        if all_appended {
            self.backlog.on_all_appended();
        }
        let appended_ms = clock.wall_ms();
        for of in rows_of {
            self.rows_appended += of.rows;
            self.history.add_rows(&of.class, of.minute, of.rows);
            let class = self.account.class_kept(&of.class);
            self.metrics.appended(class, of.rows, of.len_bytes);
            let fresh_ms = self.metrics.shown(of.changed_ms, appended_ms);
            self.freshness.add(minute_of(appended_ms), fresh_ms);
        }
    }

    /// Records events whose lines are in the retraction ledger, in their order.
    pub(super) fn on_ledger_lines(&mut self, events: &[Event], lines: &[u8]) {
        for event in events {
            self.metrics.ledger_event(event.op, event.cause);
        }
        self.log.on_ledger_lines(events, lines);
    }
}
