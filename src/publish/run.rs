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
    is_failing: bool,
}

/// Follows the export until a signal ends the process.
///
/// # Errors
/// What an operator has to mend. Errors that may pass are logged, and the commit is tried again.
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
        is_failing: false,
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
                Err(error) if error.is_passing() => self.note_failure(&error),
                Err(error) => return Err(error),
            }
            self.wait();
        }
        Ok(())
    }

    /// Commits until the table lacks nothing. Reads the table only if the export has changed since the last time.
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
        while !self.stop.load(Ordering::Relaxed) {
            let done = publisher.step()?;
            let step = done.account;
            self.published = Some(done.published);
            self.metrics.add(step);
            self.manager.watchdog();
            if step.commits == 0 {
                break;
            }
            tracing::info!(
                version = step.version,
                rows = step.rows,
                retracted = step.retracted,
                conflicts = step.conflicts,
                "committed version {} of the table",
                step.version
            );
            self.checkpoints.after(step.version);
            self.manager.watchdog();
        }
        Ok(())
    }

    /// Waits until the next commit is due: after the interval, or once there are enough bytes for one.
    fn wait(&mut self) {
        let due = Instant::now() + self.settings.commit_interval;
        while Instant::now() < due && !self.stop.load(Ordering::Relaxed) {
            self.manager.watchdog();
            let lag_bytes = self.note_lag();
            if lag_bytes >= self.settings.commit_bytes && !self.is_failing {
                return;
            }
            std::thread::sleep(TICK);
        }
    }

    /// Measures what the table lacks, and returns the bytes of the export of it.
    fn note_lag(&mut self) -> u64 {
        let head = self
            .publisher
            .as_ref()
            .map(|publisher| publisher.feed.head());
        let (Some(Ok(head)), published) = (head, self.published.unwrap_or_default()) else {
            return 0;
        };
        if head == published {
            self.lags_since = None;
        } else {
            self.lags_since.get_or_insert_with(Instant::now);
        }
        let lag_bytes = head.export_len.saturating_sub(published.export_len);
        let lag = self
            .lags_since
            .map_or(Duration::ZERO, |since| since.elapsed());
        self.metrics
            .lag_bytes
            .set(i64::try_from(lag_bytes).unwrap_or(i64::MAX));
        self.metrics.lag_seconds.set(lag.as_secs_f64());
        lag_bytes
    }

    fn note_success(&mut self) {
        if std::mem::take(&mut self.is_failing) {
            tracing::info!("publishing again");
        }
        self.metrics.failing.set(0);
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
        self.metrics.failing.set(1);
        self.manager.status(&format!("trying again: {error}"));
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(%error, "not published ({error}), trying again every {} s; {}", self.settings.commit_interval.as_secs(), error.fix());
        }
    }
}
