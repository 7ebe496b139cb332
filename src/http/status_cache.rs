//! Caches one engine snapshot per second for all HTTP clients, so that their number does not matter to the pipeline,
//! and derives liveness and readiness from it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use serde::Serialize;
use tokio::sync::{Mutex, oneshot};

use crate::daemon::inbox::Inbox;
use crate::daemon::requests::{EngineRequest, Snapshot};
use crate::engine::metrics::Metrics;
use crate::http::handlers;
use crate::http::handlers::QueryContext;
use crate::query::status::Status;

/// Maximum age of a cached status.
const KEEP: Duration = Duration::from_secs(1);
/// For so long a document of the control socket that everyone may read is the same.
const KEEP_DOCUMENT: Duration = Duration::from_secs(2);
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
    /// Held while the engine's thread is asked, so that one asks and the others wait for the same answer.
    asked: Mutex<Inflight>,
    /// The last answer, for those that cannot wait.
    known: std::sync::Mutex<Option<Arc<CachedStatus>>>,
    /// Documents of the control socket, by path, as they were given last. Held while one is made.
    documents: Mutex<BTreeMap<String, CachedDocument>>,
}

/// An answer, and when it was given.
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
            asked: Mutex::default(),
            known: std::sync::Mutex::default(),
            documents: Mutex::default(),
        }
    }

    /// The document at a path of which there are few; `make` gives it where the last one is too old.
    pub(super) async fn document(
        &self,
        path: &str,
        make: impl Future<Output = Response<Full<Bytes>>>,
    ) -> Response<Full<Bytes>> {
        let mut documents = self.documents.lock().await;
        if let Some((at, document)) = documents.get(path)
            && at.elapsed() < KEEP_DOCUMENT
        {
            return document.clone();
        }
        let document = make.await;
        documents.insert(path.to_owned(), (Instant::now(), document.clone()));
        document
    }

    /// From now on the engine's thread is there to be asked.
    pub fn recovered(&self) {
        self.recovered.store(true, Ordering::SeqCst);
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
        let status = handlers::complete(snapshot, &self.answering).await;
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

    /// Returns the reason if the export is not fresh within the objective.
    pub(super) fn ready(&self) -> Result<(), String> {
        let known = match self {
            Self::Recovering => return Err("recovering what the last process left".to_owned()),
            Self::Stall { moved: true, .. } => {
                return Err("the engine is busy with a long pass".to_owned());
            }
            Self::Stall { moved: false, .. } => {
                return Err(self.alive().err().unwrap_or_default().to_owned());
            }
            Self::Responsive(known) => known,
        };
        if let Some(fault) = known
            .status
            .last_fault
            .as_ref()
            .filter(|fault| !fault.resolved)
        {
            return Err(format!(
                "reading stopped at {} and is tried again: {}",
                fault.at, fault.what
            ));
        }
        let lag = known.status.lag.unwrap_or_default();
        if !lag.caught_up {
            return Err(format!(
                "catching up since the start: {} files and {} bytes pending",
                lag.files, lag.bytes
            ));
        }
        if lag.age_ms > lag.objective_ms {
            return Err(format!(
                "lagging by {} s, {} bytes pending; the objective is {} s",
                lag.age_ms / 1_000,
                lag.bytes,
                lag.objective_ms as f64 / 1_000.0
            ));
        }
        Ok(())
    }

    /// Returns the current or last known status.
    pub(super) fn known(&self) -> Option<&CachedStatus> {
        match self {
            Self::Recovering => None,
            Self::Responsive(known) => Some(known),
            Self::Stall { last, .. } => last.as_deref(),
        }
    }

    /// The document of `/status.json`: the status, and what is thought of it.
    pub(super) fn document(&self) -> serde_json::Result<Vec<u8>> {
        #[derive(Serialize)]
        struct Document<'a> {
            #[serde(flatten)]
            status: &'a Status,
            phase: &'a str,
            ready: bool,
            why_not_ready: Option<String>,
        }
        let unknown = Status {
            running: true,
            pid: Some(std::process::id()),
            ..Status::default()
        };
        let ready = self.ready();
        serde_json::to_vec(&Document {
            status: self.known().map_or(&unknown, |known| &known.status),
            phase: match self {
                Self::Recovering => "recovering",
                Self::Responsive(_) => "following",
                Self::Stall { .. } => "unresponsive",
            },
            ready: ready.is_ok(),
            why_not_ready: ready.err(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Lag;
    use crate::query::status::Fault;

    fn with_lag(change: impl FnOnce(&mut Lag)) -> EngineHealth {
        answering(|known| change(known.status.lag.as_mut().unwrap()))
    }

    fn answering(change: impl FnOnce(&mut CachedStatus)) -> EngineHealth {
        let mut known = CachedStatus {
            status: Status {
                lag: Some(Lag {
                    bytes: 10,
                    age_ms: 900,
                    objective_ms: 1_000,
                    caught_up: true,
                    ..Lag::default()
                }),
                ..Status::default()
            },
            at: Instant::now(),
        };
        change(&mut known);
        EngineHealth::Responsive(Arc::new(known))
    }

    #[test]
    fn ready_means_fresh_within_the_objective_and_free_of_faults() {
        assert_eq!(answering(|_| {}).ready(), Ok(()));
        let fault = Fault {
            at: "now".into(),
            what: "no space".into(),
            resolved: false,
        };
        let resolved = Fault {
            resolved: true,
            ..fault.clone()
        };
        assert_eq!(
            answering(|known| known.status.last_fault = Some(resolved)).ready(),
            Ok(())
        );
        for (engine, why) in [
            (with_lag(|lag| lag.age_ms = 1_001), "lagging by 1 s"),
            (with_lag(|lag| lag.caught_up = false), "catching up"),
            (
                answering(|known| known.status.last_fault = Some(fault)),
                "no space",
            ),
            (EngineHealth::Recovering, "recovering"),
            (
                EngineHealth::Stall {
                    moved: true,
                    last: None,
                },
                "long pass",
            ),
            (
                EngineHealth::Stall {
                    moved: false,
                    last: None,
                },
                "nothing done",
            ),
        ] {
            let said = engine.ready().unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn only_a_thread_that_stands_still_is_not_alive() {
        assert!(EngineHealth::Recovering.alive().is_ok());
        assert!(with_lag(|lag| lag.age_ms = u64::MAX).alive().is_ok());
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
