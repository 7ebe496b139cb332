//! Owns what strangers are told: it asks the engine's thread on behalf of all of them, seldom, and remembers the answer,
//! so that how many ask, and how often, is nothing to the pipeline. It also judges: alive, ready, and why not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use serde::Serialize;
use tokio::sync::{Mutex, oneshot};

use crate::daemon::inbox::Wake;
use crate::daemon::requests::{Freshness, Question, Snapshot};
use crate::engine::metrics::Meters;
use crate::http::control_routes;
use crate::http::control_routes::Answering;
use crate::query::status::Status;

/// For so long all are told the same.
const KEEP: Duration = Duration::from_secs(1);
/// For so long a document of the control socket that everyone may read is the same.
const KEEP_DOCUMENT: Duration = Duration::from_secs(2);
/// How long the engine's thread may take to be between two passes.
const PATIENCE: Duration = Duration::from_secs(5);
/// After it took longer, nobody waits for it again within this time.
const GIVE_UP: Duration = Duration::from_secs(1);

/// Asks for all.
#[derive(Debug)]
pub struct Desk {
    wake: Arc<Wake>,
    meters: Arc<Meters>,
    answering: Arc<Answering>,
    recovered: AtomicBool,
    /// Held while the engine's thread is asked, so that one asks and the others wait for the same answer.
    asked: Mutex<Asked>,
    /// The last answer, for those that cannot wait.
    known: std::sync::Mutex<Option<Arc<Known>>>,
    /// Documents of the control socket, by path, as they were given last. Held while one is made.
    documents: Mutex<BTreeMap<String, Kept>>,
}

/// An answer, and when it was given.
type Kept = (Instant, Response<Full<Bytes>>);

#[derive(Debug, Default)]
struct Asked {
    late: Option<Late>,
}

#[derive(Debug, Clone, Copy)]
struct Late {
    at: Instant,
    /// Whether the engine's thread got anything done while it was waited for.
    moved: bool,
}

/// What was true a moment ago.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) status: Status,
    pub(super) freshness: Freshness,
    at: Instant,
}

/// How the engine's thread is.
#[derive(Debug, Clone)]
pub(super) enum Engine {
    /// It has not begun: what the last process left is being made good.
    Recovering,
    /// It answers.
    Answering(Arc<Known>),
    /// It does not answer; what it said last, if ever.
    Late {
        moved: bool,
        last: Option<Arc<Known>>,
    },
}

