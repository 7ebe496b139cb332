//! Owns the addresses that an operator may give to listen on. None that another host could reach is one. Pure.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What stands for "nowhere".
const NOWHERE: &str = "none";

/// An address that an operator gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// A loopback address and a port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Reads `127.0.0.1:9743`, `[::1]:9743`, `unix:/path`, or `none`.
    ///
    /// # Errors
    /// Why it cannot be listened on, in words that follow the address.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        if text == NOWHERE {
            return Ok(None);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() && path.file_name().is_some() {
                Ok(Some(Self::Unix(path)))
            } else {
                Err("which is no absolute path".to_owned())
            };
        }
        let address: SocketAddr = text
            .parse()
            .map_err(|_| "which is no IP address with a port".to_owned())?;
        if address.ip().is_loopback() {
            Ok(Some(Self::Tcp(address)))
        } else {
            Err(
                "which other hosts could reach, and nobody is asked for a password there; put a proxy before a \
                 loopback address"
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
    fn only_what_other_hosts_cannot_reach_is_listened_on() {
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
            ("127.0.0.1", "no IP address with a port"),
            ("localhost:9743", "no IP address with a port"),
            ("", "no IP address with a port"),
            ("unix:run/d.sock", "no absolute path"),
            ("unix:/", "no absolute path"),
        ] {
            let said = ListenAddress::parse(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
