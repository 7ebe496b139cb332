//! Runs one daemon for a long time as an always-on host does, and draws what it holds: memory, descriptors, disk use and the
//! time until a row. For hours, it shows what grows.
//!
//! `cargo bench --bench soak [-- --minutes 240 --rate 100]`
//!
//! - The scorers (`support/mixed_load.rs`) write for 45 s of each minute, with bursts of ten times the rate, into a new day
//!   24 times. Then they are silent, so that the daemon tidies up.
//! - With each sample an operator asks for the status, and in turn explains a run, retracts one, revokes that, has the
//!   configuration read again, and cites a version.
//! - `soak.csv` and `soak.svg`, below the directory that is printed, have all samples.
//!
//! Asserts that no row is missing, doubled or altered, and that `verify` agrees; asserts no time and no size.

mod support;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;

use support::daemon::Daemon;
use support::figures::{Spread, Table, machine};
use support::floor::sleep_until;
use support::mixed_load::MixedLoad;
use support::program::Program;
use support::samples::{Column, Sample, heading};
use support::summary::{self, Line};
use support::watcher::{POLL_CHEAP, Watcher};
use support::{Failure, bench_dir, export_path, lines_in, plot, remove_tree};

/// Days of a run.
const DAYS: u32 = 24;
/// Samples of a run, where they are at least [`SHORTEST_INTERVAL`] apart.
const SAMPLES: u32 = 480;
const SHORTEST_INTERVAL: Duration = Duration::from_secs(2);
/// Maximum time for the last rows.
const REST: Duration = Duration::from_secs(60);

/// Runs one daemon for a long time, and draws what it holds.
#[derive(Debug, Parser)]
struct Options {
    /// Duration
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
    /// Runs a second while the scorers write
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Without effect: `cargo bench -- --full` gives it to all, and hours are asked for with `--minutes`
    #[arg(long, hide = true)]
    full: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// The running daemon and what observes it.
#[derive(Debug)]
struct Soak {
    root: PathBuf,
    log: PathBuf,
    /// Output of the operator's commands.
    answer: PathBuf,
    daemon: Daemon,
    load: MixedLoad,
    watcher: Watcher,
    start: Instant,
    /// The last sample, and the CPU time of the daemon until then.
    last: (Instant, Duration),
    rows: u64,
    seen: Vec<bool>,
    retracted: Option<String>,
    samples: Vec<Sample>,
    table: File,
}

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let minutes = options.minutes;
    let duration = Duration::from_secs(60 * u64::from(minutes));
    let dir = bench_dir("soak");
    remove_tree(&dir)?;
    let mut soak = Soak::start(&dir, options.rate, duration)?;
    let interval = (duration / SAMPLES).max(SHORTEST_INTERVAL);
    let mut number = 0;
    while soak.start.elapsed() < duration {
        number += 1;
        sleep_until(soak.start + interval * number);
        soak.operate(number)?;
        soak.sample()?;
    }
    let samples = soak.finish()?;
    plot::draw(&samples, &dir.join("soak.svg"))?;
    println!(
        "\nsoak: {minutes} minutes, samples and picture in {}",
        dir.display()
    );
    println!("{}\n", machine(&dir));
    let lines = report(&samples, minutes);
    summary::leave("soak", &lines)?;
    Ok(remove_tree(&dir.join("root"))?)
}

impl Soak {
    fn start(dir: &Path, rate: u32, duration: Duration) -> Result<Self, Failure> {
        let (root, log) = (dir.join("root"), dir.join("distilld.log"));
        fs::create_dir_all(root.join("data/scored-runs"))?;
        fs::create_dir_all(root.join("data/evidence"))?;
        let mut daemon = Daemon::start(&root, &log)?;
        daemon.wait_until_caught_up()?;
        let watcher = Watcher::start(&export_path(&root), POLL_CHEAP)?;
        let mut table = File::create(dir.join("soak.csv"))?;
        table.write_all(heading().as_bytes())?;
        Ok(Self {
            load: MixedLoad::start(root.clone(), rate, duration / DAYS),
            answer: dir.join("answer.txt"),
            start: Instant::now(),
            last: (Instant::now(), daemon.program.usage().cpu),
            rows: 0,
            seen: Vec::new(),
            retracted: None,
            samples: Vec::new(),
            root,
            log,
            daemon,
            watcher,
            table,
        })
    }

    /// Does what an operator does occasionally: another thing at each sample.
    fn operate(&mut self, number: u32) -> Result<(), Failure> {
        let earned = self.load.progress().earned_run.clone();
        match (number % 6, earned) {
            (1, Some(run_id)) => self.ask(&["explain", &run_id]),
            (2, Some(run_id)) => {
                self.ask(&["retract", &run_id, "--reason", "soak"])?;
                self.retracted = Some(run_id);
                Ok(())
            }
            (3, _) => match self.retracted.take() {
                Some(run_id) => self.ask(&["retract", "--revoke", &run_id]),
                None => Ok(()),
            },
            (4, _) => {
                let id = rustix::process::Pid::from_raw(self.daemon.program.id() as i32);
                let id = id.ok_or("a process without an id")?;
                Ok(rustix::process::kill_process(
                    id,
                    rustix::process::Signal::HUP,
                )?)
            }
            (5, _) => self.ask(&["cite"]),
            _ => Ok(()),
        }
    }

    fn ask(&self, args: &[&str]) -> Result<(), Failure> {
        Program::run(&self.root, args, &self.answer).map(|_| ())
    }

