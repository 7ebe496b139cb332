//! Signal handling. A signal becomes a wake-up of the engine thread. A handler only sets a flag, and only the engine
//! thread ends the process in good order.
//!
//! | signal | effect |
//! |---|---|
//! | `SIGTERM`, `SIGINT` | the first: finish the batch in hand and stop; the second, of either: exit at once |
//! | `SIGHUP` | read the configuration again |
//! | `SIGUSR1` | log a report of the current state |
//! | `SIGXFSZ` | none: the write that met the limit fails |
//!
//! The second stop signal exits from the handler with [`EXIT_STOPPED_TWICE_BASE`] plus the signal's number, as a shell
//! reports it (143 and 130), without waiting for anything. That is safe because a crash is safe. All other signals,
//! `SIGPIPE` among them, keep their disposition.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::{Handle, Signals};
use tokio::sync::watch;

use crate::daemon::inbox::Inbox;
use crate::platform::background::{spawn, with_signals_blocked};

/// The base of the exit code after a second stop signal; the signal's number is added.
pub const EXIT_STOPPED_TWICE_BASE: i32 = 128;

/// The thread that waits for signals; it ends when this is dropped. The handlers stay, because the default actions
/// cannot be restored.
#[derive(Debug)]
pub struct SignalThread {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Registers the two stop signals: the first sets the flag, for work that checks it between its steps; the second ends
/// the process at once.
///
/// # Errors
/// The kernel refuses to install a handler.
pub fn stop_flag() -> io::Result<Arc<AtomicBool>> {
    with_signals_blocked(register_stop_flag)?
}

fn register_stop_flag() -> io::Result<Arc<AtomicBool>> {
    let stop_requested = Arc::new(AtomicBool::new(false));
    // The exit is registered before the flag. Handlers run in this order, so the signal that sets the flag does not
    // exit.
    for signal in [SIGTERM, SIGINT] {
        let exit_code = EXIT_STOPPED_TWICE_BASE + signal;
        flag::register_conditional_shutdown(signal, exit_code, Arc::clone(&stop_requested))?;
    }
    for signal in [SIGTERM, SIGINT] {
        flag::register(signal, Arc::clone(&stop_requested))?;
    }
    Ok(stop_requested)
}

/// Registers the handlers and starts the thread that turns signals into wake-ups. Must be called once, by the main
/// thread and before readiness is notified. The receiver becomes true with the first stop signal.
///
/// # Errors
/// The kernel refuses to install a handler, or to create a pipe or a thread.
pub fn listen(inbox: Arc<Inbox>) -> io::Result<(SignalThread, watch::Receiver<bool>)> {
    // signal-hook installs the kernel's handler a moment before the handler finds its actions. A signal of that moment
    // would neither end the process nor be seen, so it waits until all is registered.
    let mut signals = with_signals_blocked(register)??;
    let handle = signals.handle();
    let (stop, stop_receiver) = watch::channel(false);
    let thread = spawn("signals", move || {
        signals
            .forever()
            .for_each(|signal| forward(signal, &inbox, &stop))
    })?;
    Ok((
        SignalThread {
            handle,
            thread: Some(thread),
        },
        stop_receiver,
    ))
}

fn register() -> io::Result<Signals> {
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
    // A file that exceeds the size limit is an I/O error and must not end the process silently.
    flag::register(SIGXFSZ, Arc::default())?;
    let _stop_requested = register_stop_flag()?;
    Ok(signals)
}

/// Wakes the engine thread for a signal.
fn forward(signal: i32, inbox: &Inbox, stop: &watch::Sender<bool>) {
    match signal {
        SIGHUP => inbox.reload(),
        SIGUSR1 => inbox.report(),
        _ => {
            inbox.stop();
            let _previous = stop.send_replace(true);
        }
    }
}

impl Drop for SignalThread {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // It never panics: `forward` only sets flags.
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

    /// Set in the child processes: handlers belong to the whole process, so each case runs in this test binary again.
    const CHILD: &str = "DISTILLD_TEST_SIGNAL_CHILD";

    #[test]
    fn child_that_prints_its_wake_ups() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        let print = |line: &str| writeln!(io::stdout(), "\n> {line}").unwrap();
        let inbox = Arc::new(Inbox::new());
        let (_thread, stop_receiver) = listen(Arc::clone(&inbox)).unwrap();
        print("ready");
        let mut stopped = false;
        // A stop request is not obeyed: only a second signal ends it.
        loop {
            let pending = inbox.wait_until(None);
            if pending.reload {
                print("reload");
            }
            if pending.report {
                print("report");
            }
            if pending.stop && !stopped {
                stopped = true;
                print("stop");
                while !*stop_receiver.borrow() {
                    std::thread::yield_now();
                }
                print("stop received");
            }
        }
    }

    struct Running {
        child: Child,
        lines: BufReader<ChildStdout>,
    }

    impl Running {
        fn start() -> Running {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "daemon::signals::tests::child_that_prints_its_wake_ups",
                    "--nocapture",
                ])
                .env(CHILD, "1")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap());
            let mut running = Running { child, lines };
            running.expect("ready");
            running
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
    fn hangup_requests_a_reload_and_usr1_a_report() {
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
        running.expect("stop received");
        running.send(Signal::HUP);
        running.expect("reload");
        running.send(second);
        assert_eq!(running.exit_code(), Some(exit_code));
    }

    #[test]
    fn the_first_stop_signal_requests_a_stop_and_the_second_exits_at_once() {
        check_second_signal(Signal::TERM, Signal::TERM, 143);
        check_second_signal(Signal::INT, Signal::INT, 130);
        check_second_signal(Signal::TERM, Signal::INT, 130);
    }
}
