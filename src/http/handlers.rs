//! The control socket's routes and their handlers. Each response is made from one snapshot of the engine. Handlers that
//! read files run on a thread outside the pipeline, one long request at a time.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, Uri};
use tokio::sync::{Semaphore, oneshot};

use crate::config::Exclude;
use crate::daemon::inbox::Inbox;
use crate::daemon::requests::{EngineRequest, Snapshot};
use crate::http::details;
use crate::http::request_body;
use crate::http::response::{
    SNAPSHOT_PATIENCE, busy, json, on_thread, report_failure, run_blocking, snapshot, text,
};
use crate::http::rows;
use crate::lake::chunk::LineLimits;
use crate::lake::path::{PairPath, Stream, export_path};
use crate::pair::history::Recent;
use crate::pair::verdict::VerdictKind;
use crate::platform::clock::{Clock as _, HostClock};
use crate::platform::storage::OsStorage;
use crate::query::control::parameters;
use crate::query::dead_letters::{DeadLetterFilter, letters as list_dead_letters, stream_named};
use crate::query::explain::{ExplainContext, Page, explain as explain_run};
use crate::query::health::DaemonState;
use crate::query::plan::{PlanContext, plan as plan_run};
use crate::query::status::{ProcessStatus, Status, WaitingRun, measured, waiting_oldest};
use crate::query::wait::WaitReport;
use crate::store::state::error::StateError;

/// Minimum time between two searches for the longest-waiting runs, so that a page that polls every second is cheap.
const WAITING_AGE_MAX: Duration = Duration::from_secs(5);
/// Maximum number of dead letters, or of lines of a run, in one response.
const LISTED_MAX: usize = 10_000;
/// Time limit for reading a day-file again, which may be long.
const RETRY_PATIENCE: Duration = Duration::from_secs(600);

/// Maximum time of one question of a wait; the client asks again.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Inputs of handlers apart from the snapshot: the root, limits and the cache of waiting runs.
#[derive(Debug)]
pub struct QueryContext {
    /// The root directory, with links resolved.
    pub root: PathBuf,
    /// Maximum length of a line, bytes; a longer line is a dead letter.
    pub line_bytes_max: u64,
    /// The day-files that are not read.
    pub exclude: Exclude,
    /// The names and the start of this process.
    pub process: ProcessStatus,
    long_requests: Semaphore,
    waiting: Mutex<Option<(Instant, Vec<WaitingRun>)>>,
}

impl QueryContext {
    /// Creates the context of a daemon on this root.
    #[must_use]
    pub fn new(root: PathBuf, line_bytes_max: u64) -> Self {
        Self {
            root,
            line_bytes_max,
            exclude: Exclude::default(),
            process: ProcessStatus::default(),
            long_requests: Semaphore::new(1),
            waiting: Mutex::new(None),
        }
    }

    pub(super) fn with_explain_context<T>(
        &self,
        snapshot: &Snapshot,
        read: impl FnOnce(&ExplainContext<'_>) -> T,
    ) -> T {
        read(&ExplainContext {
            storage: &OsStorage,
            root: &self.root,
            export_path: &export_path(&self.root),
            line_bytes_max: self.line_bytes_max,
            state: &snapshot.state,
        })
    }

    pub(super) fn waiting_oldest(
        &self,
        snapshot: &Snapshot,
    ) -> Result<Vec<WaitingRun>, StateError> {
        if snapshot.status.scored.verdicts[VerdictKind::Waiting] == 0 {
            return Ok(Vec::new());
        }
        let mut cached = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cached {
            Some((at, oldest)) if at.elapsed() < WAITING_AGE_MAX => Ok(oldest.clone()),
            _ => {
                let oldest = waiting_oldest(&snapshot.state, &OsStorage, &self.root)?;
                *cached = Some((Instant::now(), oldest.clone()));
                Ok(oldest)
            }
        }
    }
}

/// The query parameters of a request: names and values.
pub(super) struct QueryParams(Vec<(Vec<u8>, Vec<u8>)>);

impl QueryParams {
    pub(super) fn from_uri(uri: &Uri) -> Self {
        Self(parameters(uri.query().unwrap_or_default()))
    }

    fn bytes(&self, name: &str) -> Option<&[u8]> {
        let mut parameters = self.0.iter();
        let (_, value) = parameters.find(|(key, _)| key == name.as_bytes())?;
        Some(value)
    }

    pub(super) fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.bytes(name).map(String::from_utf8_lossy)
    }

    fn number(&self, name: &str, default: usize) -> usize {
        (self.get(name).and_then(|value| value.parse().ok())).unwrap_or(default)
    }

