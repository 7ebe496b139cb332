//! Owns the process of `distilld run`: lock, recovery, signals, service manager, the engine's thread, and the exit.
//! It does no pipeline work.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::batch_export::export_path;
use crate::clock::HostClock;
use crate::config::Settings;
use crate::engine::{Engine, EngineError, Setup};
use crate::follow::{Follower, Pulse, catch_up};
use crate::lock::{LockError, RootLock};
use crate::open::{OpenReport, distrust};
use crate::serve::{self, Answering, ControlSocket};
use crate::state::StateError;
use crate::storage::{Disk, Storage as _};
use crate::systemd::{ServiceManager, watchdog_interval};
use crate::tail::LineLimits;
use crate::wake::Wake;
use crate::{recover::RecoveryCase, shutdown};

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
    #[error(
        "distilld met a bug and stops; the export was not touched by it, a restart recovers; please report the lines above"
    )]
    Panicked,
}

/// Runs the daemon until it is told to stop. `once`: only until it has caught up.
///
/// # Errors
/// See [`DaemonError`].
pub fn run(settings: &Settings, once: bool) -> Result<(), DaemonError> {
    let wake = Arc::new(Wake::new());
    let (signals, shell) = shutdown::listen(Arc::clone(&wake)).map_err(DaemonError::Start)?;
    let manager = Arc::new(ServiceManager::from_environment());
    let root = Disk
        .canonicalize(&settings.root)
        .map_err(|source| DaemonError::Root {
            root: settings.root.clone(),
            source,
        })?;
    let _lock = RootLock::take(&root, &settings.state_dir)?;
    let clock = Arc::new(HostClock::new());
    let setup = setup(settings, &root, &clock);
    let opened = unless_panicked(|| Engine::open(setup).map_err(DaemonError::Engine));
    let (mut engine, report) = opened.inspect_err(|error| stop_trusting(settings, error))?;
    say_opened(&report, settings, &root);

    let result = if once {
        let mut caught_up = || catch_up(&mut engine, &root, &clock, &wake);
        unless_panicked(|| caught_up().map_err(DaemonError::Engine))
    } else {
        let pulse = Arc::new(Pulse::default());
        let follower = unless_panicked(|| {
            Follower::new(
                engine,
                settings.clone(),
                &root,
                Arc::clone(&wake),
                Arc::clone(&pulse),
                Arc::clone(&manager),
                clock,
            )
            .map_err(DaemonError::Start)
        });
        follower.and_then(|follower| {
            manager.ready();
            let control = ControlSocket::bind(&settings.state_dir);
            let answering = Arc::new(Answering::new(root.clone(), settings.max_line_bytes));
            let answers = Answers {
                control,
                wake: Arc::clone(&wake),
                answering,
            };
            shell_around(follower, &pulse, &manager, shell, answers)
        })
    };
    drop(signals);
    if let Err(error) = &result {
        stop_trusting(settings, error);
    }
    let _told = manager.flush(Duration::from_millis(200));
    result
}

/// What an engine of these settings works on.
#[must_use]
pub fn setup(settings: &Settings, root: &std::path::Path, clock: &Arc<HostClock>) -> Setup {
    Setup {
        storage: Arc::new(Disk),
        clock: Arc::clone(clock) as _,
        root: root.to_owned(),
        state_dir: settings.state_dir.clone(),
        export_path: export_path(root),
        limits: LineLimits {
            line_bytes_max: settings.max_line_bytes,
        },
        settle_ms: u64::try_from(settings.settle.as_millis()).unwrap_or(u64::MAX),
        checkpoint_bytes: settings.checkpoint_bytes,
        long_lines: Arc::default(),
        threads: std::thread::available_parallelism()
            .map_or(1, |threads| threads.get().min(THREADS_MAX)),
    }
}

/// More threads than this only wait for the one that commits.
const THREADS_MAX: usize = 4;

/// What the daemon answers by.
struct Answers {
    control: Option<ControlSocket>,
    wake: Arc<Wake>,
    answering: Arc<Answering>,
}

/// Starts the engine's thread and, around it, the loop that only waits: for it, for a stop, for the watchdog's turn.
fn shell_around(
    follower: Follower,
    pulse: &Pulse,
    manager: &ServiceManager,
    mut signals: tokio::sync::watch::Receiver<shutdown::SignalsSeen>,
    answers: Answers,
) -> Result<(), DaemonError> {
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
        .enable_io()
        .build()
        .map_err(DaemonError::Start)?;
    runtime.block_on(async {
        // Answers end with this loop: who asks while the daemon stops is told so by a closed connection.
        if let Some(control) = answers.control {
            tokio::spawn(serve::serve(control, answers.wake, answers.answering));
        }
        let watchdog = watchdog_interval();
        let mut beats = 0;
        let mut told = false;
        loop {
            tokio::select! {
                _ = &mut ended => break,
                changed = signals.changed(), if !told => {
                    if changed.is_err() || signals.borrow().stop {
                        told = true;
                        manager.stopping();
                    }
                }
                () = tokio::time::sleep(watchdog.unwrap_or(Duration::MAX)), if watchdog.is_some() => {
                    let (alive, now) = pulse.alive(beats);
                    beats = now;
                    if alive {
                        manager.watchdog();
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
    if let Err(failed) = distrust(&Disk, &settings.state_dir) {
        tracing::error!(
            why,
            %failed,
            state_dir = %settings.state_dir.display(),
            "the state may be damaged and cannot be marked so; remove its files before the next start"
        );
    }
}

fn say_opened(report: &OpenReport, settings: &Settings, root: &std::path::Path) {
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
    let case = match report.case {
        RecoveryCase::Fresh => "fresh",
        RecoveryCase::Adopt => "adopted the export",
        _ => "continued",
    };
    tracing::info!(
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
