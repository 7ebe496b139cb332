//! Owns the engine's thread: what wakes it, what it does then, and in which order. Hints go before history, a stop
//! goes before everything, and a scan that is slow and cheap always runs, because events are hints.

mod answer;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::clock::{Clock as _, HostClock, stamp};
use crate::config::{self, Settings};
use crate::discover::{Level, PairPath, Stream, list_level};
use crate::engine::{Engine, EngineError, PassReport};
use crate::status::{Fault, Live, Publisher, RecentFile, Status};
use crate::storage::{Disk, Storage as _};
use crate::systemd::ServiceManager;
use crate::tail::seen;
use crate::wake::{Pending, Wake};
use crate::watch::{Mode, Watch, WatchSetting};
use answer::Retrying;

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
/// A status is sent at most so often, milliseconds.
const STATUS_MS: u64 = 1_000;

/// Whether the engine's thread lives: what feeds the watchdog.
#[derive(Debug, Default)]
pub struct Pulse {
    beats: AtomicU64,
    idle: AtomicBool,
}

impl Pulse {
    /// Whether the thread moved since `beats_before`, or has nothing to do; and its beats now.
    #[must_use]
    pub fn alive(&self, beats_before: u64) -> (bool, u64) {
        let beats = self.beats.load(Ordering::SeqCst);
        (
            beats != beats_before || self.idle.load(Ordering::SeqCst),
            beats,
        )
    }

    fn beat(&self) {
        self.beats.fetch_add(1, Ordering::SeqCst);
        self.idle.store(false, Ordering::SeqCst);
    }

    fn rest(&self) {
        self.idle.store(true, Ordering::SeqCst);
    }
}

/// The engine's thread.
pub struct Follower {
    engine: Engine,
    watch: Watch,
    wake: Arc<Wake>,
    pulse: Arc<Pulse>,
    manager: Arc<ServiceManager>,
    clock: Arc<HostClock>,
    settings: Settings,
    root: PathBuf,
    /// Directories of a full scan that are still to be listed.
    scanning: VecDeque<(Stream, PathBuf)>,
    recent_scan_at_ms: u64,
    full_scan_at_ms: u64,
    retry_at_ms: Option<u64>,
    retry_pause_ms: u64,
    status_at_ms: u64,
    status_said: String,
    last_row_ms: Option<u64>,
    last_row_wall_ms: Option<u64>,
    /// The last errors that stopped reading for a while, oldest first.
    faults: Vec<Fault>,
    /// Since when there has always been something unread, monotonic.
    behind_since_ms: Option<u64>,
    retries: Vec<Retrying>,
    recent_file: RecentFile,
    publisher: Publisher,
    /// A snapshot is still to be published then.
    publish_at_ms: Option<u64>,
    caught_up: bool,
}

