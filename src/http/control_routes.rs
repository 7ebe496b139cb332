//! Routes of the control socket. Each response is made from one snapshot of the engine.

use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};

use crate::daemon::inbox::Inbox;
use crate::http::handlers::{self, QueryContext, QueryParams};
use crate::http::response::text;

/// Returns the response to a request on the control socket.
pub(super) async fn answer(
    request: &Request<Incoming>,
    inbox: &Arc<Inbox>,
    context: &Arc<QueryContext>,
) -> Response<Full<Bytes>> {
    let params = QueryParams::from_uri(request.uri());
    // HEAD is handled as GET; hyper omits the body.
    let method = match *request.method() {
        Method::HEAD => &Method::GET,
        ref method => method,
    };
    match (method, request.uri().path()) {
        (&Method::GET, "/status.json") => handlers::status(inbox, context).await,
        (&Method::GET, "/recent.json") => handlers::recent(inbox).await,
        (&Method::GET, "/explain.json") => handlers::explain(inbox, context, params).await,
        (&Method::GET, "/contradicted.json") => {
            handlers::contradicted(inbox, context, params).await
        }
        (&Method::GET, "/deleted-rows.json") => {
            handlers::deleted_rows(inbox, context, params).await
        }
        (&Method::GET, "/dead-letters.json") => {
            handlers::dead_letters(inbox, context, params).await
        }
        (&Method::GET, "/plan.json") => handlers::plan(inbox, context).await,
        (&Method::POST, "/dead-letters/retry") => handlers::retry(inbox, params).await,
        (&Method::GET, _) => text(StatusCode::NOT_FOUND, "not found"),
        _ => text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are answered",
        ),
    }
}
