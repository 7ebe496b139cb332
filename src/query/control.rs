//! A command's request to the daemon on the same root, by its control socket. If no daemon answers, the error lets
//! the caller read the files instead.

use std::io;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;

use crate::lake::path::PairPath;
pub use crate::query::control_socket::{ControlSocket, socket_path};

/// The response of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code of HTTP.
    pub status: StatusCode,
    /// The body.
    pub body: Vec<u8>,
}

/// Returns the query parameter of a day-file, each byte that is not plain text percent-encoded.
#[must_use]
pub fn day_file_parameter(path: &PairPath) -> String {
    let encoded: String = form_urlencoded::byte_serialize(path.as_bytes()).collect();
    format!("day_file={encoded}")
}

/// Returns the decoded names and values of a query string, as bytes: the name of a day-file may be no UTF-8.
#[must_use]
pub fn parameters(query: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let split = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    split
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

/// Decodes a part of a query string. A percent sign without two digits after it is a plain byte.
fn decoded(part: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| char::from(*after.get(at)?).to_digit(16);
        (bytes, rest) = match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                (bytes, &after[2..])
            }
            (byte, ..) => {
                bytes.push(if *byte == b'+' { b' ' } else { *byte });
                (bytes, after)
            }
        };
    }
    bytes
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

/// The route of a question whose answer may be the end of a long wait.
pub const WAIT_ROUTE: &str = "/wait.json";

/// Maximum time in which a daemon answers that it is alive: its server has the page in memory and
/// asks no other thread for it.
const ALIVE_PATIENCE: Duration = Duration::from_secs(5);

/// Time without an answer after which the daemon is asked, repeatedly, whether it is alive.
const ALIVE_PAUSE: Duration = Duration::from_secs(2);

/// Sends a request with a body, which may be empty, to the daemon with this state directory. `path` includes the percent-encoded query; `patience` is
/// the maximum wait for the whole response. A longer one than `ALIVE_PATIENCE` ends early if the daemon does not even
/// answer that it is alive.
///
/// # Errors
/// See [`ControlError`].
pub fn ask(
    state_dir: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
    patience: Duration,
) -> Result<Answer, ControlError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ControlError::Unreachable)?;
    let answer = async {
        tokio::select! {
            answer = in_time(patience, exchange(state_dir, method, path, body)) => answer,
            error = hang(state_dir, !path.starts_with(WAIT_ROUTE)), if patience > ALIVE_PATIENCE => Err(error),
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

/// Returns once the daemon does not answer that it is alive. Logs once that the answer takes long, if that is not expected.
async fn hang(state_dir: &Path, logs: bool) -> ControlError {
    let mut is_logged = !logs;
    loop {
        tokio::time::sleep(ALIVE_PAUSE).await;
        let alive = exchange(state_dir, Method::HEAD, "/", Vec::new());
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

async fn exchange(
    state_dir: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<Answer, ControlError> {
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
        .body(Full::<Bytes>::from(body))
        .expect("callers encode their paths");
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes().to_vec();
    Ok(Answer { status, body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    #[test]
    fn the_bytes_of_a_day_file_survive_a_query() {
        let names = [
            &b"a b+c%41&=\"#.jsonl"[..],
            b"x\xe2\x82\xff.jsonl",
            b"\xc3\xa4.jsonl",
        ];
        for name in names {
            let bytes = [b"2026/01/01/", name].concat();
            let path = PairPath::from_relative(Path::new(OsStr::from_bytes(&bytes))).unwrap();
            let query = format!("limit=1&{}&stream=scored", day_file_parameter(&path));
            let expected = [
                (b"limit".to_vec(), b"1".to_vec()),
                (b"day_file".to_vec(), bytes),
                (b"stream".to_vec(), b"scored".to_vec()),
            ];
            assert_eq!(parameters(&query), expected, "{query}");
            let uri: hyper::Uri = format!("/x?{query}").parse().unwrap();
            assert_eq!(uri.query(), Some(&*query));
        }
    }

    #[test]
    fn a_query_string_is_decoded_as_a_form_is() {
        for query in [
            "",
            "a=%4&b=%zz",
            "day%5ffile=x&&=&a&b==c+%2B&%61=%e4",
            "a=%%41%",
        ] {
            let expected: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let found: Vec<(String, String)> = parameters(query)
                .iter()
                .map(|(name, value)| (text(name), text(value)))
                .collect();
            assert_eq!(found, expected, "{query}");
        }
    }
}
