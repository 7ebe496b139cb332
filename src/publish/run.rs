//! `run`: follows the export and commits what is new, until it is stopped.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::console::output;
use crate::daemon::signals;
use crate::dataset::feed::Point;
use crate::platform::sd_notify::ServiceManager;
use crate::publish::checkpoint::Checkpoints;
use crate::publish::error::PublishError;
use crate::publish::metrics::Metrics;
use crate::publish::publisher::Publisher;
use crate::publish::serve;
use crate::publish::settings::Settings;

/// The time between two readings of the length of the export, and the longest time until a stop is noticed.
const TICK: Duration = Duration::from_millis(250);
/// The time that the service manager has to read the last message.
const FINAL_PATIENCE: Duration = Duration::from_secs(1);

struct Follower<'s> {
    settings: &'s Settings,
    publisher: Option<Publisher<'s>>,
    checkpoints: Checkpoints,
    metrics: Arc<Metrics>,
    manager: ServiceManager,
    stop: Arc<AtomicBool>,
    /// What the table has, as far as this process knows.
    published: Option<Point>,
    /// Since when the table lacks anything.
    lags_since: Option<Instant>,
    /// What the last attempt needs, if it failed.
    failing: Option<Remedy>,
}

/// What ends a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remedy {
    /// Time.
    Retry,
    /// A decision of an operator.
    Operator,
}

/// Follows the export until a signal ends the process.
///
/// A failure that only an operator can mend does not end it either: the log has it once, the status line and the metrics
/// have it as long as it lasts, and the process continues once it is mended.
///
/// # Errors
/// The process cannot start or work.
pub(super) fn run(settings: &Settings) -> Result<ExitCode, PublishError> {
    let at_start = |source: io::Error| PublishError::Io {
        what: "cannot start".to_owned(),
        source,
    };
    output::detach().map_err(at_start)?;
    let metrics = Arc::new(Metrics::new());
    serve::start(settings.listen.clone(), Arc::clone(&metrics)).map_err(at_start)?;
    let mut follower = Follower {
        settings,
        publisher: None,
        checkpoints: Checkpoints::new(settings),
        metrics,
        manager: ServiceManager::from_environment().map_err(at_start)?,
        stop: signals::stop_flag().map_err(at_start)?,
        published: None,
        lags_since: None,
        failing: None,
    };
    let ended = follower.follow();
    follower.manager.stopping();
    if let Err(error) = &ended {
        follower.manager.failed(&error.to_string(), None);
    }
    let _delivered = follower.manager.flush(FINAL_PATIENCE);
    ended.map(|()| ExitCode::SUCCESS)
}

impl Follower<'_> {
    fn follow(&mut self) -> Result<(), PublishError> {
        self.manager.ready();
        while !self.stop.load(Ordering::Relaxed) {
            match self.publish() {
                Ok(()) => self.note_success(),
                Err(error) if error.is_of_process() => return Err(error),
                Err(error) => self.note_failure(&error),
            }
            self.wait();
        }
        Ok(())
    }

    /// Commits what the table lacks now. Reads the table only if the export has changed since the last time.
    fn publish(&mut self) -> Result<(), PublishError> {
        let publisher = match &mut self.publisher {
            Some(publisher) => publisher,
            None => self.publisher.insert(Publisher::open(self.settings)?),
        };
        if publisher.reopen_if_replaced()? {
            self.published = None;
        }
        if self.published.is_some() && self.published == Some(publisher.feed.head()?) {
            return Ok(());
        }
        let (published, metrics) = (&mut self.published, &self.metrics);
        let (manager, checkpoints, stop) = (&self.manager, &mut self.checkpoints, &self.stop);
        publisher.catch_up(&mut |done| {
            let step = done.account;
            *published = Some(done.published);
            metrics.add(step);
            manager.watchdog();
            if step.commits > 0 {
                tracing::info!(
                    version = step.version,
                    rows = step.rows,
                    retracted = step.retracted,
                    conflicts = step.conflicts,
                    "committed version {} of the table",
                    step.version
                );
                checkpoints.after(step.version);
                manager.watchdog();
            }
            !stop.load(Ordering::Relaxed)
        })
    }

    /// Waits until the next commit is due: after the interval, or once there are enough bytes for one.
    fn wait(&mut self) {
        let due = Instant::now() + self.settings.commit_interval;
        while Instant::now() < due && !self.stop.load(Ordering::Relaxed) {
            self.manager.watchdog();
            let lag_bytes = self.note_lag();
            if lag_bytes >= self.settings.commit_bytes && self.failing.is_none() {
                return;
            }
            std::thread::sleep(TICK);
        }
    }

    /// Measures what the table lacks, and returns the bytes of the export of it. After a failure the bytes are not known.
    fn note_lag(&mut self) -> u64 {
        let head = self
            .publisher
            .as_ref()
            .map(|publisher| publisher.feed.head());
        let published = self.published.unwrap_or_default();
        let mut lag_bytes = 0;
        if let Some(Ok(head)) = head {
            lag_bytes = head.export_len.saturating_sub(published.export_len);
            self.metrics
                .lag_bytes
                .set(i64::try_from(lag_bytes).unwrap_or(i64::MAX));
            if head == published {
                self.lags_since = None;
            } else {
                self.lags_since.get_or_insert_with(Instant::now);
            }
        }
        let lag = self
            .lags_since
            .map_or(Duration::ZERO, |since| since.elapsed());
        self.metrics.lag_seconds.set(lag.as_secs_f64());
        lag_bytes
    }

    fn note_success(&mut self) {
        if self.failing.take().is_some() {
            tracing::info!("publishing again");
        }
        self.metrics.note_attempt(None);
        let point = self.published.unwrap_or_default();
        self.manager.status(&format!(
            "published {} bytes of the export to {}",
            point.export_len, self.settings.table
        ));
    }

    fn note_failure(&mut self, error: &PublishError) {
        // The export may be another one now.
        self.publisher = None;
        self.published = None;
        self.lags_since.get_or_insert_with(Instant::now);
        let remedy = match error.is_passing() {
            true => Remedy::Retry,
            false => Remedy::Operator,
        };
        self.metrics.note_attempt(Some(remedy == Remedy::Operator));
        let fix = error.fix();
        self.manager.status(&match remedy {
            Remedy::Retry => format!("trying again: {error}"),
            Remedy::Operator => format!("waiting for an operator: {error}; {fix}"),
        });
        if self.failing.replace(remedy) == Some(remedy) {
            return;
        }
        match remedy {
            Remedy::Retry => {
                let every_s = self.settings.commit_interval.as_secs();
                tracing::warn!(%error, "not published ({error}), trying again every {every_s} s; {fix}");
            }
            Remedy::Operator => {
                tracing::error!(%error, "not published ({error}), waiting for an operator; {fix}");
            }
        }
    }
}
