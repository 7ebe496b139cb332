//! Owns the answers that need reading: done on a thread beside the pipeline, one long one at a time, over the figures of
//! one moment.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Response, StatusCode, Uri};
use tokio::sync::{Semaphore, oneshot};

use crate::daemon::inbox::Inbox;
use crate::daemon::requests::{EngineRequest, Snapshot};
use crate::http::response::{busy, json, snapshot, text};
use crate::lake::chunk::LineLimits;
use crate::lake::path::PairPath;
use crate::lake::path::export_path;
use crate::pair::history::Recent;
use crate::pair::verdict::VerdictKind;
use crate::platform::clock::{Clock as _, HostClock};
use crate::platform::storage::OsStorage;
use crate::query::dead_letters::{DeadLetterFilter, letters as letters_of, stream_named};
use crate::query::explain::{ExplainContext, Page, contradictions, explain as explain_run};
use crate::query::plan::{PlanContext, plan as plan_run};
use crate::query::status::{Status, WaitingRun, measured, waiting_oldest};
use crate::store::state::error::StateError;

/// The runs that wait longest are looked for at most so often: a page that asks each second costs next to nothing.
const WAITING_AGE_MAX: Duration = Duration::from_secs(5);
/// Dead letters, or contradicted rows, of one answer.
const LISTED_MAX: usize = 10_000;
/// A day-file that is read again may be long.
const RETRY_PATIENCE: Duration = Duration::from_secs(600);

/// What answers need beside the figures.
#[derive(Debug)]
pub struct QueryContext {
    /// The root, without links in it.
    pub root: PathBuf,
    /// A longer line is a dead letter.
    pub line_bytes_max: u64,
    long_ones: Semaphore,
    waiting: Mutex<Option<(Instant, Vec<WaitingRun>)>>,
}

impl QueryContext {
    /// For a daemon on this root.
    #[must_use]
    pub fn new(root: PathBuf, line_bytes_max: u64) -> Self {
        Self {
            root,
            line_bytes_max,
            long_ones: Semaphore::new(1),
            waiting: Mutex::new(None),
        }
    }

    fn explaining<T>(&self, snapshot: &Snapshot, read: impl FnOnce(&ExplainContext<'_>) -> T) -> T {
        read(&ExplainContext {
            storage: &OsStorage,
            root: &self.root,
            export_path: &export_path(&self.root),
            line_bytes_max: self.line_bytes_max,
            figures: &snapshot.figures,
        })
    }

    fn waiting_oldest(&self, snapshot: &Snapshot) -> Result<Vec<WaitingRun>, StateError> {
        if snapshot.status.scored.verdicts[VerdictKind::Waiting] == 0 {
            return Ok(Vec::new());
        }
        let mut kept = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((at, oldest)) if at.elapsed() < WAITING_AGE_MAX => Ok(oldest.clone()),
            _ => {
                let oldest = waiting_oldest(&snapshot.figures, &OsStorage, &self.root)?;
                *kept = Some((Instant::now(), oldest.clone()));
                Ok(oldest)
            }
        }
    }
}

/// What stands behind the question mark.
pub(super) struct QueryParams(Vec<(String, String)>);

