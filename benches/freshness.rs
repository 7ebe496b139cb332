//! Measures freshness: the time from the return of the `write` of a record's last newline until its row is readable in
//! the export, at which point distilld has made it durable; against one append and `fdatasync` of a row's length.
//!
//! `cargo bench --bench freshness [-- --rate 50 --seconds 20 --files 1 --silence 60 --only steady]`
//!
//! - A record is two lines, each appended with one `write`: the evidence, then the scored run.
//! - A thread polls the export's length (`fstat`) about every 20 us. It reads new bytes (`pread`), takes the time, and
//!   then searches them for the run's row. The actual polling interval is printed as the resolution: a figure may be
//!   too long by that much, never too short.
//! - The floor is measured in the same run, between the records, on a file next to the root. Both share the disk: at
//!   high rates each slows the other. The floor's append extends the file, which costs the file system more than a
//!   write into allocated space: a ratio below 1 is not an error.
//! - CPU time has a resolution of 10 ms and is imprecise for few records.
//!
//! Each scenario has a new lake and its own daemon. Asserts that each row appears once; asserts no time.

mod support;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};

use support::figures::{Spread, Table, machine, mebibytes, millis, ratio};
use support::floor::{Floor, ROW_BYTES, sleep_until};
use support::lake::{self, LakePlan, PairPath, Record};
use support::program::{Program, Usage};
use support::summary::{self, Line};
use support::watcher::{RUN_PREFIX, Watcher};
use support::{Failure, bench_dir, export_path, lines_in, remove_tree, settle_disk};

/// Time after which the benchmark fails if a row has not appeared.
const ROW_DEADLINE: Duration = Duration::from_secs(60);
/// The floor is taken at most this often, so that it measures a disk and does not load it.
const FLOOR_PERIOD: Duration = Duration::from_millis(20);
/// Mean length of the evidence texts.
const TEXT_BYTES: u32 = 1_620;
/// Rest between two trials that each wait for their row.
const REST: Duration = Duration::from_millis(100);

/// Measures the time until a record's row is readable.
#[derive(Debug, Clone, Parser)]
struct Options {
    /// Records a second in the scenario `steady`
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Duration of the scenarios `steady` and `many`
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Pairs of day-files the scenario `steady` appends to in turn
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    files: u32,
    /// Seconds without a record before each one of the scenario `silence`
    #[arg(long, default_value_t = 5)]
    silence: u32,
    /// Records of the scenario `silence`
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Directories of the scenario `directory`
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    trials: u32,
    /// This scenario alone; may be given more than once
    #[arg(long, value_enum)]
    only: Vec<Scenario>,
    /// Uses the silence of 60 s that the target specifies
    #[arg(long)]
    full: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Records at a steady rate
    Steady,
    /// The same with 2,000 records a second to 1,000 pairs of day-files
    Many,
    /// One record after some silence
    Silence,
    /// The first record of a day-file in a directory that did not exist
    Directory,
}

const SCENARIOS: [Scenario; 4] = [
    Scenario::Steady,
    Scenario::Many,
    Scenario::Silence,
    Scenario::Directory,
];

/// The measurements of a scenario.
#[derive(Debug)]
struct Outcome {
    name: String,
    /// Target for the 99th percentile.
    aim: &'static str,
    rows: Spread,
    floor: Spread,
    resolution: Spread,
    usage: Usage,
    cpu: Duration,
    elapsed: Duration,
}

fn main() -> Result<(), Failure> {
    let mut options = Options::parse();
    if options.full {
        options.silence = 60;
    }
    let dir = bench_dir("freshness");
    let mut outcomes = Vec::new();
    for scenario in SCENARIOS
        .into_iter()
        .filter(|it| options.only.is_empty() || options.only.contains(it))
    {
        println!("measuring {scenario:?}");
        let (outcome, aim) = (measure(&dir, scenario, &options)?, aim_of(scenario));
        outcomes.push(Outcome { aim, ..outcome });
    }
    report(&dir, &outcomes)?;
    let lines: Vec<Line> = outcomes.iter().map(summary_lines).collect();
    summary::leave("freshness", &lines)?;
    Ok(remove_tree(&dir)?)
}

