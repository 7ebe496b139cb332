//! Scorers over many days: a day-file pair of each class and day, with lines in two writes, evidence that comes late, runs
//! that are rejected after their row, malformed lines, bursts, and silence.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::lake::{self, CLASSES, PairPath, Record};
use super::watcher::RUN_PREFIX;

/// Mean length of the evidence texts.
const TEXT_BYTES: u32 = 800;
/// The scorers pause at least this long, and write what is due then.
const TICK: Duration = Duration::from_millis(10);
/// Load and silence alternate: this long in all,
const CYCLE: Duration = Duration::from_secs(60);
/// of which this is the load.
const LOAD: Duration = Duration::from_secs(45);
/// One second in each of these has [`BURST`] times the rate.
const BURST_PERIOD_S: u64 = 15;
const BURST: f64 = 10.0;
/// Time between the halves of a line that is written in two.
const TEAR: Duration = Duration::from_millis(2);
/// The evidence of a late run follows after at most this.
const LATE_MS: u64 = 5_000;
/// A run is rejected at least this long after its row was earned.
const REJECTED_AFTER: Duration = Duration::from_secs(5);
/// Runs remembered to be rejected.
const REMEMBERED: usize = 1_000;

/// What was written, shared with the thread that measures.
#[derive(Debug, Default)]
pub struct Progress {
    /// When the `write` of the last line of each run returned, by number; `None` where its row does not depend on that
    /// write alone, or it has none.
    pub written: Vec<Option<Instant>>,
    /// Rows earned.
    pub rows: u64,
    /// Lines of both kinds.
    pub lines: u64,
    /// An earned run of a while ago.
    pub earned_run: Option<String>,
}

/// The writing thread.
#[derive(Debug)]
pub struct MixedLoad {
    progress: Arc<Mutex<Progress>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<io::Result<()>>>,
}

impl MixedLoad {
    /// Starts to write `rate` runs a second during the load, into a directory of another day after each `day`.
    pub fn start(root: PathBuf, rate: u32, day: Duration) -> Self {
        let (progress, stop) = (Arc::<Mutex<Progress>>::default(), Arc::default());
        let mut scorers = Scorers {
            root,
            rate: f64::from(rate),
            day,
            rng: fastrand::Rng::with_seed(23),
            late: VecDeque::new(),
            earned: VecDeque::new(),
            progress: Arc::clone(&progress),
        };
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || scorers.write_until(&stopped));
        Self {
            progress,
            stop,
            thread: Some(thread),
        }
    }

    /// Returns whether the thread still writes; it ends by itself only with an error.
    pub fn writes(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    /// Returns what was written so far.
    pub fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the load after the evidence that is still due.
    ///
    /// # Errors
    /// A day-file could not be written.
    pub fn stop(&mut self) -> io::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().map(thread::JoinHandle::join) {
            Some(Err(_)) => Err(io::Error::other("the writing thread panicked")),
            Some(Ok(done)) => done,
            None => Ok(()),
        }
    }
}

#[derive(Debug)]
struct Scorers {
    root: PathBuf,
    rate: f64,
    day: Duration,
    rng: fastrand::Rng,
    /// Evidence that is due at a time.
    late: VecDeque<(Instant, PathBuf, Vec<u8>)>,
    /// Runs with a row, their pair and time.
    earned: VecDeque<(Instant, PairPath, String)>,
    progress: Arc<Mutex<Progress>>,
}

impl Scorers {
    fn write_until(&mut self, stop: &AtomicBool) -> io::Result<()> {
        let (start, mut due, mut last) = (Instant::now(), 0.0, Instant::now());
        let mut day = None;
        while !stop.load(Ordering::Relaxed) {
            let elapsed = start.elapsed();
            let number = (elapsed.as_secs_f64() / self.day.as_secs_f64()) as u32;
            if day != Some(number) {
                self.begin_day(number)?;
                day = Some(number);
            }
            let passed = std::mem::replace(&mut last, Instant::now());
            due += self.rate_at(elapsed) * (last - passed).as_secs_f64();
            while due >= 1.0 {
                due -= 1.0;
                self.write_run(number)?;
            }
            self.write_late(Instant::now())?;
            thread::sleep(TICK);
        }
        self.write_late(Instant::now() + Duration::from_millis(LATE_MS))
    }

