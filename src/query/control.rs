//! A command's request to the daemon on the same root, by its control socket. If no daemon answers, the error lets
//! the caller read the files instead.

use std::io;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;

pub use crate::query::control_socket::ControlSocket;

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
    #[error("no daemon answers on its control socket: {0}")]
    Unreachable(#[source] io::Error),
    /// The daemon hung up, or spoke something else.
    #[error("the daemon's answer broke off: {0}")]
    Broken(#[from] hyper::Error),
    /// It took too long.
    #[error("the daemon did not answer within {} s; it may be blocked by its disk", .0.as_secs())]
    Late(Duration),
}

/// Sends a request to the daemon with this state directory. `path` includes the percent-encoded query; `patience` is
/// the maximum wait for the whole response.
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
    let answer = async { tokio::time::timeout(patience, exchange(state_dir, method, path)).await };
    runtime
        .block_on(answer)
        .map_err(|_| ControlError::Late(patience))?
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
