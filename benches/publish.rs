//! Measures `distilld-publish`: a catch-up of a long export with its memory, the time of a commit, and how long rows of a
//! running daemon wait for the table.
//!
//! `cargo bench --features publish --bench publish [-- --pairs N --commit-kib N --seconds S --interval S --full]`
//!
//! - The floor of the catch-up is reading the export, and writing and syncing the same Parquet files.
//! - The floor of a commit is writing and syncing the same Parquet file and the same JSON file, with their directories.
//! - A row waits from the moment at which it is readable in the export to that at which the commit is in the table.
//!
//! The table is a directory. Asserts that all rows are published; asserts no time.

mod support;

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::Parser;

use support::daemon::DEADLINE;
use support::figures::{Spread, machine, mebibytes, megabytes, millis, ratio, seconds};
use support::lake::{self, LakePlan};
use support::live::Live;
use support::program::{Finished, Program, Usage};
use support::summary::{self, Line};
use support::{BUFFER_BYTES, Failure, bench_dir, export_path, remove_tree, settle_disk};

/// The limit of the memory of a publisher.
const MEMORY: &str = "96 MiB";
/// Sleep between two looks for the next commit, and for the length of the export.
const POLL_INTERVAL: Duration = Duration::from_micros(100);

/// Measures the publisher.
#[derive(Debug, Parser)]
struct Options {
    /// Pairs of day-files of the export that is caught up, 720 rows each
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Length of the export in one commit, where commits are timed, KiB
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..))]
    commit_kib: u64,
    /// Rows a second of the running daemon
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Time for which the daemon gets records
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Intervals of commits; may be given more than once
    #[arg(long, default_values_t = [1], value_parser = clap::value_parser!(u32).range(1..))]
    interval: Vec<u32>,
    /// Ten times as many pairs, and the default interval of 60 seconds for three minutes
    #[arg(long)]
    full: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Failure> {
    let mut options = Options::parse();
    if options.full {
        options.pairs *= 10;
        options.interval.push(60);
    }
    let dir = bench_dir("publish");
    let mut lines = measure_history(&dir.join("history"), &options)?;
    for &interval in &options.interval {
        let seconds = options.seconds.max(3 * interval);
        lines.extend(measure_live(
            &dir.join("live"),
            options.rate,
            seconds,
            interval,
        )?);
    }
    println!("\n{}", machine(&dir));
    summary::leave("publish", &lines)?;
    Ok(remove_tree(&dir)?)
}

/// Measures the catch-up and the commits of the export of a lake.
fn measure_history(dir: &Path, options: &Options) -> Result<Vec<Line>, Failure> {
    let plan = LakePlan {
        pairs: options.pairs,
        records: 1_000,
        text_bytes: 1_620,
        seed: 7,
    };
    let lake = lake::prepare(dir, &plan)?;
    Program::run(&lake.root, &["run", "--once"], &dir.join("distilld.log"))?;
    let export = export_path(&lake.root);
    let rows = lake.facts.rows;
    println!("{rows} rows, {}", megabytes(fs::metadata(&export)?.len()));
    let mut lines = Vec::new();
    for commit_bytes in ["64MiB", "1GiB"] {
        let table = Table::new(dir, &export, &format!("commit_bytes = \"{commit_bytes}\""))?;
        settle_disk(dir)?;
        let finished = table.once()?;
        table.verify(rows)?;
        settle_disk(dir)?;
        let floor = table.floor_of_catch_up()?;
        lines.extend(catch_up_lines(rows, commit_bytes, &finished, floor));
    }
    let more = format!("commit_bytes = \"{}KiB\"", options.commit_kib);
    let table = Table::new(dir, &export, &more)?;
    settle_disk(dir)?;
    let commits = Commits::watch(&table);
    let finished = table.once()?;
    let seen = commits.stop()?;
    let apart = seen.windows(2).map(|pair| pair[1].at - pair[0].at);
    let apart = Spread::of(apart.collect()).ok_or("fewer than two commits")?;
    let floor = table.floor_of_commits(seen.len())?;
    lines.extend(commit_lines(
        rows / seen.len() as u64,
        &apart,
        &floor,
        finished.usage,
    ));
    Ok(lines)
}

