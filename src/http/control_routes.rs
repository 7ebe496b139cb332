//! Owns which path gives what. Every answer is made of one snapshot; what is read for it is read beside the pipeline.

use crate::http::response::text;

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};

use crate::daemon::inbox::Inbox;
use crate::http::handlers::QueryParams;

pub use crate::http::handlers::QueryContext;
pub(super) use crate::http::handlers::complete;

/// How long the engine's thread may take to be between two passes.
pub(super) const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(5);

/// What is answered to a request.
pub(super) async fn answer(
    request: &Request<Incoming>,
    wake: &Arc<Inbox>,
    answering: &Arc<QueryContext>,
) -> Response<Full<Bytes>> {
    let asked = QueryParams::of(request.uri());
    // What is asked for with HEAD is answered as to GET; the body stays behind on the way out.
    let method = match *request.method() {
        Method::HEAD => &Method::GET,
        ref method => method,
    };
    match (method, request.uri().path()) {
        (&Method::GET, "/status.json") => crate::http::handlers::status(wake, answering).await,
        (&Method::GET, "/recent.json") => crate::http::handlers::recent(wake).await,
        (&Method::GET, "/explain.json") => {
            crate::http::handlers::explain(wake, answering, asked).await
        }
        (&Method::GET, "/contradicted.json") => {
            crate::http::handlers::contradicted(wake, answering, asked).await
        }
        (&Method::GET, "/dead-letters.json") => {
            crate::http::handlers::letters(wake, answering, asked).await
        }
        (&Method::GET, "/plan.json") => crate::http::handlers::plan(wake, answering).await,
        (&Method::POST, "/dead-letters/retry") => crate::http::handlers::retry(wake, asked).await,
        (&Method::GET, _) => text(StatusCode::NOT_FOUND, "there is nothing here\n"),
        _ => text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are answered\n",
        ),
    }
}
