//! Messages to the service manager: ready, status, watchdog, reloading, stopping. When they are sent is decided
//! elsewhere.
//!
//! Sending blocks while the manager does not read its socket, so a thread of its own sends, and every call here only
//! queues a message. The queue is bounded by its shape: each lifecycle state at most once, the newest status, one
//! watchdog ping, the longest extension. A status that was not sent yet is replaced by the next one; ready and
//! stopping are never dropped.
//!
//! Without `NOTIFY_SOCKET` every call does nothing and no thread is started.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::platform::background::{is_out_of_threads, spawn};
use crate::platform::escape::status_line;

/// Bytes of a status that are sent; the manager shows one line.
const STATUS_BYTES_MAX: usize = 512;

/// The service manager, if there is one. Clones speak to the same one.
#[derive(Debug, Clone, Default)]
pub struct ServiceManager {
    mailbox: Option<Arc<Mailbox>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Ready,
    /// With the monotonic time, in microseconds, that the manager asks for in the same message.
    Reloading(Option<i128>),
    Stopping,
}

#[derive(Debug, Default)]
struct Notes {
    life: VecDeque<Life>,
    status: Option<String>,
    watchdog: bool,
    extend: Option<Duration>,
    errno: Option<u32>,
    /// The thread holds a message that is not sent yet.
    sending: bool,
}

impl Notes {
    /// Takes the next message: a lifecycle state alone, so that reloading and ready stay separate and in order, else
    /// the rest. Ready carries the status, which a client that waited for a reload reads next.
    fn take(&mut self) -> Option<String> {
        let mut message = String::new();
        if let Some(life) = self.life.pop_front() {
            put_life(&mut message, life);
            if let (Life::Ready, Some(status)) = (life, &self.status) {
                put(&mut message, &NotifyState::Status(status));
                self.status = None;
            }
            return Some(message);
        }
        if std::mem::take(&mut self.watchdog) {
            put(&mut message, &NotifyState::Watchdog);
        }
        if let Some(extend) = self.extend.take() {
            let extend_us = u32::try_from(extend.as_micros()).unwrap_or(u32::MAX);
            put(&mut message, &NotifyState::ExtendTimeoutUsec(extend_us));
        }
        if let Some(errno) = self.errno.take() {
            put(&mut message, &NotifyState::Errno(errno));
        }
        if let Some(status) = self.status.take() {
            put(&mut message, &NotifyState::Status(&status));
        }
        (!message.is_empty()).then_some(message)
    }

    fn is_empty(&self) -> bool {
        self.life.is_empty()
            && self.status.is_none()
            && !self.watchdog
            && self.extend.is_none()
            && self.errno.is_none()
            && !self.sending
    }
}

fn put_life(message: &mut String, life: Life) {
    match life {
        Life::Ready => put(message, &NotifyState::Ready),
        Life::Stopping => put(message, &NotifyState::Stopping),
        Life::Reloading(monotonic_us) => {
            put(message, &NotifyState::Reloading);
            if let Some(monotonic_us) = monotonic_us {
                put(message, &NotifyState::MonotonicUsec(monotonic_us));
            }
        }
    }
}

fn put(message: &mut String, state: &NotifyState<'_>) {
    writeln!(message, "{state}").expect("a string takes all that is written to it");
}

