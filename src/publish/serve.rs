//! Serves the metrics of a running publisher, on the configured address and on sockets that systemd passes.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::ACCEPT;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};

use crate::config::ListenAddress;
use crate::http::access::{admit, harden};
use crate::http::listener::{Accepted, Listener, passed_by_systemd};
use crate::http::metrics_text::Format;
use crate::http::response::{response, text};
use crate::http::{Endpoint, accept_each, bind_patiently, bounded};
use crate::platform::background::spawn;
use crate::publish::metrics::Metrics;

/// Starts the thread that serves, which ends with the process.
pub(super) fn start(address: Option<ListenAddress>, metrics: Arc<Metrics>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .enable_io()
        .build()?;
    spawn("serve", move || {
        runtime.block_on(async {
            for listener in passed_by_systemd() {
                tokio::spawn(serve_one(listener, Arc::clone(&metrics)));
            }
            if let Some(address) = address {
                let listener = bind_patiently(&address).await;
                tracing::info!(%listener, "serving metrics on {listener}");
                serve_one(listener, metrics).await;
            }
            std::future::pending::<()>().await;
        });
    })?;
    Ok(())
}

async fn serve_one(listener: Listener, metrics: Arc<Metrics>) {
    accept_each(listener, |accepted, place| {
        let endpoint = accepted.endpoint();
        let metrics = Arc::clone(&metrics);
        let service = service_fn(move |request| {
            let metrics = Arc::clone(&metrics);
            async move { Ok::<_, Infallible>(answer(&request, endpoint, &metrics)) }
        });
        async move {
            match accepted {
                Accepted::Unix(stream) => bounded(stream, service).await,
                Accepted::Tcp(stream) => bounded(stream, service).await,
            }
            drop(place);
        }
    })
    .await;
}

fn answer(
    request: &Request<Incoming>,
    endpoint: Endpoint,
    metrics: &Metrics,
) -> Response<Full<Bytes>> {
    let mut answer = match (admit(request, endpoint), request.uri().path()) {
        (Err((status, why)), _) => text(status, &why),
        (Ok(()), "/metrics") => {
            let format = Format::wanted(request.headers().get_all(ACCEPT).iter());
            response(StatusCode::OK, format.content_type(), metrics.text(format))
        }
        (Ok(()), _) => text(StatusCode::NOT_FOUND, "not found; this server has /metrics"),
    };
    harden(answer.headers_mut());
    answer
}
