//! Owns the meaning of signals. A signal becomes a wake-up of the engine and a level the shell can wait for;
//! nothing is done inside a handler but setting a flag, and nothing here ends the process in good order: that is
//! the engine's.
//!
//! | signal | effect |
//! |---|---|
//! | `SIGTERM`, `SIGINT` | the first: finish the batch in hand and stop; the second, of either: exit at once |
//! | `SIGHUP` | read the configuration again |
//! | `SIGUSR1` | log a report of the current state |
//! | `SIGXFSZ` | none: the write that met the limit fails |
//!
//! The second stop signal exits from the handler with [`EXIT_STOPPED_TWICE_BASE`] plus the signal's number, as a
//! shell would name it (143 and 130), without waiting for anything. That is safe because a crash is safe. All
//! other signals, `SIGPIPE` among them, are left as they are.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::{Handle, Signals};
use tokio::sync::watch;

use crate::daemon::inbox::Inbox;

/// Added to the number of the second stop signal to give the exit code.
pub const EXIT_STOPPED_TWICE_BASE: i32 = 128;

/// What signals asked for so far. The numbers count wake-ups, not signals: signals that come while one of the
/// same kind waits are one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShutdownRequested {
    /// To stop. Never false again.
    pub stop: bool,
    /// To read the configuration again, how many times.
    pub reloads: u64,
    /// To log a report, how many times.
    pub reports: u64,
}

/// The thread that waits for signals. Dropped, it ends; the handlers stay, since the default actions cannot be
/// had back.
#[derive(Debug)]
pub struct SignalThread {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Registers the two stop signals: the first sets the flag, for work that looks at it between its steps; the second
/// ends the process at once.
///
/// # Errors
/// The kernel refuses a handler.
pub fn stop_flag() -> io::Result<Arc<AtomicBool>> {
    let stop_seen = Arc::new(AtomicBool::new(false));
    // The exit is registered before the flag: handlers run in this order, so the signal that sets the flag is not
    // the one that exits.
    for signal in [SIGTERM, SIGINT] {
        let exit_code = EXIT_STOPPED_TWICE_BASE + signal;
        flag::register_conditional_shutdown(signal, exit_code, Arc::clone(&stop_seen))?;
    }
    for signal in [SIGTERM, SIGINT] {
        flag::register(signal, Arc::clone(&stop_seen))?;
    }
    Ok(stop_seen)
}

/// Registers the handlers and starts the thread that turns signals into wake-ups. Call it once, before any other
/// thread is started and before the service manager is told that the daemon is ready.
///
/// # Errors
/// The kernel refuses a handler, a pipe or a thread.
pub fn listen(wake: Arc<Inbox>) -> io::Result<(SignalThread, watch::Receiver<ShutdownRequested>)> {
    // These are registered before all else: a handler takes the default action away, and a signal that comes when only
    // the flag has its own would stop nothing, ever.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
    // A file that may grow no further is an error of the disk, and no reason to die without a word.
    flag::register(SIGXFSZ, Arc::default())?;
    let _seen = stop_flag()?;
    let handle = signals.handle();
    let (seen, shell) = watch::channel(ShutdownRequested::default());
    let thread = std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            signals
                .forever()
                .for_each(|signal| pass_on(signal, &wake, &seen))
        })?;
    Ok((
        SignalThread {
            handle,
            thread: Some(thread),
        },
        shell,
    ))
}

fn pass_on(signal: i32, wake: &Inbox, shell: &watch::Sender<ShutdownRequested>) {
    match signal {
        SIGHUP => wake.reload(),
        SIGUSR1 => wake.report(),
        _ => wake.stop(),
    }
    shell.send_modify(|seen| match signal {
        SIGHUP => seen.reloads += 1,
        SIGUSR1 => seen.reports += 1,
        _ => seen.stop = true,
    });
}

impl Drop for SignalThread {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // It never panics: `pass_on` only sets flags.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, Signal, kill_process};
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{Child, ChildStdout, Command, Stdio};

    /// Handlers belong to the whole process, so that each case runs in a child: this test binary again.
    const CHILD: &str = "DISTILLD_TEST_SIGNAL_CHILD";

    #[test]
    fn child_that_says_what_woke_it() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        let say = |line: &str| writeln!(io::stdout(), "\n> {line}").unwrap();
        let wake = Arc::new(Inbox::new());
        let (_thread, shell) = listen(Arc::clone(&wake)).unwrap();
        say("ready");
        let mut stopped = false;
        // It does not stop when told to: only a second signal ends it.
        loop {
            let pending = wake.wait_until(None);
            if pending.reload {
                say("reload");
            }
            if pending.report {
                say("report");
            }
            if pending.stop && !stopped {
                stopped = true;
                say("stop");
                while !shell.borrow().stop {
                    std::thread::yield_now();
                }
                say("shell");
            }
        }
    }

    struct Running {
        child: Child,
        lines: BufReader<ChildStdout>,
    }

    impl Running {
        fn start() -> Running {
            let mut running = Running::spawn();
            running.expect("ready");
            running
        }

        fn spawn() -> Running {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "daemon::signals::tests::child_that_says_what_woke_it",
                    "--nocapture",
                ])
                .env(CHILD, "1")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap());
            Running { child, lines }
        }

        /// Whether a signal has a handler, as the kernel says.
        fn handles(&self, signal: Signal) -> bool {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
            let status = status.unwrap_or_default();
            let caught = status
                .lines()
                .find_map(|line| line.strip_prefix("SigCgt:"))
                .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            caught.unwrap_or(0) >> (signal.as_raw() - 1) & 1 == 1
        }

        fn expect(&mut self, want: &str) {
            let mut line = String::new();
            while !line.starts_with("> ") {
                line.clear();
                assert!(
                    self.lines.read_line(&mut line).unwrap() > 0,
                    "the child ended before {want}"
                );
            }
            assert_eq!(line.trim_end(), format!("> {want}"));
        }

        fn send(&self, signal: Signal) {
            let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
            kill_process(pid, signal).unwrap();
        }

        fn exit_code(&mut self) -> Option<i32> {
            self.child.wait().unwrap().code()
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    #[test]
    fn a_stop_that_comes_while_the_handlers_are_registered_is_not_lost() {
        for _ in 0..50 {
            let mut running = Running::spawn();
            while !running.handles(Signal::TERM) {
                std::hint::spin_loop();
            }
            running.send(Signal::TERM);
            running.expect("ready");
            running.expect("stop");
        }
    }

    #[test]
    fn hangup_asks_for_a_reload_and_usr1_for_a_report() {
        let mut running = Running::start();
        running.send(Signal::HUP);
        running.expect("reload");
        running.send(Signal::USR1);
        running.expect("report");
        running.send(Signal::HUP);
        running.expect("reload");
    }

    fn check_second_signal(first: Signal, second: Signal, exit_code: i32) {
        let mut running = Running::start();
        running.send(first);
        running.expect("stop");
        running.expect("shell");
        running.send(Signal::HUP);
        running.expect("reload");
        running.send(second);
        assert_eq!(running.exit_code(), Some(exit_code));
    }

    #[test]
    fn the_first_stop_signal_asks_and_the_second_exits_at_once() {
        check_second_signal(Signal::TERM, Signal::TERM, 143);
        check_second_signal(Signal::INT, Signal::INT, 130);
        check_second_signal(Signal::TERM, Signal::INT, 130);
    }
}