impl Follower {
    /// Places the first watches. The engine is open; nothing was looked at yet.
    ///
    /// # Errors
    /// The root cannot be watched at all.
    pub fn new(
        engine: Engine,
        settings: Settings,
        root: &Path,
        wake: Arc<Wake>,
        pulse: Arc<Pulse>,
        manager: Arc<ServiceManager>,
        clock: Arc<HostClock>,
    ) -> std::io::Result<Self> {
        let setting = match settings.watch {
            config::Watch::Auto => WatchSetting::Auto,
            config::Watch::Events => WatchSetting::Events,
            config::Watch::Poll => WatchSetting::Poll,
        };
        let watch = Watch::new(root, setting, Arc::new(Disk), Arc::clone(&wake))?;
        let now_ms = clock.monotonic_ms();
        let mut follower = Self {
            engine,
            watch,
            wake,
            pulse,
            manager,
            clock,
            root: root.to_owned(),
            scanning: VecDeque::new(),
            recent_scan_at_ms: now_ms,
            full_scan_at_ms: now_ms,
            retry_at_ms: None,
            retry_pause_ms: RETRY_MS[0],
            status_at_ms: now_ms,
            status_said: String::new(),
            last_row_ms: None,
            last_row_wall_ms: None,
            faults: Vec::new(),
            behind_since_ms: None,
            retries: Vec::new(),
            recent_file: RecentFile::new(&settings.state_dir),
            publisher: Publisher::new(&settings.state_dir),
            publish_at_ms: None,
            caught_up: false,
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

    /// Follows the lake until it is told to stop; then commits, takes all into the state, and ends.
    ///
    /// # Errors
    /// What the daemon must not go on after.
    pub fn run(mut self) -> Result<(), EngineError> {
        loop {
            self.pulse.beat();
            let pending = self.next_pending();
            if pending.stop {
                break;
            }
            self.hear(&pending);
            if self.retry_is_due() {
                self.try_to_work()?;
            }
            self.note_behind();
            self.say_status(pending.report);
            self.publish();
            if pending.asked {
                self.answer()?;
            }
            self.answer_retries()?;
        }
        self.recent_file.write(self.engine.recent());
        self.engine.checkpoint()
    }

    /// Whether the pause after an error is over, if there is one: what wakes the thread meanwhile ends no pause.
    fn retry_is_due(&self) -> bool {
        self.retry_at_ms
            .is_none_or(|retry_ms| retry_ms <= self.clock.monotonic_ms())
    }

    fn try_to_work(&mut self) -> Result<(), EngineError> {
        match self.work() {
            Ok(()) => {
                self.retry_at_ms = None;
                self.retry_pause_ms = RETRY_MS[0];
                if let Some(fault) = self.faults.last_mut() {
                    fault.over = true;
                }
            }
            Err(error) if error.may_pass() => self.pause(&error),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Waits for a reason to work, unless there is one already.
    fn next_pending(&mut self) -> Pending {
        let busy = self.retry_at_ms.is_none()
            && (self.engine.is_dirty() || self.watch.unfinished() || !self.scanning.is_empty());
        if busy {
            return self.wake.take();
        }
        self.pulse.rest();
        let work_ms = self.retry_at_ms.unwrap_or_else(|| {
            let scan_ms = self.recent_scan_at_ms.min(self.full_scan_at_ms);
            self.engine
                .due_ms()
                .map_or(scan_ms, |due_ms| due_ms.min(scan_ms))
        });
        let deadline_ms = self.publish_at_ms.map_or(work_ms, |at| at.min(work_ms));
        let pending = self.wake.wait_until(Some(self.clock.instant(deadline_ms)));
        self.pulse.beat();
        pending
    }

    fn hear(&mut self, pending: &Pending) {
        self.watch.apply(pending);
        if pending.rescan {
            tracing::warn!("more happened than events tell of, looking at every day-file");
            self.full_scan_at_ms = self.clock.monotonic_ms();
        }
        if pending.reload {
            tracing::warn!(
                "the configuration is read at the start alone; restart distilld to apply a changed one"
            );
        }
        for (_, relative) in &pending.day_files {
            if let Some(path) = PairPath::from_relative(relative) {
                self.engine.touch(path);
            }
        }
    }

    fn work(&mut self) -> Result<(), EngineError> {
        let now_ms = self.clock.monotonic_ms();
        if self.engine.due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            self.engine.tick()?;
        }
        if self.engine.is_dirty() {
            let report = self.engine.pass()?;
            self.say_pass(report);
        }
        if self.watch.unfinished() {
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
                self.look_if_news(stream, path, !many);
            }
        }
    }

    /// A day-file that is as it was when all of it had been read is not opened.
    fn look_if_news(&mut self, stream: Stream, path: PairPath, soon: bool) {
        let news = match Disk.stat(&path.path(&self.root, stream)) {
            Ok(stat) => self
                .engine
                .is_news(&path, stream, seen(&stat))
                .unwrap_or(true),
            // Gone is news only of what was there.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.engine.is_loss(&path, stream).unwrap_or(true)
            }
            Err(_) => true,
        };
        match (news, soon) {
            (true, true) => self.engine.touch(path),
            (true, false) => self.engine.touch_later(path),
            (false, _) => {}
        }
    }

    fn scan(&mut self, now_ms: u64) -> Result<(), EngineError> {
        // One that is asked for while another runs stays due: it may concern what that one has passed already.
        if now_ms >= self.full_scan_at_ms && self.scanning.is_empty() {
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
            self.scan_recent();
            self.engine.check_files()?;
            // A slice of all watches: a whole round at once would cost a long history its idleness.
            let _round_complete = self.watch.rearm_changed(WATCHES_AT_ONCE);
        }
        Ok(())
    }

    fn scan_directory(&mut self, stream: Stream, dir: &Path) {
        match list_level(&Disk, &self.root, stream, dir) {
            // The stack gives the last one first: newest days before history.
            Ok(Level::Directories(dirs)) => self
                .scanning
                .extend(dirs.into_iter().map(|dir| (stream, dir))),
            Ok(Level::DayFiles(day_files)) => {
                self.watch.ensure(stream, dir);
                for path in day_files {
                    self.look_if_news(stream, path, false);
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
                self.look_if_news(stream, path, true);
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
        if self.retry_at_ms.is_none() {
            tracing::error!(%error, retry_ms = self.retry_pause_ms, "reading stops until the disk takes writes again");
            if self.faults.len() == FAULTS_MAX {
                self.faults.remove(0);
            }
            self.faults.push(Fault {
                at: stamp(self.clock.wall_ms()),
                what: error.to_string(),
                over: false,
            });
        }
        self.retry_at_ms = Some(self.clock.monotonic_ms() + self.retry_pause_ms);
        self.retry_pause_ms = (self.retry_pause_ms * 2).min(RETRY_MS[1]);
        self.manager.status(&format!("stopped reading: {error}"));
    }

    fn say_pass(&mut self, report: PassReport) {
        if report.rows > 0 {
            self.last_row_ms = Some(self.clock.monotonic_ms());
            self.last_row_wall_ms = Some(self.clock.wall_ms());
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

    fn say_caught_up(&mut self) {
        let behind = self.engine.is_dirty() || self.watch.unfinished() || !self.scanning.is_empty();
        if !behind && !self.caught_up {
            say_caught_up(&self.engine);
            self.caught_up = true;
        }
    }

    fn say_status(&mut self, to_the_log: bool) {
        let now_ms = self.clock.monotonic_ms();
        if to_the_log {
            let totals = self.engine.totals();
            tracing::info!(status = self.status(now_ms), ?totals, watch = %self.watch.mode(), "status");
        }
        if now_ms >= self.status_at_ms && self.retry_at_ms.is_none() {
            let status = self.status(now_ms);
            if status != self.status_said {
                self.manager.status(&status);
                self.status_said = status;
                self.status_at_ms = now_ms + STATUS_MS;
            }
        }
    }

    /// Leaves a snapshot for `status`, where there is something new to say, and the last day for the next process.
    fn publish(&mut self) {
        let status = self.live_status();
        let (now_ms, wall_ms) = (self.clock.monotonic_ms(), self.clock.wall_ms());
        let status_at_ms = self.publisher.offer(status, now_ms, wall_ms);
        let recent_at_ms = self.recent_file.offer(self.engine.recent(), now_ms);
        self.publish_at_ms = [status_at_ms, recent_at_ms].into_iter().flatten().min();
    }

    fn live_status(&self) -> Status {
        let live = Live {
            behind: (self.engine.behind() + self.scanning.len()) as u64,
            watch: self.watch.mode().to_string(),
            faults: self.faults.clone(),
            last_row_wall_ms: self.last_row_wall_ms,
        };
        let now_ms = self.clock.wall_ms();
        Status::of_daemon(&self.engine, &self.settings, &self.root, live, now_ms)
    }

    fn status(&self, now_ms: u64) -> String {
        let counts = &self.engine.totals().counts;
        let behind = self.engine.behind() + self.scanning.len();
        let fresh = if behind == 0 {
            "fresh".to_owned()
        } else {
            format!("catching up, {behind} behind")
        };
        let last_row = self.last_row_ms.map_or(String::new(), |at_ms| {
            format!(", last row {} s ago", now_ms.saturating_sub(at_ms) / 1_000)
        });
        format!(
            "{fresh}, {} rows, {} waiting for evidence{last_row}",
            counts.exported, counts.waiting
        )
    }
}

fn say_caught_up(engine: &Engine) {
    let totals = engine.totals();
    tracing::info!(
        scored_lines = totals.scored_lines,
        exported = totals.counts.exported,
        firewalled = totals.counts.firewalled,
        waiting = totals.counts.waiting,
        malformed = totals.scored_malformed,
        export_bytes = engine.export_bytes(),
        "caught up"
    );
}

/// Catches up with all that is there, settles what can be settled, and takes all into the state.
///
/// # Errors
/// Those of the engine; an error that may pass is one here.
pub fn catch_up(
    engine: &mut Engine,
    root: &Path,
    clock: &HostClock,
    stop: &Wake,
) -> Result<(), EngineError> {
    for stream in Stream::ALL {
        let mut dirs = vec![PathBuf::new()];
        while let Some(dir) = dirs.pop() {
            match list_level(&Disk, root, stream, &dir) {
                Ok(Level::Directories(below)) => dirs.extend(below),
                Ok(Level::DayFiles(day_files)) => {
                    for path in day_files {
                        let stat = Disk.stat(&path.path(root, stream));
                        if stat
                            .map_or(Ok(true), |stat| engine.is_news(&path, stream, seen(&stat)))?
                        {
                            engine.touch_later(path);
                        }
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(directory = %stream.base(root).join(&dir).display(), %error, "directory passed over");
                }
            }
        }
    }
    while !stop.stopping() {
        if engine.is_dirty() {
            engine.pass()?;
        } else if engine.may_settle() {
            let due_ms = engine.due_ms().unwrap_or(0);
            // Hints play no part here; a stop is looked for above.
            let _hints = stop.wait_until(Some(clock.instant(due_ms)));
            engine.tick()?;
        } else {
            break;
        }
    }
    engine.checkpoint()?;
    if !stop.stopping() {
        say_caught_up(engine);
    }
    Ok(())
}

fn newest_days(root: &Path, stream: Stream) -> Vec<PathBuf> {
    let mut newest = vec![PathBuf::new()];
    for _ in 0..3 {
        let mut below = Vec::new();
        for dir in &newest {
            if let Ok(Level::Directories(dirs)) = list_level(&Disk, root, stream, dir) {
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
