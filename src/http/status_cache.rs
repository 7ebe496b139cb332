//! Caches one engine snapshot per second for all HTTP clients, so that their number does not matter to the pipeline,
//! and derives liveness and readiness from it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Response, StatusCode};
use tokio::sync::{Mutex, Semaphore, oneshot};

use crate::daemon::inbox::Inbox;
use crate::daemon::requests::{EngineRequest, Snapshot};
use crate::engine::metrics::Metrics;
use crate::http::handlers;
use crate::http::handlers::QueryContext;
use crate::http::instances;
use crate::query::health::{DaemonState, HealthReport};
use crate::query::status::Status;

/// Maximum age of a cached status.
const KEEP: Duration = Duration::from_secs(1);
/// Minimum age at which a shared document is made again.
const KEEP_DOCUMENT: Duration = Duration::from_secs(2);
/// A document that costs a thread of this process its time is kept for this many times that time.
pub(super) const WORKED: u32 = 10;
/// The same for a document whose making is waiting for others.
pub(super) const WAITED: u32 = 1;
/// Maximum time that the engine's thread may need until it is between two passes.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time after a timeout in which no client waits for the engine again.
const GIVE_UP: Duration = Duration::from_secs(1);

/// Asks for all.
#[derive(Debug)]
pub struct StatusCache {
    wake: Arc<Inbox>,
    metrics: Arc<Metrics>,
    answering: Arc<QueryContext>,
    recovered: AtomicBool,
    /// The status of an engine that ended and waits for an operator.
    stopped: OnceLock<Arc<CachedStatus>>,
    /// Held while the engine's thread is asked, so that one asks and the others wait for the same answer.
    asked: Mutex<Inflight>,
    /// The last answer, for those that cannot wait.
    known: std::sync::Mutex<Option<Arc<CachedStatus>>>,
    /// The addresses of the page.
    pages: std::sync::Mutex<Vec<String>>,
    /// Permits of the threads that ask other instances.
    asking: Arc<Semaphore>,
    /// Documents of the control socket, by shared path. Each is held while it is made.
    documents: Mutex<BTreeMap<&'static str, Arc<Mutex<Option<CachedDocument>>>>>,
}

/// An answer, and until when it is kept.
type CachedDocument = (Instant, Response<Full<Bytes>>);

#[derive(Debug, Default)]
struct Inflight {
    late: Option<Stall>,
}

#[derive(Debug, Clone, Copy)]
struct Stall {
    at: Instant,
    /// Whether the engine's thread made progress while it was waited for.
    moved: bool,
}

/// A status of at most one second ago.
#[derive(Debug, Clone)]
pub(super) struct CachedStatus {
    pub(super) status: Status,
    at: Instant,
}

/// The health of the engine's thread.
#[derive(Debug, Clone)]
pub(super) enum EngineHealth {
    /// It has not begun: what the last process left is being made good.
    Recovering,
    /// It answers.
    Responsive(Arc<CachedStatus>),
    /// It does not respond; `last` is its last status, if any.
    Stall {
        moved: bool,
        last: Option<Arc<CachedStatus>>,
    },
}

impl StatusCache {
    /// For a daemon that is about to recover.
    #[must_use]
    pub fn new(wake: Arc<Inbox>, metrics: Arc<Metrics>, answering: Arc<QueryContext>) -> Self {
        Self {
            wake,
            metrics,
            answering,
            recovered: AtomicBool::new(false),
            stopped: OnceLock::new(),
            asked: Mutex::default(),
            known: std::sync::Mutex::default(),
            pages: std::sync::Mutex::default(),
            asking: Arc::new(Semaphore::new(instances::ASKING_MAX)),
            documents: Mutex::default(),
        }
    }

    /// Returns the shared document at a path. It is kept for [`KEEP_DOCUMENT`] and for at least `times` the time that it
    /// took to make, so that clients cost at most a tenth of one thread with [`WORKED`].
    pub(super) async fn document(
        &self,
        path: &'static str,
        times: u32,
        make: impl Future<Output = Response<Full<Bytes>>>,
    ) -> Response<Full<Bytes>> {
        let document = {
            let mut documents = self.documents.lock().await;
            Arc::clone(documents.entry(path).or_default())
        };
        // Clients of the same document wait for it together, and not for another one.
        let mut document = document.lock().await;
        if let Some((until, kept)) = &*document
            && Instant::now() < *until
        {
            return kept.clone();
        }
        let started = Instant::now();
        let made = make.await;
        let keep = match made.status() {
            StatusCode::OK => KEEP_DOCUMENT.max(started.elapsed() * times),
            _ => KEEP_DOCUMENT,
        };
        *document = Some((Instant::now() + keep, made.clone()));
        made
    }

    /// From now on the engine's thread is there to be asked.
    pub fn recovered(&self) {
        self.recovered.store(true, Ordering::SeqCst);
    }

    /// Serves a fixed status from now on: the engine ended and waits for an operator.
    pub fn stop(&self, status: Status) {
        let at = Instant::now();
        // The engine ends once.
        let _ = self.stopped.set(Arc::new(CachedStatus { status, at }));
    }

    /// Returns the status of an engine that ended and waits for an operator.
    pub(super) fn stopped(&self) -> Option<&Status> {
        self.stopped.get().map(|stopped| &stopped.status)
    }

