//! Owns the engine's thread: what wakes it, what it does then, and in which order. Hints go before history, a stop
//! goes before everything, and a scan that is slow and cheap always runs, because events are hints.

pub(crate) mod catch_up;
mod reload;
pub(crate) mod report;
pub(crate) mod requests;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Settings;
use crate::console::logging::tell_lost;
use crate::daemon::inbox::{Inbox, PendingWork};
use crate::daemon::watch::{Mode, SelfTest, Watch};
use crate::engine::{Engine, EngineError};
use crate::lake::identity::seen;
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::{Level, list_level};
use crate::platform::clock::{Clock as _, HostClock};
use crate::platform::heartbeat::Heartbeat;
use crate::platform::message_ids;
use crate::platform::sd_notify::ServiceManager;
use crate::platform::storage::{OsStorage, Storage as _};
use crate::query::status::{Fault, Publisher, RecentFile};
use crate::record::timestamp::stamp;
use reload::watch_setting;
use report::LastReport;
use requests::PendingRetry;

pub use catch_up::catch_up;
pub use reload::Reloader;

/// Directories armed or listed between two looks at the hints. With a long history behind it a start is busy with
/// this for a second, and a new record waits for one slice: each directory costs a watch and a look at its day-files.
const DIRECTORIES_AT_ONCE: usize = 4;
/// Directories armed before anybody is told that we are ready: the newest days of both streams are among them.
const DIRECTORIES_FIRST: usize = 32;
/// Watches looked after with each frequent scan.
const WATCHES_AT_ONCE: usize = 32;
/// More day-files than this in one slice are history, and not looked at before what is hinted at.
const DAY_FILES_SOON: usize = 16;
/// The newest days of each stream that the frequent scan lists.
const RECENT_DAYS: usize = 2;
/// First and longest pause after an error that may pass, milliseconds.
const RETRY_MS: [u64; 2] = [250, 10_000];
/// Faults that are told.
const FAULTS_MAX: usize = 8;

/// What the follower shares with the rest of the process.
#[derive(Debug, Clone)]
pub struct Shared {
    /// What wakes it.
    pub wake: Arc<Inbox>,
    /// What it finishes, for the watchdog.
    pub pulse: Arc<Heartbeat>,
    /// Who is told how things stand.
    pub manager: Arc<ServiceManager>,
    /// The clocks.
    pub clock: Arc<HostClock>,
}

/// The engine's thread.
pub struct EventLoop {
    engine: Engine,
    watch: Watch,
    shared: Shared,
    reloader: Reloader,
    settings: Settings,
    root: PathBuf,
    /// Directories of a full scan that are still to be listed.
    scanning: VecDeque<(Stream, PathBuf)>,
    recent_scan_at_ms: u64,
    full_scan_at_ms: u64,
    retry_at_ms: Option<u64>,
    retry_pause_ms: u64,
    told: LastReport,
    last_row_ms: Option<u64>,
    last_row_wall_ms: Option<u64>,
    /// How often events were lost, and when last, milliseconds since 1970.
    overflows: (u64, Option<u64>),
    /// The last errors that stopped reading for a while, oldest first.
    faults: Vec<Fault>,
    retries: Vec<PendingRetry>,
    recent_file: RecentFile,
    /// Why the configuration that was read last is not in force.
    reload_refused: Option<String>,
    publisher: Publisher,
    /// A snapshot is still to be published then.
    publish_at_ms: Option<u64>,
    caught_up: bool,
    /// Something may have been missed until all directories have been looked through; the scans that only make sure
    /// are no backlog.
    looking_through: bool,
}

impl EventLoop {
    /// Places the first watches. The engine is open; nothing was looked at yet.
    ///
    /// # Errors
    /// The root cannot be watched at all.
    pub fn new(
        mut engine: Engine,
        settings: Settings,
        root: &Path,
        reloader: Reloader,
        shared: Shared,
    ) -> std::io::Result<Self> {
        engine.set_interrupt_flag(shared.wake.awaited());
        let setting = watch_setting(settings.watch);
        let watch = Watch::new(root, setting, Arc::new(OsStorage), Arc::clone(&shared.wake))?;
        let now_ms = shared.clock.monotonic_ms();
        let mut follower = Self {
            engine,
            watch,
            shared,
            reloader,
            root: root.to_owned(),
            scanning: VecDeque::new(),
            recent_scan_at_ms: now_ms,
            full_scan_at_ms: now_ms,
            retry_at_ms: None,
            retry_pause_ms: RETRY_MS[0],
            told: LastReport::default(),
            last_row_ms: None,
            last_row_wall_ms: None,
            overflows: (0, None),
            faults: Vec::new(),
            retries: Vec::new(),
            recent_file: RecentFile::new(&settings.state_dir),
            reload_refused: None,
            publisher: Publisher::new(&settings.state_dir),
            publish_at_ms: None,
            caught_up: false,
            looking_through: true,
            settings,
        };
        if let Some(kept) = follower.recent_file.read() {
            follower.engine.resume_recent(kept);
        }
        // Arming lists every directory; only where nothing is armed a scan has to.
        if follower.watch.mode() == Mode::Events {
            follower.full_scan_at_ms = now_ms + follower.full_scan_pause_ms();
        }
        // Newest first: the days that grow are heard before the service manager is told that we are ready.
        follower.arm(DIRECTORIES_FIRST);
        Ok(follower)
    }

