//! Runs a daemon that reports its readiness as to a service manager, and appends records to its lake one by one until
//! their rows appear. Evaluating the times is left to the benchmarks.

use std::fs;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::lake::{self, PairPath, Record};
use super::program::Program;
use super::watcher::{POLL_EXACT, RUN_PREFIX, Watcher};
use super::{Failure, export_path};

/// Maximum time that the benchmark waits for anything.
pub const DEADLINE: Duration = Duration::from_secs(120);
/// Polling interval of a log file.
const LOG_INTERVAL: Duration = Duration::from_millis(2);

/// A running daemon that has sent READY=1.
#[derive(Debug)]
pub struct Daemon {
    /// The process.
    pub program: Program,
    /// From before the process was made to its READY.
    pub ready_after: Duration,
    start: Instant,
    log: PathBuf,
    _notices: Notices,
}

impl Daemon {
    /// Starts it and waits until it is ready.
    pub fn start(root: &Path, log: &Path) -> Result<Self, Failure> {
        let (notices, ready) = Notices::listen()?;
        let start = Instant::now();
        let mut program =
            Program::start_with(root, &["run"], log, &[("NOTIFY_SOCKET", &notices.socket())])?;
        let ready_at = loop {
            match ready.recv_timeout(Duration::from_millis(200)) {
                Ok(at) => break at,
                Err(_) if start.elapsed() < DEADLINE => program.check_alive()?,
                Err(_) => return Err(program.failure("did not get ready")),
            }
        };
        Ok(Self {
            program,
            ready_after: ready_at - start,
            start,
            log: log.to_owned(),
            _notices: notices,
        })
    }

    /// Waits until the daemon has read all existing files and returns the time since its start.
    pub fn wait_until_caught_up(&mut self) -> Result<Duration, Failure> {
        while self.start.elapsed() < DEADLINE {
            if fs::read_to_string(&self.log)?.contains("caught up") {
                return Ok(self.start.elapsed());
            }
            self.program.check_alive()?;
            thread::sleep(LOG_INTERVAL);
        }
        Err(self.program.failure("did not catch up"))
    }
}

/// The socket of a service manager, and the thread that empties it.
#[derive(Debug)]
struct Notices {
    dir: tempfile::TempDir,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Notices {
    fn listen() -> io::Result<(Self, Receiver<Instant>)> {
        let mut notices = Self {
            // Not below `target/`: the path of a socket may have 107 bytes.
            dir: tempfile::tempdir()?,
            stop: Arc::default(),
            thread: None,
        };
        let socket = UnixDatagram::bind(notices.socket())?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        let (sender, ready) = channel();
        let stop = Arc::clone(&notices.stop);
        notices.thread = Some(thread::spawn(move || listen(&socket, &sender, &stop)));
        Ok((notices, ready))
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("notify")
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The thread cannot panic, and the benchmark ends here.
            let _ = thread.join();
        }
    }
}

fn listen(socket: &UnixDatagram, ready: &Sender<Instant>, stop: &AtomicBool) {
    let mut message = [0; 4096];
    while !stop.load(Ordering::Relaxed) {
        // The error is a time-out.
        let Ok(len) = socket.recv(&mut message) else {
            continue;
        };
        let now = Instant::now();
        if message[..len]
            .split(|&byte| byte == b'\n')
            .any(|line| line == b"READY=1")
        {
            // A second line ends the wait.
            let _ = ready.send(now);
        }
    }
}

/// Appends records that earn a row to one pair and waits for each row.
#[derive(Debug)]
pub struct Appender {
    root: PathBuf,
    pair: PairPath,
    watcher: Watcher,
    rng: fastrand::Rng,
    next: usize,
    text_bytes: u32,
}

impl Appender {
    /// Starts with `rows` rows in the export: run numbers from `rows` on are unused.
    pub fn start(root: &Path, pair: PairPath, rows: u64, text_bytes: u32) -> io::Result<Self> {
        Ok(Self {
            root: root.to_owned(),
            pair,
            watcher: Watcher::start(&export_path(root), POLL_EXACT)?,
            rng: fastrand::Rng::with_seed(rows),
            next: rows as usize,
            text_bytes,
        })
    }

    /// Appends one record; returns the time at which the `write` of its scored line returned.
    pub fn append(&mut self) -> io::Result<Instant> {
        let run_id = format!("{RUN_PREFIX}{:08}", self.next);
        let record = Record::good(&mut self.rng, run_id, self.text_bytes);
        let (mut evidence, mut scored) = (Vec::new(), Vec::new());
        record.write_evidence(&self.pair, self.next as u32, &mut evidence);
        record.write_scored(&self.pair, self.next as u32, &mut scored);
        self.next += 1;
        lake::append(&self.pair.evidence(&self.root), &evidence)?;
        lake::append(&self.pair.scored(&self.root), &scored)
    }

    /// Waits for the next row, which must be that of the run `number`; returns the time at which it was seen.
    pub fn wait_for(&self, number: usize, program: &mut Program) -> Result<Instant, Failure> {
        let start = Instant::now();
        loop {
            match self.watcher.rows.recv_timeout(Duration::from_millis(200)) {
                Ok((found, at)) if found == number => return Ok(at),
                Ok((found, _)) => {
                    return Err(format!("the row of run {found} came for that of {number}").into());
                }
                Err(_) if start.elapsed() < DEADLINE => program.check_alive()?,
                Err(_) => return Err(program.failure(&format!("no row of run {number} came"))),
            }
        }
    }

    /// The number of the next record.
    pub fn next(&self) -> usize {
        self.next
    }

    /// Appends `count` records, one per `period`; returns the delay of each row.
    pub fn steadily(
        &mut self,
        count: u32,
        period: Duration,
        program: &mut Program,
    ) -> Result<Vec<Duration>, Failure> {
        let (start, first) = (Instant::now(), self.next);
        let mut written = Vec::new();
        for number in 0..count {
            super::floor::sleep_until(start + period * number);
            written.push(self.append()?);
        }
        let mut took = Vec::new();
        for (number, at) in written.into_iter().enumerate() {
            let seen = self.wait_for(first + number, program)?;
            took.push(seen.saturating_duration_since(at));
        }
        Ok(took)
    }

    /// Stops the watcher and returns the polling intervals.
    pub fn stop(self) -> Result<Vec<Duration>, Failure> {
        Ok(self.watcher.stop()?.apart)
    }
}
