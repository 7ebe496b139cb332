//! Owns the sockets that the daemon answers on: who may connect, how many at once, how long a request may take. What
//! is answered is `serve/route.rs`'s. It never touches the pipeline: it asks, and waits, and says so where no answer comes.

mod route;

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::fs::{Mode, OFlags};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::wake::Wake;
use route::answer;

pub use route::Answering;

/// Name of the control socket in the state directory.
const CONTROL_SOCKET: &str = "control.sock";
/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 32;
/// A client that has not sent its request's head by then is hung up on.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// Pause after the kernel refused a connection: most likely all descriptors are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The socket on which the daemon answers commands of its own user; it goes when the daemon does.
#[derive(Debug)]
pub struct ControlSocket {
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Listens in a state directory whose lock is held: whatever socket is there was left by a daemon that is gone.
    /// Where that cannot be, it is said once, and commands read the files instead.
    #[must_use]
    pub fn bind(state_dir: &Path) -> Option<Self> {
        match Self::try_bind(state_dir) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(state_dir = %state_dir.display(), %error, "no control socket: commands see this daemon's published status alone");
                None
            }
        }
    }

    fn try_bind(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(CONTROL_SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (_dir, short) = short_path(state_dir)?;
        let listener = std::os::unix::net::UnixListener::bind(short)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path })
    }

    /// Connects to the daemon whose state lies there.
    ///
    /// # Errors
    /// The kernel's, where nobody listens.
    pub async fn connect(state_dir: &Path) -> io::Result<UnixStream> {
        let (_dir, short) = short_path(state_dir)?;
        UnixStream::connect(short).await
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // One that stays is replaced by the next daemon, and refuses connections until then.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A name for the socket that fits the 108 bytes of an address however deep the state directory lies. It holds as
/// long as the descriptor does.
fn short_path(state_dir: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(state_dir, flags, Mode::empty())?;
    let short = format!("/proc/self/fd/{}/{CONTROL_SOCKET}", dir.as_raw_fd());
    Ok((dir, short.into()))
}

/// Answers on the control socket until it is dropped.
pub async fn serve(socket: ControlSocket, wake: Arc<Wake>, answering: Arc<Answering>) {
    let listener = match socket.listener.try_clone().and_then(UnixListener::from_std) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, "the control socket cannot be served");
            return;
        }
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (wake, answering) = (Arc::clone(&wake), Arc::clone(&answering));
                tokio::spawn(async move {
                    connection(stream, wake, answering).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "connection refused");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, wake: Arc<Wake>, answering: Arc<Answering>) {
    let service = service_fn(move |request| {
        let (wake, answering) = (Arc::clone(&wake), Arc::clone(&answering));
        async move { Ok::<_, Infallible>(answer(&request, &wake, &answering).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended early");
    }
}
