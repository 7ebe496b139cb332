//! Owns what the follower says of itself: to the log, to the service manager, to `status`. It changes nothing but what
//! was said last.

use crate::daemon::event_loop::{EventLoop, millis};
use crate::daemon::status_line;
use crate::daemon::status_line::UnitStatus;
use crate::daemon::watch::Mode;
use crate::engine::lag::Lag;
use crate::engine::{Engine, PassReport};
use crate::pair::verdict::VerdictKind;
use crate::platform::clock::Clock as _;
use crate::platform::message_ids;
use crate::query::status::{RuntimeStatus, Status};
use crate::record::timestamp::stamp;

/// A status is sent at most so often, milliseconds.
const STATUS_MS: u64 = 1_000;

/// What the service manager was told last.
#[derive(Debug, Default)]
pub(super) struct LastReport {
    line: String,
    situation: UnitStatus,
    next_at_ms: u64,
    /// When it is to be told what was kept back, because the last line was too young.
    pub(super) again_at_ms: Option<u64>,
}

impl EventLoop {
    pub(super) fn say_pass(&mut self, report: PassReport) {
        if report.rows > 0 {
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

    pub(super) fn say_caught_up(&mut self) {
        if self.is_behind() {
            return;
        }
        self.looking_through = false;
        if !self.caught_up {
            say_caught_up(&self.engine);
            self.caught_up = true;
        }
    }

    /// One event with all that a person asks for first.
    pub(super) fn report(&self) {
        let situation = self.situation();
        let totals = self.engine.totals();
        let counts = &totals.counts;
        let (unterminated_lines, unterminated_bytes) = self.engine.unterminated();
        tracing::info!(
            message_id = message_ids::STATUS,
            status = status_line::of(&situation),
            files_pending = situation.files_pending,
            scored_lines = totals.scored_lines,
            exported = counts[VerdictKind::Exported],
            firewalled = counts[VerdictKind::Firewalled],
            unknown_category = counts[VerdictKind::UnknownCategory],
            wrong_role = counts[VerdictKind::WrongRole],
            blank_text = counts[VerdictKind::BlankText],
            waiting = counts[VerdictKind::Waiting],
            malformed = totals.scored_malformed,
            balanced = totals.balanced(),
            evidence_lines = totals.evidence_lines,
            evidence_malformed = totals.evidence_malformed,
            superseded = counts.superseded,
            contradicted = counts.contradicted,
            unterminated_lines,
            unterminated_bytes,
            export_bytes = self.engine.export_bytes(),
            watch = %self.watch.mode(),
            watched_directories = self.watch.armed(),
            last_row_at = self.last_row_wall_ms.map(stamp),
            fault = self.faults.last().filter(|fault| !fault.resolved).map(|fault| fault.what.as_str()),
            reload_refused = self.reload_refused,
            "status"
        );
    }

    /// Tells the service manager how things stand, where that is news; what only became older is told when
    /// something else has woken us.
    pub(super) fn say_status(&mut self) {
        let now_ms = self.shared.clock.monotonic_ms();
        let situation = self.situation();
        if now_ms < self.told.next_at_ms {
            let news = UnitStatus {
                last_row_s: self.told.situation.last_row_s,
                ..situation
            } != self.told.situation;
            self.told.again_at_ms = news.then_some(self.told.next_at_ms);
            return;
        }
        self.told.again_at_ms = None;
        let line = status_line::of(&situation);
        if line != self.told.line {
            self.shared.manager.status(&line);
            self.told.line = line;
            self.told.next_at_ms = now_ms + STATUS_MS;
        }
        self.told.situation = situation;
    }

    /// The same at once, however young the last one is.
    pub(super) fn say_status_now(&mut self) {
        self.told.next_at_ms = 0;
        self.say_status();
    }

    pub(super) fn say_stopping(&self) {
        let situation = UnitStatus {
            stopping: true,
            ..self.situation()
        };
        self.shared.manager.status(&status_line::of(&situation));
    }

    /// Leaves a snapshot for `status`, where there is something new to say, and the last day for the next process.
    pub(super) fn publish(&mut self) {
        let (now_ms, wall_ms) = (
            self.shared.clock.monotonic_ms(),
            self.shared.clock.wall_ms(),
        );
        let status_at_ms = self.publisher.idle_until(now_ms).or_else(|| {
            let status = self.live_status();
            self.publisher.offer(status, now_ms, wall_ms)
        });
        let recent_at_ms = self.recent_file.offer(self.engine.recent(), now_ms);
        self.publish_at_ms = [status_at_ms, recent_at_ms].into_iter().flatten().min();
    }

    pub(super) fn live_status(&self) -> Status {
        let live = RuntimeStatus {
            lag: self.lag(),
            watch: self.watch.mode().to_string(),
            overflows: self.overflows,
            faults: self.faults.clone(),
            last_row_wall_ms: self.last_row_wall_ms,
        };
        let now_ms = self.shared.clock.wall_ms();
        Status::of_daemon(&self.engine, &self.settings, &self.root, live, now_ms)
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

    /// Returns the number of pairs to read, and during a full scan of directories to list. The frequent scan of recent
    /// directories does not count, so that an idle daemon does not report pending files.
    fn files_pending(&self) -> u64 {
        let directories = if self.looking_through {
            self.scanning.len() + self.watch.unarmed()
        } else {
            0
        };
        (self.engine.behind() + directories) as u64
    }

    fn is_behind(&self) -> bool {
        self.engine.is_dirty() || self.watch.has_unarmed() || !self.scanning.is_empty()
    }

    fn situation(&self) -> UnitStatus {
        let counts = &self.engine.totals().counts;
        let now_ms = self.shared.clock.monotonic_ms();
        let fault = self.faults.last().filter(|fault| !fault.resolved);
        UnitStatus {
            files_pending: self.files_pending(),
            rows: counts[VerdictKind::Exported],
            waiting: counts[VerdictKind::Waiting],
            last_row_s: self
                .last_row_ms
                .map(|at_ms| now_ms.saturating_sub(at_ms) / 1_000),
            polling: match self.watch.mode() {
                Mode::Events => None,
                Mode::Polling { why } => Some(why),
            },
            fault: fault.map(|fault| (fault.at.clone(), fault.what.clone())),
            reload_refused: self.reload_refused.clone(),
            stopping: false,
        }
    }
}

pub(super) fn say_caught_up(engine: &Engine) {
    let totals = engine.totals();
    tracing::info!(
        message_id = message_ids::CAUGHT_UP,
        scored_lines = totals.scored_lines,
        exported = totals.counts[VerdictKind::Exported],
        firewalled = totals.counts[VerdictKind::Firewalled],
        waiting = totals.counts[VerdictKind::Waiting],
        malformed = totals.scored_malformed,
        export_bytes = engine.export_bytes(),
        "caught up"
    );
}