    /// The page is served at this address from now on.
    pub(super) fn add_page(&self, address: String) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.push(address);
    }

    /// Returns the addresses of the page.
    pub(super) fn pages(&self) -> Vec<String> {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.clone()
    }

    /// Returns the permits of the threads that ask other instances.
    pub(super) fn asking(&self) -> &Arc<Semaphore> {
        &self.asking
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn answering(&self) -> &Arc<QueryContext> {
        &self.answering
    }

    pub(super) fn wake(&self) -> &Arc<Inbox> {
        &self.wake
    }

    /// Returns the health of the engine, at most one second old.
    pub(super) async fn engine(&self) -> EngineHealth {
        if let Some(stopped) = self.stopped.get() {
            return EngineHealth::Responsive(Arc::clone(stopped));
        }
        if !self.recovered.load(Ordering::SeqCst) {
            return EngineHealth::Recovering;
        }
        let mut asked = self.asked.lock().await;
        let last = self.last_known();
        if let Some(known) = last.as_ref().filter(|known| known.at.elapsed() < KEEP) {
            return EngineHealth::Responsive(Arc::clone(known));
        }
        if let Some(late) = asked.late.filter(|late| late.at.elapsed() < GIVE_UP) {
            return EngineHealth::Stall {
                moved: late.moved,
                last,
            };
        }
        let before = self.metrics.progress();
        let Some(snapshot) = self.snapshot().await else {
            let moved = self.metrics.progress() != before;
            let at = Instant::now();
            asked.late = Some(Stall { at, moved });
            return EngineHealth::Stall { moved, last };
        };
        asked.late = None;
        let bare = snapshot.status.clone();
        // The figures in it keep pages of the state alive, and end there.
        let status = handlers::complete(&self.wake, snapshot, &self.answering).await;
        let known = Arc::new(CachedStatus {
            status: status.unwrap_or(bare),
            at: Instant::now(),
        });
        *self.lock_known() = Some(Arc::clone(&known));
        EngineHealth::Responsive(known)
    }

    async fn snapshot(&self) -> Option<Snapshot> {
        let (reply, answered) = oneshot::channel();
        self.wake.ask(EngineRequest::Snapshot(reply));
        tokio::time::timeout(PATIENCE, answered).await.ok()?.ok()
    }

    fn last_known(&self) -> Option<Arc<CachedStatus>> {
        self.lock_known().clone()
    }

    fn lock_known(&self) -> std::sync::MutexGuard<'_, Option<Arc<CachedStatus>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EngineHealth {
    /// Returns whether the process makes progress, however slowly, in words.
    pub(super) fn alive(&self) -> Result<&'static str, &'static str> {
        match self {
            Self::Recovering => Ok("alive: recovering what the last process left"),
            Self::Responsive(_) => Ok("alive"),
            Self::Stall { moved: true, .. } => Ok("alive: the engine is busy with a long pass"),
            Self::Stall { moved: false, .. } => Err(
                "the engine's thread got nothing done for 5 s: most likely its disk does not answer; see the kernel's log",
            ),
        }
    }

    /// Returns the health verdict of this moment.
    pub(super) fn health(&self) -> HealthReport {
        match self {
            Self::Responsive(known) => known.status.health.clone(),
            _ => self.status().health,
        }
    }

    /// Returns the current or last known status, with the health verdict of this moment.
    pub(super) fn status(&self) -> Status {
        let daemon = match self {
            Self::Recovering => DaemonState::Recovering,
            Self::Responsive(_) => DaemonState::Running,
            Self::Stall { moved: true, .. } => DaemonState::Busy,
            Self::Stall { moved: false, .. } => DaemonState::Unresponsive,
        };
        let known = self.known().map(|known| known.status.clone());
        let status = known.unwrap_or_else(|| Status {
            running: true,
            pid: Some(std::process::id()),
            ..Status::default()
        });
        status.assessed(daemon)
    }

    /// Returns the current or last known status.
    pub(super) fn known(&self) -> Option<&CachedStatus> {
        match self {
            Self::Recovering => None,
            Self::Responsive(known) => Some(known),
            Self::Stall { last, .. } => last.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Lag;
    use crate::query::health::Health;

    #[test]
    fn the_verdict_follows_from_the_engine_and_its_last_status() {
        let stall = |moved| EngineHealth::Stall { moved, last: None };
        let known = CachedStatus {
            status: Status {
                lag: Some(Lag {
                    caught_up: true,
                    ..Lag::default()
                }),
                ..Status::default()
            }
            .assessed(DaemonState::Running),
            at: Instant::now(),
        };
        let fresh = EngineHealth::Responsive(Arc::new(known));
        for (engine, verdict) in [
            (fresh, Health::Fresh),
            (EngineHealth::Recovering, Health::Recovering),
            (stall(true), Health::CatchingUp),
            (stall(false), Health::Unresponsive),
        ] {
            assert_eq!(engine.health().verdict, verdict);
            assert_eq!(engine.status().health, engine.health());
        }
    }

    #[test]
    fn only_a_thread_without_progress_is_not_alive() {
        assert!(EngineHealth::Recovering.alive().is_ok());
        assert!(
            EngineHealth::Stall {
                moved: true,
                last: None
            }
            .alive()
            .is_ok()
        );
        assert!(
            EngineHealth::Stall {
                moved: false,
                last: None
            }
            .alive()
            .is_err()
        );
    }
}
