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

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};

use support::figures::{Spread, Table, machine, mebibytes, millis, ratio};
use support::floor::ROW_BYTES;
use support::lake::PairPath;
use support::live::{FLOOR_PERIOD, Live, Observed};
use support::program::Usage;
use support::summary::{self, Line};
use support::{Failure, bench_dir, remove_tree};

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
    observed: Observed,
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
        outcomes.push(measure(&dir, scenario, &options)?);
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
    let Observed { rows, floor, .. } = &outcome.observed;
    let (rows, floor) = (rows.percentile(99), floor.percentile(99));
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
    let mut live = Live::start(dir, pairs)?;
    let (start, before) = (Instant::now(), live.program.usage());
    let name = match scenario {
        Scenario::Steady => steadily(&mut live, options.rate, options.seconds, pairs)?,
        Scenario::Many => steadily(&mut live, 2_000, options.seconds, pairs)?,
        Scenario::Silence => {
            let silence = Duration::from_secs(options.silence.into());
            after_silence(&mut live, silence, options.repeats)?
        }
        Scenario::Directory => in_new_directories(&mut live, options.trials)?,
    };
    let usage = live.program.usage();
    let (elapsed, cpu) = (start.elapsed(), usage.cpu.saturating_sub(before.cpu));
    let observed = live.finish(&name)?;
    Ok(Outcome {
        aim: aim_of(scenario),
        name,
        observed,
        usage,
        cpu,
        elapsed,
    })
}

fn steadily(live: &mut Live, rate: u32, seconds: u32, pairs: u32) -> Result<String, Failure> {
    let done = live.steadily(rate, seconds, pairs)?;
    let plural = if pairs == 1 { "" } else { "s" };
    Ok(format!("{done:.0}/s to {pairs} pair{plural}"))
}

/// The floor is taken in the middle of each silence, so that the disk was as idle for it as for the record.
fn after_silence(live: &mut Live, silence: Duration, repeats: u32) -> Result<String, Failure> {
    for _ in 0..repeats {
        thread::sleep(silence / 2);
        live.take_floor()?;
        thread::sleep(silence / 2);
        live.write(&PairPath::numbered(0))?;
        live.wait_for_all()?;
    }
    Ok(format!("after {} s of silence", silence.as_secs()))
}

/// In turn a new year, a new month in it and a new day in that.
fn in_new_directories(live: &mut Live, trials: u32) -> Result<String, Failure> {
    for trial in 0..trials {
        let (year, month, day) = (
            2100 + trial / 3,
            1 + u32::from(trial % 3 > 0),
            1 + u32::from(trial % 3 > 1),
        );
        let pair = PairPath::on(&format!("{year}/{month:02}/{day:02}"), trial as usize);
        thread::sleep(REST);
        live.take_floor()?;
        thread::sleep(REST);
        pair.make_dirs(&live.root)?;
        live.write(&pair)?;
        live.wait_for_all()?;
    }
    Ok("first of a new directory".to_owned())
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
        table.row(spread_cells("  floor", &outcome.observed.floor));
    }
    table.print();
    for outcome in outcomes {
        let (name, resolution) = (&outcome.name, &outcome.observed.resolution);
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
        observed: Observed { rows, floor, .. },
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
