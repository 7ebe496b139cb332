//! A command's request to the daemon on the same root, by its control socket. If no daemon answers, the error lets
//! the caller read the files instead.

use std::io;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;

pub use crate::query::control_socket::{ControlSocket, socket_path};

/// The response of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code of HTTP.
    pub status: StatusCode,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No process listens on the socket.
    #[error("no daemon answers on its control socket: {0}; it is starting, or a rebuild")]
    Unreachable(#[source] io::Error),
    /// The daemon hung up, or spoke something else.
    #[error("the daemon's answer broke off: {0}")]
    Broken(#[from] hyper::Error),
    /// It took too long.
    #[error(
        "the daemon did not answer within {} s; it is stopped (SIGSTOP, a frozen cgroup) or blocked by its disk", .0.as_secs()
    )]
    Late(Duration),
}

/// Maximum time in which a daemon answers that it is alive: its server has the page in memory and
/// asks no other thread for it.
const ALIVE_PATIENCE: Duration = Duration::from_secs(5);

/// Time without an answer after which the daemon is asked, repeatedly, whether it is alive.
const ALIVE_PAUSE: Duration = Duration::from_secs(2);

/// Sends a request to the daemon with this state directory. `path` includes the percent-encoded query; `patience` is
/// the maximum wait for the whole response. A longer one than [`ALIVE_PATIENCE`] ends early if the daemon does not even
/// answer that it is alive.
///
/// # Errors
/// See [`ControlError`].
pub fn ask(
    state_dir: &Path,
    method: Method,
    path: &str,
    patience: Duration,
) -> Result<Answer, ControlError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ControlError::Unreachable)?;
    let answer = async {
        tokio::select! {
            answer = in_time(patience, exchange(state_dir, method, path)) => answer,
            error = hang(state_dir), if patience > ALIVE_PATIENCE => Err(error),
        }
    };
    runtime.block_on(answer)
}

async fn in_time<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, ControlError>>,
) -> Result<T, ControlError> {
    let done = tokio::time::timeout(patience, work).await;
    done.map_err(|_| ControlError::Late(patience))?
}

/// Returns once the daemon does not answer that it is alive. Logs once that the answer takes long.
async fn hang(state_dir: &Path) -> ControlError {
    let mut is_logged = false;
    loop {
        tokio::time::sleep(ALIVE_PAUSE).await;
        let alive = exchange(state_dir, Method::HEAD, "/");
        if let Err(error @ ControlError::Late(_)) = in_time(ALIVE_PATIENCE, alive).await {
            return error;
        }
        if !is_logged {
            is_logged = true;
            tracing::info!(
                "waiting for the answer of the daemon, which is alive and reads its files"
            );
        }
    }
}

async fn exchange(state_dir: &Path, method: Method, path: &str) -> Result<Answer, ControlError> {
    let stream = ControlSocket::connect(state_dir)
        .await
        .map_err(ControlError::Unreachable)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Its error reaches us through the request.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(hyper::header::HOST, "localhost")
        .body(Empty::<Bytes>::new())
        .expect("callers encode their paths");
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes().to_vec();
    Ok(Answer { status, body })
}
