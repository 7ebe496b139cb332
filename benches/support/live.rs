//! Records that are appended while the daemon runs, and the observed time until each row is readable.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use super::figures::Spread;
use super::floor::{Floor, sleep_until};
use super::lake::{self, LakePlan, PairPath, Record};
use super::program::Program;
use super::scorers::{Load, Scorers};
use super::watcher::{POLL_EXACT, RUN_PREFIX, Watcher};
use super::{Failure, export_path, lines_in, remove_tree, settle_disk};

/// Time after which the benchmark fails if a row has not appeared.
const ROW_DEADLINE: Duration = Duration::from_secs(60);
/// The floor is taken at most this often, so that it measures a disk and does not load it.
pub const FLOOR_PERIOD: Duration = Duration::from_millis(20);
/// Mean length of the evidence texts.
const TEXT_BYTES: u32 = 1_620;

/// A daemon on a lake of its own, the appended records, and the observed rows.
#[derive(Debug)]
pub struct Live {
    /// The lake.
    pub root: PathBuf,
    /// The daemon.
    pub program: Program,
    watcher: Watcher,
    floor: Floor,
    rng: fastrand::Rng,
    written: Vec<Instant>,
    seen: BTreeMap<usize, Instant>,
    floors: Vec<Duration>,
    rows_before: u64,
}

/// What was observed of all records.
#[derive(Debug)]
pub struct Observed {
    /// From the return of the `write` of a record's last newline to its row being readable.
    pub rows: Spread,
    /// Append and `fdatasync` of a row's length.
    pub floor: Spread,
    /// Intervals of the polling that found the rows.
    pub resolution: Spread,
    /// CPU time of the thread that found the rows.
    pub observer_cpu: Duration,
}

/// What a load reached.
#[derive(Debug, Clone, Copy)]
pub struct Reached {
    /// Runs a second.
    pub rate: f64,
    /// CPU time of the writing thread.
    pub writer_cpu: Duration,
    /// CPU time of the daemon until the last row.
    pub daemon_cpu: Duration,
    /// From the first write to the last row.
    pub took: Duration,
}

impl Live {
    /// Creates the lake with one record per pair, starts the daemon and waits for the lake's rows.
    ///
    /// # Errors
    /// The lake cannot be written, or the daemon does not start.
    pub fn start(dir: &Path, pairs: u32) -> Result<Self, Failure> {
        Self::start_polled(dir, pairs, POLL_EXACT)
    }

    /// As [`Live::start`], with this sleep between two polls of the export.
    pub fn start_polled(dir: &Path, pairs: u32, sleep: Duration) -> Result<Self, Failure> {
        remove_tree(dir)?;
        let plan = LakePlan {
            pairs,
            records: 1,
            text_bytes: TEXT_BYTES,
            seed: 11,
        };
        let lake = lake::prepare(dir, &plan)?;
        let (root, mut rng) = (lake.root, fastrand::Rng::with_seed(13));
        // A lake this small may earn no row at all; this record does.
        let record = Record::good(&mut rng, "warm-up".to_owned(), TEXT_BYTES);
        append_record(&root, &PairPath::numbered(0), 1, &record)?;
        settle_disk(dir)?;
        let mut program = Program::start(&root, &["run"], &dir.join("distilld.log"))?;
        let rows_before = lake.facts.rows + 1;
        wait_for_rows(&mut program, &export_path(&root), rows_before)?;
        let watcher = Watcher::start(&export_path(&root), sleep)?;
        let floor = Floor::create(&dir.join("floor.bin"))?;
        // The rest of the start is not part of the measurement.
        thread::sleep(Duration::from_secs(1));
        Ok(Self {
            root,
            program,
            watcher,
            floor,
            rng,
            written: Vec::new(),
            seen: BTreeMap::new(),
            floors: Vec::new(),
            rows_before,
        })
    }

    /// Appends one record that earns a row; the time is that at which the `write` of its scored line returned.
    pub fn write(&mut self, pair: &PairPath) -> io::Result<()> {
        let run_id = format!("{RUN_PREFIX}{:08}", self.written.len());
        let record = Record::good(&mut self.rng, run_id, TEXT_BYTES);
        let at = append_record(&self.root, pair, self.written.len() as u32, &record)?;
        self.written.push(at);
        Ok(())
    }