fn catch_up_lines(
    rows: u64,
    commit_bytes: &str,
    finished: &Finished,
    floor: Duration,
) -> [Line; 3] {
    let Usage {
        peak_rss_bytes,
        cpu,
    } = finished.usage;
    let per_second = format!("{:.0} a second", rows as f64 / cpu.as_secs_f64());
    let peak = mebibytes(peak_rss_bytes);
    println!(
        "commits of {commit_bytes}: {}, CPU {}, {per_second} of CPU time, {peak}; floor {}",
        seconds(finished.wall),
        seconds(cpu),
        seconds(floor)
    );
    let line = |what: String, value: String, floor: String, ratio: String, aim| Line {
        what,
        value,
        floor,
        ratio,
        aim,
    };
    [
        line(
            format!("publish {rows} rows in commits of {commit_bytes}"),
            seconds(finished.wall),
            seconds(floor),
            ratio(finished.wall, floor),
            "",
        ),
        line(
            "  its rows for each second of CPU time".to_owned(),
            per_second.clone(),
            String::new(),
            per_second,
            "",
        ),
        line(
            "  its peak memory".to_owned(),
            peak.clone(),
            String::new(),
            peak,
            MEMORY,
        ),
    ]
}

fn commit_lines(rows: u64, commits: &Spread, floor: &Spread, usage: Usage) -> Vec<Line> {
    println!(
        "{} commits of {rows} rows: p50 {}, p99 {}, at most {}; floor p50 {}, p99 {}; CPU {}",
        commits.count(),
        millis(commits.median()),
        millis(commits.percentile(99)),
        millis(commits.max()),
        millis(floor.median()),
        millis(floor.percentile(99)),
        seconds(usage.cpu)
    );
    let line = |name: &str, value: Duration, floor: Duration| Line {
        what: format!("commit of {rows} rows, {name}"),
        value: millis(value),
        floor: millis(floor),
        ratio: ratio(value, floor),
        aim: "",
    };
    vec![
        line("p50", commits.median(), floor.median()),
        line("p99", commits.percentile(99), floor.percentile(99)),
    ]
}

/// Measures how long rows of a running daemon wait for the table.
fn measure_live(dir: &Path, rate: u32, seconds: u32, interval: u32) -> Result<Vec<Line>, Failure> {
    const PAIRS: u32 = 50;
    let mut live = Live::start(&dir.join("lake"), PAIRS)?;
    let export = export_path(&live.root);
    let table = Table::new(dir, &export, &format!("commit_interval_s = {interval}"))?;
    let log = dir.join("publish.log");
    let mut publisher = Program::start_other(table.command("run"), &log)?;
    let commits = Commits::watch(&table);
    let lengths = Lengths::watch(&export);
    let reached = live.steadily(rate, seconds, PAIRS)?;
    let lengths = lengths.stop()?;
    let end = lengths.last().map_or(0, |(_, len)| *len);
    let deadline = Instant::now() + DEADLINE;
    while table.published_len()? < end {
        publisher.check_alive()?;
        if Instant::now() > deadline {
            return Err(publisher.failure("the last rows were not published"));
        }
        thread::sleep(Duration::from_millis(100));
    }
    let usage = publisher.usage();
    publisher.stop()?;
    let lags = lags(&lengths, &commits.stop()?);
    let lags = Spread::of(lags).ok_or("no row was published while the daemon ran")?;
    let rows = live.finish("publish")?.rows;
    let peak = mebibytes(usage.peak_rss_bytes);
    println!(
        "{reached:.0} rows a second, commits each {interval} s: p50 {}, p99 {}, at most {}; CPU {}, {peak}; rows in the export \
         after p99 {}",
        millis(lags.median()),
        millis(lags.percentile(99)),
        millis(lags.max()),
        support::figures::seconds(usage.cpu),
        millis(rows.percentile(99))
    );
    Ok(vec![Line {
        what: format!("{rate} rows a second, commits each {interval} s, p99 to the table"),
        value: millis(lags.percentile(99)),
        floor: String::new(),
        ratio: peak,
        aim: MEMORY,
    }])
}

