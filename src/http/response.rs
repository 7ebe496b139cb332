//! Builds HTTP responses, and fetches the snapshot of the engine that most of them are made from.

use std::fmt::Display;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::oneshot;

use crate::daemon::inbox::Inbox;
use crate::daemon::requests::{EngineRequest, Snapshot};
use crate::platform::background::{THREADS_FIX, ThreadError, spawn};
use crate::store::state::StateView;

/// Maximum time that the engine's thread may need until it is between two passes.
pub(super) const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(5);

/// Requests a snapshot from the engine's thread. Returns `None` if it does not respond in time.
pub(super) async fn snapshot(inbox: &Inbox) -> Option<Snapshot> {
    let (reply, response) = oneshot::channel();
    inbox.ask(EngineRequest::Snapshot(reply));
    tokio::time::timeout(SNAPSHOT_PATIENCE, response)
        .await
        .ok()?
        .ok()
}

/// Informs the engine if a call to the state failed while a response was made: it reopens the state, or ends where that is
/// damaged, so that the next start rebuilds it. Queries read parts of the state that the engine may not need for weeks.
pub(super) fn report_failure(inbox: &Inbox, view: &StateView) {
    if view.has_failed() {
        inbox.ask(EngineRequest::ReopenState);
    }
}

/// Runs `work` outside of the server's thread. Returns `None` if it panics.
pub(super) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Option<T>, ThreadError> {
    // The runtime panics where the kernel refuses it a thread, so this asks the kernel first.
    let _ended = spawn("answer", || ())?.join();
    Ok(tokio::task::spawn_blocking(work).await.ok())
}

/// Returns the response that `read` makes outside of the server's thread.
pub(super) async fn run_blocking<
    T: serde::Serialize + Send + 'static,
    E: Display + Send + 'static,
>(
    read: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Response<Full<Bytes>> {
    match on_thread(read).await {
        Ok(Some(Ok(value))) => json(&value),
        Ok(Some(Err(error))) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        Err(error) => text(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("{error}; {THREADS_FIX}"),
        ),
        Ok(None) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal error (panic) while the response was made; please report it",
        ),
    }
}

/// Returns the response for an engine that did not respond in time.
pub(super) fn busy() -> Response<Full<Bytes>> {
    text(
        StatusCode::SERVICE_UNAVAILABLE,
        "the engine did not answer in time: it is stopping, or blocked by its disk",
    )
}

/// Returns a value as a JSON document.
pub(super) fn json(value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(body) => response(StatusCode::OK, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Returns a plain-text response of one line.
pub(crate) fn text(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    let body = format!("{}\n", line.trim_end());
    response(status, "text/plain; charset=utf-8", body)
}

/// Returns a response with this body.
pub(crate) fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