    /// Returns which results are wanted. Each costs memory until the response is sent.
    fn page(&self) -> Page {
        Page {
            skip: self.number("skip", 0),
            limit: self.number("limit", 100).min(LISTED_MAX),
        }
    }

    fn stream(&self) -> Option<Stream> {
        self.get("stream").and_then(|name| stream_named(&name))
    }

    fn day_file(&self) -> Option<PairPath> {
        PairPath::from_relative(Path::new(OsStr::from_bytes(self.bytes("day_file")?)))
    }
}

pub(super) type HttpResponse = Response<Full<Bytes>>;

/// Returns the response to a request on the control socket.
pub(super) async fn answer(
    request: Request<Incoming>,
    inbox: &Arc<Inbox>,
    context: &Arc<QueryContext>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let params = QueryParams::from_uri(&head.uri);
    // HEAD is handled as GET; hyper omits the body.
    let method = match head.method {
        Method::HEAD => &Method::GET,
        ref method => method,
    };
    match (method, head.uri.path()) {
        (&Method::GET, "/status.json") => status(inbox, context).await,
        (&Method::GET, "/recent.json") => recent(inbox).await,
        (&Method::GET, "/explain.json") => explain(inbox, context, params, body).await,
        (&Method::GET, "/deleted-rows.json") => {
            rows::answer(inbox, context, &params, rows::deleted).await
        }
        (&Method::GET, "/changed-rows.json") => {
            rows::answer(inbox, context, &params, rows::changed).await
        }
        (&Method::GET, "/dead-letters.json") => dead_letters(inbox, context, params).await,
        (&Method::GET, "/waiting.json") => details::waiting(inbox, context).await,
        (&Method::GET, "/malformed.json") => details::malformed(inbox, context).await,
        (&Method::GET, "/retracted.json") => details::retracted(inbox, context).await,
        (&Method::GET, "/plan.json") => plan(inbox, context).await,
        (&Method::GET, "/wait.json") => wait(inbox, &params).await,
        (&Method::POST, "/dead-letters/retry") => retry(inbox, params).await,
        (&Method::POST, "/retract") => retract(inbox, body).await,
        (&Method::GET, _) => text(StatusCode::NOT_FOUND, "not found"),
        _ => text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are answered",
        ),
    }
}

pub(super) async fn status(inbox: &Inbox, context: &Arc<QueryContext>) -> HttpResponse {
    let Some(snapshot) = snapshot(inbox).await else {
        return busy();
    };
    let bare = snapshot.status.clone();
    let status = complete(inbox, snapshot, context).await.unwrap_or(bare);
    json(&Status {
        process: Some(context.process.clone()),
        ..status
    })
}

/// Completes the status of a snapshot with what must be read from disk. Returns `None` if that panics, or the kernel refuses a thread.
pub(super) async fn complete(
    inbox: &Inbox,
    snapshot: Snapshot,
    context: &Arc<QueryContext>,
) -> Option<Status> {
    let context = Arc::clone(context);
    let view = Arc::clone(&snapshot.state.view);
    let status = on_thread(move || completed(snapshot, &context)).await;
    report_failure(inbox, &view);
    status.ok()?
}

/// Adds the lag and the longest-waiting runs. If the state cannot be read, as on a full disk, only the waiting runs are
/// missing: a status must be available then above all.
fn completed(mut snapshot: Snapshot, context: &QueryContext) -> Status {
    let (state, unread) = (&snapshot.state, &snapshot.unread);
    let measured = |lag| measured(lag, state, unread, &OsStorage, &context.root);
    snapshot.status.lag = snapshot.status.lag.map(measured);
    let oldest = context.waiting_oldest(&snapshot);
    snapshot.status.waiting_oldest = oldest.unwrap_or_else(|error| {
        tracing::debug!(%error, "cannot read the longest-waiting runs ({error})");
        Vec::new()
    });
    // The verdict prints the measured lag.
    snapshot.status.assessed(DaemonState::Running)
}

pub(super) async fn recent(inbox: &Inbox) -> HttpResponse {
    let (reply, answered) = oneshot::channel::<Recent>();
    inbox.ask(EngineRequest::Recent(reply));
    match tokio::time::timeout(SNAPSHOT_PATIENCE, answered).await {
        Ok(Ok(recent)) => json(&recent),
        _ => busy(),
    }
}

