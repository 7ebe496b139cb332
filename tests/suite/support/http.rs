//! A minimal client for the daemon's sockets: bytes out, bytes in, so that a test can also send what no well-behaved
//! client would. Every wait has a deadline.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use super::kill_harness::{Daemon, wait_until};
use super::process::{Bench, LONG};

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The head, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Parses the body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Connects with a deadline for every operation.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, LONG).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_write_timeout(Some(LONG)).unwrap();
    stream
}

/// Sends a request and reads its answer: up to the length in its head, or to the end of the connection.
pub fn exchange(mut stream: impl Read + Write, request: &str) -> io::Result<Answer> {
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    let mut some = vec![0; 64 << 10];
    while !is_whole(&bytes) {
        match stream.read(&mut some) {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(&some[..read]),
            // After the host was frozen.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::other(format!("no answer: {text:?}")))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Answer {
        status: status.ok_or_else(|| io::Error::other(format!("no status: {head}")))?,
        head: head.to_lowercase(),
        body: body.to_owned(),
    })
}

/// Returns whether the head names a length, and the body is complete.
fn is_whole(bytes: &[u8]) -> bool {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let len = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let len = len.and_then(|len| len.trim().parse::<usize>().ok());
    len.is_some_and(|len| bytes.len() >= end + 4 + len)
}

/// Returns a request that ends its connection.
pub fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n")
}

/// Sends GET with the loopback host name.
pub fn get(address: SocketAddr, path: &str) -> Answer {
    get_with(address, path, "Host: localhost\r\n")
}

/// Sends GET with additional headers.
pub fn get_with(address: SocketAddr, path: &str, headers: &str) -> Answer {
    exchange(connect(address), &request(path, headers)).unwrap()
}

/// Sends GET on a Unix socket.
pub fn get_unix(socket: &Path, path: &str, host: &str) -> Answer {
    let stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    exchange(stream, &request(path, &format!("Host: {host}\r\n"))).unwrap()
}

impl Bench {
    /// Starts a daemon that listens on a free port, caught up; returns it and its address.
    pub fn listening(&self) -> (Daemon, SocketAddr) {
        self.listening_by(&mut self.command(&["run", "--listen", "127.0.0.1:0"]))
    }

    /// As [`Self::listening`], with another command.
    pub fn listening_by(&self, command: &mut Command) -> (Daemon, SocketAddr) {
        let log_before = self.log_text().len();
        let daemon = self.catch_up(command);
        (daemon, self.listener(log_before))
    }

    /// Waits until the log names, after this many bytes of it, the address at which a daemon listens.
    pub fn listener(&self, log_before: usize) -> SocketAddr {
        let mut address = None;
        let is_named = || {
            let log = self.log_text();
            let mut named = log[log_before..].split("listener=").skip(1);
            address = named.find_map(|rest| rest.split_whitespace().next()?.parse().ok());
            Ok(address.is_some())
        };
        assert!(wait_until(LONG, is_named).unwrap(), "{}", self.log_text());
        address.unwrap()
    }

    /// Waits for an answer that satisfies a condition.
    pub fn wait_answer(
        &self,
        daemon: &mut Daemon,
        address: SocketAddr,
        path: &str,
        what: &str,
        mut will_do: impl FnMut(&Answer) -> bool,
    ) -> Answer {
        let mut last = None;
        self.wait_for(daemon, what, || {
            let answer = get(address, path);
            let done = will_do(&answer);
            last = Some(answer);
            done
        });
        last.unwrap()
    }
}

/// Returns the value of one metric, labels included in its name.
pub fn metric(text: &str, name: &str) -> Option<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.split(' ').next()?.parse().ok())
}

/// Returns the sum of a metric over all labels that contain `label`.
pub fn metric_sum(text: &str, name: &str, label: &str) -> f64 {
    let lines = text.lines().filter_map(|line| {
        let (labels, value) = line
            .strip_prefix(name)?
            .strip_prefix('{')?
            .rsplit_once("} ")?;
        labels
            .contains(label)
            .then(|| value.parse::<f64>().unwrap())
    });
    lines.sum()
}
