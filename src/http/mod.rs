//! The HTTP server of the daemon: the thread that serves all sockets, and its limits on connections and time. The
//! responses are made in `public_routes` and `handlers`. The server never touches the pipeline: it sends requests
//! to the engine's thread and reports a timeout where no response comes. It starts before the engine and keeps
//! answering while the engine is stuck.

pub(crate) mod access;
mod details;
pub(crate) mod handlers;
mod instances;
pub(crate) mod listener;
mod metrics;
pub mod metrics_text;
pub(crate) mod public_routes;
mod request_body;
pub(crate) mod response;
mod rows;
pub(crate) mod status_cache;

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::{HttpService, service_fn};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::config::ListenAddress;
use crate::platform::background::spawn;
use crate::query::control::ControlSocket;
pub use access::{Client, Endpoint};
use listener::{Accepted, Listener};
pub use status_cache::StatusCache;

pub use handlers::QueryContext;

/// Connections served at once on each socket; more wait in the kernel's queue. On the control socket these are of the
/// daemon's user and root.
const CONNECTIONS_MAX: usize = 32;
/// Connections of other users served at once on the control socket.
const READERS_MAX: usize = 32;
/// Connections of other users that wait for one of these places; further ones are closed. They do not wait in the
/// kernel's queue, where they would keep the operator out.
const READERS_WAITING_MAX: usize = 64;
/// Time in which a client must send the head of its request; after that the connection is closed.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// Maximum size of a request's head; a longer one is rejected.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Maximum age of a connection, so that no client occupies a slot without end.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(60);
/// Time in which a client must read its response after the maximum age; after that the connection is closed.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
/// Pause after a failed accept, which most likely means that all file descriptors are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Pause before another attempt to bind an address that is in use or to create the control socket.
const BIND_PAUSE: Duration = Duration::from_secs(5);

/// The control socket, `None` where it could not be created, its state directory, and the export.
type Control = (Option<ControlSocket>, PathBuf, PathBuf);

/// The server's thread. Dropping the server ends the thread and closes every connection.
#[derive(Debug)]
pub struct Server {
    control: Option<oneshot::Sender<Control>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a thread that serves the given address, if any, and the sockets that systemd passed.
    ///
    /// # Errors
    /// The thread or its runtime cannot be created.
    pub fn start(address: Option<ListenAddress>, cache: Arc<StatusCache>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .enable_io()
            .build()?;
        let (control, control_given) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            runtime.block_on(async {
                // Unfinished connections end with the runtime.
                tokio::select! {
                    () = serve_all(address, control_given, cache) => {}
                    _ = stopped => {}
                }
            });
        };
        Ok(Self {
            control: Some(control),
            stop: Some(stop),
            thread: Some(spawn("serve", serve)?),
        })
    }

    /// Serves the control socket in `state_dir` too, for the user of the daemon and the group of the export. A socket
    /// that cannot be created is tried again.
    pub fn add_control(&mut self, state_dir: &Path, export: &Path) {
        if let Some(control) = self.control.take() {
            let socket = ControlSocket::bind(state_dir, export);
            // The send fails only if the thread has ended; the socket is dropped then.
            let _ = control.send((socket, state_dir.to_owned(), export.to_owned()));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was already printed, and it concerned responses alone.
            let _ = thread.join();
        }
    }
}

async fn serve_all(
    address: Option<ListenAddress>,
    control: oneshot::Receiver<Control>,
    cache: Arc<StatusCache>,
) {
    for listener in listener::passed_by_systemd() {
        tracing::info!(%listener, "serving HTTP on {listener}, a socket passed by systemd");
        tokio::spawn(serve_one(listener, false, Arc::clone(&cache)));
    }
    if let Some(address) = address {
        let cache = Arc::clone(&cache);
        tokio::spawn(async move {
            let listener = bind_patiently(&address).await;
            tracing::info!(%listener, "serving HTTP on {listener}");
            serve_one(listener, false, cache).await;
        });
    }
    let Ok((socket, state_dir, export)) = control.await else {
        return std::future::pending().await;
    };
    let socket = match socket {
        Some(socket) => socket,
        None => bind_later(&state_dir, &export).await,
    };
    match socket.listener().and_then(Listener::unix) {
        Ok(listener) => serve_one(listener, true, cache).await,
        Err(error) => {
            tracing::warn!(%error, "cannot serve the control socket ({error}); commands fall back to the published status");
            std::future::pending().await
        }
    }
}

/// Retries to create the control socket until the cause of the failure, such as a full disk, has ended.
async fn bind_later(state_dir: &Path, export: &Path) -> ControlSocket {
    loop {
        tokio::time::sleep(BIND_PAUSE).await;
        if let Ok(socket) = ControlSocket::try_bind(state_dir, export) {
            tracing::info!("control socket ready");
            return socket;
        }
    }
}

