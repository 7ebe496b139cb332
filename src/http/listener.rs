//! Owns where the daemon listens beside its control socket: which addresses it takes, sockets passed by systemd, and the
//! bind that is tried again. Nothing that another host could reach is ever bound here.

use std::fmt;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::ListenAddress;

/// A socket whose process is gone refuses connections; anything else at that path is not ours to remove.
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

/// The name of a bound socket, which goes when it does.
#[derive(Debug)]
pub(super) struct BoundPath(PathBuf);

impl Drop for BoundPath {
    fn drop(&mut self) {
        // One that stays is replaced by the next daemon, and refuses connections until then.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A socket that accepts.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Its name, where that is ours.
        bound: Option<BoundPath>,
    },
}

/// A connection that was accepted.
pub(super) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// Listens. A Unix socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// The kernel's.
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

    /// One that has a name of somebody else's, or none.
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

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
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

/// The sockets that systemd passed, if any. Whoever wrote the socket unit decided who may reach them; one that other
/// hosts can is said once.
pub(super) fn passed_by_systemd() -> Vec<Listener> {
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
                    tracing::warn!(%listener, "the socket passed by systemd can be reached from other hosts, without a password");
                }
                listeners.push(listener);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(n, %error, "a socket passed by systemd is of no use: it must be a stream socket that listens");
            }
        }
    }
    listeners
}