#[derive(Debug, Default)]
struct Mailbox {
    notes: Mutex<Notes>,
    changed: Condvar,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, note: impl FnOnce(&mut Notes)) {
        note(&mut self.lock());
        self.changed.notify_all();
    }

    fn send_for_ever(&self, socket: &UnixDatagram, manager: &SocketAddr) {
        loop {
            let message = self.next_message();
            if let Err(error) = socket.send_to_addr(message.as_bytes(), manager) {
                tracing::debug!(%error, "cannot notify the service manager ({error})");
            }
            self.leave(|notes| notes.sending = false);
        }
    }

    fn next_message(&self) -> String {
        let mut notes = self.lock();
        loop {
            if let Some(message) = notes.take() {
                notes.sending = true;
                return message;
            }
            notes = self
                .changed
                .wait(notes)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl ServiceManager {
    /// Returns the manager that `NOTIFY_SOCKET` names, or none. A socket that cannot be used is logged once and
    /// ignored: the daemon works without it.
    ///
    /// # Errors
    /// No thread can be started: the manager would wait for a daemon that never reports to be ready.
    pub fn from_environment() -> io::Result<ServiceManager> {
        let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty())
        else {
            return Ok(ServiceManager::default());
        };
        match ServiceManager::at(&socket) {
            Err(error) if !is_out_of_threads(&error) => {
                tracing::warn!(?socket, %error, "cannot notify the service manager at {socket:?} ({error}), check NOTIFY_SOCKET");
                Ok(ServiceManager::default())
            }
            manager => manager,
        }
    }

    /// Returns the manager at a datagram socket: a path, or an abstract name after `@`.
    ///
    /// # Errors
    /// The name is not that of such a socket, or a socket or thread cannot be created.
    pub fn at(socket: &std::ffi::OsStr) -> io::Result<ServiceManager> {
        let manager = match socket.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(socket)?,
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "neither a path nor an abstract name",
                ));
            }
        };
        let sender = UnixDatagram::unbound()?;
        let mailbox = Arc::new(Mailbox::default());
        let notes = Arc::clone(&mailbox);
        // It ends with the process: it may be blocked in a send for as long as the manager likes.
        spawn("service-manager", move || {
            notes.send_for_ever(&sender, &manager);
        })?;
        Ok(ServiceManager {
            mailbox: Some(mailbox),
        })
    }

    /// Reports that recovery is over and records are processed, or that a reload is over.
    pub fn ready(&self) {
        self.live(Life::Ready);
    }

    /// The configuration is being read again; [`ServiceManager::ready`] must follow.
    pub fn reloading(&self) {
        let monotonic_us = match NotifyState::monotonic_usec_now() {
            Ok(NotifyState::MonotonicUsec(monotonic_us)) => Some(monotonic_us),
            _ => None,
        };
        self.live(Life::Reloading(monotonic_us));
    }

    /// The daemon is stopping.
    pub fn stopping(&self) {
        self.live(Life::Stopping);
    }

    /// One line for a person. Line ends and other control characters become spaces: after a line end the manager
    /// would take the rest for a message of its own.
    pub fn status(&self, line: &str) {
        let status = status_line(line, STATUS_BYTES_MAX);
        self.leave(|notes| notes.status = Some(status));
    }

    /// The process is about to fail, with the number of the error that the disk gave, if it did. The line stays
    /// with the unit when the process is gone.
    pub fn failed(&self, line: &str, errno: Option<i32>) {
        let errno = errno.and_then(|errno| u32::try_from(errno).ok());
        self.leave(|notes| notes.errno = errno);
        self.status(line);
    }

    /// The pipeline made progress, or was provably idle.
    pub fn watchdog(&self) {
        self.leave(|notes| notes.watchdog = true);
    }

    /// Extends the manager's timeout for the current start or stop to `duration` from now.
    pub fn extend_timeout(&self, duration: Duration) {
        self.leave(|notes| notes.extend = notes.extend.max(Some(duration)));
    }

    /// Waits until everything is sent, at most for `patience`, and returns whether it was. For the end of the
    /// process.
    #[must_use]
    pub fn flush(&self, patience: Duration) -> bool {
        let Some(mailbox) = &self.mailbox else {
            return true;
        };
        let deadline = Instant::now() + patience;
        let mut notes = mailbox.lock();
        while !notes.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            notes = mailbox
                .changed
                .wait_timeout(notes, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    fn live(&self, life: Life) {
        self.leave(|notes| {
            // Only the newest of each kind counts: ready, reloading, ready leaves reloading, ready.
            notes
                .life
                .retain(|waiting| std::mem::discriminant(waiting) != std::mem::discriminant(&life));
            notes.life.push_back(life);
        });
    }

    fn leave(&self, note: impl FnOnce(&mut Notes)) {
        if let Some(mailbox) = &self.mailbox {
            mailbox.leave(note);
        }
    }
}

/// Returns the interval at which to check whether [`ServiceManager::watchdog`] is due: a quarter of the manager's
/// timeout. `None` if the manager does not watch this process.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    let patience = sd_notify::watchdog_enabled()?;
    (!patience.is_zero()).then_some(patience / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    struct Manager {
        _home: tempfile::TempDir,
        socket: UnixDatagram,
        service: ServiceManager,
    }

    fn manager() -> Manager {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let service = ServiceManager::at(path.as_os_str()).unwrap();
        Manager {
            _home: home,
            socket,
            service,
        }
    }

    impl Manager {
        fn message(&self) -> String {
            let mut bytes = [0; 4096];
            let len = self.socket.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..len].to_vec()).unwrap()
        }
    }

    #[test]
    fn the_states_of_life_arrive_in_order_one_a_message() {
        let manager = manager();
        manager.service.ready();
        assert_eq!(manager.message(), "READY=1\n");
        manager.service.reloading();
        let reloading = manager.message();
        let monotonic = reloading
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .unwrap();
        assert!(monotonic.trim_end().parse::<u64>().unwrap() > 0);
        manager.service.ready();
        manager.service.stopping();
        assert_eq!(manager.message(), "READY=1\n");
        assert_eq!(manager.message(), "STOPPING=1\n");
        assert!(manager.service.flush(PATIENCE));
    }

    #[test]
    fn a_status_is_one_line_whatever_is_in_it() {
        let manager = manager();
        manager.service.status("12 rows\nSTOPPING=1\r\n");
        assert_eq!(manager.message(), "STATUS=12 rows STOPPING=1  \n");
        manager.service.status(&"ü".repeat(1_000));
        assert_eq!(
            manager.message(),
            format!("STATUS={}\n", "ü".repeat(STATUS_BYTES_MAX / 2))
        );
    }

    #[test]
    fn watchdog_and_extension_are_said() {
        let manager = manager();
        manager.service.watchdog();
        assert_eq!(manager.message(), "WATCHDOG=1\n");
        manager.service.extend_timeout(Duration::from_secs(3));
        assert_eq!(manager.message(), "EXTEND_TIMEOUT_USEC=3000000\n");
        manager.service.extend_timeout(Duration::MAX);
        assert_eq!(
            manager.message(),
            format!("EXTEND_TIMEOUT_USEC={}\n", u32::MAX)
        );
    }

    #[test]
    fn a_manager_that_does_not_read_blocks_nobody_and_still_learns_the_end() {
        let manager = manager();
        for i in 0..5_000 {
            manager.service.status(&format!("pass {i}"));
            manager.service.watchdog();
        }
        // Its buffer holds a few messages; when one stays unsent for long, the sender is blocked.
        while manager.service.flush(Duration::from_millis(50)) {
            manager.service.status("fill");
        }
        manager.service.ready();
        manager.service.stopping();
        manager.service.status("last");
        let mut messages = vec![manager.message()];
        while messages[messages.len() - 1] != "STOPPING=1\n" {
            messages.push(manager.message());
        }
        let ready = &messages[messages.len() - 2];
        assert_eq!(ready, "READY=1\nSTATUS=last\n");
        assert!(manager.service.flush(PATIENCE));
    }

    #[test]
    fn an_abstract_socket_is_reached() {
        let name = format!("distilld-test-{}", std::process::id());
        let socket =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        ServiceManager::at(format!("@{name}").as_ref())
            .unwrap()
            .ready();
        let mut bytes = [0; 64];
        let len = socket.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..len], b"READY=1\n");
    }

    #[test]
    fn without_a_manager_all_is_harmless() {
        let service = ServiceManager::default();
        service.ready();
        service.status("no listener");
        service.stopping();
        assert!(service.flush(Duration::ZERO));
        assert!(ServiceManager::at("vsock:2:1".as_ref()).is_err());
    }

    #[test]
    fn a_socket_without_a_reader_is_no_reason_to_hang() {
        let home = tempfile::tempdir().unwrap();
        let service = ServiceManager::at(home.path().join("nobody").as_os_str()).unwrap();
        service.ready();
        assert!(service.flush(PATIENCE));
    }

    #[test]
    fn waiting_notes_keep_the_newest_and_the_order() {
        let mut notes = Notes {
            life: VecDeque::from([Life::Ready, Life::Stopping]),
            status: Some("s".into()),
            watchdog: true,
            extend: Some(Duration::from_secs(1)),
            errno: Some(28),
            sending: false,
        };
        let messages: Vec<_> = std::iter::from_fn(|| notes.take()).collect();
        let rest = "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=1000000\nERRNO=28\n";
        assert_eq!(messages, ["READY=1\nSTATUS=s\n", "STOPPING=1\n", rest]);
        assert!(notes.is_empty());
    }
}
