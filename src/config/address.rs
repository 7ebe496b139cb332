//! The configured listen address. Only addresses that other hosts cannot reach are accepted. Pure.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The value for no address.
const NOWHERE: &str = "none";

/// A configured listen address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// A loopback address and a port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Parses `127.0.0.1:9743`, `[::1]:9743`, `unix:/path`, or `none`.
    ///
    /// # Errors
    /// The reason why the address cannot be used, as a clause that follows the address.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        if text == NOWHERE {
            return Ok(None);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() && path.file_name().is_some() {
                Ok(Some(Self::Unix(path)))
            } else {
                Err("which is not an absolute path".to_owned())
            };
        }
        let address: SocketAddr = text
            .parse()
            .map_err(|_| "which is not an IP address with a port".to_owned())?;
        if address.ip().is_loopback() {
            Ok(Some(Self::Tcp(address)))
        } else {
            Err(
                "which other hosts could reach, and there is no authentication; use a loopback address and a \
                 reverse proxy"
                    .to_owned(),
            )
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_other_hosts_cannot_reach_are_accepted() {
        for (text, shown) in [
            ("127.0.0.1:9743", "127.0.0.1:9743"),
            ("127.8.9.1:0", "127.8.9.1:0"),
            ("[::1]:80", "[::1]:80"),
            ("unix:/run/d/http.sock", "unix:/run/d/http.sock"),
        ] {
            let address = ListenAddress::parse(text).unwrap().unwrap();
            assert_eq!(address.to_string(), shown);
        }
        assert_eq!(ListenAddress::parse("none"), Ok(None));
        for (text, why) in [
            ("0.0.0.0:9743", "other hosts"),
            ("[::]:9743", "other hosts"),
            ("192.168.1.4:9743", "other hosts"),
            ("[::ffff:127.0.0.1]:9743", "other hosts"),
            ("127.0.0.1", "not an IP address with a port"),
            ("localhost:9743", "not an IP address with a port"),
            ("", "not an IP address with a port"),
            ("unix:run/d.sock", "not an absolute path"),
            ("unix:/", "not an absolute path"),
        ] {
            let reason = ListenAddress::parse(text).unwrap_err();
            assert!(reason.contains(why), "{text}: {reason}");
        }
    }
}