/// Target for the 99th percentile, as a multiple of the floor's. The first row of a new directory has the general
/// target of 5 x and an additional limit.
fn aim_of(scenario: Scenario) -> &'static str {
    match scenario {
        Scenario::Steady | Scenario::Silence => "5 x",
        Scenario::Directory => "5 x, limit 20 x",
        Scenario::Many => "20 x",
    }
}

/// Returns the lines for the summary of all benchmarks.
fn summary_lines(outcome: &Outcome) -> Line {
    let (rows, floor) = (outcome.rows.percentile(99), outcome.floor.percentile(99));
    Line {
        what: format!("freshness, {}, p99", outcome.name),
        value: millis(rows),
        floor: millis(floor),
        ratio: ratio(rows, floor),
        aim: outcome.aim,
    }
}

fn measure(dir: &Path, scenario: Scenario, options: &Options) -> Result<Outcome, Failure> {
    let pairs = match scenario {
        Scenario::Steady => options.files,
        Scenario::Many => 1_000,
        Scenario::Silence | Scenario::Directory => 8,
    };
    let mut bench = Bench::start(dir, pairs)?;
    let (start, before) = (Instant::now(), bench.program.usage());
    let name = match scenario {
        Scenario::Steady => bench.steadily(options.rate, options.seconds, pairs)?,
        Scenario::Many => bench.steadily(2_000, options.seconds, pairs)?,
        Scenario::Silence => {
            bench.after_silence(Duration::from_secs(options.silence.into()), options.repeats)?
        }
        Scenario::Directory => bench.in_new_directories(options.trials)?,
    };
    let usage = bench.program.usage();
    let (elapsed, cpu) = (start.elapsed(), usage.cpu.saturating_sub(before.cpu));
    bench.finish(name, usage, cpu, elapsed)
}

/// A daemon on a lake of its own, the appended records, and the observed rows.
#[derive(Debug)]
struct Bench {
    root: PathBuf,
    program: Program,
    watcher: Watcher,
    floor: Floor,
    rng: fastrand::Rng,
    written: Vec<Instant>,
    seen: BTreeMap<usize, Instant>,
    floors: Vec<Duration>,
    rows_before: u64,
}

