//! Owns what a request from a browser or a stranger must be to get an answer, and what every answer tells a browser:
//! foreign names are refused, so that no web page elsewhere can read ours by pointing its own name here (DNS rebinding).

use std::net::IpAddr;

use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Method, Request, StatusCode};

/// Where a connection came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// The socket in the state directory: its user may do what the daemon may.
    Control,
    /// A Unix socket: who may open it was decided by whoever placed it. Read-only.
    Unix,
    /// TCP, on this address of ours. Read-only, and by browsers too.
    Tcp(IpAddr),
}

/// Whether a request may be answered there at all.
pub(super) fn admit<B>(
    request: &Request<B>,
    door: Endpoint,
) -> Result<(), (StatusCode, &'static str)> {
    if door == Endpoint::Control {
        return Ok(());
    }
    if !reads(request.method()) {
        return Err((
            StatusCode::METHOD_NOT_ALLOWED,
            "this socket is read-only: only GET and HEAD are answered\n",
        ));
    }
    let Endpoint::Tcp(own) = door else {
        return Ok(());
    };
    let named = names_given(request).filter(|names| !names.is_empty());
    match named {
        None => Err((StatusCode::BAD_REQUEST, "which host is asked is not said\n")),
        Some(names) if names.iter().all(|name| is_ours(name, own)) => Ok(()),
        Some(_) => Err((
            StatusCode::MISDIRECTED_REQUEST,
            "this is not that host: ask for localhost or the loopback address\n",
        )),
    }
}

/// Whether a request only reads.
pub(super) fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Every host that the request names, in its target or its headers; `None` where one cannot be read.
fn names_given<B>(request: &Request<B>) -> Option<Vec<Authority>> {
    let target = request.uri().authority().cloned().map(Ok);
    let headers = request.headers().get_all(HOST).iter();
    let headers = headers.map(|value| Authority::try_from(value.as_bytes()));
    target
        .into_iter()
        .chain(headers)
        .collect::<Result<_, _>>()
        .ok()
}

fn is_ours(name: &Authority, own: IpAddr) -> bool {
    let host = name.host().trim_end_matches('.');
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>()
        .is_ok_and(|address| address.is_loopback() || address == own)
}

/// What every answer tells a browser: nothing from elsewhere, nothing inline, no frame around it, no copy kept.
pub(super) fn harden(headers: &mut HeaderMap) {
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

    fn refused(target: &str, hosts: &[&str], door: Endpoint) -> Option<u16> {
        let mut request = Request::builder().uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let admitted = admit(&request.body(()).unwrap(), door);
        admitted.err().map(|(status, _)| status.as_u16())
    }

    #[test]
    fn on_tcp_only_loopback_names_are_answered() {
        let door = Endpoint::Tcp("127.0.0.1".parse().unwrap());
        for host in [
            "localhost",
            "LocalHost:9743",
            "localhost.:1",
            "127.0.0.1:9743",
            "127.1.2.3",
            "[::1]:9743",
        ] {
            assert_eq!(refused("/", &[host], door), None, "{host}");
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
            assert_eq!(refused("/", &[host], door), Some(421), "{host}");
        }
        assert_eq!(refused("/", &[], door), Some(400));
        assert_eq!(refused("/", &["local host"], door), Some(400));
        assert_eq!(
            refused("/", &["localhost", "evil.example"], door),
            Some(421)
        );
        assert_eq!(
            refused("http://evil.example/", &["localhost"], door),
            Some(421)
        );
        assert_eq!(refused("/", &["evil.example"], Endpoint::Unix), None);
    }

    #[test]
    fn only_the_control_socket_takes_more_than_reading() {
        let post = Request::builder()
            .method(Method::POST)
            .uri("/x")
            .body(())
            .unwrap();
        assert!(admit(&post, Endpoint::Control).is_ok());
        assert_eq!(
            admit(&post, Endpoint::Unix).unwrap_err().0,
            StatusCode::METHOD_NOT_ALLOWED
        );
    }
}
