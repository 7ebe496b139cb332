//! Measures how many records a second distilld turns into rows while they are written: the rate to 50 and to 1,000 pairs
//! of day-files is raised until a row waits for more than 50 ms at the 99th percentile.
//!
//! `cargo bench --bench saturation [-- --from 10000 --seconds 4 --pairs 50 --pairs 1000 --lines 1 --lines 10]`
//!
//! - One thread writes for all scorers. It keeps the day-files open, and its lines are made beforehand. A scorer writes
//!   each record at once (`--lines 1`), or several together, as one with a buffer does.
//! - One thread observes: it reads what is new in the export about every millisecond, which is the resolution.
//! - The CPU time of writer, observer and daemon is printed apart, in percent of one processor, because all three share
//!   the processors of the machine.
//! - The yardstick is a backfill: `run --once` of the lake of the last rate, without its state and export.
//! - A rate at which p99 passes the limit shows whether waiting is fair: the longest wait of a record and the time that
//!   all rows needed after the last record. A record that waits much longer than that was starved.
//!
//! Each rate has a new lake and its own daemon. Asserts that each row appears once; asserts no time.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;

use support::figures::{Table, machine, millis};
use support::live::Live;
use support::program::Program;
use support::scorers::Load;
use support::summary::{self, Line};
use support::watcher::POLL_CHEAP;
use support::{Failure, bench_dir, export_path, lines_in, remove_tree, settle_disk};

/// Limit for the 99th percentile of the time to a readable row.
const LIMIT: Duration = Duration::from_millis(50);
/// The share of a rate that the writer must reach.
const REACHED_MIN: f64 = 0.9;
/// Each rate by the one before it; after one that was too high, the step from the highest that was not.
const STEP: f64 = 1.5;
const LAST_STEP: f64 = 1.22;

/// Raises the rate of records until their rows are late.
#[derive(Debug, Clone, Parser)]
struct Options {
    /// The first rate, records a second
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    from: u32,
    /// Duration of each rate
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Pairs of day-files; may be given more than once
    #[arg(long, default_values_t = [50, 1_000], value_parser = clap::value_parser!(u32).range(1..))]
    pairs: Vec<u32>,
    /// Records that a scorer writes at a time; may be given more than once
    #[arg(long, default_values_t = [1, 10], value_parser = clap::value_parser!(u32).range(1..))]
    lines: Vec<u32>,
    /// The first rate alone
    #[arg(long)]
    once: bool,
    /// Three times as long
    #[arg(long)]
    full: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// The measurements of one rate.
struct Rate {
    load: Load,
    reached: f64,
    p50: Duration,
    p99: Duration,
    longest: Duration,
    /// From the last record to the last row.
    rest: Duration,
    /// CPU time of writer, observer and daemon, in processors.
    cpu: [f64; 3],
    /// CPU time of the daemon for a record.
    cpu_a_record: Duration,
}

impl Rate {
    fn is_late(&self) -> bool {
        self.p99 > LIMIT
    }

