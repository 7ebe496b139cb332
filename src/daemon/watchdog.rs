//! Feeds the service manager's watchdog while the engine makes progress, or is within its announced idle time, and
//! the event source passes its self-test. It never ends the process; the service manager does.
//!
//! It has a thread of its own. A hung disk may hang that thread too; the keep-alives then stop, as they should.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::daemon::status_line;
use crate::daemon::watch::SelfTest;
use crate::platform::background::{spawn, spawn_in};
use crate::platform::clock::Clock;
use crate::platform::heartbeat::Heartbeat;
use crate::platform::message_ids;
use crate::platform::sd_notify::ServiceManager;

/// The interval between two progress notifications of a recovery.
const RECOVERY_TICK: Duration = Duration::from_secs(1);
/// The time by which each step of a recovery extends the service manager's start timeout.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(60);

/// The thread that feeds the watchdog; it ends when this is dropped.
#[derive(Debug)]
pub struct Watchdog {
    _end: Sender<()>,
}

/// The parts of the daemon whose progress is required.
#[derive(Debug, Clone)]
pub struct Watched {
    /// The heartbeat of the engine thread and of its workers.
    pub engine: Arc<Heartbeat>,
    /// The self-test of the event source.
    pub watcher: Arc<SelfTest>,
}

impl Watchdog {
    /// Starts the thread, which checks every `interval`: a quarter of the watchdog timeout, so that a single step may
    /// take half of the timeout.
    ///
    /// # Errors
    /// The kernel refuses to create a thread.
    pub fn start(
        interval: Duration,
        watched: Watched,
        manager: Arc<ServiceManager>,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        let (end, end_receiver) = channel();
        spawn("watchdog", move || {
            feed(&end_receiver, interval, &watched, &manager, &*clock);
        })?;
        Ok(Self { _end: end })
    }
}

/// Feeds the watchdog until the other end of `end_receiver` is dropped.
fn feed(
    end_receiver: &Receiver<()>,
    interval: Duration,
    watched: &Watched,
    manager: &ServiceManager,
    clock: &dyn Clock,
) {
    let mut steps = 0;
    let mut is_logged = false;
    while end_receiver.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        let (engine, steps_now) = watched.engine.is_alive(steps, clock.monotonic_ms());
        steps = steps_now;
        let watcher = watched.watcher.passes(interval);
        if engine && watcher {
            manager.watchdog();
            is_logged = false;
        } else if !is_logged {
            is_logged = true;
            let part = if engine { "watcher" } else { "engine" };
            tracing::error!(
                message_id = message_ids::NO_PROGRESS,
                part,
                "no progress of the {part}, withholding watchdog keep-alive"
            );
        }
    }
}

/// Runs `work`, the recovery, and notifies the service manager of its progress for as long as it takes steps.
///
/// # Errors
/// The kernel refuses the thread that notifies: the service manager would end a long recovery.
pub fn while_recovering<T>(
    heartbeat: &Heartbeat,
    manager: &ServiceManager,
    work: impl FnOnce() -> T,
) -> io::Result<T> {
    manager.status(&status_line::recovering(0, 0));
    std::thread::scope(|scope| {
        let (end, end_receiver) = channel();
        spawn_in(scope, "recovery", move || {
            notify_recovery(&end_receiver, heartbeat, manager);
        })?;
        let result = work();
        drop(end);
        Ok(result)
    })
}

/// Extends the start timeout and updates the status line with each step of the recovery.
fn notify_recovery(end_receiver: &Receiver<()>, heartbeat: &Heartbeat, manager: &ServiceManager) {
    let mut steps = heartbeat.steps();
    while end_receiver.recv_timeout(RECOVERY_TICK) == Err(RecvTimeoutError::Timeout) {
        if heartbeat.steps() == steps {
            continue;
        }
        steps = heartbeat.steps();
        let (read_bytes, written_bytes) = heartbeat.bytes();
        manager.extend_timeout(RECOVERY_PATIENCE);
        manager.status(&status_line::recovering(read_bytes, written_bytes));
    }
}