    /// Has the event source be testable, for the watchdog.
    pub fn watcher_test(&mut self) -> Arc<SelfTest> {
        self.watch.enable_self_test(&self.settings.state_dir)
    }

    /// Follows the lake until it is told to stop; then commits, takes all into the state, and ends.
    ///
    /// # Errors
    /// What the daemon must not go on after.
    pub fn run(mut self) -> Result<(), EngineError> {
        self.say_status();
        loop {
            self.shared.pulse.tick();
            self.engine.meters().turn();
            let pending = self.next_pending();
            if pending.stop {
                break;
            }
            self.hear(&pending);
            if self.retry_is_due() {
                self.try_to_work()?;
            }
            if pending.report {
                self.report();
            }
            tell_lost(|lines| {
                tracing::warn!(
                    lines,
                    "lines of this log were lost: whoever reads stderr was too slow"
                );
            });
            self.say_status();
            self.publish();
            if pending.asked {
                self.answer()?;
            }
            self.answer_retries()?;
        }
        self.say_stopping();
        self.recent_file.write(self.engine.recent());
        self.engine.checkpoint()
    }

    /// Whether the pause after an error is over, if there is one: what wakes the thread meanwhile ends no pause.
    fn retry_is_due(&self) -> bool {
        self.retry_at_ms
            .is_none_or(|retry_ms| retry_ms <= self.shared.clock.monotonic_ms())
    }

    fn try_to_work(&mut self) -> Result<(), EngineError> {
        match self.work() {
            Ok(()) => {
                self.retry_at_ms = None;
                self.retry_pause_ms = RETRY_MS[0];
                self.end_fault();
            }
            Err(error) if error.is_transient() => self.pause(&error),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Waits for a reason to work, unless there is one already.
    fn next_pending(&mut self) -> PendingWork {
        let busy = self.retry_at_ms.is_none()
            && (self.engine.is_dirty() || self.watch.has_unarmed() || !self.scanning.is_empty());
        if busy {
            return self.shared.wake.take();
        }
        let work_ms = self.retry_at_ms.unwrap_or_else(|| {
            let scan_ms = self.recent_scan_at_ms.min(self.full_scan_at_ms);
            self.engine
                .due_ms()
                .map_or(scan_ms, |due_ms| due_ms.min(scan_ms))
        });
        let deadlines_ms = [Some(work_ms), self.publish_at_ms, self.told.again_at_ms];
        let deadline_ms = deadlines_ms.into_iter().flatten().min().unwrap_or(work_ms);
        let deadline = self.shared.clock.instant(deadline_ms);
        self.shared.pulse.idle_until(deadline_ms);
        let pending = self.shared.wake.wait_until(Some(deadline));
        self.shared.pulse.work();
        pending
    }

    fn hear(&mut self, pending: &PendingWork) {
        self.watch.apply(pending);
        self.looking_through |= pending.rescan || pending.rearm || pending.root;
        if pending.rescan {
            self.engine.meters().overflow();
            self.overflows = (self.overflows.0 + 1, Some(self.shared.clock.wall_ms()));
            tracing::warn!("more happened than events tell of, looking at every day-file");
            self.full_scan_at_ms = self.shared.clock.monotonic_ms();
        }
        if pending.reload {
            self.reload();
        }
        for (_, relative) in &pending.day_files {
            if let Some(path) = PairPath::from_relative(relative) {
                self.engine.enqueue(path);
            }
        }
    }

    fn work(&mut self) -> Result<(), EngineError> {
        let now_ms = self.shared.clock.monotonic_ms();
        if self.engine.due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            self.engine.tick()?;
        }
        if self.engine.is_dirty() {
            let report = self.engine.pass()?;
            self.say_pass(report);
        }
        if self.watch.has_unarmed() {
            self.arm(DIRECTORIES_AT_ONCE);
        }
        self.scan(now_ms)?;
        self.say_caught_up();
        Ok(())
    }

    fn arm(&mut self, directories_max: usize) {
        let progress = self.watch.arm_next(directories_max);
        let many = progress.day_files.len() > DAY_FILES_SOON;
        for (stream, relative) in progress.day_files {
            if let Some(path) = PairPath::from_relative(&relative) {
                self.enqueue_if_changed(stream, path, !many);
            }
        }
    }

    /// A day-file that is as it was when all of it had been read is not opened.
    fn enqueue_if_changed(&mut self, stream: Stream, path: PairPath, soon: bool) {
        let news = match OsStorage.stat(&path.path(&self.root, stream)) {
            Ok(stat) => self
                .engine
                .has_changed(&path, stream, seen(&stat))
                .unwrap_or(true),
            // Gone is news only of what was there.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.engine.has_disappeared(&path, stream).unwrap_or(true)
            }
            Err(_) => true,
        };
        match (news, soon) {
            (true, true) => self.engine.enqueue(path),
            (true, false) => self.engine.enqueue_backlog(path),
            (false, _) => {}
        }
    }

