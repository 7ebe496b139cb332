//! FIXME: http::response

use crate::daemon::inbox::Inbox;
use crate::daemon::requests::{EngineRequest, Snapshot};
use crate::http::control_routes::*;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::oneshot;

/// The moment between this pass and the next; `None` where the engine's thread does not get there in time.
pub(crate) async fn snapshot(wake: &Inbox) -> Option<Snapshot> {
    let (reply, answered) = oneshot::channel();
    wake.ask(EngineRequest::Snapshot(reply));
    tokio::time::timeout(SNAPSHOT_PATIENCE, answered)
        .await
        .ok()?
        .ok()
}

pub(crate) fn busy() -> Response<Full<Bytes>> {
    text(
        StatusCode::SERVICE_UNAVAILABLE,
        "the engine did not answer in time: it is stopping, or blocked by its disk\n",
    )
}

pub(crate) fn json(value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(body) => response(StatusCode::OK, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

pub(crate) fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", body.to_owned().into())
}

pub(crate) fn response(
    status: StatusCode,
    content_type: &'static str,
    body: Vec<u8>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
