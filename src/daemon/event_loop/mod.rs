//! The engine thread: it waits for hints, deadlines and requests, and runs passes, scans and answers in a fixed order.
//! Hints precede history, and a stop precedes everything. A slow, cheap scan always runs, because events are only hints.

pub(crate) mod catch_up;
mod comparisons;
pub(crate) mod directories;
mod reload;
pub(crate) mod report;
pub(crate) mod requests;
mod scan;
mod waits;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Settings;
use crate::daemon::inbox::{Inbox, PendingWork};
use crate::daemon::watch::{EventSource, Mode, SelfTest, Watch};
use crate::engine::{Engine, EngineError};
use crate::lake::path::Stream;
use crate::platform::clock::Clock;
use crate::platform::heartbeat::Heartbeat;
use crate::platform::message_ids;
use crate::platform::sd_notify::ServiceManager;
use crate::platform::storage::Storage;
use crate::query::dead_letters::WithinLimit;
use crate::query::status::{Fault, Publisher, RecentFile};
use crate::record::timestamp::stamp;
use comparisons::Comparisons;
use directories::UnreadableDirectories;
use reload::{malformed, report_within_limit, watch_setting};
use report::LastReport;
use requests::PendingRetry;
use scan::DIRECTORIES_PER_SLICE;
use waits::PendingWait;

pub use catch_up::catch_up;
pub use reload::Reloader;

/// The number of directories armed before the service manager is notified of readiness; the newest days of both streams
/// are among them.
const DIRECTORIES_AT_START: usize = 32;
/// The first and the longest pause after a transient error, milliseconds.
const RETRY_MS: [u64; 2] = [250, 10_000];
/// The maximum number of faults in the status; the oldest is dropped.
const FAULTS_MAX: usize = 8;

/// The handles that the event loop shares with the rest of the process.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The inbox that wakes the event loop.
    pub inbox: Arc<Inbox>,
    /// The heartbeat that the watchdog reads.
    pub heartbeat: Arc<Heartbeat>,
    /// The service manager, which receives the unit's status.
    pub manager: Arc<ServiceManager>,
    /// The wall clock and the monotonic clock.
    pub clock: Arc<dyn Clock>,
    /// The source of change events.
    pub event_source: Arc<dyn EventSource>,
}

/// The state of the engine thread.
pub struct EventLoop {
    engine: Engine,
    /// The disk of the engine.
    storage: Arc<dyn Storage>,
    watch: Watch,
    shared: Shared,
    reloader: Reloader,
    settings: Settings,
    root: PathBuf,
    /// Directories that the running full scan has not yet listed.
    scanning: VecDeque<(Stream, PathBuf)>,
    /// Directories that cannot be listed.
    unreadable: UnreadableDirectories,
    recent_scan_at_ms: u64,
    full_scan_at_ms: u64,
    comparisons: Comparisons,
    retry_at_ms: Option<u64>,
    retry_pause_ms: u64,
    last_report: LastReport,
    last_row_ms: Option<u64>,
    last_row_wall_ms: Option<u64>,
    /// The rows that this process had appended at that time.
    rows_appended: u64,
    /// How many times events were lost, and when last, milliseconds since 1970.
    overflows: (u64, Option<u64>),
    /// The last errors that paused reading, oldest first.
    faults: Vec<Fault>,
    /// Where the configured root leads now, if that is not where this daemon works.
    root_elsewhere: Option<PathBuf>,
    retries: Vec<PendingRetry>,
    waits: Vec<PendingWait>,
    /// The number of full scans that began.
    full_scans: u64,
    recent_file: RecentFile,
    /// Why the last reload was rejected; `None` while the configuration that was read last is in force.
    reload_refused: Option<String>,
    /// Lines that were too long and are within the limit, and the number of malformed lines when they were counted.
    within_limit: WithinLimit,
    within_limit_as_of: u64,
    publisher: Publisher,
    /// When the next snapshot has to be published, monotonic milliseconds.
    publish_at_ms: Option<u64>,
    caught_up: bool,
    /// Changes may have been missed until all directories are armed.
    is_rearming: bool,
    /// Changes may have been missed until the full scan with this number has ended.
    reconciling_scan: u64,
}

