//! Serves the metrics of a running publisher, on the configured address and on sockets that systemd passes.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::ACCEPT;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use tokio::sync::Semaphore;

use crate::config::ListenAddress;
use crate::http::access::{admit, harden};
use crate::http::listener::{Accepted, Listener, passed_by_systemd};
use crate::http::metrics_text::Format;
use crate::http::response::{response, text};
use crate::http::{ACCEPT_PAUSE, CONNECTIONS_MAX, Endpoint, bind_patiently, bounded};
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
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok(accepted) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move {
            let endpoint = match &accepted {
                Accepted::Unix(_) => Endpoint::Unix,
                Accepted::Tcp(stream) => Endpoint::Tcp(
                    stream
                        .local_addr()
                        .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip()),
                ),
            };
            let service = service_fn(move |request| {
                let metrics = Arc::clone(&metrics);
                async move { Ok::<_, Infallible>(answer(&request, endpoint, &metrics)) }
            });
            match accepted {
                Accepted::Unix(stream) => bounded(stream, service).await,
                Accepted::Tcp(stream) => bounded(stream, service).await,
            }
            drop(place);
        });
    }
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
