//! Runs the measured program as a child process and reads its resource usage. A child does not outlive its handle.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Failure;
use super::threads::ThreadTimes;

/// Polling interval for the end of a child; wall times are too long by at most this.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// The unit of CPU times in `/proc/PID/stat`, 1/100 s on every architecture distilld is built for.
const TICK: Duration = Duration::from_millis(10);
/// A daemon that takes longer than this to stop is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// The resource usage of a process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Maximum resident memory, as last read before the process ended.
    pub peak_rss_bytes: u64,
    /// User and system time of all its threads, in steps of 10 ms.
    pub cpu: Duration,
}

/// A program that ran to completion.
#[derive(Debug)]
pub struct Finished {
    /// From before its start to its end.
    pub wall: Duration,
    /// The resource usage.
    pub usage: Usage,
    /// The CPU time of its threads, as far as it was seen.
    pub threads: ThreadTimes,
}

/// A running child; killed when dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `distilld --root ROOT ARGS`; both its outputs go to the file `log`.
    pub fn start(root: &Path, args: &[&str], log: &Path) -> io::Result<Self> {
        Self::start_with(root, args, log, &[])
    }

    /// Starts the program with exactly these variables in its environment.
    pub fn start_with(
        root: &Path,
        args: &[&str],
        log: &Path,
        variables: &[(&str, &Path)],
    ) -> io::Result<Self> {
        let output = File::create(log)?;
        let child = Command::new(measured_binary())
            .arg("--root")
            .arg(root)
            .args(args)
            // No variable of the calling shell may configure it.
            .env_clear()
            // As the units set it.
            .env("MALLOC_ARENA_MAX", "1")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    /// Starts the program and waits for a successful end.
    pub fn run(root: &Path, args: &[&str], log: &Path) -> Result<Finished, Failure> {
        let start = Instant::now();
        Self::start(root, args, log)?.measured_from(start)
    }

    /// Starts the program and waits for its end, successful or not.
    pub fn run_to_end(root: &Path, args: &[&str], log: &Path) -> Result<Finished, Failure> {
        let start = Instant::now();
        let (finished, _status) = Self::start(root, args, log)?.ended_from(start)?;
        Ok(finished)
    }

    /// Starts another program and waits for a successful end.
    pub fn run_other(command: Command, log: &Path) -> Result<Finished, Failure> {
        let start = Instant::now();
        Self::start_other(command, log)?.measured_from(start)
    }

    /// Starts another program.
    pub fn start_other(mut command: Command, log: &Path) -> io::Result<Self> {
        let output = File::create(log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?);
        Ok(Self {
            child: command.stderr(output).spawn()?,
            log: log.to_owned(),
        })
    }

    fn measured_from(mut self, start: Instant) -> Result<Finished, Failure> {
        let (finished, status) = self.ended_from(start)?;
        match status.success() {
            true => Ok(finished),
            false => Err(self.failure(&status.to_string())),
        }
    }

    fn ended_from(&mut self, start: Instant) -> Result<(Finished, ExitStatus), Failure> {
        let (mut usage, mut threads) = (Usage::default(), ThreadTimes::default());
        loop {
            threads.read(self.child.id());
            if read_usage(self.child.id(), &mut usage) {
                let wall = start.elapsed();
                let finished = Finished {
                    wall,
                    usage,
                    threads,
                };
                return Ok((finished, self.child.wait()?));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns whether the child has ended; its `/proc` entry remains until it is reaped.
    pub fn ended(&self) -> bool {
        read_usage(self.child.id(), &mut Usage::default())
    }

    /// Waits for a successful end.
    pub fn wait(mut self) -> Result<(), Failure> {
        let status = self.child.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(self.failure(&status.to_string())),
        }
    }

    /// Kills the process like a power cut; no part of it runs after the return.
    pub fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_| ())
    }

    /// Returns the resource usage so far.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        read_usage(self.child.id(), &mut usage);
        usage
    }

    /// Returns an error with the end of the log if the process no longer runs.
    pub fn check_alive(&mut self) -> Result<(), Failure> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.failure(&status.to_string())),
        }
    }

    /// Sends SIGTERM and waits for a successful end.
    pub fn stop(self) -> Result<(), Failure> {
        self.stop_and(|_| Ok(())).map(|((), _)| ())
    }

    /// Stops the program; returns the result of `last_reading`, called after its end while it was still in `/proc`, and
    /// the duration of the stop.
    pub fn stop_and<T>(
        self,
        last_reading: impl FnOnce(u32) -> io::Result<T>,
    ) -> Result<(T, Duration), Failure> {
        let start = Instant::now();
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::TERM,
        )?;
        while start.elapsed() < STOP_DEADLINE {
            if self.ended() {
                let (took, seen) = (start.elapsed(), last_reading(self.id())?);
                return self.wait().map(|()| (seen, took));
            }
            thread::sleep(POLL_INTERVAL);
        }
        Err(self.failure("did not stop in time"))
    }

    /// Returns an error that names the log and shows its end.
    pub fn failure(&self, what: &str) -> Failure {
        let log = fs::read(&self.log).unwrap_or_default();
        let end = String::from_utf8_lossy(&log[log.len().saturating_sub(2_000)..]).into_owned();
        format!(
            "distilld: {what}; the end of {}:\n{end}",
            self.log.display()
        )
        .into()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both calls fail only if the process has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The variable that names another binary to measure, so that two can be compared in turn.
const BINARY: &str = "DISTILLD_BENCH_BINARY";

fn measured_binary() -> OsString {
    std::env::var_os(BINARY).unwrap_or_else(|| env!("CARGO_BIN_EXE_distilld").into())
}

/// Returns the CPU time that this program itself has used.
pub fn own_cpu_time() -> Duration {
    let mut usage = Usage::default();
    read_usage(std::process::id(), &mut usage);
    usage.cpu
}

/// Updates `usage` with the latest figures; returns whether the process has ended. A process that is not yet waited
/// for still has its CPU time in `/proc`, but no longer its memory.
fn read_usage(process_id: u32, usage: &mut Usage) -> bool {
    let proc_dir = PathBuf::from(format!("/proc/{process_id}"));
    // A child that has just been started still has the memory of this process for a moment. Read before that memory is.
    let program = fs::read_link(proc_dir.join("exe")).ok();
    let status = fs::read_to_string(proc_dir.join("status")).unwrap_or_default();
    if let Some(len_bytes) = peak_rss_bytes(&status)
        && program != std::env::current_exe().ok()
    {
        usage.peak_rss_bytes = len_bytes;
    }
    let stat = fs::read_to_string(proc_dir.join("stat")).unwrap_or_default();
    match state_and_cpu(&stat) {
        Some((state, cpu)) => {
            usage.cpu = cpu;
            matches!(state, "Z" | "X")
        }
        None => true,
    }
}

fn peak_rss_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Returns the state letter and the CPU time in `/proc/PID/stat`; the name before them may contain anything but ends
/// at the last `)`.
fn state_and_cpu(stat: &str) -> Option<(&str, Duration)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?;
    Some((fields.first()?, TICK * ticks))
}
