//! Builds HTTP responses, and fetches the snapshot of the engine that most of them are made from.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::oneshot;

use crate::daemon::inbox::Inbox;
use crate::daemon::requests::{EngineRequest, Snapshot};

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