    fn rate_at(&self, elapsed: Duration) -> f64 {
        let in_cycle = elapsed.as_secs() % CYCLE.as_secs();
        match in_cycle {
            _ if in_cycle >= LOAD.as_secs() => 0.0,
            _ if in_cycle % BURST_PERIOD_S == BURST_PERIOD_S - 1 => self.rate * BURST,
            _ => self.rate,
        }
    }

    fn begin_day(&mut self, day: u32) -> io::Result<()> {
        let first = day * CLASSES.len() as u32;
        PairPath::numbered(first).make_dirs(&self.root)
    }

    fn write_run(&mut self, day: u32) -> io::Result<()> {
        let class = self.rng.u32(..CLASSES.len() as u32);
        let pair = PairPath::numbered(day * CLASSES.len() as u32 + class);
        let number = self.with_progress(|progress| progress.written.len());
        let run_id = format!("{RUN_PREFIX}{number:08}");
        let record = Record::any(&mut self.rng, run_id.clone(), TEXT_BYTES);
        let (mut evidence, mut scored) = (Vec::new(), Vec::new());
        record.write_evidence(&pair, number as u32, &mut evidence);
        record.write_scored(&pair, number as u32, &mut scored);
        let late = self.rng.u32(..20) == 0;
        if late {
            let due = Instant::now() + Duration::from_millis(self.rng.u64(..LATE_MS));
            (self.late).push_back((due, pair.evidence(&self.root), evidence));
        } else {
            lake::append(&pair.evidence(&self.root), &evidence)?;
        }
        let at = self.write_scored(&pair, &scored)?;
        let earned = record.earns_row();
        self.with_progress(|progress| {
            progress.written.push((earned && !late).then_some(at));
            progress.rows += u64::from(earned);
            progress.lines += 2;
        });
        if earned && !late {
            self.earned.push_back((at, pair, run_id));
        }
        match self.rng.u32(..500) {
            0..10 => self.reject_one(),
            10 => self.write_malformed(day),
            _ => Ok(()),
        }
    }

    /// One line in fifty is written in two parts.
    fn write_scored(&mut self, pair: &PairPath, line: &[u8]) -> io::Result<Instant> {
        let path = pair.scored(&self.root);
        if self.rng.u32(..50) > 0 {
            return lake::append(&path, line);
        }
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        let (first, second) = line.split_at(self.rng.usize(1..line.len()));
        file.write_all(first)?;
        thread::sleep(TEAR);
        file.write_all(second)?;
        Ok(Instant::now())
    }

    /// Writes a second scored line for a run that has a row, by which that is retracted.
    fn reject_one(&mut self) -> io::Result<()> {
        while self.earned.len() > REMEMBERED {
            self.earned.pop_front();
        }
        let Some((at, pair, run_id)) = self.earned.pop_front() else {
            return Ok(());
        };
        if at.elapsed() < REJECTED_AFTER {
            self.earned.push_front((at, pair, run_id));
            return Ok(());
        }
        let line = format!(r#"{{"evidence_run_id":"{run_id}","category":"rejected"}}"#);
        lake::append(&pair.scored(&self.root), format!("{line}\n").as_bytes())?;
        let remaining = self.earned.front().map(|(_, _, run_id)| run_id.clone());
        self.with_progress(|progress| {
            progress.lines += 1;
            progress.earned_run = remaining;
        });
        Ok(())
    }

    fn write_malformed(&mut self, day: u32) -> io::Result<()> {
        let pair = PairPath::numbered(day * CLASSES.len() as u32);
        lake::append(&pair.scored(&self.root), b"{\"evidence_run_id\":\n")?;
        self.with_progress(|progress| progress.lines += 1);
        Ok(())
    }

    fn write_late(&mut self, now: Instant) -> io::Result<()> {
        let (due, later) = std::mem::take(&mut self.late)
            .into_iter()
            .partition::<VecDeque<_>, _>(|(due, ..)| *due <= now);
        self.late = later;
        for (_, path, line) in due {
            lake::append(&path, &line)?;
        }
        Ok(())
    }

    fn with_progress<T>(&self, change: impl FnOnce(&mut Progress) -> T) -> T {
        change(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
