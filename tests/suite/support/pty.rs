//! A pseudo-terminal of a chosen width for a process: at its stderr, and optionally at its stdout. Records every byte
//! that the process wrote to it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::kill_harness::wait_until;
use super::process::LONG;

/// The streams that are connected to the terminal. The other one of stdout and stderr is a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// As with `distilld .. > file`.
    Stderr,
    /// Both, as in an interactive shell.
    Both,
}

/// A process at a terminal.
#[derive(Debug)]
pub struct Session {
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
    screen: JoinHandle<()>,
}

/// The result of a process at a terminal.
#[derive(Debug)]
pub struct Left {
    /// How it ended.
    pub status: ExitStatus,
    /// All bytes written to the terminal.
    pub shown: String,
    /// All of stdout, unless that is the terminal.
    pub stdout: String,
}

impl Session {
    /// Starts a command at a terminal of this width.
    pub fn start(mut command: Command, columns: u16, shown: Shown) -> Session {
        let (controller, terminal) = terminal(columns);
        command
            .stdin(Stdio::null())
            .stderr(terminal.try_clone().unwrap());
        match shown {
            Shown::Both => command.stdout(terminal),
            Shown::Stderr => command.stdout(Stdio::piped()),
        };
        let child = command.spawn().unwrap();
        // The command holds the process's end of the terminal, which must be closed for the reading to end.
        drop(command);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let screen = read_screen(controller, Arc::clone(&shown));
        Session {
            child,
            shown,
            screen,
        }
    }

    /// Returns the process id.
    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Returns the output so far.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// Waits for the process's end.
    pub fn end(mut self) -> Left {
        let mut stdout = String::new();
        if let Some(mut pipe) = self.child.stdout.take() {
            pipe.read_to_string(&mut stdout).unwrap();
        }
        let mut status = None;
        let ended = wait_until(LONG * 4, || {
            status = self.child.try_wait().map_err(|error| error.to_string())?;
            Ok(status.is_some())
        });
        assert_eq!(ended, Ok(true), "it did not end");
        self.screen.join().unwrap();
        let shown = self.shown.lock().unwrap();
        Left {
            status: status.unwrap(),
            shown: String::from_utf8_lossy(&shown).into_owned(),
            stdout,
        }
    }
}

/// Returns both ends of a terminal of a given width: ours and that of a process.
pub fn terminal(columns: u16) -> (File, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let size = Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&ours, size).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let theirs = File::from(rustix::fs::open(path, flags, Mode::empty()).unwrap());
    (File::from(ours), theirs)
}

/// Reads until the other end is closed everywhere, which Linux reports as an I/O error.
fn read_screen(mut controller: File, shown: Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        loop {
            match controller.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => shown.lock().unwrap().extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    })
}
