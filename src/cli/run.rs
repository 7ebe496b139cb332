//! `distilld run`: takes the lock, recovers, starts the servers and the engine thread, and waits for its end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::stopped::wait_for_operator;
use crate::config::{Settings, as_typed};
use crate::console::progress::{OnStep, Steps};
use crate::daemon::event_loop::{EventLoop, Reloader, Shared, catch_up};
use crate::daemon::inbox::Inbox;
use crate::daemon::monitored_disk::MonitoredDisk;
use crate::daemon::signals;
use crate::daemon::watch::Inotify;
use crate::daemon::watchdog::{Watchdog, Watched, while_recovering};
use crate::engine::metrics::Metrics;
use crate::engine::{Engine, EngineError};
use crate::http::{QueryContext, Server, StatusCache};
use crate::lake::path::export_path;
use crate::platform::background::spawn;
use crate::platform::clock::HostClock;
use crate::platform::descend::resolved_dir;
use crate::platform::message_ids;
use crate::platform::root_lock::{LockError, RootLock};
use crate::platform::sd_notify::{ServiceManager, watchdog_interval};
use crate::platform::storage::{OsStorage, Storage as _};
use crate::query::engine_setup::engine_setup;
use crate::query::status::ProcessStatus;
use crate::recovery::decide::RecoveryCase;
use crate::recovery::report::OpenReport;
use crate::store::files::{mark_state_damaged, set_state_aside};
use crate::store::state::error::StateError;

/// An error that ended the daemon.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another process holds the lock, or it cannot be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Another process holds the lock, or it cannot be taken.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The root directory cannot be resolved.
    #[error("cannot use the root {}: {source}", root.display())]
    Root {
        /// The root.
        root: PathBuf,
        /// The error of the file system.
        source: std::io::Error,
    },
    /// The kernel refused a resource that every daemon needs: a signal handler, a thread, a socket.
    #[error("cannot start: {0}")]
    Start(#[source] std::io::Error),
    /// `run --once` read everything that can be read, which is not everything.
    #[error("incomplete: {0}; everything else is exported")]
    Incomplete(String),
    /// The engine thread panicked; the panic message precedes this error.
    #[error("internal error (panic); stopping, the export is unchanged")]
    Panicked,
}

impl DaemonError {
    /// Returns the error number of the underlying I/O error, if there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        let mut error: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(cause) = error {
            let io = cause.downcast_ref::<std::io::Error>();
            if let Some(errno) = io.and_then(std::io::Error::raw_os_error) {
                return Some(errno);
            }
            error = cause.source();
        }
        None
    }
}

/// Runs the daemon until a stop is requested. `once`: only until it has caught up.
///
/// # Errors
/// See [`DaemonError`].
pub fn run(
    settings: &Settings,
    once: bool,
    reloader: Reloader,
    manager: Arc<ServiceManager>,
) -> Result<(), DaemonError> {
    let settings = &with_resolved_state_dir(settings.clone());
    let read = reloader.read;
    let reloader = Reloader {
        read: Box::new(move || read().map(with_resolved_state_dir)),
        ..reloader
    };
    let inbox = Arc::new(Inbox::new());
    let (signals, stop_receiver) =
        signals::listen(Arc::clone(&inbox)).map_err(DaemonError::Start)?;
    let shared = Shared {
        inbox,
        heartbeat: Arc::default(),
        manager,
        clock: Arc::new(HostClock::new()),
        event_source: Arc::new(Inotify),
    };
    let mut state_identity = None;
    let result = run_in(
        settings,
        once,
        reloader,
        &shared,
        stop_receiver,
        &mut state_identity,
    );
    drop(signals);
    if let Err(error) = &result {
        mark_damaged(settings, error, state_identity);
    }
    result
}

/// Resolves the links in the path of the state directory once: one that is pointed to another lake while the daemon runs
/// must not lead it into the state of that lake.
fn with_resolved_state_dir(settings: Settings) -> Settings {
    Settings {
        state_dir: resolved_dir(&settings.state_dir),
        ..settings
    }
}

/// Returns device and inode of the directory at the state directory's path.
fn state_dir_identity(settings: &Settings) -> Option<(u64, u64)> {
    let stat = OsStorage.stat(&settings.state_dir).ok()?;
    Some((stat.device, stat.inode))
}

