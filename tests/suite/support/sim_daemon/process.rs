//! One process of the daemon, from its start to its end: what `run` does, turn by turn and without threads.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use distilld::config::{ConfigError, Settings};
use distilld::console::logging::LogFilter;
use distilld::daemon::event_loop::{EventLoop, Reloader, Shared};
use distilld::daemon::inbox::Inbox;
use distilld::daemon::monitored_disk::MonitoredDisk;
use distilld::engine::{Engine, EngineError, Setup};
use distilld::platform::clock::Clock;
use distilld::platform::heartbeat::Heartbeat;
use distilld::query::engine_setup::engine_setup;

use crate::support::bench::ROOT;

use super::events::SimEvents;
use super::outside::Outside;

/// Small enough for several segments in a small lake.
const SEGMENT_BYTES: u64 = 700;

/// How a process ended.
#[derive(Debug)]
pub enum End {
    /// After a stop, within this number of calls.
    Stopped { calls: u64 },
    /// By an error, or with the disk.
    Failed(EngineError),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Stopped { .. } => f.write_str("stopped"),
            End::Failed(error) => write!(f, "{error}"),
        }
    }
}

pub struct Process {
    event_loop: Option<EventLoop>,
    inbox: Arc<Inbox>,
    /// The moment and the time at which the last turn took what was pending.
    taken: (u64, u64),
    /// Calls when a stop was first seen to be requested.
    stop_at_calls: Option<u64>,
}

fn locked(outside: &Mutex<Outside>) -> MutexGuard<'_, Outside> {
    outside.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Process {
    pub fn start(outside: &Arc<Mutex<Outside>>, events: &SimEvents) -> Result<Self, End> {
        let (inbox, heartbeat) = (Arc::new(Inbox::new()), Arc::<Heartbeat>::default());
        let (settings, clock, disk) = {
            let mut outside = locked(outside);
            let now_ms = outside.now_ms();
            outside.lake.note_start(now_ms);
            outside.disturbed_ms = now_ms;
            outside.inbox = Some(Arc::clone(&inbox));
            let clock: Arc<dyn Clock> = Arc::clone(&outside.clock) as _;
            (outside.settings.clone(), clock, outside.lake.disk.clone())
        };
        let disk =
            MonitoredDisk::recovering(Arc::new(disk), Arc::clone(&heartbeat), Arc::clone(&inbox));
        let setup = Setup {
            storage: Arc::new(disk.clone()),
            segment_bytes: SEGMENT_BYTES,
            threads: 1,
            ..engine_setup(&settings, Path::new(ROOT), Arc::clone(&clock))
        };
        let opened = Engine::open(setup);
        if opened.is_err() && inbox.stopping() {
            return Err(End::Stopped { calls: 0 });
        }
        let (engine, _report) = opened.map_err(End::Failed)?;
        disk.recovered();
        let shared = Shared {
            inbox: Arc::clone(&inbox),
            heartbeat,
            manager: Arc::default(),
            clock,
            event_source: Arc::new(events.clone()),
        };
        let root = Path::new(ROOT);
        let event_loop = EventLoop::new(engine, settings, root, reloader(outside), shared);
        Ok(Self {
            event_loop: Some(event_loop.expect("the root is absolute")),
            inbox,
            taken: (0, 0),
            stop_at_calls: None,
        })
    }

    fn event_loop(&self) -> &EventLoop {
        self.event_loop.as_ref().expect("the process has not ended")
    }

    /// Returns until when the daemon waits; `None` while it has work.
    pub fn idle_until_ms(&self) -> Option<u64> {
        self.event_loop().idle_until_ms()
    }

    pub fn has_pending(&self) -> bool {
        self.inbox
            .interrupt_flag()
            .load(std::sync::atomic::Ordering::Relaxed)
    }

    pub fn taken(&self) -> (u64, u64) {
        self.taken
    }

    /// Takes what is pending and lets the daemon do one turn, or end.
    pub fn turn(&mut self, outside: &Mutex<Outside>) -> Option<End> {
        let calls = locked(outside).calls;
        let pending = self.inbox.take();
        self.taken = {
            let mut outside = locked(outside);
            outside.lake.moment += 1;
            (outside.lake.moment, outside.now_ms())
        };
        let event_loop = self.event_loop.as_mut()?;
        let result = match pending.stop {
            true => self.event_loop.take()?.finish().map(|()| true),
            false => event_loop.turn(&pending).map(|()| false),
        };
        if self.inbox.stopping() {
            self.stop_at_calls.get_or_insert(calls);
        }
        let outside = locked(outside);
        match result {
            Err(error) => Some(End::Failed(error)),
            Ok(_) if outside.lake.disk.is_dead() => Some(End::Failed(dead())),
            Ok(true) => Some(End::Stopped {
                calls: outside.calls - self.stop_at_calls.unwrap_or(calls),
            }),
            Ok(false) => None,
        }
    }
}

/// The end of a process whose disk ended first.
fn dead() -> EngineError {
    EngineError::StateDir {
        dir: "the host".to_owned(),
        source: std::io::Error::other("crashed"),
    }
}

/// Reads the settings that the outside has now.
fn reloader(outside: &Arc<Mutex<Outside>>) -> Reloader {
    let outside = Arc::downgrade(outside);
    let read = move || {
        let outside = outside.upgrade().expect("the simulation runs");
        let outside = locked(&outside);
        match outside.is_misconfigured {
            true => Err(misconfigured(&outside.settings)),
            false => Ok(outside.settings.clone()),
        }
    };
    Reloader {
        read: Box::new(read),
        log: LogFilter::default(),
    }
}

fn misconfigured(settings: &Settings) -> ConfigError {
    ConfigError::FileUnreadable {
        file: settings.root.join("distilld.toml"),
        source: std::io::ErrorKind::PermissionDenied.into(),
    }
}
