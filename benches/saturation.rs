//! Measures how many records a second distilld turns into rows while they are written: the rate to 50 and to 1,000 pairs
//! of day-files is raised until a row waits for more than 50 ms at the 99th percentile.
//!
//! `cargo bench --bench saturation [-- --from 3000 --seconds 4 --pairs 50 --pairs 1000]`
//!
//! - The yardstick is a backfill: `run --once` of the lake of the last rate, without its state and export.
//! - The last rate, at which p99 passes the limit, shows whether waiting is fair: the longest wait of a record and
//!   the time that all rows needed after the last record. A record that waits much longer than that was starved.
//! - The writer is one thread of the same machine. Where it cannot reach a rate, that is printed, and no higher rate is
//!   tried.
//!
//! Each rate has a new lake and its own daemon. Asserts that each row appears once; asserts no time.

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;

use support::figures::{Table, machine, millis};
use support::live::Live;
use support::program::Program;
use support::summary::{self, Line};
use support::{Failure, bench_dir, export_path, lines_in, remove_tree, settle_disk};

/// Limit for the 99th percentile of the time to a readable row.
const LIMIT: Duration = Duration::from_millis(50);
/// The share of a rate that the writer must reach.
const REACHED_MIN: f64 = 0.9;

/// Raises the rate of records until their rows are late.
#[derive(Debug, Clone, Parser)]
struct Options {
    /// The first rate, records a second
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(1..))]
    from: u32,
    /// Duration of each rate
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Pairs of day-files; may be given more than once
    #[arg(long, default_values_t = [50, 1_000], value_parser = clap::value_parser!(u32).range(1..))]
    pairs: Vec<u32>,
    /// Three times as long
    #[arg(long)]
    full: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// The measurements of one rate.
struct Rate {
    pairs: u32,
    reached: f64,
    p50: Duration,
    p99: Duration,
    longest: Duration,
    /// From the last record to the last row.
    rest: Duration,
}

/// The highest rate within the limit, and the backfill of the last lake, rows a second.
struct Saturation {
    pairs: u32,
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
        results.push(saturate(&dir, pairs, &options, &mut rates)?);
    }
    report(&dir, &rates, &results);
    let lines: Vec<Line> = results.iter().map(summary_line).collect();
    summary::leave("saturation", &lines)?;
    Ok(remove_tree(&dir)?)
}

/// Raises the rate by half until rows are late or the writer is too slow.
fn saturate(
    dir: &Path,
    pairs: u32,
    options: &Options,
    rates: &mut Vec<Rate>,
) -> Result<Saturation, Failure> {
    let mut rate = options.from;
    let mut highest = 0.0;
    loop {
        println!("measuring {rate} records a second to {pairs} pairs");
        let measured = measure(dir, pairs, rate, options.seconds)?;
        let (reached, p99) = (measured.reached, measured.p99);
        rates.push(measured);
        if p99 <= LIMIT {
            highest = reached;
        }
        if p99 > LIMIT || reached < REACHED_MIN * f64::from(rate) {
            break;
        }
        rate += rate / 2;
    }
    Ok(Saturation {
        pairs,
        rate: highest,
        backfill: backfill(dir)?,
    })
}

fn measure(dir: &Path, pairs: u32, rate: u32, seconds: u32) -> Result<Rate, Failure> {
    let mut live = Live::start(dir, pairs)?;
    let reached = live.steadily(rate, seconds, pairs)?;
    let rest = live.rest();
    let rows = live.finish("saturation")?.rows;
    Ok(Rate {
        pairs,
        reached,
        p50: rows.percentile(50),
        p99: rows.percentile(99),
        longest: rows.max(),
        rest,
    })
}

/// Returns the rows a second of a backfill of the lake in `dir`.
fn backfill(dir: &Path) -> Result<f64, Failure> {
    let root = dir.join("root");
    remove_tree(&root.join("data/distilled"))?;
    settle_disk(dir)?;
    let start = Instant::now();
    let _finished = Program::run(&root, &["run", "--once"], &dir.join("backfill.log"))?;
    let rows = lines_in(&export_path(&root))? as f64;
    Ok(rows / start.elapsed().as_secs_f64())
}

fn summary_line(result: &Saturation) -> Line {
    let aim = if result.pairs > 50 { "0.33" } else { "0.5" };
    Line {
        what: format!(
            "live rows a second to {} pairs, p99 at most 50 ms",
            result.pairs
        ),
        value: format!("{:.0}", result.rate),
        floor: format!("backfill {:.0}", result.backfill),
        ratio: format!("{:.2}", result.rate / result.backfill),
        aim,
    }
}

fn report(dir: &Path, rates: &[Rate], results: &[Saturation]) {
    println!(
        "\nsaturation: from the return of the write of a record's last newline to its row being readable"
    );
    println!("{}\n", machine(dir));
    let mut table = Table::new(&["pairs", "records/s", "p50", "p99", "longest wait", "rest"]);
    for rate in rates {
        let mut cells = vec![rate.pairs.to_string(), format!("{:.0}", rate.reached)];
        cells.extend([rate.p50, rate.p99, rate.longest, rate.rest].map(millis));
        table.row(cells);
    }
    table.print();
    println!("rest: from the last record to the last row");
    for result in results {
        let line = summary_line(result);
        println!(
            "{}: {} ({}, ratio {})",
            line.what, line.value, line.floor, line.ratio
        );
    }
}
