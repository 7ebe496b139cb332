//! Measures a backfill: time and memory for processing an unknown lake, state included, against the floor of reading
//! the same files and writing and syncing a file of the export's length.
//!
//! `cargo bench --bench backfill [-- --full | --pairs N --records M --runs R]`
//!
//! Each round runs the daemon, the floor and the stateless batch in turn, each on a quiet disk, so that other load on
//! the machine affects all of them. The day-files are in the page cache. Asserts that all rows exist; asserts no time.

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;

use support::figures::{Spread, Table, machine, mebibytes, megabytes, ratio, seconds};
use support::lake::{self, Lake, LakeFacts, LakePlan};
use support::others::Other;
use support::program::{Finished, Program, Usage, own_cpu_time};
use support::summary::{self, Line};
use support::threads::ThreadTimes;
use support::{BUFFER_BYTES, Failure, bench_dir, export_path, lines_in, remove_tree, settle_disk};

/// Measures distilld on a complete history.
#[derive(Debug, Parser)]
struct Options {
    /// Also a sixth of the lake, and ten times as much: 13 GB of disk
    #[arg(long, conflicts_with = "pairs")]
    full: bool,
    /// Pairs of day-files, eight a day
    #[arg(long, default_value_t = 224, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Records of each pair
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    records: u32,
    /// Mean length of an evidence text, bytes
    #[arg(long, default_value_t = 1_620)]
    text_bytes: u32,
    /// Another program for the same table: a shell command that makes the rows of the lake `$ROOT` and writes them to
    /// `$OUT`; `duckdb` is included where it is installed
    #[arg(long, value_name = "NAME=COMMAND")]
    other: Vec<String>,
    /// Rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// The measurements of all rounds, in order.
#[derive(Debug, Default)]
struct Rounds {
    daemon: Vec<Finished>,
    batch: Vec<Finished>,
    floor: Vec<Finished>,
    others: Vec<(String, Vec<Finished>)>,
    export_bytes: u64,
    state_bytes: u64,
}

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let mut lines = measure_lake("backfill", options.pairs, &options)?;
    if options.full {
        lines.extend(measure_lake("backfill-small", options.pairs / 6, &options)?);
        lines.extend(measure_lake(
            "backfill-large",
            options.pairs * 10,
            &options,
        )?);
    }
    Ok(summary::leave("backfill", &lines)?)
}

fn measure_lake(name: &str, pairs: u32, options: &Options) -> Result<Vec<Line>, Failure> {
    let dir = bench_dir(name);
    let plan = LakePlan {
        pairs,
        records: options.records,
        text_bytes: options.text_bytes,
        seed: 7,
    };
    let start = Instant::now();
    let lake = lake::prepare(&dir, &plan)?;
    let origin = if lake.reused {
        "left by an earlier run"
    } else {
        "made"
    };
    println!(
        "lake: {origin} in {}, {}",
        seconds(start.elapsed()),
        dir.display()
    );

    let inputs = day_files(&lake.root)?;
    read_all(&inputs)?;
    let others = Other::all(&options.other);
    let mut rounds = Rounds::default();
    let named = others.iter().map(|other| (other.name.clone(), Vec::new()));
    rounds.others = named.collect();
    for round in 1..=options.runs {
        one_round(&dir, &lake, &inputs, &mut rounds)?;
        for (other, (_, runs)) in others.iter().zip(&mut rounds.others) {
            runs.push(measure_other(&dir, &lake, other)?);
        }
        println!("round {round} of {}", options.runs);
    }
    report(&dir, &lake, &rounds)?;
    remove_tree(&lake.root.join("data/distilled"))?;
    summary_lines(&lake, &rounds)
}

/// Returns the lines for the summary of all benchmarks.
fn summary_lines(lake: &Lake, rounds: &Rounds) -> Result<Vec<Line>, Failure> {
    let facts = lake.facts;
    let spread = |runs: &[Finished]| {
        Spread::of(runs.iter().map(|run| run.wall).collect()).ok_or("no rounds")
    };
    let (daemon, floor) = (spread(&rounds.daemon)?, spread(&rounds.floor)?);
    let size = megabytes(facts.input_bytes);
    let peak = rounds
        .daemon
        .iter()
        .map(|run| run.usage.peak_rss_bytes)
        .max();
    let peak = mebibytes(peak.unwrap_or(0));
    let mut lines = vec![
        Line {
            what: format!("backfill of {size}"),
            value: seconds(daemon.median()),
            floor: seconds(floor.median()),
            ratio: ratio(daemon.median(), floor.median()),
            aim: "2.0 x",
        },
        Line {
            what: "  its peak memory".to_owned(),
            value: peak.clone(),
            floor: String::new(),
            ratio: peak,
            aim: "96 MiB",
        },
        Line {
            what: "  its CPU time outside the parallel threads".to_owned(),
            value: String::new(),
            floor: String::new(),
            ratio: format!("{:.0} %", serial_share(&rounds.daemon)),
            aim: "10 %",
        },
    ];
    for (name, runs) in &rounds.others {
        let other = spread(runs)?.median();
        lines.push(Line {
            what: format!("  {name} on the same"),
            value: seconds(other),
            floor: seconds(floor.median()),
            ratio: ratio(other, floor.median()),
            aim: "",
        });
    }
    Ok(lines)
}

