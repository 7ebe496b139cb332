//! Owns which path gives what. Every answer is made of one snapshot; what is read for it is read beside the pipeline.

mod questions;

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::oneshot;

use crate::ask::{Question, Snapshot};
use crate::wake::Wake;
use questions::Asked;

pub use questions::Answering;
pub(super) use questions::complete;

/// How long the engine's thread may take to be between two passes.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(5);

/// What is answered to a request.
pub(super) async fn answer(
    request: &Request<Incoming>,
    wake: &Arc<Wake>,
    answering: &Arc<Answering>,
) -> Response<Full<Bytes>> {
    let asked = Asked::of(request.uri());
    // What is asked for with HEAD is answered as to GET; the body stays behind on the way out.
    let method = match *request.method() {
        Method::HEAD => &Method::GET,
        ref method => method,
    };
    match (method, request.uri().path()) {
        (&Method::GET, "/status.json") => questions::status(wake, answering).await,
        (&Method::GET, "/recent.json") => questions::recent(wake).await,
        (&Method::GET, "/explain.json") => questions::explain(wake, answering, asked).await,
        (&Method::GET, "/contradicted.json") => {
            questions::contradicted(wake, answering, asked).await
        }
        (&Method::GET, "/dead-letters.json") => questions::letters(wake, answering, asked).await,
        (&Method::GET, "/plan.json") => questions::plan(wake, answering).await,
        (&Method::POST, "/dead-letters/retry") => questions::retry(wake, asked).await,
        (&Method::GET, _) => text(StatusCode::NOT_FOUND, "there is nothing here\n"),
        _ => text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are answered\n",
        ),
    }
}

/// The moment between this pass and the next; `None` where the engine's thread does not get there in time.
async fn snapshot(wake: &Wake) -> Option<Snapshot> {
    let (reply, answered) = oneshot::channel();
    wake.ask(Question::Snapshot(reply));
    tokio::time::timeout(SNAPSHOT_PATIENCE, answered)
        .await
        .ok()?
        .ok()
}

fn busy() -> Response<Full<Bytes>> {
    text(
        StatusCode::SERVICE_UNAVAILABLE,
        "the engine did not answer in time: it is stopping, or blocked by its disk\n",
    )
}

fn json(value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(body) => response(StatusCode::OK, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", body.to_owned().into())
}

fn response(
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
