//! Owns the sockets that the daemon answers on and the thread that serves them: who may connect, how many at once, how
//! long anything may take. What is answered is `route.rs`'s and `public.rs`'s. It never touches the pipeline: it asks,
//! and waits, and says so where no answer comes. It is up before the engine is, and while the engine is stuck.

pub(crate) mod access;
pub(crate) mod control_routes;
pub(crate) mod handlers;
pub(crate) mod listener;
mod metrics;
pub mod metrics_text;
pub(crate) mod public_routes;
pub mod response;
pub(crate) mod status_cache;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, oneshot};

use crate::config::ListenAddress;
use crate::query::control::ControlSocket;
pub use access::Endpoint;
use listener::{Accepted, Listener};
pub use status_cache::StatusCache;

pub use control_routes::QueryContext;

/// Connections served at once on each socket; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 32;
/// A client that has not sent its request's head by then is hung up on.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// A longer head is refused.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// After this a connection takes no further request, so that nobody keeps a place for ever.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(60);
/// A client that has not read its answer by then is hung up on.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
/// Pause after the kernel refused a connection: most likely all descriptors are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Pause before an address that was in use, or a control socket that could not be made, is tried again.
const BIND_PAUSE: Duration = Duration::from_secs(5);

/// The control socket, or none where it could not be made; and its state directory.
type Control = (Option<ControlSocket>, PathBuf);

/// The thread that serves. It ends when this is dropped, with every connection.
#[derive(Debug)]
pub struct Server {
    control: Option<oneshot::Sender<Control>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves on the address, if there is one, and on the sockets that systemd passed.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(address: Option<ListenAddress>, desk: Arc<StatusCache>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .enable_io()
            .build()?;
        let (control, control_given) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            runtime.block_on(async {
                // Whatever is not finished when it is told to stop ends with the runtime.
                tokio::select! {
                    () = serve_all(address, control_given, desk) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("serve".into());
        Ok(Self {
            control: Some(control),
            stop: Some(stop),
            thread: Some(thread.spawn(serve)?),
        })
    }

    /// Serves on the control socket, too; where it could not be made, as soon as it can be.
    pub fn add_control(&mut self, socket: Option<ControlSocket>, state_dir: &Path) {
        if let Some(control) = self.control.take() {
            // It is dropped where nobody serves any more.
            let _ = control.send((socket, state_dir.to_owned()));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its panic, if any, has been printed, and harmed nothing but the answers.
            let _ = thread.join();
        }
    }
}

async fn serve_all(
    address: Option<ListenAddress>,
    control: oneshot::Receiver<Control>,
    desk: Arc<StatusCache>,
) {
    for listener in listener::passed_by_systemd() {
        tracing::info!(%listener, "serving, on a socket passed by systemd");
        tokio::spawn(serve_one(listener, false, Arc::clone(&desk)));
    }
    if let Some(address) = address {
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            let listener = bind_patiently(&address).await;
            tracing::info!(%listener, "serving");
            serve_one(listener, false, desk).await;
        });
    }
    let Ok((socket, state_dir)) = control.await else {
        return std::future::pending().await;
    };
    let socket = match socket {
        Some(socket) => socket,
        None => bind_later(&state_dir).await,
    };
    match socket.listener().and_then(Listener::unix) {
        Ok(listener) => serve_one(listener, true, desk).await,
        Err(error) => {
            tracing::warn!(%error, "the control socket cannot be served");
            std::future::pending().await
        }
    }
}

/// What kept the control socket from being made, such as a full disk, may be over some time.
async fn bind_later(state_dir: &Path) -> ControlSocket {
    loop {
        tokio::time::sleep(BIND_PAUSE).await;
        if let Ok(socket) = ControlSocket::try_bind(state_dir) {
            tracing::info!("questions are answered on the control socket now");
            return socket;
        }
    }
}

/// A port that somebody else has is no reason to stop distilling.
async fn bind_patiently(address: &ListenAddress) -> Listener {
    let mut said = false;
    loop {
        match Listener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => {
                if !said {
                    tracing::error!(%address, %error, "cannot listen, trying on; see who has the address, or change `listen`");
                    said = true;
                }
                tokio::time::sleep(BIND_PAUSE).await;
            }
        }
    }
}

async fn serve_one(listener: Listener, is_control: bool, desk: Arc<StatusCache>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let accepted = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "connection refused");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            match accepted {
                Accepted::Unix(stream) if is_control => {
                    connection(stream, Endpoint::Control, desk).await;
                }
                Accepted::Unix(stream) => connection(stream, Endpoint::Unix, desk).await,
                Accepted::Tcp(stream) => {
                    let own = stream.local_addr().map(|address| address.ip());
                    let own = own.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
                    connection(stream, Endpoint::Tcp(own), desk).await;
                }
            }
            drop(place);
        });
    }
}

/// Serves a connection that came in by a door, until it ends: for whoever accepts by other means than [`Server`].
pub async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    door: Endpoint,
    desk: Arc<StatusCache>,
) {
    let service = service_fn(move |request| {
        let desk = Arc::clone(&desk);
        async move { Ok::<_, Infallible>(answer(&request, door, &desk).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        // Whatever stands behind a request is not read: hyper 1.12 may answer it in the middle of another answer.
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => Some(ended),
        () = tokio::time::sleep(CONNECTION_AGE_MAX) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            served.as_mut().graceful_shutdown();
            match tokio::time::timeout(ANSWER_PATIENCE, served).await {
                Ok(ended) => ended,
                Err(_) => {
                    tracing::debug!("a client that does not read its answer was hung up on");
                    return;
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

/// What is answered to a request that came in by this door.
async fn answer(
    request: &Request<Incoming>,
    door: Endpoint,
    desk: &StatusCache,
) -> Response<Full<Bytes>> {
    let mut response = match access::admit(request, door) {
        Ok(()) => admitted(request, door, desk).await,
        Err((status, why)) => public_routes::text(status, why),
    };
    access::harden(response.headers_mut());
    response
}

async fn admitted(
    request: &Request<Incoming>,
    door: Endpoint,
    desk: &StatusCache,
) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let from_the_engine = control_routes::answer(request, desk.wake(), desk.answering());
    // On the control socket a status is of this moment, never of one before; and it alone takes more than reading.
    if door == Endpoint::Control && (path == "/status.json" || !access::reads(request.method())) {
        return from_the_engine.await;
    }
    if let Some(answer) = public_routes::answer(path, request.headers(), desk).await {
        return answer;
    }
    if door == Endpoint::Control {
        return from_the_engine.await;
    }
    if public_routes::SHARED_PATHS.contains(&path) {
        return desk.document(path, from_the_engine).await;
    }
    public_routes::text(
        StatusCode::NOT_FOUND,
        "there is nothing here; see /, /metrics, /healthz, /readyz and /status.json",
    )
}