    fn is_reached(&self) -> bool {
        self.reached >= REACHED_MIN * f64::from(self.load.rate)
    }
}

/// The highest rate within the limit, and the backfill of the last lake, rows a second.
struct Saturation {
    load: Load,
    rate: f64,
    backfill: f64,
}

fn main() -> Result<(), Failure> {
    let mut options = Options::parse();
    if options.full {
        options.seconds *= 3;
    }
    let dir = bench_dir("saturation");
    let (mut rates, mut results) = (Vec::new(), Vec::new());
    for &pairs in &options.pairs {
        for &lines in &options.lines {
            let load = Load {
                pairs,
                rate: options.from,
                seconds: options.seconds,
                lines,
            };
            results.push(saturate(&dir, load, options.once, &mut rates)?);
        }
    }
    report(&dir, &rates, &results);
    let lines: Vec<Line> = results.iter().map(summary_line).collect();
    summary::leave("saturation", &lines)?;
    Ok(remove_tree(&dir)?)
}

/// Raises the rate until rows are late or the writer is too slow, and tries one rate between the last two.
fn saturate(
    dir: &Path,
    first: Load,
    once: bool,
    rates: &mut Vec<Rate>,
) -> Result<Saturation, Failure> {
    let (mut load, mut highest, mut step) = (first, 0.0_f64, STEP);
    loop {
        let rate = measure(dir, load)?;
        let is_good = !rate.is_late() && rate.is_reached();
        if !rate.is_late() {
            highest = highest.max(rate.reached);
        }
        rates.push(rate);
        if once || step == LAST_STEP || !is_good && highest == 0.0 {
            break;
        }
        if !is_good {
            load.rate = (f64::from(load.rate) / step) as u32;
            step = LAST_STEP;
        }
        load.rate = (f64::from(load.rate) * step) as u32;
    }
    Ok(Saturation {
        load,
        rate: highest,
        backfill: backfill(dir)?,
    })
}

fn measure(dir: &Path, load: Load) -> Result<Rate, Failure> {
    let Load {
        rate, pairs, lines, ..
    } = load;
    println!("measuring {rate} records a second to {pairs} pairs, {lines} at a time");
    let mut live = Live::start_polled(dir, pairs, POLL_CHEAP)?;
    let reached = live.follow(load)?;
    let rest = live.rest();
    let observed = live.finish("saturation")?;
    let rows = observed.rows;
    let cpu = [
        reached.writer_cpu,
        observed.observer_cpu,
        reached.daemon_cpu,
    ];
    Ok(Rate {
        load,
        reached: reached.rate,
        p50: rows.percentile(50),
        p99: rows.percentile(99),
        longest: rows.max(),
        rest,
        cpu: cpu.map(|cpu| cpu.as_secs_f64() / reached.took.as_secs_f64()),
        cpu_a_record: reached.daemon_cpu / rows.count() as u32,
    })
}

/// Returns the rows a second of a backfill of the lake in `dir`.
fn backfill(dir: &Path) -> Result<f64, Failure> {
    let root = dir.join("root");
    remove_tree(&root.join("data/distilled"))?;
    settle_disk(dir)?;
    let start = Instant::now();
    let _finished = Program::run(&root, &["run", "--once"], &dir.join("backfill.log"))?;
    let took = start.elapsed();
    let rows = lines_in(&export_path(&root))? as f64;
    Ok(rows / took.as_secs_f64())
}

fn summary_line(result: &Saturation) -> Line {
    let Load { pairs, lines, .. } = result.load;
    Line {
        what: format!("live rows a second to {pairs} pairs, {lines} at a time, p99 at most 50 ms"),
        value: format!("{:.0}", result.rate),
        floor: format!("backfill {:.0}", result.backfill),
        ratio: format!("{:.2}", result.rate / result.backfill),
        aim: if pairs > 50 { "0.33" } else { "0.5" },
    }
}

fn report(dir: &Path, rates: &[Rate], results: &[Saturation]) {
    println!(
        "\nsaturation: from the return of the write of a record's last newline to its row being readable"
    );
    println!("{}\n", machine(dir));
    let mut table = Table::new(&[
        "pairs",
        "at a time",
        "records/s",
        "p50",
        "p99",
        "longest wait",
        "rest",
        "writer",
        "observer",
        "daemon",
        "daemon/record",
    ]);
    for rate in rates {
        let Load { pairs, lines, .. } = rate.load;
        let mut cells = vec![
            pairs.to_string(),
            lines.to_string(),
            format!("{:.0}", rate.reached),
        ];
        cells.extend([rate.p50, rate.p99, rate.longest, rate.rest].map(millis));
        cells.extend(rate.cpu.map(|cpu| format!("{:.0} %", 100.0 * cpu)));
        cells.push(format!("{:.1} us", rate.cpu_a_record.as_secs_f64() * 1e6));
        table.row(cells);
    }
    table.print();
    println!("rest: from the last record to the last row; 100 %: one processor");
    for result in results {
        let line = summary_line(result);
        println!(
            "{}: {} ({}, ratio {})",
            line.what, line.value, line.floor, line.ratio
        );
    }
}