fn run_in(
    settings: &Settings,
    once: bool,
    reloader: Reloader,
    shared: &Shared,
    stop_receiver: tokio::sync::watch::Receiver<bool>,
    state_identity: &mut Option<(u64, u64)>,
) -> Result<(), DaemonError> {
    let root = OsStorage
        .canonicalize(&settings.root)
        .map_err(|source| DaemonError::Root {
            root: settings.root.clone(),
            source,
        })?;
    let _lock = take_lock(settings, &root)?;
    *state_identity = state_dir_identity(settings);
    let metrics = Arc::new(Metrics::new());
    let desk = status_cache(settings, &root, shared, &metrics);
    // The server starts before the recovery, which may take long enough for a client to query its state.
    let mut server = if once {
        None
    } else {
        let server = Server::start(settings.listen.clone(), Arc::clone(&desk));
        Some(server.map_err(DaemonError::Start)?)
    };
    let mut bars = Steps::default();
    let mut on_step = |what, done_bytes, total_bytes| bars.at(what, done_bytes, total_bytes);
    let opened = open_engine(settings, &root, shared, &mut on_step);
    let control = |server: &mut Option<Server>| {
        if let Some(server) = server {
            server.add_control(&settings.state_dir, &export_path(&root));
        }
    };
    let wait = |error: &EngineError| {
        wait_for_operator(settings, &root, shared, &desk, error).map_err(DaemonError::Start)
    };
    let mut engine = match opened {
        Ok(Some(engine)) => engine,
        Ok(None) => return Ok(()),
        Err(DaemonError::Engine(error)) if !once && error.needs_operator() => {
            control(&mut server);
            return wait(&error);
        }
        Err(error) => return Err(error),
    };
    engine.measure_with(metrics);
    if once {
        return unless_panicked(|| catch_up_once(&mut engine, &root, shared, &mut on_step));
    }
    let event_loop = unless_panicked(|| {
        EventLoop::new(engine, settings.clone(), &root, reloader, shared.clone())
            .map_err(DaemonError::Start)
    })?;
    shared.manager.ready();
    desk.recovered();
    control(&mut server);
    match run_engine_thread(event_loop, shared, stop_receiver) {
        Err(DaemonError::Engine(error)) if error.needs_operator() => wait(&error),
        result => result,
    }
}

/// Opens the engine, and recovers what the last process left; `None` if a stop was requested meanwhile.
fn open_engine(
    settings: &Settings,
    root: &Path,
    shared: &Shared,
    on_step: OnStep<'_>,
) -> Result<Option<Engine>, DaemonError> {
    let mut setup = engine_setup(settings, root, Arc::clone(&shared.clock));
    let (heartbeat, inbox) = (Arc::clone(&shared.heartbeat), Arc::clone(&shared.inbox));
    let disk = MonitoredDisk::recovering(setup.storage, heartbeat, inbox);
    setup.storage = Arc::new(disk.clone());
    let opened = while_recovering(&shared.heartbeat, &shared.manager, || {
        unless_panicked(|| Engine::open_with_progress(setup, on_step).map_err(DaemonError::Engine))
    });
    let opened = opened.map_err(DaemonError::Start)?;
    if opened.is_err() && shared.inbox.stopping() {
        // A stop aborts a recovery at any point; the next start begins it again.
        shared.manager.stopping();
        tracing::info!("stopped during the recovery");
        return Ok(None);
    }
    let (engine, report) = opened?;
    disk.recovered();
    log_opened(&report, settings, root);
    Ok(Some(engine))
}

/// Reads everything that exists, and fails if not everything can be read.
fn catch_up_once(
    engine: &mut Engine,
    root: &Path,
    shared: &Shared,
    on_step: OnStep<'_>,
) -> Result<(), DaemonError> {
    let unreadable = catch_up(engine, root, &*shared.clock, &shared.inbox, on_step)?;
    // An entry that is not a regular file never becomes a day-file: nothing is left to do about it.
    if unreadable.directories > 0 || engine.has_unreadable_file() {
        return Err(DaemonError::Incomplete(unreadable.describe()));
    }
    Ok(())
}

/// Returns the cache of the status for HTTP clients.
fn status_cache(
    settings: &Settings,
    root: &Path,
    shared: &Shared,
    metrics: &Arc<Metrics>,
) -> Arc<StatusCache> {
    let mut context = QueryContext::new(root.to_owned(), settings.max_line_bytes);
    context.exclude = settings.exclude.clone();
    context.process = ProcessStatus::of_this((metrics.started_s() * 1_000.0) as u64);
    Arc::new(StatusCache::new(
        Arc::clone(&shared.inbox),
        Arc::clone(metrics),
        Arc::new(context),
    ))
}