fn one_round(
    dir: &Path,
    lake: &Lake,
    inputs: &[PathBuf],
    rounds: &mut Rounds,
) -> Result<(), Failure> {
    rounds.daemon.push(measure(dir, lake, &["run", "--once"])?);
    // A lake that earns no row has no export.
    rounds.export_bytes = fs::metadata(export_path(&lake.root)).map_or(0, |export| export.len());
    rounds.state_bytes = disk_bytes(&lake.root.join("data/distilled/.distilld"))?;

    settle_disk(dir)?;
    rounds
        .floor
        .push(floor(inputs, &dir.join("floor.bin"), rounds.export_bytes)?);

    rounds.batch.push(measure(
        dir,
        lake,
        &["export", "--recorded-at", "2026-05-02T03:04:05.678Z"],
    )?);
    Ok(())
}

/// Runs distilld on the lake as if for the first time and counts the rows.
fn measure(dir: &Path, lake: &Lake, args: &[&str]) -> Result<Finished, Failure> {
    remove_tree(&lake.root.join("data/distilled"))?;
    settle_disk(dir)?;
    let finished = Program::run(&lake.root, args, &dir.join("distilld.log"))?;
    let rows = lines_in(&export_path(&lake.root))?;
    if rows != lake.facts.rows {
        return Err(format!(
            "{args:?} wrote {rows} rows, the lake earns {}",
            lake.facts.rows
        )
        .into());
    }
    Ok(finished)
}

/// Runs another program on the lake and makes its rows durable too.
fn measure_other(dir: &Path, lake: &Lake, other: &Other) -> Result<Finished, Failure> {
    settle_disk(dir)?;
    let output = dir.join("other.jsonl");
    let start = Instant::now();
    let command = other.command(&lake.root, &output);
    let finished = Program::run_other(command, &dir.join("other.log"))?;
    File::open(&output)?.sync_data()?;
    let wall = start.elapsed();
    let rows = lines_in(&output)?;
    if rows != lake.facts.rows {
        let (name, earned) = (&other.name, lake.facts.rows);
        println!("{name} wrote {rows} rows, the lake earns {earned}");
    }
    fs::remove_file(&output)?;
    Ok(Finished { wall, ..finished })
}

/// Measures the lower bound of this work: reads every byte once and syncs a file of the export's size.
fn floor(inputs: &[PathBuf], output: &Path, len_bytes: u64) -> io::Result<Finished> {
    let (start, cpu_before) = (Instant::now(), own_cpu_time());
    read_all(inputs)?;
    let block = vec![b'x'; BUFFER_BYTES];
    let mut file = File::create(output)?;
    let mut left = len_bytes;
    while left > 0 {
        let now = left.min(BUFFER_BYTES as u64);
        file.write_all(&block[..now as usize])?;
        left -= now;
    }
    file.sync_data()?;
    let wall = start.elapsed();
    let cpu = own_cpu_time().saturating_sub(cpu_before);
    fs::remove_file(output)?;
    Ok(Finished {
        wall,
        usage: Usage {
            cpu,
            peak_rss_bytes: 0,
        },
        threads: ThreadTimes::default(),
    })
}

fn read_all(paths: &[PathBuf]) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    for path in paths {
        let mut file = File::open(path)?;
        while file.read(&mut buffer)? > 0 {}
    }
    Ok(())
}

/// All day-files of both trees.
fn day_files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for tree in ["data/evidence", "data/scored-runs"] {
        walk(&root.join(tree), &mut |path, _| files.push(path))?;
    }
    files.sort();
    Ok(files)
}

/// Blocks a directory's files hold on disk, in bytes.
fn disk_bytes(dir: &Path) -> io::Result<u64> {
    let mut len_bytes = 0;
    walk(dir, &mut |_, meta| len_bytes += meta.blocks() * 512)?;
    Ok(len_bytes)
}

fn walk(dir: &Path, found: &mut dyn FnMut(PathBuf, &fs::Metadata)) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        match meta.is_dir() {
            true => walk(&entry.path(), found)?,
            false => found(entry.path(), &meta),
        }
    }
    Ok(())
}

