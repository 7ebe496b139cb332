//! The books of the engine: accounting, 24-hour history, input lag, metrics, and the log events of a pass. Nothing here
//! decides what is read or committed, except that a commit requires balanced accounts.

use std::sync::Arc;

use crate::engine::lag::{Backlog, PartialLines};
use crate::engine::metrics::Metrics;
use crate::engine::pass_log::PassLog;
use crate::pair::JoinOutcome;
use crate::pair::accounting::{Account, class_of};
use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::history::Recent;
use crate::pair::verdict::{LineTotals, VerdictKind};
use crate::platform::clock::Clock;
use crate::record::row;
use crate::record::timestamp::day_of;

/// Accounting, history, lag, metrics and pending log events.
#[derive(Debug)]
pub(crate) struct Books {
    /// Sums over all pairs, per source class and per day.
    pub(crate) account: Account,
    /// Per-minute counts of the last 24 hours.
    pub(super) history: Recent,
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
    pub(super) fn new(account: Account, clock: &dyn Clock) -> Self {
        Self {
            account,
            history: Recent::new(clock.wall_ms()),
            backlog: Backlog::default(),
            partial_lines: PartialLines::default(),
            metrics: Arc::default(),
            log: PassLog::default(),
        }
    }

    /// Records the outcome of a read; `before` is the checkpoint of its pair until then, `wall_ms` the time of the read,
    /// milliseconds since 1970, which is the timestamp of its rows unless `has_kept_stamps`.
    pub(super) fn record(
        &mut self,
        before: &PairCheckpoint,
        outcome: &JoinOutcome,
        wall_ms: u64,
        has_kept_stamps: bool,
    ) {
        let rows = outcome.new_rows.len() as u64;
        self.account.replace(before, &outcome.checkpoint);
        if has_kept_stamps {
            for (day, rows) in row::days_of(&outcome.rows) {
                self.account.add_rows(day, rows);
            }
        } else {
            self.account.add_rows(day_of(wall_ms), rows);
        }
        let class = class_of(&outcome.checkpoint.path);
        let class = self.account.class_kept(&class);
        let refused = newly_refused(&before.line_totals(), &outcome.checkpoint.line_totals());
        self.history.add(class, wall_ms, rows, refused);
        self.metrics.merged(class, before, outcome);
    }

    /// Records that a batch is in the export. `changed_ms` holds the last change of the day-files of each pair in it,
    /// milliseconds since 1970; `all_appended` is whether no other merged row waits.
    pub(super) fn on_appended(
        &mut self,
        changed_ms: &[u64],
        all_appended: bool,
        clock: &dyn Clock,
    ) {
        if all_appended {
            self.backlog.on_all_appended();
        }
        let appended_ms = clock.wall_ms();
        for changed_ms in changed_ms {
            self.metrics.shown(*changed_ms, appended_ms);
        }
    }
}

/// Returns the number of lines that were refused or malformed since `before`; 0 where there are fewer, because a refused
/// line became a row.
fn newly_refused(before: &LineTotals, after: &LineTotals) -> u64 {
    let refused = |totals: &LineTotals| {
        let by_rule = totals.by_verdict().sum_of(VerdictKind::is_refusal);
        by_rule + totals.scored_malformed
    };
    refused(after).saturating_sub(refused(before))
}