    fn sample(&mut self) -> Result<(), Failure> {
        self.daemon.program.check_alive()?;
        if !self.load.writes() {
            return Err("the scorers ended".into());
        }
        let id = self.daemon.program.id();
        let status = Program::run_to_end(&self.root, &["status", "--json"], &self.answer)?;
        let latencies = self.new_rows()?;
        let mut sample = Sample::of(id, &self.root, &self.log)?;
        sample.set(Column::ELAPSED_S, self.start.elapsed().as_secs_f64());
        sample.set(Column::LINES, self.load.progress().lines as f64);
        sample.set(Column::ROWS, self.rows as f64);
        // Threads of questions come and go, so that the times of the threads do not add up to that of the process.
        let (now, cpu) = (Instant::now(), self.daemon.program.usage().cpu);
        let used = cpu.saturating_sub(self.last.1).as_secs_f64();
        let passed = (now - self.last.0).as_secs_f64();
        sample.set(Column::CPU_PERCENT, 100.0 * used / passed);
        self.last = (now, cpu);
        if let Some(latencies) = Spread::of(latencies) {
            let ms = |latency: Duration| latency.as_secs_f64() * 1e3;
            sample.set(Column::LATENCY_P50_MS, ms(latencies.percentile(50)));
            sample.set(Column::LATENCY_P99_MS, ms(latencies.percentile(99)));
            sample.set(Column::LATENCY_MAX_MS, ms(latencies.max()));
        }
        sample.set(Column::STATUS_MS, status.wall.as_secs_f64() * 1e3);
        sample.set(Column::FRESH, f64::from(u8::from(self.is_fresh()?)));
        self.table.write_all(sample.line().as_bytes())?;
        self.samples.push(sample);
        Ok(())
    }

    fn is_fresh(&self) -> Result<bool, Failure> {
        let answer = fs::read_to_string(&self.answer)?;
        // A command that waits for its answer reports that first.
        let status = answer.lines().find(|line| line.starts_with('{'));
        let status: serde_json::Value = serde_json::from_str(status.unwrap_or_default())?;
        Ok(status["health"]["verdict"] == "fresh")
    }

    /// Returns how long the rows since the last call took, as far as that depends on one write.
    fn new_rows(&mut self) -> Result<Vec<Duration>, Failure> {
        let progress = self.load.progress();
        let mut latencies = Vec::new();
        while let Ok((number, at)) = self.watcher.rows.try_recv() {
            self.seen.resize(self.seen.len().max(number + 1), false);
            if std::mem::replace(&mut self.seen[number], true) {
                return Err(format!("run {number} has two rows").into());
            }
            self.rows += 1;
            // A row may be seen before the scorer has noted that it wrote the line.
            if let Some(Some(written)) = progress.written.get(number) {
                latencies.push(at.saturating_duration_since(*written));
            }
        }
        Ok(latencies)
    }

    /// Ends the load, waits for its rows, and compares the export with the batch.
    fn finish(mut self) -> Result<Vec<Sample>, Failure> {
        self.load.stop()?;
        let earned = self.load.progress().rows;
        let end = Instant::now() + REST;
        while self.rows < earned && Instant::now() < end {
            self.daemon.program.check_alive()?;
            self.new_rows()?;
            thread::sleep(Duration::from_millis(100));
        }
        self.watcher.stop()?;
        self.daemon.program.stop()?;
        let rows = lines_in(&export_path(&self.root))?;
        if rows != earned || self.rows != earned {
            let seen = self.rows;
            return Err(format!(
                "{earned} rows were earned, {seen} were seen, the export has {rows}"
            )
            .into());
        }
        Program::run(&self.root, &["verify"], &self.answer)?;
        Ok(self.samples)
    }
}

/// A column, and what is compared of it: the highest value of the first half and of the second.
const COMPARED: [Column; 13] = [
    Column::RESIDENT_MIB,
    Column::OWN_MIB,
    Column::DESCRIPTORS,
    Column::THREADS,
    Column::WATCHES,
    Column::STATE_MB,
    Column::JOURNAL_MB,
    Column::CPU_PERCENT,
    Column::LATENCY_P50_MS,
    Column::LATENCY_P99_MS,
    Column::LATENCY_MAX_MS,
    Column::STATUS_MS,
    Column::LOG_KB,
];

/// Prints the median and the highest value of both halves of the run; returns the lines for the summary of all
/// benchmarks.
fn report(samples: &[Sample], minutes: u32) -> Vec<Line> {
    let (first, second) = samples.split_at(samples.len() / 2);
    let mut table = Table::new(&["", "first half", "highest", "second half", "highest"]);
    for column in COMPARED {
        let cells = [first, second].map(|half| {
            let values = values(half, column);
            [middle(&values), values.last().copied().unwrap_or(f64::NAN)]
        });
        let cells = cells
            .as_flattened()
            .iter()
            .map(|value| format!("{value:.1}"));
        table.row([column.name.to_owned()].into_iter().chain(cells).collect());
    }
    table.print();
    let own = [first, second].map(|half| middle(&values(half, Column::OWN_MIB)));
    vec![Line {
        what: format!("soak of {minutes} minutes: own memory, second half against the first"),
        value: format!("{:.1} MiB", own[1]),
        floor: format!("{:.1} MiB", own[0]),
        ratio: format!("{:.2} x", own[1] / own[0]),
        aim: "",
    }]
}

/// Returns the measured values of a column, in ascending order.
fn values(samples: &[Sample], column: Column) -> Vec<f64> {
    let mut values: Vec<f64> = samples
        .iter()
        .map(|sample| sample.get(column))
        .filter(|value| !value.is_nan())
        .collect();
    values.sort_by(f64::total_cmp);
    values
}

fn middle(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
