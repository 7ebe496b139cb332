//! Owns the process of `distilld run`: lock, recovery, signals, service manager, the engine's thread, and the exit.
//! It does no pipeline work.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Settings;
use crate::console::progress::Steps;
use crate::daemon::event_loop::{EventLoop, Reloader, Shared, catch_up};
use crate::daemon::inbox::Inbox;
use crate::daemon::monitored_disk::WatchedDisk;
use crate::daemon::signals;
use crate::daemon::watchdog::{Watchdog, Watched, while_recovering};
use crate::engine::metrics::Metrics;
use crate::engine::{Engine, EngineError, Setup};
use crate::http::{QueryContext, Server, StatusCache};
use crate::platform::clock::HostClock;
use crate::platform::message_ids;
use crate::platform::root_lock::{LockError, RootLock};
use crate::platform::sd_notify::{ServiceManager, watchdog_interval};
use crate::platform::storage::{OsStorage, Storage as _};
use crate::query::control::ControlSocket;
use crate::recovery::decide::RecoveryCase;
use crate::recovery::report::OpenReport;
use crate::store::files::{mark_state_damaged, set_state_aside};
use crate::store::state::error::StateError;

/// Why the daemon ended otherwise than asked.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// See there.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// See there.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The root cannot be used.
    #[error("the root {} cannot be used: {source}", root.display())]
    Root {
        /// The root.
        root: PathBuf,
        /// What the disk said.
        source: std::io::Error,
    },
    /// The kernel refused something that every daemon needs.
    #[error("starting failed: {0}")]
    Start(#[source] std::io::Error),
    /// The engine's thread panicked; the message stands before this.
    #[error("a bug was met, and distilld stops; the export was not touched by it")]
    Panicked,
}

impl DaemonError {
    /// The number of the error that the disk gave, if it did.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        let mut error: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(cause) = error {
            if let Some(io) = cause.downcast_ref::<std::io::Error>() {
                return io.raw_os_error();
            }
            error = cause.source();
        }
        None
    }
}

/// Runs the daemon until it is told to stop. `once`: only until it has caught up.
///
/// # Errors
/// See [`DaemonError`].
pub fn run(
    settings: &Settings,
    once: bool,
    reloader: Reloader,
    manager: Arc<ServiceManager>,
) -> Result<(), DaemonError> {
    let wake = Arc::new(Inbox::new());
    let (signals, shell) = signals::listen(Arc::clone(&wake)).map_err(DaemonError::Start)?;
    let shared = Shared {
        wake,
        pulse: Arc::default(),
        manager,
        clock: Arc::new(HostClock::new()),
    };
    let result = run_in(settings, once, reloader, &shared, shell);
    drop(signals);
    if let Err(error) = &result {
        stop_trusting(settings, error);
    }
    result
}

fn run_in(
    settings: &Settings,
    once: bool,
    reloader: Reloader,
    shared: &Shared,
    shell: tokio::sync::watch::Receiver<signals::ShutdownRequested>,
) -> Result<(), DaemonError> {
    let root = OsStorage
        .canonicalize(&settings.root)
        .map_err(|source| DaemonError::Root {
            root: settings.root.clone(),
            source,
        })?;
    let _lock = take_lock(settings, &root)?;
    let meters = Arc::new(Metrics::new());
    let answering = Arc::new(QueryContext::new(root.clone(), settings.max_line_bytes));
    let desk = Arc::new(StatusCache::new(
        Arc::clone(&shared.wake),
        Arc::clone(&meters),
        answering,
    ));
    // Before recovery, which may take a while that somebody asks about.
    let mut server = if once {
        None
    } else {
        let server = Server::start(settings.listen.clone(), Arc::clone(&desk));
        Some(server.map_err(DaemonError::Start)?)
    };
    let disk = WatchedDisk::recovering(Arc::clone(&shared.pulse), Arc::clone(&shared.wake));
    let setup = Setup {
        storage: Arc::new(disk.clone()),
        ..Setup::new(settings, &root, Arc::clone(&shared.clock) as _)
    };
    let mut bars = Steps::default();
    let mut on_step = |what, done_bytes, total_bytes| bars.at(what, done_bytes, total_bytes);
    let opened = while_recovering(&shared.pulse, &shared.manager, || {
        unless_panicked(|| {
            Engine::open_with_progress(setup, &mut on_step).map_err(DaemonError::Engine)
        })
    });
    if opened.is_err() && shared.wake.stopping() {
        // A stop cuts a recovery off, wherever it is; the next start begins it again.
        shared.manager.stopping();
        tracing::info!("stopped while recovering");
        return Ok(());
    }
    let (mut engine, report) = opened?;
    disk.recovered();
    say_opened(&report, settings, &root);
    engine.measure_with(meters);
    if once {
        return unless_panicked(|| {
            let (clock, stop) = (&shared.clock, &shared.wake);
            catch_up(&mut engine, &root, clock, stop, &mut on_step).map_err(DaemonError::Engine)
        });
    }
    let follower = unless_panicked(|| {
        EventLoop::new(engine, settings.clone(), &root, reloader, shared.clone())
            .map_err(DaemonError::Start)
    })?;
    shared.manager.ready();
    desk.recovered();
    let control = ControlSocket::bind(&settings.state_dir);
    if let Some(server) = &mut server {
        server.add_control(control, &settings.state_dir);
    }
    shell_around(follower, shared, shell)
}