impl QueryParams {
    pub(super) fn of(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default().as_bytes();
        Self(form_urlencoded::parse(query).into_owned().collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str, default: usize) -> usize {
        (self.get(name).and_then(|value| value.parse().ok())).unwrap_or(default)
    }

    fn day_file(&self) -> Option<PairPath> {
        PairPath::from_relative(self.get("day_file")?.as_ref())
    }
}

type Answer = Response<Full<Bytes>>;

pub(super) async fn status(wake: &Inbox, answering: &Arc<QueryContext>) -> Answer {
    let Some(snapshot) = snapshot(wake).await else {
        return busy();
    };
    let answering = Arc::clone(answering);
    off_the_loop(move || Ok(completed(snapshot, &answering))).await
}

/// The status of a snapshot with what has to be read for it; `None` where the process ends meanwhile.
pub(in crate::http) async fn complete(
    snapshot: Snapshot,
    answering: &Arc<QueryContext>,
) -> Option<Status> {
    let answering = Arc::clone(answering);
    tokio::task::spawn_blocking(move || completed(snapshot, &answering))
        .await
        .ok()
}

/// A state that cannot be read, as on a disk that is full, takes from the answer what only it knows, and nothing else:
/// that is when somebody asks.
fn completed(mut snapshot: Snapshot, answering: &QueryContext) -> Status {
    let (figures, unread) = (&snapshot.figures, &snapshot.unread);
    let measured = |lag| measured(lag, figures, unread, &OsStorage, &answering.root);
    snapshot.status.lag = snapshot.status.lag.map(measured);
    let oldest = answering.waiting_oldest(&snapshot);
    snapshot.status.waiting_oldest = oldest.unwrap_or_else(|error| {
        tracing::debug!(%error, "which runs wait for the longest time is not told");
        Vec::new()
    });
    snapshot.status
}

pub(super) async fn recent(wake: &Inbox) -> Answer {
    let (reply, answered) = oneshot::channel::<Recent>();
    wake.ask(EngineRequest::Recent(reply));
    match tokio::time::timeout(crate::http::control_routes::SNAPSHOT_PATIENCE, answered).await {
        Ok(Ok(recent)) => json(&recent),
        _ => busy(),
    }
}

pub(super) async fn explain(
    wake: &Inbox,
    answering: &Arc<QueryContext>,
    asked: QueryParams,
) -> Answer {
    let Some(run_id) = asked.get("run_id").map(str::to_owned) else {
        return text(StatusCode::BAD_REQUEST, "run_id is missing\n");
    };
    long_one(wake, answering, move |answering, snapshot| {
        answering.explaining(snapshot, |explaining| explain_run(&run_id, explaining))
    })
    .await
}

pub(super) async fn contradicted(
    wake: &Inbox,
    answering: &Arc<QueryContext>,
    asked: QueryParams,
) -> Answer {
    let page = Page {
        skip: asked.number("skip", 0),
        limit: asked.number("limit", 100).min(LISTED_MAX),
    };
    long_one(wake, answering, move |answering, snapshot| {
        answering.explaining(snapshot, |explaining| contradictions(page, explaining))
    })
    .await
}

pub(super) async fn letters(
    wake: &Inbox,
    answering: &Arc<QueryContext>,
    asked: QueryParams,
) -> Answer {
    if asked.get("day_file").is_some() && asked.day_file().is_none() {
        return text(
            StatusCode::BAD_REQUEST,
            "day_file is no YYYY/MM/DD/NAME.jsonl\n",
        );
    }
    let wanted = DeadLetterFilter {
        day_file: asked.day_file(),
        stream: asked.get("stream").and_then(stream_named),
        skip: asked.number("skip", 0),
        limit: asked.number("limit", 100).min(LISTED_MAX),
    };
    long_one(wake, answering, move |answering, snapshot| {
        letters_of(&snapshot.figures, &OsStorage, &answering.root, &wanted)
    })
    .await
}

pub(super) async fn plan(wake: &Inbox, answering: &Arc<QueryContext>) -> Answer {
    long_one(wake, answering, |answering, snapshot| {
        plan_run(&PlanContext {
            storage: &OsStorage,
            root: &answering.root,
            export_path: &export_path(&answering.root),
            limits: LineLimits {
                line_bytes_max: answering.line_bytes_max,
            },
            now_ms: HostClock::new().wall_ms(),
            figures: &snapshot.figures,
        })
    })
    .await
}

pub(super) async fn retry(wake: &Inbox, asked: QueryParams) -> Answer {
    let stream = asked.get("stream").and_then(stream_named);
    let (Some(path), Some(stream)) = (asked.day_file(), stream) else {
        return text(StatusCode::BAD_REQUEST, "day_file or stream is missing\n");
    };
    let unknown = format!("nothing was ever read of {path}, or it cannot be read now\n");
    let (reply, answered) = oneshot::channel();
    wake.ask(EngineRequest::Retry {
        path,
        stream,
        reply,
    });
    match tokio::time::timeout(RETRY_PATIENCE, answered).await {
        Ok(Ok(retried)) => json(&retried),
        Ok(Err(_)) => text(StatusCode::NOT_FOUND, &unknown),
        Err(_) => busy(),
    }
}

/// An answer that may take seconds: others wait for it, so that many askers cost no more than one.
async fn long_one<T: serde::Serialize + Send + 'static>(
    wake: &Inbox,
    answering: &Arc<QueryContext>,
    read: impl FnOnce(&QueryContext, &Snapshot) -> Result<T, StateError> + Send + 'static,
) -> Answer {
    let Ok(_place) = answering.long_ones.acquire().await else {
        return busy();
    };
    let Some(snapshot) = snapshot(wake).await else {
        return busy();
    };
    let answering = Arc::clone(answering);
    off_the_loop(move || read(&answering, &snapshot)).await
}

async fn off_the_loop<T: serde::Serialize + Send + 'static>(
    read: impl FnOnce() -> Result<T, StateError> + Send + 'static,
) -> Answer {
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(value)) => json(&value),
        Ok(Err(error)) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        Err(_) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "making the answer panicked: a bug in distilld, please report it\n",
        ),
    }
}
