//! The control socket in the state directory: binding it, replacing one that an ended process left, and connecting to
//! it however long its path is. The rights of its file decide who may connect: the daemon's user, and the group that may
//! read the export. The server decides who of them may change something.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixStream;

use crate::platform::descend::open_dir;
use crate::platform::storage::{OsStorage, Storage as _, remove_if_exists};

/// Name of the control socket in the state directory.
const CONTROL_SOCKET: &str = "control.sock";

/// Connections that wait in the kernel's queue.
const BACKLOG: i32 = 128;
/// Rights while the socket is created: its own user alone.
const OWN_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Rights of the socket for its own user and the group of the export.
const GROUP_MODE: Mode = OWN_MODE.union(Mode::RGRP).union(Mode::WGRP);

/// The socket on which the daemon answers commands; it goes when the daemon does.
#[derive(Debug)]
pub struct ControlSocket {
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Binds the socket in a state directory whose lock is held, so that an existing socket belongs to an ended
    /// process. The group of the export may connect. A failure is logged once, and commands read the files instead.
    #[must_use]
    pub fn bind(state_dir: &Path, export: &Path) -> Option<Self> {
        match Self::try_bind(state_dir, export) {
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
    pub(crate) fn try_bind(state_dir: &Path, export: &Path) -> io::Result<Self> {
        let path = socket_path(state_dir);
        remove_if_exists(&OsStorage, &path)?;
        let (dir, short) = short_path(state_dir)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // Linux creates the file with the rights of the socket: no other user can connect before they are final,
        // under any umask.
        rustix::fs::fchmod(&socket, OWN_MODE)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(short)?)?;
        share_with_group(&dir, state_dir, export);
        rustix::net::listen(&socket, BACKLOG)?;
        let listener = UnixListener::from(socket);
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

    /// Returns whether a process listens there, and this user may connect.
    ///
    /// # Errors
    /// As of [`ControlSocket::connect`].
    pub fn probe(state_dir: &Path) -> io::Result<()> {
        let (_dir, short) = short_path(state_dir)?;
        StdUnixStream::connect(short).map(drop)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // One that stays is replaced by the next daemon, and refuses connections until then.
        let _ = OsStorage.remove_file(&self.path);
    }
}

/// Returns the path of the control socket.
#[must_use]
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join(CONTROL_SOCKET)
}

/// Lets the group connect that may read the export, or before there is one, may enter the state directory. Without the
/// right to give the socket to that group it stays with its own user.
fn share_with_group(dir: &OwnedFd, state_dir: &Path, export: &Path) {
    let readable = std::fs::symlink_metadata(export).or_else(|_| std::fs::metadata(state_dir));
    let Ok(readable) = readable else { return };
    if readable.mode() & 0o040 == 0 {
        return;
    }
    let group = Some(Gid::from_raw(readable.gid()));
    let shared = rustix::fs::chownat(dir, CONTROL_SOCKET, None, group, AtFlags::SYMLINK_NOFOLLOW)
        .and_then(|()| {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let open = || rustix::fs::openat(dir, CONTROL_SOCKET, flags, Mode::empty());
            let file = rustix::io::retry_on_intr(open)?;
            // The mode of a descriptor without access is changed by its path.
            rustix::fs::chmod(format!("/proc/self/fd/{}", file.as_raw_fd()), GROUP_MODE)
        });
    if let Err(error) = shared {
        tracing::debug!(%error, "the control socket is for the daemon's own user alone ({error})");
    }
}

/// Returns a path to the socket that fits the 108 bytes of a socket address. It is valid as long as the descriptor is
/// open.
fn short_path(state_dir: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let dir = open_dir(state_dir)?;
    let short = format!("/proc/self/fd/{}/{CONTROL_SOCKET}", dir.as_raw_fd());
    Ok((dir, short.into()))
}