/// Retries to bind the address: a port that another process holds must not stop the pipeline. Logs the first failure.
pub(crate) async fn bind_patiently(address: &ListenAddress) -> Listener {
    let mut logged = false;
    loop {
        match Listener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => {
                if !logged {
                    tracing::error!(%address, %error, "cannot listen on {address} ({error}), retrying every {} s; free the address or change `listen`", BIND_PAUSE.as_secs());
                    logged = true;
                }
                tokio::time::sleep(BIND_PAUSE).await;
            }
        }
    }
}

async fn serve_one(listener: Listener, is_control: bool, cache: Arc<StatusCache>) {
    if !is_control {
        cache.add_page(listener.to_string());
    }
    let readers = Readers::default();
    accept_each(listener, |accepted, place| {
        let (cache, readers) = (Arc::clone(&cache), readers.clone());
        async move {
            let endpoint = accepted.endpoint();
            match accepted {
                Accepted::Unix(stream) if is_control => {
                    let client = access::client_of(&stream);
                    if let Some(_place) = readers.place_for(client, place).await {
                        connection(stream, Endpoint::Control(client), cache).await;
                    }
                }
                Accepted::Unix(stream) => connection(stream, endpoint, cache).await,
                Accepted::Tcp(stream) => connection(stream, endpoint, cache).await,
            }
        }
    })
    .await;
}

/// The places of users who only read on the control socket. They have places of their own, so that none of them keeps the
/// operator from asking and changing.
#[derive(Debug, Clone)]
struct Readers {
    places: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Default for Readers {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(READERS_MAX)),
            waiting: Arc::new(Semaphore::new(READERS_WAITING_MAX)),
        }
    }
}

impl Readers {
    /// Returns the place in which a client is served: the operator's is that of the connection, which a reader gives back.
    /// Without one, too many readers wait.
    async fn place_for(
        &self,
        client: Client,
        place: OwnedSemaphorePermit,
    ) -> Option<OwnedSemaphorePermit> {
        if client == Client::Owner {
            return Some(place);
        }
        drop(place);
        let _waiting = Arc::clone(&self.waiting).try_acquire_owned().ok()?;
        Arc::clone(&self.places).acquire_owned().await.ok()
    }
}

/// Accepts connections and serves each by `serve`, which holds the place of the connection: as many are accepted as there
/// are places.
pub(crate) async fn accept_each<F>(
    listener: Listener,
    serve: impl Fn(Accepted, OwnedSemaphorePermit) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok(accepted) => drop(tokio::spawn(serve(accepted, place))),
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection ({error})");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one accepted connection until it ends. Callers other than [`Server`] accept connections by their own means.
pub async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    endpoint: Endpoint,
    cache: Arc<StatusCache>,
) {
    let service = service_fn(move |request| {
        let cache = Arc::clone(&cache);
        async move { Ok::<_, Infallible>(answer(request, endpoint, &cache).await) }
    });
    bounded(stream, service).await;
}

/// Serves one request of a connection, with limits on its size and its time.
pub(crate) async fn bounded<S>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: S,
) where
    S: HttpService<Incoming, ResBody = Full<Bytes>, Error = Infallible>,
{
    let served = hyper::server::conn::http1::Builder::new()
        // One request per connection: hyper 1.12 may answer pipelined bytes in the middle of another response.
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
                    tracing::debug!(
                        "closed the connection of a client that does not read its response"
                    );
                    return;
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early ({error})");
    }
}

/// Returns the response to a request that arrived at this endpoint.
async fn answer(
    request: Request<Incoming>,
    endpoint: Endpoint,
    cache: &StatusCache,
) -> Response<Full<Bytes>> {
    let mut response = match access::admit(&request, endpoint) {
        Ok(()) => admitted(request, endpoint, cache).await,
        Err((status, why)) => response::text(status, &why),
    };
    access::harden(response.headers_mut());
    response
}

async fn admitted(
    request: Request<Incoming>,
    endpoint: Endpoint,
    cache: &StatusCache,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let path = path.as_str();
    let (headers, is_read) = (request.headers().clone(), access::reads(request.method()));
    if let Some(stopped) = cache.stopped().filter(|_| endpoint.is_control()) {
        // No engine answers any more.
        let shown = public_routes::answer(path, &headers, cache).await;
        return shown.unwrap_or_else(|| {
            let health = &stopped.health;
            let fix = health.fix.as_deref().unwrap_or_default();
            response::text(
                StatusCode::SERVICE_UNAVAILABLE,
                &format!("the daemon is {health}; {fix}"),
            )
        });
    }
    let from_engine = handlers::answer(request, cache.wake(), cache.answering());
    // The control socket never returns a cached status, and it alone accepts requests that change something.
    if endpoint.is_control() && (path == "/status.json" || !is_read) {
        return from_engine.await;
    }
    if let Some(answer) = public_routes::answer(path, &headers, cache).await {
        return answer;
    }
    if endpoint.is_control() {
        return from_engine.await;
    }
    if let Some(path) = public_routes::SHARED_PATHS.iter().find(|it| **it == path) {
        return cache
            .document(path, status_cache::WORKED, from_engine)
            .await;
    }
    response::text(
        StatusCode::NOT_FOUND,
        "not found; this server has /, /metrics, /healthz, /readyz and /status.json",
    )
}
