//! The watchdog: a hanging part starves it, a long backfill does not. One thread of the daemon is really stopped, like
//! a hang; the others continue.

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::host::{Host, LONG, SERVICE};

/// A short time-out, so that the checks are fast.
const PATIENCE: &str = "[Service]\nWatchdogSec=2\nRestartSec=100ms\n";

pub fn a_hung_engine_is_killed_and_restarted(host: &Host) {
    a_hung_thread_is_killed(host, "engine");
}

pub fn a_hung_watcher_is_killed_and_restarted(host: &Host) {
    a_hung_thread_is_killed(host, "notify-rs");
}

fn a_hung_thread_is_killed(host: &Host, name: &str) {
    host.drop_in(SERVICE, PATIENCE);
    // The engine is idle until its next scan; a stop during that time would have no effect.
    host.configure("recent_scan_ms = 200");
    host.append_run("2026/01/01/a.jsonl", "before");
    host.start();
    host.wait_rows(1);
    let hung = StoppedThread::stop(host.main_process(), name);
    host.append_run("2026/01/01/a.jsonl", "meanwhile");
    host.wait("the manager loses patience", || {
        host.journal(&[]).contains("Watchdog timeout")
    });
    drop(hung);
    host.wait("it is started again", || host.property("NRestarts") == "1");
    host.wait_state("active");
    assert!(host.journal(&[]).contains("no progress"));
    host.wait_rows(2);
    host.assert_verified();
}

pub fn a_long_backfill_is_not_killed(host: &Host) {
    host.drop_in(SERVICE, PATIENCE);
    let mut years = 2026..;
    let mut append = || host.append_backlog(years.next().unwrap());
    let mut rows = append();
    host.start();
    let slowed = Slowed::begin(host.main_process());
    let began_us = host.uptime_us();
    // On a fast host too, it always has more work.
    host.wait_for(
        LONG,
        "it has worked for far longer than the patience",
        || {
            if host.rows() > rows / 2 {
                rows += append();
            }
            host.uptime_us() - began_us > 7_000_000
        },
    );
    assert!(host.rows() < rows, "it had nothing left to do");
    drop(slowed);
    host.wait_for(LONG * 2, "all rows", || host.rows() >= rows);
    assert_eq!(host.property("NRestarts"), "0");
    assert_eq!(host.rows(), rows);
}

/// A process that gets a small share of CPU time until this is dropped.
struct Slowed {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Slowed {
    fn begin(process_id: u32) -> Self {
        let process = Pid::from_raw(process_id.try_into().unwrap());
        let (end, ended) = channel();
        let thread = std::thread::spawn(move || {
            let pause = |ms| ended.recv_timeout(Duration::from_millis(ms));
            while pause(10) == Err(RecvTimeoutError::Timeout) {
                _ = kill(process, Signal::SIGSTOP);
                _ = pause(90);
                _ = kill(process, Signal::SIGCONT);
            }
        });
        Self {
            end: Some(end),
            thread: Some(thread),
        }
    }
}

impl Drop for Slowed {
    fn drop(&mut self) {
        drop(self.end.take());
        _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A stopped thread that resumes when this value is dropped.
struct StoppedThread(Pid);

impl StoppedThread {
    fn stop(process_id: u32, name: &str) -> Self {
        let named = |task: &PathBuf| {
            fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.starts_with(name))
        };
        let tasks = fs::read_dir(format!("/proc/{process_id}/task")).unwrap();
        let mut tasks = tasks.map(|task| task.unwrap().path());
        let task = tasks
            .find(named)
            .unwrap_or_else(|| panic!("no thread {name}"));
        let id = task.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let thread = Pid::from_raw(id);
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Self(thread)
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        // A killed thread is gone for its process only after its tracer has reaped it.
        _ = waitpid(self.0, Some(WaitPidFlag::__WALL));
    }
}