impl Bench {
    /// Creates the lake with one record per pair, starts the daemon and waits for the lake's rows.
    fn start(dir: &Path, pairs: u32) -> Result<Self, Failure> {
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
        let watcher = Watcher::start(&export_path(&root))?;
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
    fn write(&mut self, pair: &PairPath) -> io::Result<()> {
        let run_id = format!("{RUN_PREFIX}{:08}", self.written.len());
        let record = Record::good(&mut self.rng, run_id, TEXT_BYTES);
        let at = append_record(&self.root, pair, self.written.len() as u32, &record)?;
        self.written.push(at);
        Ok(())
    }

    /// Waits until all that was written has been seen.
    fn wait_for_all(&mut self) -> Result<(), Failure> {
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

    fn steadily(&mut self, rate: u32, seconds: u32, pairs: u32) -> Result<String, Failure> {
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
        let done = f64::from(count) / took.max(period * count).as_secs_f64();
        Ok(format!(
            "{done:.0}/s to {pairs} pair{}",
            if pairs == 1 { "" } else { "s" }
        ))
    }

    /// The floor is taken in the middle of each silence, so that the disk was as idle for it as for the record.
    fn after_silence(&mut self, silence: Duration, repeats: u32) -> Result<String, Failure> {
        for _ in 0..repeats {
            thread::sleep(silence / 2);
            self.floors.push(self.floor.once()?);
            thread::sleep(silence / 2);
            self.write(&PairPath::numbered(0))?;
            self.wait_for_all()?;
        }
        Ok(format!("after {} s of silence", silence.as_secs()))
    }

    /// In turn a new year, a new month in it and a new day in that.
    fn in_new_directories(&mut self, trials: u32) -> Result<String, Failure> {
        for trial in 0..trials {
            let (year, month, day) = (
                2100 + trial / 3,
                1 + u32::from(trial % 3 > 0),
                1 + u32::from(trial % 3 > 1),
            );
            let pair = PairPath::on(&format!("{year}/{month:02}/{day:02}"), trial as usize);
            thread::sleep(REST);
            self.floors.push(self.floor.once()?);
            thread::sleep(REST);
            pair.make_dirs(&self.root)?;
            self.write(&pair)?;
            self.wait_for_all()?;
        }
        Ok("first of a new directory".to_owned())
    }

    fn finish(
        self,
        name: String,
        usage: Usage,
        cpu: Duration,
        elapsed: Duration,
    ) -> Result<Outcome, Failure> {
        let resolution = self.watcher.stop()?;
        self.program.stop()?;
        // The stopped daemon adds nothing more; a row written twice would be counted here.
        let (lines, expected) = (
            lines_in(&export_path(&self.root))?,
            self.rows_before + self.written.len() as u64,
        );
        if lines != expected {
            return Err(
                format!("{name}: the export has {lines} rows, {expected} were earned").into(),
            );
        }
        let rows = self
            .seen
            .iter()
            .map(|(&number, &at)| at.saturating_duration_since(self.written[number]))
            .collect();
        Ok(Outcome {
            aim: "",
            name,
            rows: Spread::of(rows).ok_or("no rows")?,
            floor: Spread::of(self.floors).ok_or("no floor")?,
            resolution: Spread::of(resolution).ok_or("no looks")?,
            usage,
            cpu,
            elapsed,
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

fn wait_for_rows(program: &mut Program, export: &Path, rows: u64) -> Result<(), Failure> {
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

fn report(dir: &Path, outcomes: &[Outcome]) -> io::Result<()> {
    println!(
        "\nfreshness: from the return of the write of a record's last newline to its row being readable"
    );
    println!("{}", machine(dir));
    println!(
        "floor: append {ROW_BYTES} bytes and fdatasync, in the same run, at most {} a second\n",
        1_000 / FLOOR_PERIOD.as_millis()
    );
    let mut table = Table::new(&[
        "",
        "n",
        "p50",
        "p99",
        "max",
        "x floor p50",
        "p99",
        "max",
        "cpu/record",
        "cpu",
        "peak rss",
    ]);
    for outcome in outcomes {
        table.row(outcome_row(outcome));
        let spread = &outcome.floor;
        table.row(spread_cells("  floor", spread));
    }
    table.print();
    for outcome in outcomes {
        let Outcome {
            name, resolution, ..
        } = outcome;
        println!(
            "resolution, {name}: p50 {}, p99 {}",
            millis(resolution.percentile(50)),
            millis(resolution.percentile(99))
        );
    }
    Ok(())
}

fn spread_cells(name: &str, spread: &Spread) -> Vec<String> {
    let mut cells = vec![name.to_owned(), spread.count().to_string()];
    cells.extend([spread.percentile(50), spread.percentile(99), spread.max()].map(millis));
    cells
}

fn outcome_row(outcome: &Outcome) -> Vec<String> {
    let Outcome {
        name,
        rows,
        floor,
        usage,
        cpu,
        elapsed,
        ..
    } = outcome;
    let mut cells = spread_cells(name, rows);
    cells.extend(
        [50, 99, 100].map(|percent| ratio(rows.percentile(percent), floor.percentile(percent))),
    );
    cells.push(millis(*cpu / rows.count() as u32));
    cells.push(format!(
        "{:.1} %",
        100.0 * cpu.as_secs_f64() / elapsed.as_secs_f64()
    ));
    cells.push(mebibytes(usage.peak_rss_bytes));
    cells
}
