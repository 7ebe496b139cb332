//! Reports the state of the event loop: to the log, to the service manager, and as the published status.

use std::path::PathBuf;

use crate::daemon::event_loop::{EventLoop, millis};
use crate::daemon::status_line;
use crate::daemon::status_line::UnitStatus;
use crate::daemon::watch::Mode;
use crate::engine::{Engine, Lag, PassReport};
use crate::lake::path::Stream;
use crate::pair::verdict::VerdictKind;
use crate::platform::message_ids;
use crate::query::health::Unreadable;
use crate::query::status::{RuntimeStatus, Status, unreadable};
use crate::record::timestamp::stamp;

/// The minimum time between two status lines, milliseconds.
const STATUS_MS: u64 = 1_000;

/// The status line that was sent last.
#[derive(Debug, Default)]
pub(super) struct LastReport {
    line: String,
    /// When the status may be composed again, monotonic milliseconds.
    next_at_ms: u64,
    /// When to compose the status because the loop turned since, monotonic milliseconds.
    pub(super) retry_at_ms: Option<u64>,
}

impl EventLoop {
    /// Logs a pass, and records when the last row was written.
    pub(super) fn record_pass(&mut self, report: PassReport) {
        let rows_appended = self.engine.rows_appended();
        if std::mem::replace(&mut self.rows_appended, rows_appended) != rows_appended {
            self.last_row_ms = Some(self.shared.clock.monotonic_ms());
            self.last_row_wall_ms = Some(self.shared.clock.wall_ms());
        }
        tracing::debug!(
            pairs = report.pairs,
            rows = report.rows,
            scored_lines = report.scored_lines,
            evidence_lines = report.evidence_lines,
            malformed = report.malformed,
            "pass"
        );
    }

    /// Logs the first time that no backlog is left, apart from periodic scans.
    pub(super) fn update_caught_up(&mut self) {
        if self.engine.is_dirty() || self.is_reconciling() {
            return;
        }
        self.engine.settle_recent();
        if !self.caught_up {
            log_caught_up(&self.engine, &self.skipped());
            self.caught_up = true;
        }
    }

    /// Returns whether changes may have been missed until all directories have been armed or listed. Periodic scans, which
    /// only make sure, do not count: on a slow disk the next one may be due before the last one has ended.
    fn is_reconciling(&self) -> bool {
        self.is_rearming || !self.has_scanned(self.reconciling_scan)
    }

    /// Logs one event with the main figures, for `SIGUSR1`.
    pub(super) fn log_report(&self) {
        let unit_status = self.unit_status();
        let totals = self.engine.totals();
        let counts = &totals.counts;
        let unterminated = self.engine.unterminated();
        tracing::info!(
            message_id = message_ids::STATUS,
            status = status_line::of(&unit_status),
            files_pending = self.files_pending(),
            scored_lines = totals.scored_lines,
            exported = counts[VerdictKind::Exported],
            firewalled = counts[VerdictKind::Firewalled],
            unknown_category = counts[VerdictKind::UnknownCategory],
            ordered = counts[VerdictKind::Ordered],
            overruled = counts[VerdictKind::Overruled],
            wrong_role = counts[VerdictKind::WrongRole],
            blank_text = counts[VerdictKind::BlankText],
            waiting = counts[VerdictKind::Waiting],
            malformed = totals.scored_malformed,
            balanced = totals.balanced(),
            evidence_lines = totals.evidence_lines,
            evidence_malformed = totals.evidence_malformed,
            superseded = counts.superseded,
            contradicted = counts.contradicted,
            retracted = self.engine.rows_out(),
            standing_orders = self.engine.orders().len(),
            unterminated_lines = unterminated.lines,
            unterminated_bytes = unterminated.bytes,
            export_bytes = self.engine.export_bytes(),
            watch = %self.watch.mode(),
            watched_directories = self.watch.armed(),
            scanned_only_day_files = self.watch.scanned_only(0).day_files,
            last_row_at = self.last_row_wall_ms.map(stamp),
            fault = self.faults.last().filter(|fault| !fault.resolved).map(|fault| fault.what.as_str()),
            reload_refused = self.reload_refused,
            "status"
        );
    }

    /// Notifies the service manager of a changed status. Composes the status at most once per [`STATUS_MS`], because that
    /// visits the backlog and the pairs in memory, and the loop may turn thousands of times in this time.
    pub(super) fn notify_status(&mut self) {
        let now_ms = self.shared.clock.monotonic_ms();
        if now_ms < self.last_report.next_at_ms {
            self.last_report.retry_at_ms = Some(self.last_report.next_at_ms);
            return;
        }
        let line = status_line::of(&self.unit_status());
        let last = &mut self.last_report;
        last.retry_at_ms = None;
        last.next_at_ms = now_ms + STATUS_MS;
        if line != last.line {
            self.shared.manager.status(&line);
            last.line = line;
        }
    }

