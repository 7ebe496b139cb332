//! Routes that every client may read: the status page, health, metrics and their documents. All other routes belong to
//! the control socket.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::ACCEPT;
use hyper::{HeaderMap, Response, StatusCode};

use crate::http::instances;
use crate::http::metrics;
use crate::http::metrics_text::Format;
use crate::http::response::{json, response, text};
use crate::http::status_cache::{EngineHealth, StatusCache, WAITED};
use crate::query::instances::HEALTH_ROUTE;
use crate::query::status::Status;

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Files of the status page: path, content type, content.
const PAGE: [(&str, &str, &str); 9] = [
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("page/index.html"),
    ),
    (
        "/page.css",
        "text/css; charset=utf-8",
        include_str!("page/page.css"),
    ),
    ("/page.js", JAVASCRIPT, include_str!("page/page.js")),
    ("/details.js", JAVASCRIPT, include_str!("page/details.js")),
    (
        "/instances.js",
        JAVASCRIPT,
        include_str!("page/instances.js"),
    ),
    ("/plot.js", JAVASCRIPT, include_str!("page/plot.js")),
    ("/table.js", JAVASCRIPT, include_str!("page/table.js")),
    ("/text.js", JAVASCRIPT, include_str!("page/text.js")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

/// Routes of the control socket that every client may read too.
pub(super) const SHARED_PATHS: [&str; 4] = [
    "/recent.json",
    "/waiting.json",
    "/malformed.json",
    "/retracted.json",
];

/// Returns the response for a public path, or `None` for any other path.
pub(super) async fn answer(
    path: &str,
    headers: &HeaderMap,
    cache: &StatusCache,
) -> Option<Response<Full<Bytes>>> {
    if let Some((_, content_type, body)) = PAGE.iter().find(|(served, ..)| *served == path) {
        return Some(response(StatusCode::OK, content_type, body.as_bytes()));
    }
    Some(match path {
        "/healthz" => match cache.engine().await.alive() {
            Ok(line) => text(StatusCode::OK, line),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
        },
        "/readyz" => {
            let health = cache.engine().await.health();
            let code = match health.verdict.is_ready() {
                true => StatusCode::OK,
                false => StatusCode::SERVICE_UNAVAILABLE,
            };
            text(code, &health.to_string())
        }
        "/status.json" => status(cache).await,
        HEALTH_ROUTE => json(&instances::own(cache).await),
        instances::ROUTE => {
            let listed = instances::listed(cache);
            cache.document(instances::ROUTE, WAITED, listed).await
        }
        "/metrics" => {
            let format = Format::wanted(headers.get_all(ACCEPT).iter());
            let body = metrics::text(&cache.engine().await, cache.metrics(), format);
            response(StatusCode::OK, format.content_type(), body)
        }
        _ => return None,
    })
}

/// Returns the status document. If the engine does not respond this is its last known status with code 503.
async fn status(cache: &StatusCache) -> Response<Full<Bytes>> {
    let engine = cache.engine().await;
    let code = match &engine {
        EngineHealth::Responsive(_) => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let status = Status {
        process: Some(cache.answering().process.clone()),
        ..engine.status()
    };
    match serde_json::to_vec(&status) {
        Ok(body) => response(code, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}
