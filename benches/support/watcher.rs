//! Observes when the rows of numbered runs appear in an export that another process writes. Read-only.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use memchr::memmem;

use super::Failure;
use super::process::thread_cpu_time;

/// Sleep between two polls of the export that finds the time of a row as exactly as possible.
pub const POLL_EXACT: Duration = Duration::from_micros(20);
/// The same where the polls must not take a processor from the measured program.
pub const POLL_CHEAP: Duration = Duration::from_millis(1);
/// Prefix of the run ids of measured records; a number follows.
pub const RUN_PREFIX: &str = "fresh-";

/// The thread that polls the export.
#[derive(Debug)]
pub struct Watcher {
    /// The number of each run whose row was found, and when, in the order of the export.
    pub rows: Receiver<(usize, Instant)>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Polls>>,
}

/// What the thread did.
#[derive(Debug, Default)]
pub struct Polls {
    /// The intervals that ended with a row.
    pub apart: Vec<Duration>,
    /// The CPU time of the thread.
    pub cpu: Duration,
}

impl Watcher {
    /// Starts at the current end of the export, and sleeps between two polls.
    pub fn start(export: &Path, sleep: Duration) -> io::Result<Self> {
        let export = File::open(export)?;
        let offset = export.metadata()?.len();
        let (sender, rows) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || watch(&export, offset, sleep, &sender, &stopped));
        Ok(Self { rows, stop, thread })
    }

    /// Stops the thread.
    pub fn stop(self) -> Result<Polls, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self
            .thread
            .join()
            .map_err(|_| "the watching thread panicked")??)
    }
}

fn watch(
    export: &File,
    mut offset: u64,
    sleep: Duration,
    rows: &Sender<(usize, Instant)>,
    stop: &AtomicBool,
) -> io::Result<Polls> {
    sharpen_sleeps();
    let (mut polls, mut unfinished, mut last_poll) = (Polls::default(), Vec::new(), Instant::now());
    while !stop.load(Ordering::Relaxed) {
        let len = export.metadata()?.len();
        if len > offset {
            let begin = unfinished.len();
            unfinished.resize(begin + (len - offset) as usize, 0);
            export.read_exact_at(&mut unfinished[begin..], offset)?;
            let now = Instant::now();
            polls.apart.push(now - last_poll);
            offset = len;
            report_rows(&mut unfinished, now, rows);
        }
        last_poll = Instant::now();
        thread::sleep(sleep);
    }
    polls.cpu = thread_cpu_time()?;
    Ok(polls)
}

/// Sends the number of each run that has a complete line, and keeps the bytes after the last newline.
fn report_rows(bytes: &mut Vec<u8>, now: Instant, rows: &Sender<(usize, Instant)>) {
    let Some(end) = memchr::memrchr(b'\n', bytes) else {
        return;
    };
    let key = format!("\"source_run_id\":\"{RUN_PREFIX}");
    for at in memmem::find_iter(&bytes[..end], &key) {
        let digits = bytes[at + key.len()..].iter();
        let digits = digits.take_while(|byte| byte.is_ascii_digit());
        let number = digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
        // The receiver is dropped only when the benchmark has ended.
        let _ = rows.send((number, now));
    }
    bytes.drain(..=end);
}

/// Sets this thread's timer slack to 1 us; Linux delays sleeps by up to 50 us otherwise. If that is not permitted, the
/// printed resolution shows it.
fn sharpen_sleeps() {
    let Ok(link) = fs::read_link("/proc/thread-self") else {
        return;
    };
    let Some(thread_id) = link.file_name() else {
        return;
    };
    let _ = fs::write(
        Path::new("/proc").join(thread_id).join("timerslack_ns"),
        "1000",
    );
}