    /// Notifies the service manager of the status at once, without the minimum interval.
    pub(super) fn notify_status_now(&mut self) {
        self.last_report.next_at_ms = 0;
        self.notify_status();
    }

    /// Notifies the service manager that the daemon is stopping.
    pub(super) fn notify_stopping(&self) {
        let unit_status = UnitStatus {
            stopping: true,
            ..self.unit_status()
        };
        self.shared.manager.status(&status_line::of(&unit_status));
    }

    /// Publishes a snapshot for `status` if it changed, and the 24-hour history for the next process.
    pub(super) fn publish(&mut self) {
        let (now_ms, wall_ms) = (
            self.shared.clock.monotonic_ms(),
            self.shared.clock.wall_ms(),
        );
        let status_at_ms = self.publisher.idle_until(now_ms).or_else(|| {
            let status = self.live_status();
            self.publisher.offer(status, now_ms, wall_ms)
        });
        let recent_at_ms = self.recent_file.offer(&self.engine, now_ms);
        self.publish_at_ms = [status_at_ms, recent_at_ms].into_iter().flatten().min();
    }

    /// Returns the status of this moment.
    pub(super) fn live_status(&self) -> Status {
        let live = RuntimeStatus {
            lag: self.lag(),
            watch: self.watch.mode().to_string(),
            scanned_only: self.watch.scanned_only(self.full_scan_pause_ms()),
            within_limit: self.within_limit.clone(),
            overflows: self.overflows,
            faults: self.faults.clone(),
            last_row_wall_ms: self.last_row_wall_ms,
            skipped: self.skipped(),
            awaited: self.awaited(),
        };
        let now_ms = self.shared.clock.wall_ms();
        Status::of_daemon(&self.engine, &self.settings, &self.root, live, now_ms)
    }

    /// Returns the day-files and directories that cannot be read.
    fn skipped(&self) -> Unreadable {
        unreadable(&self.engine, &self.unreadable.skipped())
    }

    /// Returns the directory of the scored runs if it does not exist and no scored run was ever read.
    fn awaited(&self) -> Option<PathBuf> {
        let is_awaited =
            self.unreadable.is_missing(Stream::Scored) && self.engine.totals().scored_lines == 0;
        is_awaited.then(|| Stream::Scored.base(&self.root))
    }

    /// Returns the one lag that the status and everything made from it prints.
    fn lag(&self) -> Lag {
        Lag {
            files: self.files_pending(),
            objective_ms: millis(self.settings.fresh_objective),
            caught_up: self.caught_up,
            ..self.engine.lag()
        }
    }

    /// Returns the number of pairs to read, and of directories to list: those that hints named, and during a full scan
    /// after a start or a loss of events all. Periodic scans do not count, so that an idle daemon does not report pending
    /// files.
    fn files_pending(&self) -> u64 {
        let directories = if self.is_reconciling() {
            self.scanning.len() + self.watch.unarmed()
        } else {
            self.watch.unarmed_fresh()
        };
        (self.engine.queue_len() + directories) as u64
    }

    /// Returns whether known work is left.
    pub(super) fn has_backlog(&self) -> bool {
        self.engine.is_dirty() || self.watch.has_unarmed() || !self.scanning.is_empty()
    }

    /// Returns the values of the status line.
    fn unit_status(&self) -> UnitStatus {
        let counts = &self.engine.totals().counts;
        let now_ms = self.shared.clock.monotonic_ms();
        UnitStatus {
            health: self.live_status().health,
            rows: self.engine.export_rows(),
            waiting: counts[VerdictKind::Waiting],
            last_row_s: self
                .last_row_ms
                .map(|at_ms| now_ms.saturating_sub(at_ms) / 1_000),
            polling: match self.watch.mode() {
                Mode::Events => None,
                Mode::Polling { why } => Some(why),
            },
            reload_refused: self.reload_refused.clone(),
            stopping: false,
        }
    }
}

/// Logs that all day-files have been read, or all that can be read.
pub(super) fn log_caught_up(engine: &Engine, skipped: &Unreadable) {
    let except = match skipped.is_empty() {
        true => String::new(),
        false => format!(" with what can be read: {}", skipped.describe()),
    };
    let totals = engine.totals();
    tracing::info!(
        message_id = message_ids::CAUGHT_UP,
        scored_lines = totals.scored_lines,
        exported = totals.counts[VerdictKind::Exported],
        firewalled = totals.counts[VerdictKind::Firewalled],
        waiting = totals.counts[VerdictKind::Waiting],
        malformed = totals.scored_malformed,
        export_bytes = engine.export_bytes(),
        "caught up{except}"
    );
}