impl EventLoop {
    /// Creates the event loop for an opened engine, and places the first watches.
    ///
    /// # Errors
    /// The root's absolute path cannot be determined.
    pub fn new(
        mut engine: Engine,
        settings: Settings,
        root: &Path,
        reloader: Reloader,
        shared: Shared,
    ) -> std::io::Result<Self> {
        engine.set_interrupt_flag(shared.inbox.interrupt_flag());
        let setting = watch_setting(settings.watch);
        let storage = Arc::clone(&engine.ctx.storage);
        let watch = Watch::new(
            root,
            setting,
            Arc::clone(&storage),
            Arc::clone(&shared.event_source),
            Arc::clone(&shared.inbox),
        )?;
        let now_ms = shared.clock.monotonic_ms();
        let comparisons = Comparisons::new(shared.clock.wall_ms(), millis(settings.full_scan));
        let mut event_loop = Self {
            engine,
            watch,
            shared,
            reloader,
            root: root.to_owned(),
            scanning: VecDeque::new(),
            unreadable: UnreadableDirectories::default(),
            recent_scan_at_ms: now_ms,
            full_scan_at_ms: now_ms,
            comparisons,
            retry_at_ms: None,
            retry_pause_ms: RETRY_MS[0],
            last_report: LastReport::default(),
            last_row_ms: None,
            last_row_wall_ms: None,
            rows_appended: 0,
            overflows: (0, None),
            faults: Vec::new(),
            retries: Vec::new(),
            waits: Vec::new(),
            full_scans: 0,
            root_elsewhere: None,
            recent_file: RecentFile::new(Arc::clone(&storage), &settings.state_dir),
            reload_refused: None,
            within_limit: WithinLimit::default(),
            within_limit_as_of: 0,
            publisher: Publisher::new(Arc::clone(&storage), &settings.state_dir),
            publish_at_ms: None,
            caught_up: false,
            is_rearming: true,
            reconciling_scan: 0,
            settings,
            storage,
        };
        resume_recent(&mut event_loop.engine, &event_loop.recent_file);
        let limit = event_loop.settings.max_line_bytes;
        event_loop.within_limit = report_within_limit(&event_loop.engine, limit);
        event_loop.within_limit_as_of = malformed(&event_loop.engine);
        // Arming lists every directory, so an immediate full scan is needed only while polling.
        match event_loop.watch.mode() {
            Mode::Events => event_loop.full_scan_at_ms += event_loop.full_scan_pause_ms(),
            Mode::Polling { .. } => event_loop.reconciling_scan = 1,
        }
        // Newest first: the days that grow are watched before readiness is notified.
        event_loop.arm(DIRECTORIES_AT_START);
        Ok(event_loop)
    }

    /// Enables the self-test of the event source, for the watchdog.
    pub fn watcher_test(&mut self) -> Arc<SelfTest> {
        self.watch.enable_self_test(&self.settings.state_dir)
    }

    /// Follows the lake until a stop is requested; then commits, writes a checkpoint and returns.
    ///
    /// # Errors
    /// An engine error that is not transient; the daemon must not continue after it.
    pub fn run(mut self) -> Result<(), EngineError> {
        self.notify_status();
        loop {
            let pending = self.next_pending();
            if pending.stop {
                return self.finish();
            }
            self.turn(&pending)?;
        }
    }

