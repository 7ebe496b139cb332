//! Owns what is served to everyone who may connect: the page, health, metrics and the documents behind them. Reading
//! only, and only what is listed here; everything else there is belongs to the control socket.

use crate::http::metrics_text;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};

use crate::http::metrics;
use crate::http::status_cache::StatusCache;

/// What the page is made of: path, type, bytes.
const PAGE: [(&str, &str, &str); 4] = [
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
    (
        "/page.js",
        "text/javascript; charset=utf-8",
        include_str!("page/page.js"),
    ),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

/// Documents of the control socket that everyone may read, too.
pub(super) const SHARED_PATHS: [&str; 1] = ["/recent.json"];

/// The answer for a path that is served to everyone; `None` for any other.
pub(super) async fn answer(
    path: &str,
    headers: &HeaderMap,
    desk: &StatusCache,
) -> Option<Response<Full<Bytes>>> {
    if let Some((_, content_type, body)) = PAGE.iter().find(|(served, ..)| *served == path) {
        return Some(response(
            StatusCode::OK,
            content_type,
            Bytes::from_static(body.as_bytes()),
        ));
    }
    Some(match path {
        "/healthz" => match desk.engine().await.alive() {
            Ok(said) => text(StatusCode::OK, said),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
        },
        "/readyz" => match desk.engine().await.ready() {
            Ok(()) => text(StatusCode::OK, "ready: the export is fresh"),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, &why),
        },
        "/status.json" => status(desk).await,
        "/metrics" => {
            let format = metrics_text::Format::wanted(headers.get_all(ACCEPT).iter());
            let body = metrics::text(&desk.engine().await, desk.meters(), format);
            response(StatusCode::OK, format.content_type(), body.into())
        }
        _ => return None,
    })
}

/// Where the engine's thread does not answer, the last it said, marked by the code as old.
async fn status(desk: &StatusCache) -> Response<Full<Bytes>> {
    let engine = desk.engine().await;
    let code = match &engine {
        crate::http::status_cache::EngineHealth::Responsive(_) => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    match engine.document() {
        Ok(body) => response(code, "application/json", body.into()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// One line for a person.
pub(super) fn text(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    let body = format!("{}\n", line.trim_end());
    response(status, "text/plain; charset=utf-8", body.into())
}

fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
