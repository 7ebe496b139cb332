//! `status --watch` at a real terminal: its output while rows appear and daemons start and stop, and the terminal's
//! settings afterwards.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::support::kill_harness::wait_until;
use crate::support::process::{Bench, LONG};

const PAIR: &str = "2026/05/01/audits.jsonl";
const SIZE: (u16, u16) = (40, 100);

/// A command at a terminal.
struct Watching {
    child: Child,
    keyboard: File,
    /// Kept open to read the terminal's settings.
    terminal: File,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Watching {
    fn start(bench: &Bench) -> Self {
        let controller =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let size = Winsize {
            ws_row: SIZE.0,
            ws_col: SIZE.1,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&controller, size).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap();
        let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = File::from(rustix::fs::open(path, flags, Mode::empty()).unwrap());
        let mut command = bench.command(&["status", "--watch"]);
        command
            .env("TERM", "xterm-256color")
            .stdin(terminal.try_clone().unwrap())
            .stdout(terminal.try_clone().unwrap())
            .stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let keyboard = File::from(controller);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(
            SIZE.0.try_into().unwrap(),
            SIZE.1.try_into().unwrap(),
            0,
        )));
        let (mut sent, shown) = (keyboard.try_clone().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut chunk = [0; 4_096];
            // Ends with an error when the other end is closed everywhere.
            while let Ok(read @ 1..) = sent.read(&mut chunk) {
                shown.lock().unwrap().process(&chunk[..read]);
            }
        });
        Self {
            child,
            keyboard,
            terminal,
            screen,
        }
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    fn wait_for(&self, shown: &str) {
        let found = wait_until(LONG, || Ok(self.text().contains(shown)));
        assert_eq!(found, Ok(true), "no {shown:?} in\n{}", self.text());
    }

    /// Waits for its end, and asserts that the terminal's settings are restored.
    fn ended(mut self, how: &str) {
        let mut status = None;
        let ended = wait_until(LONG, || {
            status = self.child.try_wait().map_err(|error| error.to_string())?;
            Ok(status.is_some())
        });
        assert_eq!(ended, Ok(true), "{how}: it did not end");
        assert!(status.unwrap().success(), "{how}");
        let given_back = wait_until(LONG, || {
            let screen = self.screen.lock().unwrap();
            Ok(!screen.screen().alternate_screen() && !screen.screen().hide_cursor())
        });
        assert_eq!(given_back, Ok(true), "{how}: the screen was not given back");
        let modes = tcgetattr(&self.terminal).unwrap().local_modes;
        assert!(
            modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG),
            "{how}"
        );
    }
}

#[test]
fn the_live_status_shows_new_rows_and_survives_a_restart_of_the_daemon() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    let daemon = bench.start_caught_up();
    let mut watching = Watching::start(&bench);
    watching.wait_for("fresh");
    watching.wait_for("1 today, 1 in total");
    assert!(watching.screen.lock().unwrap().screen().alternate_screen());
    bench.append_run(PAIR, "b");
    watching.wait_for("2 today, 2 in total");
    watching.wait_for("rows of the last hour");
    watching.wait_for("\u{2588}");
    bench.stop(daemon);
    watching.wait_for("no daemon");
    let daemon = bench.start_caught_up();
    watching.wait_for(&format!("running as process {}", daemon.pid()));
    assert!(
        !watching.text().contains("no daemon"),
        "{}",
        watching.text()
    );
    watching.keyboard.write_all(b"x\x03").unwrap();
    watching.ended("Ctrl-C");
    bench.stop(daemon);
}

#[test]
fn the_terminal_is_restored_on_every_exit() {
    let bench = Bench::new();
    let mut by_key = Watching::start(&bench);
    by_key.wait_for("no daemon");
    by_key.keyboard.write_all(b"q").unwrap();
    by_key.ended("q");
    let by_signal = Watching::start(&bench);
    by_signal.wait_for("no daemon");
    kill_process(Pid::from_child(&by_signal.child), Signal::TERM).unwrap();
    by_signal.ended("SIGTERM");
}

#[test]
fn without_a_terminal_it_names_the_alternative() {
    let bench = Bench::new();
    let ended = bench.run(&mut bench.command(&["status", "--watch"]));
    ended.check(1, &["needs a terminal", "--json"]);
}