/// Returns how long each length of the export waited for a commit that covers it.
fn lags(lengths: &[(Instant, u64)], commits: &[Seen]) -> Vec<Duration> {
    let lag = |(at, len): &(Instant, u64)| {
        let first = commits.partition_point(|commit| commit.export_len < *len);
        Some(commits.get(first)?.at.saturating_duration_since(*at))
    };
    lengths.iter().filter_map(lag).collect()
}

/// A table in a new directory, and the configuration of its publisher.
struct Table {
    directory: PathBuf,
    export: PathBuf,
    config: PathBuf,
    log: PathBuf,
}

impl Table {
    fn new(dir: &Path, export: &Path, more: &str) -> Result<Table, Failure> {
        let table = Table {
            directory: dir.join("table"),
            export: export.to_owned(),
            config: dir.join("publish.toml"),
            log: dir.join("publish.log"),
        };
        remove_tree(&table.directory)?;
        let text = format!(
            "export = {export:?}\ntable = {:?}\nhost = \"lake-07\"\n{more}\n",
            table.directory
        );
        fs::write(&table.config, text)?;
        Ok(table)
    }

    fn command(&self, command: &str) -> Command {
        let mut publisher = Command::new(env!("CARGO_BIN_EXE_distilld-publish"));
        publisher.arg("--config").arg(&self.config).arg(command);
        publisher
    }

    fn once(&self) -> Result<Finished, Failure> {
        Program::run_other(self.command("once"), &self.log)
    }

    /// Checks that the table has all rows.
    fn verify(&self, rows: u64) -> Result<(), Failure> {
        Program::run_other(self.command("verify"), &self.log)?;
        let verified: serde_json::Value = serde_json::from_slice(&fs::read(&self.log)?)?;
        match verified["published"] == rows {
            true => Ok(()),
            false => Err(format!("{rows} rows were exported, and published: {verified}").into()),
        }
    }

    fn commit_file(&self, version: usize) -> PathBuf {
        let name = format!("_delta_log/{version:020}.json");
        self.directory.join(name)
    }

    /// Returns the length of the export that the newest version has.
    fn published_len(&self) -> Result<u64, Failure> {
        let status = self.command("status").output()?;
        let status: serde_json::Value = serde_json::from_slice(&status.stdout)?;
        Ok(status["published_len"].as_u64().unwrap_or_default())
    }