    /// Does one round of work: takes what is pending, works if there is no pause, reports, and answers.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn turn(&mut self, pending: &PendingWork) -> Result<(), EngineError> {
        self.shared.heartbeat.busy();
        self.engine.metrics().turn();
        self.receive(pending);
        if self.retry_is_due() {
            self.try_work()?;
        }
        if pending.report {
            self.log_report();
        }
        if self.scanning.is_empty() && !self.watch.has_unarmed() {
            self.unreadable.log(&self.root);
        }
        self.notify_status();
        self.publish();
        if pending.requested {
            self.answer()?;
        }
        self.answer_retries()?;
        self.answer_waits()
    }

    /// Ends the daemon in good order: commits, and writes a checkpoint.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn finish(mut self) -> Result<(), EngineError> {
        self.shared.heartbeat.busy();
        self.notify_stopping();
        self.engine.flush_log_now();
        self.recent_file.write(&self.engine);
        self.engine.checkpoint()
    }

    /// Returns whether no pause after an error is in effect; a wake-up does not end a pause early.
    fn retry_is_due(&self) -> bool {
        self.retry_at_ms
            .is_none_or(|retry_ms| retry_ms <= self.shared.clock.monotonic_ms())
    }

    /// Works, and starts a pause after a transient error.
    fn try_work(&mut self) -> Result<(), EngineError> {
        match self.iterate() {
            Ok(()) => {
                self.retry_at_ms = None;
                self.retry_pause_ms = RETRY_MS[0];
                self.end_fault();
            }
            failed => self.pause_after(failed)?,
        }
        Ok(())
    }

    /// Starts a pause after a transient error, and returns any other one.
    fn pause_after(&mut self, result: Result<(), EngineError>) -> Result<(), EngineError> {
        match result {
            Err(error) if error.is_transient() => self.pause(&error),
            result => return result,
        }
        Ok(())
    }

    /// Waits for a hint, a request or a deadline; returns at once while work is left.
    fn next_pending(&self) -> PendingWork {
        let Some(deadline_ms) = self.idle_until_ms() else {
            return self.shared.inbox.take();
        };
        self.shared.heartbeat.idle_until(deadline_ms);
        let deadline = self.shared.clock.instant(deadline_ms);
        self.shared.inbox.wait_until(Some(deadline))
    }

    /// Returns until when [`Self::turn`] has nothing to do unless something is pending, monotonic milliseconds; `None`
    /// while work is left.
    #[must_use]
    pub fn idle_until_ms(&self) -> Option<u64> {
        let busy = self.retry_at_ms.is_none() && self.has_backlog();
        if busy {
            return None;
        }
        let work_ms = self.retry_at_ms.unwrap_or_else(|| {
            let scan_ms = self.recent_scan_at_ms.min(self.full_scan_at_ms);
            self.engine
                .due_ms()
                .map_or(scan_ms, |due_ms| due_ms.min(scan_ms))
        });
        let deadlines_ms = [self.publish_at_ms, self.last_report.retry_at_ms];
        Some(deadlines_ms.into_iter().flatten().fold(work_ms, u64::min))
    }

    /// Passes hints on to the watches and the engine, and applies a requested reload.
    fn receive(&mut self, pending: &PendingWork) {
        self.watch.apply(pending);
        if pending.rearm || pending.root {
            self.is_rearming = true;
        }
        if pending.rescan {
            self.reconciling_scan = self.full_scans + 1;
            self.engine.metrics().overflow();
            self.overflows = (self.overflows.0 + 1, Some(self.shared.clock.wall_ms()));
            tracing::warn!("inotify queue overflowed, rescanning all day-files");
            self.full_scan_at_ms = self.shared.clock.monotonic_ms();
        }
        if pending.reload {
            self.reload();
        }
        self.enqueue_hinted(&pending.day_files);
    }

    /// Runs what is due: timers, one pass, one slice of arming, one slice of the scans.
    fn iterate(&mut self) -> Result<(), EngineError> {
        let now_ms = self.shared.clock.monotonic_ms();
        if self.engine.due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            self.engine.tick()?;
        }
        if self.engine.is_dirty() {
            let report = self.engine.pass()?;
            self.record_pass(report);
        }
        // A scan finds an unterminated line each time. On a slow disk each turn ends with a scan, so that something is always
        // queued then.
        self.update_caught_up();
        self.answer_waits()?;
        if self.watch.has_unarmed() {
            self.arm(DIRECTORIES_PER_SLICE);
        }
        self.scan(now_ms)?;
        self.update_caught_up();
        if self.caught_up {
            self.engine.complete_state()?;
        }
        self.recount_within_limit();
        Ok(())
    }

    /// Pauses reading after a transient error, twice as long each time.
    fn pause(&mut self, error: &EngineError) {
        self.engine.metrics().error(error.component());
        if self.retry_at_ms.is_none() {
            tracing::error!(
                message_id = message_ids::READING_STOPPED,
                %error,
                retry_ms = self.retry_pause_ms,
                "paused: {error}; retrying within {} ms", self.retry_pause_ms);
            if self.faults.len() == FAULTS_MAX {
                self.faults.remove(0);
            }
            self.faults.push(Fault {
                at: stamp(self.shared.clock.wall_ms()),
                what: error.to_string(),
                resolved: false,
                fix: Some(error.fix().to_owned()),
            });
        }
        self.retry_at_ms = Some(self.shared.clock.monotonic_ms() + self.retry_pause_ms);
        self.retry_pause_ms = (self.retry_pause_ms * 2).min(RETRY_MS[1]);
    }

    /// Marks the last fault as resolved after work succeeded.
    fn end_fault(&mut self) {
        if let Some(fault) = self.faults.last_mut().filter(|fault| !fault.resolved) {
            fault.resolved = true;
            tracing::info!(
                message_id = message_ids::READING_AGAIN,
                since = fault.at,
                "resumed after: {}",
                fault.what
            );
        }
    }
}

/// Continues the history of the last day. Without it the plots begin with the next row.
fn resume_recent(engine: &mut Engine, file: &RecentFile) {
    if let Err(error) = engine.resume_recent(file.read()) {
        tracing::warn!(%error, "cannot count the rows of the last day: {error}");
    }
}

/// Returns a duration in whole milliseconds.
fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