fn report(dir: &Path, lake: &Lake, rounds: &Rounds) -> Result<(), Failure> {
    let facts = lake.facts;
    println!(
        "\nbackfill: {} records in, {} ({} day-files); {} rows out, {}",
        facts.records,
        megabytes(facts.input_bytes),
        day_files(&lake.root)?.len(),
        facts.rows,
        megabytes(rounds.export_bytes)
    );
    println!("{}", machine(dir));
    println!("floor: read all day-files, write and fdatasync one file of the export's length");
    println!("x floor: ratio of the medians; rounds: least and greatest ratio within one round\n");
    let mut table = Table::new(&[
        "",
        "min",
        "median",
        "max",
        "x floor",
        "rounds",
        "records/s",
        "MB/s in",
        "cpu",
        "peak rss",
    ]);
    let own = [
        ("run --once", &rounds.daemon),
        ("export", &rounds.batch),
        ("floor", &rounds.floor),
    ];
    let others = rounds
        .others
        .iter()
        .map(|(name, runs)| (name.as_str(), runs));
    for (name, runs) in own.into_iter().chain(others) {
        table.row(cells(name, runs, &rounds.floor, facts)?);
    }
    table.print();
    let shares = shares(&rounds.daemon);
    let shares = shares
        .iter()
        .map(|(name, share)| format!("{name} {share:.1} %"));
    let shares = shares.collect::<Vec<_>>().join(", ");
    println!("\ncpu of run --once by thread: {shares}");
    println!(
        "\nstate: {} on disk, {:.1} bytes a record",
        megabytes(rounds.state_bytes),
        rounds.state_bytes as f64 / facts.records as f64
    );
    Ok(())
}

/// The name of the threads that run in parallel; of each other kind one runs at a time.
const PARALLEL: &str = "read";

/// Returns the percentage of each kind of thread in the CPU time of all runs, the greatest first. The main thread has the
/// name of the program.
fn shares(runs: &[Finished]) -> Vec<(String, f64)> {
    let total: Duration = runs.iter().map(|run| run.usage.cpu).sum();
    let mut times = BTreeMap::new();
    runs.iter().for_each(|run| run.threads.add_to(&mut times));
    let seen: Duration = times.values().sum();
    times.insert("not seen".to_owned(), total.saturating_sub(seen));
    let percent = |time: Duration| 100.0 * time.as_secs_f64() / total.as_secs_f64();
    let shares = times.into_iter().map(|(name, time)| (name, percent(time)));
    let mut shares: Vec<_> = shares.filter(|(_, share)| *share >= 0.1).collect();
    shares.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    shares
}

/// Returns the percentage of the CPU time that more processors do not shorten.
fn serial_share(runs: &[Finished]) -> f64 {
    let shares = shares(runs);
    let serial = shares.iter().filter(|(name, _)| name != PARALLEL);
    serial.map(|(_, share)| share).sum()
}

fn cells(
    name: &str,
    runs: &[Finished],
    floors: &[Finished],
    facts: LakeFacts,
) -> Result<Vec<String>, Failure> {
    let walls = |runs: &[Finished]| {
        Spread::of(runs.iter().map(|run| run.wall).collect()).ok_or("no rounds")
    };
    let (spread, floor) = (walls(runs)?, walls(floors)?);
    let cpu = Spread::of(runs.iter().map(|run| run.usage.cpu).collect()).ok_or("no rounds")?;
    let median_s = spread.median().as_secs_f64();
    let within = runs
        .iter()
        .zip(floors)
        .map(|(run, floor)| run.wall.as_secs_f64() / floor.wall.as_secs_f64());
    let (least, greatest) = within.fold((f64::MAX, 0.0_f64), |(low, high), ratio| {
        (low.min(ratio), high.max(ratio))
    });
    let peak_rss_bytes = runs
        .iter()
        .map(|run| run.usage.peak_rss_bytes)
        .max()
        .unwrap_or(0);
    let mut cells = vec![name.to_owned()];
    cells.extend([spread.min(), spread.median(), spread.max()].map(seconds));
    cells.push(ratio(spread.median(), floor.median()));
    cells.push(format!("{least:.2}..{greatest:.2}"));
    cells.push(format!("{:.0}", facts.records as f64 / median_s));
    cells.push(format!("{:.0}", facts.input_bytes as f64 / 1e6 / median_s));
    cells.push(seconds(cpu.median()));
    if peak_rss_bytes > 0 {
        cells.push(mebibytes(peak_rss_bytes));
    }
    Ok(cells)
}