/// Starts the engine thread, and waits for its end and for a stop.
fn run_engine_thread(
    mut event_loop: EventLoop,
    shared: &Shared,
    mut stop_receiver: tokio::sync::watch::Receiver<bool>,
) -> Result<(), DaemonError> {
    let _watchdog = watchdog_interval()
        .map(|interval| {
            let watched = Watched {
                engine: Arc::clone(&shared.heartbeat),
                watcher: event_loop.watcher_test(),
            };
            let (manager, clock) = (Arc::clone(&shared.manager), Arc::clone(&shared.clock));
            Watchdog::start(interval, watched, manager, clock)
        })
        .transpose()
        .map_err(DaemonError::Start)?;
    let (ended_sender, mut ended) = tokio::sync::oneshot::channel();
    let thread = spawn("engine", move || {
        let result = event_loop.run();
        // The receiver is gone only if this thread has panicked; the process is then ending.
        let _ = ended_sender.send(());
        result
    })
    .map_err(|error| DaemonError::Start(error.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(DaemonError::Start)?;
    runtime.block_on(async {
        let mut is_notified = false;
        loop {
            tokio::select! {
                _ = &mut ended => break,
                changed = stop_receiver.changed(), if !is_notified => {
                    if changed.is_err() || *stop_receiver.borrow() {
                        is_notified = true;
                        shared.manager.stopping();
                    }
                }
            }
        }
    });
    // A running request is not awaited.
    runtime.shutdown_background();
    thread
        .join()
        .map_err(|_| DaemonError::Panicked)?
        .map_err(DaemonError::Engine)
}

/// Converts a panic of `work` to the error for a panic of the engine thread.
fn unless_panicked<T>(work: impl FnOnce() -> Result<T, DaemonError>) -> Result<T, DaemonError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(DaemonError::Panicked))
}

/// Marks a damaged state, so that the next start does not use it either. The database panics on some damage, so the
/// state is marked after a panic too; otherwise each start could end like this one. Another directory at its path, since
/// the start, has the state of another daemon, which is not marked.
fn mark_damaged(settings: &Settings, error: &DaemonError, state_identity: Option<(u64, u64)>) {
    let why = match error {
        DaemonError::Engine(EngineError::State(StateError::Damaged(why))) => why,
        DaemonError::Panicked => "distilld panicked",
        _ => return,
    };
    if state_identity.is_none() || state_identity != state_dir_identity(settings) {
        return;
    }
    if let Err(failed) = mark_state_damaged(&OsStorage, &settings.state_dir) {
        tracing::error!(
            why,
            %failed,
            state_dir = %settings.state_dir.display(),
            "cannot mark the state in {} as damaged ({failed}); remove its files before the next start", settings.state_dir.display()
        );
    }
}

/// Takes the lock for a writer of state and export. A state of another lake is set aside, because it does not describe
/// this one.
///
/// # Errors
/// The lock is held or cannot be taken; the state cannot be moved.
pub fn take_lock(settings: &Settings, root: &Path) -> Result<RootLock, DaemonError> {
    let state_dir = &settings.state_dir;
    let lock = RootLock::take(root, state_dir)?;
    let Some(other) = lock.foreign_state_root() else {
        return Ok(lock);
    };
    tracing::warn!(
        state_dir = %state_dir.display(), of = %other.display(),
        "the state in {} is of another lake ({}), setting it aside; give each lake its own state directory", state_dir.display(), other.display()
    );
    let set_aside = set_state_aside(&OsStorage, state_dir);
    set_aside.map_err(|source| EngineError::StateDir {
        dir: state_dir.display().to_string(),
        source,
    })?;
    Ok(lock)
}

/// Logs the result of the recovery.
fn log_opened(report: &OpenReport, settings: &Settings, root: &Path) {
    if let Some(why) = &report.state_lost {
        tracing::warn!(
            why,
            "the state in {} cannot be used ({why}); set aside, rebuilding it",
            settings.state_dir.display()
        );
    }
    if report.rows_foreign > 0 {
        tracing::warn!(
            lines = report.rows_foreign,
            "the export has {} lines that are not rows; keeping them",
            report.rows_foreign
        );
    }
    if report.rows_unknown_category > 0 {
        tracing::warn!(
            rows = report.rows_unknown_category,
            "the export has {} rows of categories that are no longer accepted; keeping them until {}, {} reports them as forbidden",
            report.rows_unknown_category,
            as_typed("`distilld rebuild --drop-missing`"),
            as_typed("`distilld verify`")
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