    /// Returns the files of rows, in the order of their commits.
    fn row_files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for version in 0.. {
            match fs::read_to_string(self.commit_file(version)) {
                Ok(text) => files.extend(added(&text).map(|name| self.directory.join(name))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
        }
        Ok(files)
    }

    /// Returns the time to read the export, and to write and sync the files of rows of the table.
    fn floor_of_catch_up(&self) -> Result<Duration, Failure> {
        let contents: io::Result<Vec<Vec<u8>>> = self.row_files()?.iter().map(fs::read).collect();
        let directory = self.floor_directory()?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let start = Instant::now();
        let mut export = File::open(&self.export)?;
        while export.read(&mut buffer)? > 0 {}
        for (number, content) in contents?.iter().enumerate() {
            write_synced(&directory, &format!("{number}.parquet"), content)?;
        }
        Ok(start.elapsed())
    }

    /// Returns the times to write and sync the files of each commit.
    fn floor_of_commits(&self, commits: usize) -> Result<Spread, Failure> {
        let directory = self.floor_directory()?;
        let mut took = Vec::new();
        for version in 1..=commits {
            let json = fs::read(self.commit_file(version))?;
            let text = String::from_utf8_lossy(&json).into_owned();
            let rows: io::Result<Vec<Vec<u8>>> = added(&text)
                .map(|name| fs::read(self.directory.join(name)))
                .collect();
            let rows = rows?;
            let start = Instant::now();
            for (number, rows) in rows.iter().enumerate() {
                write_synced(&directory, &format!("{version}-{number}.parquet"), rows)?;
            }
            write_synced(&directory, &format!("{version}.json"), &json)?;
            took.push(start.elapsed());
        }
        Ok(Spread::of(took).ok_or("no commits")?)
    }

    fn floor_directory(&self) -> io::Result<PathBuf> {
        let directory = self.directory.with_file_name("floor");
        remove_tree(&directory)?;
        fs::create_dir(&directory)?;
        Ok(directory)
    }
}

/// Returns the names of the files that a commit adds.
fn added(commit: &str) -> impl Iterator<Item = String> {
    let actions = commit
        .lines()
        .map(serde_json::from_str::<serde_json::Value>);
    let actions: Vec<_> = actions.flatten().collect();
    actions
        .into_iter()
        .filter_map(|action| Some(action["add"]["path"].as_str()?.to_owned()))
}

/// Writes a file and syncs it and its name.
fn write_synced(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(directory.join(name))?;
    file.write_all(content)?;
    file.sync_all()?;
    File::open(directory)?.sync_all()
}

/// A commit that was seen.
struct Seen {
    at: Instant,
    /// The length of the export that the table has since.
    export_len: u64,
}

/// A thread that looks for the next commit of a table, after the first version, which is empty.
struct Commits(Watch<Seen>);

impl Commits {
    fn watch(table: &Table) -> Commits {
        let log = table.commit_file(1);
        let log = log.parent().map(Path::to_owned).unwrap_or_default();
        let mut version = 1;
        Commits(Watch::start(move || {
            let path = log.join(format!("{version:020}.json"));
            let text = match fs::read_to_string(path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            let at = Instant::now();
            version += 1;
            let export_len = published_by(&text);
            Ok(Some(Seen { at, export_len }))
        }))
    }

    fn stop(self) -> Result<Vec<Seen>, Failure> {
        self.0.stop()
    }
}

/// Returns the length of the export in the numbers of a commit, whose names are `distilld/HOST`, which is the identity, and
/// `distilld/HOST/EXPORT`, followed by `/ledger` and `/tail` for the others.
fn published_by(commit: &str) -> u64 {
    let actions = commit
        .lines()
        .map(serde_json::from_str::<serde_json::Value>);
    let mut numbers = actions.flatten().filter_map(|action| {
        let transaction = action.get("txn")?;
        let name = transaction["appId"].as_str()?;
        let is_length = name.matches('/').count() == 2;
        is_length.then(|| transaction["version"].as_u64())?
    });
    numbers.next().unwrap_or_default()
}

/// A thread that observes the length of an export: the times at which it was longer than before.
struct Lengths(Watch<(Instant, u64)>);

impl Lengths {
    fn watch(export: &Path) -> Lengths {
        let export = export.to_owned();
        let mut last = 0;
        Lengths(Watch::start(move || {
            let len = fs::metadata(&export)?.len();
            let is_longer = len > std::mem::replace(&mut last, len);
            Ok(is_longer.then(|| (Instant::now(), len)))
        }))
    }

    fn stop(self) -> Result<Vec<(Instant, u64)>, Failure> {
        self.0.stop()
    }
}

/// A thread that collects what `look` finds.
struct Watch<T> {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Vec<T>>>,
}

impl<T: Send + 'static> Watch<T> {
    fn start(mut look: impl FnMut() -> io::Result<Option<T>> + Send + 'static) -> Watch<T> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut found = Vec::new();
            loop {
                // Read before the last look, which then finds all that was there.
                let is_last = stopped.load(Ordering::Relaxed);
                match look()? {
                    Some(next) => found.push(next),
                    None if is_last => return Ok(found),
                    None => thread::sleep(POLL_INTERVAL),
                }
            }
        });
        Watch { stop, thread }
    }

    fn stop(self) -> Result<Vec<T>, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let found = self.thread.join();
        Ok(found.map_err(|_| "a watching thread panicked")??)
    }
}
