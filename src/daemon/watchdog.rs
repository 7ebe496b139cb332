//! Owns when the service manager hears that distilld lives: while the engine finishes steps or rests as it said, and
//! the watcher hears an event of our own making. It decides nothing else, and ends nobody: that is the manager's.
//!
//! It has a thread of its own. A disk that hangs may hang this one too; then nothing is said, which is the truth.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::daemon::status_line;
use crate::daemon::watch::SelfTest;
use crate::platform::clock::{Clock as _, HostClock};
use crate::platform::heartbeat::Heartbeat;
use crate::platform::message_ids;
use crate::platform::sd_notify::ServiceManager;

/// How often the manager is told how far a recovery is.
const RECOVERY_TICK: Duration = Duration::from_secs(1);
/// How long the manager is asked to wait for the next step of a recovery, from each one on.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(60);

/// The thread that feeds the watchdog. Dropped, it ends.
#[derive(Debug)]
pub struct Watchdog {
    _end: Sender<()>,
}

/// Whose life is watched.
#[derive(Debug, Clone)]
pub struct Watched {
    /// The engine's thread, and all that works for it.
    pub engine: Arc<Heartbeat>,
    /// The event source.
    pub watcher: Arc<SelfTest>,
}

impl Watchdog {
    /// Looks every `interval`, a quarter of the manager's patience: a single step may then take half of it.
    ///
    /// # Errors
    /// The kernel refuses a thread.
    pub fn start(
        interval: Duration,
        watched: Watched,
        manager: Arc<ServiceManager>,
        clock: Arc<HostClock>,
    ) -> io::Result<Self> {
        let (end, ended) = channel();
        std::thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || feed(&ended, interval, &watched, &manager, &clock))?;
        Ok(Self { _end: end })
    }
}

fn feed(
    ended: &Receiver<()>,
    interval: Duration,
    watched: &Watched,
    manager: &ServiceManager,
    clock: &HostClock,
) {
    let mut steps = 0;
    let mut said = false;
    while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        let (engine, steps_now) = watched.engine.alive(steps, clock.monotonic_ms());
        steps = steps_now;
        let watcher = watched.watcher.passes(interval);
        if engine && watcher {
            manager.watchdog();
            said = false;
        } else if !said {
            said = true;
            let part = if engine { "watcher" } else { "engine" };
            tracing::error!(
                message_id = message_ids::NO_PROGRESS,
                part,
                "no progress, the service manager is not told that distilld lives"
            );
        }
    }
}

/// Does `work`, the recovery, and tells the manager how far it is for as long as it takes steps.
pub fn while_recovering<T>(
    pulse: &Heartbeat,
    manager: &ServiceManager,
    work: impl FnOnce() -> T,
) -> T {
    manager.status(&status_line::recovering(0, 0));
    std::thread::scope(|scope| {
        let (end, ended) = channel();
        scope.spawn(move || tell_recovery(&ended, pulse, manager));
        let result = work();
        drop(end);
        result
    })
}

fn tell_recovery(ended: &Receiver<()>, pulse: &Heartbeat, manager: &ServiceManager) {
    let mut steps = pulse.steps();
    while ended.recv_timeout(RECOVERY_TICK) == Err(RecvTimeoutError::Timeout) {
        if pulse.steps() == steps {
            continue;
        }
        steps = pulse.steps();
        let (read_bytes, written_bytes) = pulse.bytes();
        manager.extend_timeout(RECOVERY_PATIENCE);
        manager.status(&status_line::recovering(read_bytes, written_bytes));
    }
}
