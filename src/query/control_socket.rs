//! The control socket in the state directory: binding it, replacing one that an ended process left, and connecting to
//! it however long its path is. The server decides who is answered.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use tokio::net::UnixStream;

/// Name of the control socket in the state directory.
const CONTROL_SOCKET: &str = "control.sock";

/// The socket on which the daemon answers commands of its own user; it goes when the daemon does.
#[derive(Debug)]
pub struct ControlSocket {
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Binds the socket in a state directory whose lock is held, so that an existing socket belongs to an ended
    /// process. A failure is logged once, and commands read the files instead.
    #[must_use]
    pub fn bind(state_dir: &Path) -> Option<Self> {
        match Self::try_bind(state_dir) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(state_dir = %state_dir.display(), %error, "no control socket yet, trying on: until then commands see this daemon's published status alone");
                None
            }
        }
    }

    /// The same, and the error is the caller's.
    ///
    /// # Errors
    /// The disk's and the kernel's.
    pub(crate) fn try_bind(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(CONTROL_SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (_dir, short) = short_path(state_dir)?;
        let listener = std::os::unix::net::UnixListener::bind(short)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path })
    }

    /// Another handle of the socket, to accept with; its name goes with this one.
    pub(crate) fn listener(&self) -> io::Result<std::os::unix::net::UnixListener> {
        self.listener.try_clone()
    }

    /// Connects to the daemon with this state directory.
    ///
    /// # Errors
    /// No process listens there.
    pub async fn connect(state_dir: &Path) -> io::Result<UnixStream> {
        let (_dir, short) = short_path(state_dir)?;
        UnixStream::connect(short).await
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // One that stays is replaced by the next daemon, and refuses connections until then.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Returns a path to the socket that fits the 108 bytes of a socket address. It is valid as long as the descriptor is
/// open.
fn short_path(state_dir: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(state_dir, flags, Mode::empty())?;
    let short = format!("/proc/self/fd/{}/{CONTROL_SOCKET}", dir.as_raw_fd());
    Ok((dir, short.into()))
}
