//! The listening sockets other than the control socket: configured addresses and sockets passed by systemd. No address
//! that another host could reach is bound here.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::ListenAddress;
use crate::http::Endpoint;

/// Removes a socket whose process has ended, which refuses connections. Any other file at that path is kept.
async fn remove_left_socket(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        _ => return Ok(()),
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        _ => Ok(()),
    }
}

/// The path of a bound socket, which is removed on drop.
#[derive(Debug)]
pub(crate) struct BoundPath(PathBuf);

impl Drop for BoundPath {
    fn drop(&mut self) {
        // A remaining socket refuses connections until the next daemon replaces it.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Its path, if this process created it.
        bound: Option<BoundPath>,
    },
}

/// An accepted connection.
pub(crate) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Accepted {
    /// Returns the endpoint of a connection to the page and its routes.
    pub(crate) fn endpoint(&self) -> Endpoint {
        match self {
            Self::Unix(_) => Endpoint::Unix,
            Self::Tcp(stream) => {
                let own = stream.local_addr().map(|address| address.ip());
                Endpoint::Tcp(own.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)))
            }
        }
    }
}

impl Listener {
    /// Binds the address. A Unix socket without a listening process is replaced.
    ///
    /// # Errors
    /// The address is in use or cannot be bound.
    pub(super) async fn bind(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(address) => Ok(Self::Tcp(TcpListener::bind(address).await?)),
            ListenAddress::Unix(path) => {
                remove_left_socket(path).await?;
                Ok(Self::Unix {
                    listener: UnixListener::bind(path)?,
                    bound: Some(BoundPath(path.clone())),
                })
            }
        }
    }

    /// Wraps a Unix socket whose path, if it has one, belongs to another owner.
    pub(super) fn unix(listener: StdUnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Unix {
            listener: UnixListener::from_std(listener)?,
            bound: None,
        })
    }

    fn tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Tcp(TcpListener::from_std(listener)?))
    }

    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => Ok(Accepted::Tcp(listener.accept().await?.0)),
            Self::Unix { listener, .. } => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => address.fmt(f),
                Err(error) => error.fmt(f),
            },
            Self::Unix {
                bound: Some(BoundPath(path)),
                ..
            } => write!(f, "unix:{}", path.display()),
            Self::Unix { listener, .. } => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                write!(f, "unix:{}", path.unwrap_or(Path::new("")).display())
            }
        }
    }
}

/// Returns the sockets that systemd passed. The socket unit decides who can reach them; a socket that other hosts can
/// reach is logged.
pub(crate) fn passed_by_systemd() -> Vec<Listener> {
    let mut passed = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for n in 0..passed.len() {
        let taken = match passed.take_tcp_listener(n) {
            Ok(Some(listener)) => Listener::tcp(listener).map(Some),
            _ => passed
                .take_unix_listener(n)
                .and_then(|listener| listener.map(Listener::unix).transpose()),
        };
        match taken {
            Ok(Some(listener)) => {
                if let Listener::Tcp(tcp) = &listener
                    && tcp
                        .local_addr()
                        .is_ok_and(|address| !address.ip().is_loopback())
                {
                    tracing::warn!(%listener, "other hosts can reach {listener}, a socket passed by systemd, without authentication");
                }
                listeners.push(listener);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(n, %error, "cannot use socket {n} passed by systemd ({error}): it must be a listening stream socket");
            }
        }
    }
    listeners
}