pub(super) async fn explain(
    inbox: &Inbox,
    context: &Arc<QueryContext>,
    params: QueryParams,
    body: Incoming,
) -> HttpResponse {
    let run_id = match params.get("run_id") {
        Some(run_id) => run_id.into_owned(),
        None => match request_body::run_id(body).await {
            Ok(run_id) => run_id,
            Err((status, why)) => return text(status, &why),
        },
    };
    let page = params.page();
    long_request(inbox, context, move |context, snapshot| {
        context.with_explain_context(snapshot, |explain_context| {
            explain_run(&run_id, page, explain_context)
        })
    })
    .await
}

pub(super) async fn dead_letters(
    inbox: &Inbox,
    context: &Arc<QueryContext>,
    params: QueryParams,
) -> HttpResponse {
    if params.get("day_file").is_some() && params.day_file().is_none() {
        return text(
            StatusCode::BAD_REQUEST,
            "day_file is not a path YYYY/MM/DD/NAME.jsonl",
        );
    }
    let page = params.page();
    let filter = DeadLetterFilter {
        day_file: params.day_file(),
        stream: params.stream(),
        skip: page.skip,
        limit: page.limit,
    };
    long_request(inbox, context, move |context, snapshot| {
        list_dead_letters(&snapshot.state, &OsStorage, &context.root, &filter)
    })
    .await
}

pub(super) async fn plan(inbox: &Inbox, context: &Arc<QueryContext>) -> HttpResponse {
    long_request(inbox, context, |context, snapshot| {
        plan_run(&PlanContext {
            storage: &OsStorage,
            root: &context.root,
            export_path: &export_path(&context.root),
            limits: LineLimits {
                line_bytes_max: context.line_bytes_max,
            },
            now_ms: HostClock::new().wall_ms(),
            state: &snapshot.state,
            exclude: &context.exclude,
        })
    })
    .await
}

pub(super) async fn retry(inbox: &Inbox, params: QueryParams) -> HttpResponse {
    let stream = params.stream();
    let (Some(path), Some(stream)) = (params.day_file(), stream) else {
        return text(
            StatusCode::BAD_REQUEST,
            "parameter day_file or stream is missing or malformed",
        );
    };
    let (reply, answered) = oneshot::channel();
    inbox.ask(EngineRequest::Retry {
        path,
        stream,
        reply,
    });
    match tokio::time::timeout(RETRY_PATIENCE, answered).await {
        Ok(Ok(Ok(report))) => json(&report),
        Ok(Ok(Err(why))) => {
            let why = format!("{why}; {}", why.fix());
            text(StatusCode::NOT_FOUND, &why)
        }
        Ok(Err(_)) | Err(_) => busy(),
    }
}

/// Answers when a wait is over, or at the latest after the time that the client gives.
async fn wait(inbox: &Inbox, params: &QueryParams) -> HttpResponse {
    let Some(id) = params.get("id").map(Cow::into_owned) else {
        return text(StatusCode::BAD_REQUEST, "parameter id is missing");
    };
    let within = Duration::from_millis(params.number("within_ms", 0) as u64);
    let (reply, answered) = oneshot::channel();
    inbox.ask(EngineRequest::Wait { id, reply });
    match tokio::time::timeout(within.min(WAIT_MAX), answered).await {
        Ok(Ok(report)) => json(&report),
        Ok(Err(_)) => busy(),
        Err(_) => json(&WaitReport::pending()),
    }
}

async fn retract(inbox: &Inbox, body: Incoming) -> HttpResponse {
    let request = match request_body::order(body).await {
        Ok(request) => Box::new(request),
        Err((status, why)) => return text(status, &why),
    };
    let (reply, answered) = oneshot::channel();
    inbox.ask(EngineRequest::Order(request, reply));
    match tokio::time::timeout(RETRY_PATIENCE, answered).await {
        Ok(Ok(Ok(result))) => json(&result),
        Ok(Ok(Err(error))) => text(StatusCode::BAD_REQUEST, &error),
        _ => busy(),
    }
}

/// Runs a handler that may take seconds. Such handlers run one at a time, so that many clients cost no more than one.
pub(super) async fn long_request<
    T: serde::Serialize + Send + 'static,
    E: Display + Send + 'static,
>(
    inbox: &Inbox,
    context: &Arc<QueryContext>,
    read: impl FnOnce(&QueryContext, &Snapshot) -> Result<T, E> + Send + 'static,
) -> HttpResponse {
    let Ok(_permit) = context.long_requests.acquire().await else {
        return busy();
    };
    let Some(snapshot) = snapshot(inbox).await else {
        return busy();
    };
    let context = Arc::clone(context);
    let view = Arc::clone(&snapshot.state.view);
    let response = run_blocking(move || read(&context, &snapshot)).await;
    report_failure(inbox, &view);
    response
}
