//! Access checks on requests and security headers of responses. Requests for a foreign host name are rejected, so that
//! no web page can read this server by resolving its own name to it (DNS rebinding).

use std::net::IpAddr;

use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Method, Request, StatusCode};
use tokio::net::UnixStream;

use crate::platform::rights::user;

/// The kind of socket at which a connection arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// The socket in the state directory, with a client of its own user or of the group of the export.
    Control(Client),
    /// A Unix socket whose file permissions decide who may connect. Read-only.
    Unix,
    /// TCP at this local address. Read-only; browsers connect here.
    Tcp(IpAddr),
}

impl Endpoint {
    /// Returns whether it is the control socket.
    #[must_use]
    pub fn is_control(self) -> bool {
        matches!(self, Endpoint::Control(_))
    }
}

/// A client of the control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// The user of the daemon, or root.
    Owner,
    /// Another user, who only reads.
    Reader,
}

/// Returns what a client may do, by the user of its process when it connected.
pub(super) fn client_of(stream: &UnixStream) -> Client {
    let own = [0, rustix::process::geteuid().as_raw()];
    match stream.peer_cred() {
        Ok(peer) if own.contains(&peer.uid()) => Client::Owner,
        _ => Client::Reader,
    }
}

/// Returns the rejection of a request that this endpoint must not answer.
pub(crate) fn admit<B>(
    request: &Request<B>,
    endpoint: Endpoint,
) -> Result<(), (StatusCode, String)> {
    let is_read = reads(request.method());
    match endpoint {
        Endpoint::Control(Client::Reader) if !is_read => {
            let user = user(rustix::process::geteuid().as_raw());
            let why = format!(
                "only {user}, the user of the daemon, and root may change something here; run the command with `sudo -u {}`\n",
                user.typed()
            );
            return Err((StatusCode::FORBIDDEN, why));
        }
        Endpoint::Control(_) => return Ok(()),
        _ if !is_read => {
            let why = "this socket is read-only: only GET and HEAD are answered\n".to_owned();
            return Err((StatusCode::METHOD_NOT_ALLOWED, why));
        }
        _ => {}
    }
    let Endpoint::Tcp(own) = endpoint else {
        return Ok(());
    };
    let named = named_hosts(request).filter(|names| !names.is_empty());
    match named {
        None => Err((
            StatusCode::BAD_REQUEST,
            "the request has no usable Host header\n".to_owned(),
        )),
        Some(names) if names.iter().all(|name| is_local(name, own)) => Ok(()),
        Some(_) => Err((
            StatusCode::MISDIRECTED_REQUEST,
            "wrong host name: use localhost or the loopback address\n".to_owned(),
        )),
    }
}

/// Returns whether a method only reads.
pub(super) fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Returns every host that the request names in its target or headers, or `None` if one cannot be parsed.
fn named_hosts<B>(request: &Request<B>) -> Option<Vec<Authority>> {
    let target = request.uri().authority().cloned().map(Ok);
    let headers = request.headers().get_all(HOST).iter();
    let headers = headers.map(|value| Authority::try_from(value.as_bytes()));
    target
        .into_iter()
        .chain(headers)
        .collect::<Result<_, _>>()
        .ok()
}

fn is_local(name: &Authority, own: IpAddr) -> bool {
    let host = name.host().trim_end_matches('.');
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>()
        .is_ok_and(|address| address.is_loopback() || address == own)
}

/// Adds the headers that forbid a browser foreign and inline content, framing and caching.
pub(crate) fn harden(headers: &mut HeaderMap) {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(target: &str, hosts: &[&str], endpoint: Endpoint) -> Option<u16> {
        let mut request = Request::builder().uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let admitted = admit(&request.body(()).unwrap(), endpoint);
        admitted.err().map(|(status, _)| status.as_u16())
    }

    #[test]
    fn on_tcp_only_loopback_names_are_answered() {
        let endpoint = Endpoint::Tcp("127.0.0.1".parse().unwrap());
        for host in [
            "localhost",
            "LocalHost:9743",
            "localhost.:1",
            "127.0.0.1:9743",
            "127.1.2.3",
            "[::1]:9743",
        ] {
            assert_eq!(refused("/", &[host], endpoint), None, "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example:9743",
            "10.0.0.1",
            "0.0.0.0",
            "user@evil.example",
        ] {
            assert_eq!(refused("/", &[host], endpoint), Some(421), "{host}");
        }
        assert_eq!(refused("/", &[], endpoint), Some(400));
        assert_eq!(refused("/", &["local host"], endpoint), Some(400));
        assert_eq!(
            refused("/", &["localhost", "evil.example"], endpoint),
            Some(421)
        );
        assert_eq!(
            refused("http://evil.example/", &["localhost"], endpoint),
            Some(421)
        );
        assert_eq!(refused("/", &["evil.example"], Endpoint::Unix), None);
    }

    #[test]
    fn only_the_owner_at_the_control_socket_may_change_something() {
        let post = Request::builder()
            .method(Method::POST)
            .uri("/x")
            .body(())
            .unwrap();
        assert!(admit(&post, Endpoint::Control(Client::Owner)).is_ok());
        let (status, why) = admit(&post, Endpoint::Control(Client::Reader)).unwrap_err();
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(why.contains("`sudo -u "), "{why}");
        assert_eq!(
            admit(&post, Endpoint::Unix).unwrap_err().0,
            StatusCode::METHOD_NOT_ALLOWED
        );
    }
}