    /// Waits until all that was written has been seen.
    pub fn wait_for_all(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + ROW_DEADLINE;
        while self.seen.len() < self.written.len() {
            match self.watcher.rows.recv_timeout(Duration::from_millis(200)) {
                Ok((number, at)) => {
                    if self.seen.insert(number, at).is_some() {
                        return Err(format!("run {number} has two rows").into());
                    }
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {
                    self.program.check_alive()?
                }
                Err(_) => {
                    let missing = self.written.len() - self.seen.len();
                    return Err(self.program.failure(&format!(
                        "{missing} of {} rows did not come",
                        self.written.len()
                    )));
                }
            }
        }
        Ok(())
    }

    /// Takes the floor once.
    pub fn take_floor(&mut self) -> io::Result<()> {
        self.floors.push(self.floor.once()?);
        Ok(())
    }

    /// Appends records at a rate, to the pairs in turn, and waits for their rows. Returns the rate that was reached, which is
    /// less where the writer is too slow.
    pub fn steadily(&mut self, rate: u32, seconds: u32, pairs: u32) -> Result<f64, Failure> {
        let paths: Vec<PairPath> = (0..pairs).map(PairPath::numbered).collect();
        let period = Duration::from_secs(1) / rate;
        let start = Instant::now() + FLOOR_PERIOD;
        let (count, end) = (rate * seconds, start + Duration::from_secs(seconds.into()));
        let mut floor = self.floor.try_clone()?;
        let floors = thread::spawn(move || {
            floor.steadily(start + period / 2, period.max(FLOOR_PERIOD), end)
        });
        for number in 0..count {
            sleep_until(start + period * number);
            self.write(&paths[number as usize % paths.len()])?;
        }
        let took = start.elapsed();
        self.wait_for_all()?;
        self.floors = floors.join().map_err(|_| "the floor's thread panicked")??;
        Ok(f64::from(count) / took.max(period * count).as_secs_f64())
    }

    /// Has scorers write a load, and waits for its rows.
    pub fn follow(&mut self, load: Load) -> Result<Reached, Failure> {
        let mut scorers = Scorers::open(&self.root, load, &mut self.rng, TEXT_BYTES)?;
        let (start, cpu_before) = (Instant::now(), self.program.usage().cpu);
        let written = scorers.write()?;
        self.written = written.at;
        self.wait_for_all()?;
        let took = start.elapsed();
        let daemon_cpu = self.program.usage().cpu.saturating_sub(cpu_before);
        self.take_floor()?;
        Ok(Reached {
            rate: written.rate,
            writer_cpu: written.cpu,
            daemon_cpu,
            took,
        })
    }

    /// Returns the time from the last record to the last row.
    pub fn rest(&self) -> Duration {
        let last = self.seen.values().max().zip(self.written.last());
        last.map_or(Duration::ZERO, |(row, record)| {
            row.saturating_duration_since(*record)
        })
    }

    /// Stops the daemon, and checks that each record has one row.
    ///
    /// # Errors
    /// A row is missing or doubled, or the daemon failed.
    pub fn finish(self, name: &str) -> Result<Observed, Failure> {
        let polls = self.watcher.stop()?;
        self.program.stop()?;
        // The stopped daemon adds nothing more; a row written twice would be counted here.
        let lines = lines_in(&export_path(&self.root))?;
        let expected = self.rows_before + self.written.len() as u64;
        if lines != expected {
            return Err(
                format!("{name}: the export has {lines} rows, {expected} were earned").into(),
            );
        }
        let rows = (self.seen.iter())
            .map(|(&number, &at)| at.saturating_duration_since(self.written[number]))
            .collect();
        Ok(Observed {
            rows: Spread::of(rows).ok_or("no rows")?,
            floor: Spread::of(self.floors).ok_or("no floor")?,
            resolution: Spread::of(polls.apart).ok_or("no polls")?,
            observer_cpu: polls.cpu,
        })
    }
}

fn append_record(root: &Path, pair: &PairPath, line: u32, record: &Record) -> io::Result<Instant> {
    let (mut evidence, mut scored) = (Vec::new(), Vec::new());
    record.write_evidence(pair, line, &mut evidence);
    record.write_scored(pair, line, &mut scored);
    lake::append(&pair.evidence(root), &evidence)?;
    lake::append(&pair.scored(root), &scored)
}

/// Waits until the export has this number of rows.
pub fn wait_for_rows(program: &mut Program, export: &Path, rows: u64) -> Result<(), Failure> {
    let deadline = Instant::now() + ROW_DEADLINE;
    loop {
        let found = lines_in(export)?;
        if found == rows {
            return Ok(());
        }
        program.check_alive()?;
        if Instant::now() > deadline {
            return Err(program.failure(&format!("{found} of {rows} first rows came")));
        }
        thread::sleep(Duration::from_millis(10));
    }
}