/// Starts the engine's thread and, around it, the loop that only waits: for it, and for a stop.
fn shell_around(
    mut follower: EventLoop,
    shared: &Shared,
    mut signals: tokio::sync::watch::Receiver<signals::ShutdownRequested>,
) -> Result<(), DaemonError> {
    let _watchdog = watchdog_interval()
        .map(|interval| {
            let watched = Watched {
                engine: Arc::clone(&shared.pulse),
                watcher: follower.watcher_test(),
            };
            let (manager, clock) = (Arc::clone(&shared.manager), Arc::clone(&shared.clock));
            Watchdog::start(interval, watched, manager, clock)
        })
        .transpose()
        .map_err(DaemonError::Start)?;
    let (ended_sender, mut ended) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("engine".into())
        .spawn(move || {
            let result = follower.run();
            // Nobody listens only if the shell has panicked; then the process is ending anyway.
            let _ = ended_sender.send(());
            result
        })
        .map_err(DaemonError::Start)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(DaemonError::Start)?;
    runtime.block_on(async {
        let mut told = false;
        loop {
            tokio::select! {
                _ = &mut ended => break,
                changed = signals.changed(), if !told => {
                    if changed.is_err() || signals.borrow().stop {
                        told = true;
                        shared.manager.stopping();
                    }
                }
            }
        }
    });
    // An answer in the making is not waited for.
    runtime.shutdown_background();
    thread
        .join()
        .map_err(|_| DaemonError::Panicked)?
        .map_err(DaemonError::Engine)
}

/// A panic as the error that one in the engine's thread would be.
fn unless_panicked<T>(work: impl FnOnce() -> Result<T, DaemonError>) -> Result<T, DaemonError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(DaemonError::Panicked))
}

/// A state that was found damaged in use must not be trusted by the next start either. The store under it panics
/// on some of what it did not write: after a panic too, or each start would end like this one.
fn stop_trusting(settings: &Settings, error: &DaemonError) {
    let why = match error {
        DaemonError::Engine(EngineError::State(StateError::Damaged(why))) => why,
        DaemonError::Panicked => "distilld panicked",
        _ => return,
    };
    if let Err(failed) = mark_state_damaged(&OsStorage, &settings.state_dir) {
        tracing::error!(
            why,
            %failed,
            state_dir = %settings.state_dir.display(),
            "the state may be damaged and cannot be marked so; remove its files before the next start"
        );
    }
}

/// Takes the lock for who writes state and export. A state that another lake was served from says nothing of this one: it
/// is set aside.
///
/// # Errors
/// The lock's; the disk's.
pub fn take_lock(settings: &Settings, root: &Path) -> Result<RootLock, DaemonError> {
    let state_dir = &settings.state_dir;
    let lock = RootLock::take(root, state_dir)?;
    let Some(other) = lock.foreign_state_root() else {
        return Ok(lock);
    };
    tracing::warn!(
        state_dir = %state_dir.display(), of = %other.display(),
        "the state that was there is of another lake, it is set aside; give each lake a state directory of its own"
    );
    let set_aside = set_state_aside(&OsStorage, state_dir);
    set_aside.map_err(|source| EngineError::StateDir {
        dir: state_dir.display().to_string(),
        source,
    })?;
    Ok(lock)
}

fn say_opened(report: &OpenReport, settings: &Settings, root: &Path) {
    if let Some(why) = &report.state_lost {
        tracing::warn!(
            why,
            "the state that was there is not used, it was set aside and is rebuilt"
        );
    }
    if report.rows_foreign > 0 {
        tracing::warn!(
            lines = report.rows_foreign,
            "the export has lines that are no rows; they stay"
        );
    }
    if report.rows_unknown_category > 0 {
        tracing::warn!(
            rows = report.rows_unknown_category,
            "the export has rows of categories that are refused now; they stay until a rebuild, and verify calls them forbidden"
        );
    }
    let case = match report.case {
        RecoveryCase::Fresh => "fresh",
        RecoveryCase::Adopt => "adopted the export",
        _ => "continued",
    };
    tracing::info!(
        message_id = message_ids::STARTED,
        root = %root.display(),
        state_dir = %settings.state_dir.display(),
        case,
        rows_adopted = report.rows_adopted,
        batches_redone = report.batches_redone,
        salvaged_bytes = report.salvaged_bytes,
        torn_bytes = report.torn_bytes,
        "started"
    );
}
