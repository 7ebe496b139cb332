//! `wait --fresh`: asks the daemon until everything that was in the lake at the first question is exported or refused.

use std::thread::sleep;
use std::time::{Duration, Instant};

use hyper::Method;
use serde::{Deserialize, Serialize};

use crate::config::Settings;
use crate::platform::clock::{Clock as _, HostClock};
use crate::platform::root_lock::Holder;
use crate::query::control::WAIT_ROUTE;
use crate::query::health::{Health, HealthReport};
use crate::query::offline::{self, Backend, InquireError};
use crate::query::status::status;

/// Maximum time of one question. The daemon closes a connection after a minute, and answers each question at the
/// latest after this time.
const QUESTION_MAX: Duration = Duration::from_secs(20);
/// Additional time for the answer to one question.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// Pause before the next question to a daemon that is starting or ending, or that another process replaces.
const PAUSE: Duration = Duration::from_millis(200);

/// Time without an answer after which a daemon counts as unresponsive and not as stopping.
const END_PATIENCE: Duration = Duration::from_secs(15);

/// The answer of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WaitReport {
    /// Whether the wait is over.
    pub done: bool,
    /// The health at that time.
    pub health: HealthReport,
    /// Rows in the export.
    pub rows: u64,
    /// Runs whose evidence is not in the lake.
    pub waiting: u64,
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitResult {
    /// Everything that was in the lake is exported or refused.
    Fresh,
    /// The time ended before.
    Timeout,
    /// No daemon runs.
    NotRunning,
    /// The daemon reads nothing because of a fault, or makes no progress.
    Stopped,
    /// The same as `Fresh` for what can be read; a day-file or directory cannot be read.
    Incomplete,
}

/// The end of a wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waited {
    /// How it ended.
    pub result: WaitResult,
    /// The last answer of the daemon.
    #[serde(flatten)]
    pub report: WaitReport,
}

impl WaitReport {
    /// Returns the answer to a question whose time has ended before the wait.
    #[must_use]
    pub fn pending() -> Self {
        let health = HealthReport {
            verdict: Health::CatchingUp,
            ..HealthReport::default()
        };
        Self {
            health,
            ..Self::default()
        }
    }

    /// Returns how a wait with this report ended; `None` if it has not.
    fn result(&self) -> Option<WaitResult> {
        let result = match self.health.verdict {
            Health::NotRunning => WaitResult::NotRunning,
            Health::Stopped | Health::Unresponsive => WaitResult::Stopped,
            Health::Incomplete if self.done => WaitResult::Incomplete,
            _ if self.done => WaitResult::Fresh,
            _ => return None,
        };
        Some(result)
    }
}

/// Waits until everything that is in the lake now is exported or refused, at most for `timeout`.
///
/// # Errors
/// The daemon or its files cannot be asked.
pub fn wait_fresh(settings: &Settings, timeout: Option<Duration>) -> Result<Waited, InquireError> {
    let began = Instant::now();
    let clock = HostClock::new();
    let mut unresponsive_since = None;
    let id = format!("{}-{}", std::process::id(), clock.wall_ms());
    let left = || {
        timeout.map_or(QUESTION_MAX, |timeout| {
            timeout.saturating_sub(began.elapsed())
        })
    };
    loop {
        let (report, question) = match ask(settings, &id, left().min(QUESTION_MAX)) {
            Ok(report) => (report, None),
            // The reason is in the status: it is starting, stopping, or stopped by a fault.
            Err(error) if is_temporary(&error) => {
                (report_without_answer(settings, &clock)?, Some(error))
            }
            Err(error) => return Err(error),
        };
        // A daemon that is stopping does not answer either, until it has ended.
        let is_unresponsive = report.health.verdict == Health::Unresponsive;
        let since = unresponsive_since.get_or_insert_with(Instant::now);
        let may_end = is_unresponsive && since.elapsed() < END_PATIENCE;
        unresponsive_since = unresponsive_since.filter(|_| is_unresponsive);
        if let Some(result) = report.result().filter(|_| !may_end) {
            return Ok(Waited { result, report });
        }
        if left().is_zero() {
            let report = report_without_answer(settings, &clock)?;
            let result = WaitResult::Timeout;
            return Ok(Waited { result, report });
        }
        if let Some(error) = question {
            tracing::debug!(%error, "no answer to the question yet ({error})");
            sleep(PAUSE.min(left()));
        }
    }
}

/// Returns whether the next question may be answered.
fn is_temporary(error: &InquireError) -> bool {
    match error {
        InquireError::Unresponsive { .. } | InquireError::NoState(_) => true,
        // 404: a daemon of an earlier version does not know the question.
        InquireError::Rejected { status, .. } => *status != 404,
        _ => false,
    }
}

/// Asks the daemon; without one, returns that none runs.
fn ask(settings: &Settings, id: &str, within: Duration) -> Result<WaitReport, InquireError> {
    match offline::find(settings)? {
        Backend::Daemon(holder) => ask_daemon(&holder, id, within),
        Backend::OfflineState(_) => report_without_answer(settings, &HostClock::new()),
    }
}

fn ask_daemon(holder: &Holder, id: &str, within: Duration) -> Result<WaitReport, InquireError> {
    let path = format!("{WAIT_ROUTE}?id={id}&within_ms={}", within.as_millis());
    offline::of_daemon(holder, Method::GET, &path, within + ANSWER_PATIENCE)
}

/// Returns a report from the status of a daemon that does not answer the question.
fn report_without_answer(
    settings: &Settings,
    clock: &HostClock,
) -> Result<WaitReport, InquireError> {
    let health = match status(settings, clock.wall_ms()) {
        Ok(status) => status.health,
        Err(error @ InquireError::NoState(_)) => HealthReport {
            reason: error.to_string(),
            ..HealthReport::default()
        },
        Err(error) => return Err(error),
    };
    Ok(WaitReport {
        health,
        ..WaitReport::default()
    })
}