impl Desk {
    /// For a daemon that is about to recover.
    #[must_use]
    pub fn new(wake: Arc<Wake>, meters: Arc<Meters>, answering: Arc<Answering>) -> Self {
        Self {
            wake,
            meters,
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

    pub(super) fn meters(&self) -> &Meters {
        &self.meters
    }

    pub(super) fn answering(&self) -> &Arc<Answering> {
        &self.answering
    }

    pub(super) fn wake(&self) -> &Arc<Wake> {
        &self.wake
    }

    /// How it is now, or was a moment ago.
    pub(super) async fn engine(&self) -> Engine {
        if !self.recovered.load(Ordering::SeqCst) {
            return Engine::Recovering;
        }
        let mut asked = self.asked.lock().await;
        let last = self.last_known();
        if let Some(known) = last.as_ref().filter(|known| known.at.elapsed() < KEEP) {
            return Engine::Answering(Arc::clone(known));
        }
        if let Some(late) = asked.late.filter(|late| late.at.elapsed() < GIVE_UP) {
            return Engine::Late {
                moved: late.moved,
                last,
            };
        }
        let before = self.meters.progress();
        let Some(snapshot) = self.snapshot().await else {
            let moved = self.meters.progress() != before;
            let at = Instant::now();
            asked.late = Some(Late { at, moved });
            return Engine::Late { moved, last };
        };
        asked.late = None;
        let (bare, freshness) = (snapshot.status.clone(), snapshot.freshness);
        // The figures in it keep pages of the state alive, and end there.
        let status = control_routes::complete(snapshot, &self.answering).await;
        let known = Arc::new(Known {
            status: status.unwrap_or(bare),
            freshness,
            at: Instant::now(),
        });
        *self.lock_known() = Some(Arc::clone(&known));
        Engine::Answering(known)
    }

    async fn snapshot(&self) -> Option<Snapshot> {
        let (reply, answered) = oneshot::channel();
        self.wake.ask(Question::Snapshot(reply));
        tokio::time::timeout(PATIENCE, answered).await.ok()?.ok()
    }

    fn last_known(&self) -> Option<Arc<Known>> {
        self.lock_known().clone()
    }

    fn lock_known(&self) -> std::sync::MutexGuard<'_, Option<Arc<Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Whether the process does its work, however slowly; and in words.
    pub(super) fn alive(&self) -> Result<&'static str, &'static str> {
        match self {
            Self::Recovering => Ok("alive: recovering what the last process left"),
            Self::Answering(_) => Ok("alive"),
            Self::Late { moved: true, .. } => Ok("alive: the engine is busy with a long pass"),
            Self::Late { moved: false, .. } => Err(
                "the engine's thread got nothing done for 5 s: most likely its disk does not answer; see the kernel's log",
            ),
        }
    }

    /// Whether the export is fresh within the objective; else why not.
    pub(super) fn ready(&self) -> Result<(), String> {
        let known = match self {
            Self::Recovering => return Err("recovering what the last process left".to_owned()),
            Self::Late { moved: true, .. } => {
                return Err("the engine is busy with a long pass".to_owned());
            }
            Self::Late { moved: false, .. } => {
                return Err(self.alive().err().unwrap_or_default().to_owned());
            }
            Self::Answering(known) => known,
        };
        if let Some(fault) = known.status.last_fault.as_ref().filter(|fault| !fault.over) {
            return Err(format!(
                "reading stopped at {} and is tried again: {}",
                fault.at, fault.what
            ));
        }
        let lag = &known.freshness;
        if !lag.caught_up {
            let behind = known.status.behind.unwrap_or(0);
            return Err(format!(
                "catching up since the start: {behind} day-files or directories and {} bytes are known to be unread",
                lag.bytes
            ));
        }
        if lag.age_ms > lag.objective_ms {
            return Err(format!(
                "{} s behind, {} bytes are known to be unread; the objective is {} s",
                lag.age_ms / 1_000,
                lag.bytes,
                lag.objective_ms as f64 / 1_000.0
            ));
        }
        Ok(())
    }

    /// What it said now or last.
    pub(super) fn known(&self) -> Option<&Known> {
        match self {
            Self::Recovering => None,
            Self::Answering(known) => Some(known),
            Self::Late { last, .. } => last.as_deref(),
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
            freshness: Option<FreshnessDocument>,
        }
        #[derive(Serialize)]
        struct FreshnessDocument {
            bytes: u64,
            age_ms: u64,
            objective_ms: u64,
            caught_up: bool,
        }
        let unknown = Status {
            running: true,
            pid: Some(std::process::id()),
            ..Status::default()
        };
        let ready = self.ready();
        let freshness = self.known().map(|known| FreshnessDocument {
            bytes: known.freshness.bytes,
            age_ms: known.freshness.age_ms,
            objective_ms: known.freshness.objective_ms,
            caught_up: known.freshness.caught_up,
        });
        serde_json::to_vec(&Document {
            status: self.known().map_or(&unknown, |known| &known.status),
            phase: match self {
                Self::Recovering => "recovering",
                Self::Answering(_) => "following",
                Self::Late { .. } => "not answering",
            },
            ready: ready.is_ok(),
            why_not_ready: ready.err(),
            freshness,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::status::Fault;

    fn answering(change: impl FnOnce(&mut Known)) -> Engine {
        let mut known = Known {
            status: Status::default(),
            freshness: Freshness {
                bytes: 10,
                age_ms: 900,
                objective_ms: 1_000,
                caught_up: true,
            },
            at: Instant::now(),
        };
        change(&mut known);
        Engine::Answering(Arc::new(known))
    }

    #[test]
    fn ready_means_fresh_within_the_objective_and_free_of_faults() {
        assert_eq!(answering(|_| {}).ready(), Ok(()));
        let fault = Fault {
            at: "now".into(),
            what: "no space".into(),
            over: false,
        };
        let over = Fault {
            over: true,
            ..fault.clone()
        };
        assert_eq!(
            answering(|known| known.status.last_fault = Some(over)).ready(),
            Ok(())
        );
        for (engine, why) in [
            (
                answering(|known| known.freshness.age_ms = 1_001),
                "1 s behind",
            ),
            (
                answering(|known| known.freshness.caught_up = false),
                "catching up",
            ),
            (
                answering(|known| known.status.last_fault = Some(fault)),
                "no space",
            ),
            (Engine::Recovering, "recovering"),
            (
                Engine::Late {
                    moved: true,
                    last: None,
                },
                "long pass",
            ),
            (
                Engine::Late {
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
        assert!(Engine::Recovering.alive().is_ok());
        assert!(
            answering(|known| known.freshness.age_ms = u64::MAX)
                .alive()
                .is_ok()
        );
        assert!(
            Engine::Late {
                moved: true,
                last: None
            }
            .alive()
            .is_ok()
        );
        assert!(
            Engine::Late {
                moved: false,
                last: None
            }
            .alive()
            .is_err()
        );
    }
}