    fn scan(&mut self, now_ms: u64) -> Result<(), EngineError> {
        // One that is asked for while another runs stays due: it may concern what that one has passed already.
        if now_ms >= self.full_scan_at_ms && self.scanning.is_empty() {
            self.engine.meters().scan("full");
            self.engine.prove_next_in_turn()?;
            self.scanning
                .extend(Stream::ALL.map(|stream| (stream, PathBuf::new())));
            self.full_scan_at_ms = now_ms + self.full_scan_pause_ms();
        }
        for _ in 0..DIRECTORIES_AT_ONCE {
            let Some((stream, dir)) = self.scanning.pop_back() else {
                break;
            };
            self.scan_directory(stream, &dir);
        }
        if now_ms >= self.recent_scan_at_ms {
            self.recent_scan_at_ms = now_ms + self.recent_scan_pause_ms();
            self.engine.meters().scan("recent");
            self.scan_recent();
            self.engine.check_files()?;
            // A slice of all watches: a whole round at once would cost a long history its idleness.
            let _round_complete = self.watch.rearm_changed(WATCHES_AT_ONCE);
        }
        Ok(())
    }

    fn scan_directory(&mut self, stream: Stream, dir: &Path) {
        match list_level(&OsStorage, &self.root, stream, dir) {
            // The stack gives the last one first: newest days before history.
            Ok(Level::Directories(dirs)) => self
                .scanning
                .extend(dirs.into_iter().map(|dir| (stream, dir))),
            Ok(Level::DayFiles(day_files)) => {
                self.watch.ensure(stream, dir);
                for path in day_files {
                    self.enqueue_if_changed(stream, path, false);
                }
            }
            Err(_) => {}
        }
    }

    /// The newest days and every pair in memory: where lost events are most likely to have been.
    fn scan_recent(&mut self) {
        for stream in Stream::ALL {
            for day in newest_days(&self.root, stream) {
                self.scan_directory(stream, &day);
            }
            for path in self.engine.active_paths() {
                self.enqueue_if_changed(stream, path, true);
            }
        }
    }

    fn recent_scan_pause_ms(&self) -> u64 {
        let pause = match self.watch.mode() {
            Mode::Events => self.settings.recent_scan,
            Mode::Polling { .. } => self.settings.poll,
        };
        millis(pause)
    }

    /// Without events the whole lake is scanned as often as is fair to the disk: thirty polls.
    fn full_scan_pause_ms(&self) -> u64 {
        match self.watch.mode() {
            Mode::Events => millis(self.settings.full_scan),
            Mode::Polling { .. } => millis(self.settings.poll) * 30,
        }
    }

    fn pause(&mut self, error: &EngineError) {
        self.engine.meters().error(error.place());
        if self.retry_at_ms.is_none() {
            tracing::error!(message_id = message_ids::READING_STOPPED, %error, retry_ms = self.retry_pause_ms, "reading stops until the disk takes writes again");
            if self.faults.len() == FAULTS_MAX {
                self.faults.remove(0);
            }
            self.faults.push(Fault {
                at: stamp(self.shared.clock.wall_ms()),
                what: error.to_string(),
                resolved: false,
            });
        }
        self.retry_at_ms = Some(self.shared.clock.monotonic_ms() + self.retry_pause_ms);
        self.retry_pause_ms = (self.retry_pause_ms * 2).min(RETRY_MS[1]);
    }

    fn end_fault(&mut self) {
        if let Some(fault) = self.faults.last_mut().filter(|fault| !fault.resolved) {
            fault.resolved = true;
            tracing::info!(
                message_id = message_ids::READING_AGAIN,
                since = fault.at,
                "reading goes on"
            );
        }
    }
}

fn newest_days(root: &Path, stream: Stream) -> Vec<PathBuf> {
    let mut newest = vec![PathBuf::new()];
    for _ in 0..3 {
        let mut below = Vec::new();
        for dir in &newest {
            if let Ok(Level::Directories(dirs)) = list_level(&OsStorage, root, stream, dir) {
                below.extend(dirs.into_iter().rev().take(RECENT_DAYS));
            }
        }
        below.truncate(RECENT_DAYS);
        newest = below;
    }
    newest
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
