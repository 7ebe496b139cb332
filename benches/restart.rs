//! Measures a restart: the time from the start of the process to READY with a long history, after a clean stop and after
//! a kill, and the time to the first new rows; against the same on an empty lake in the same run.
//!
//! `cargo bench --bench restart [-- --full | --pairs N --records N] [--runs R]`
//!
//! - The daemon is ready when it has sent READY=1 to the notification socket, which this program provides.
//! - Each round starts it on both lakes after a clean stop, has it write rows, kills it while only its journal holds
//!   them, starts it again, measures the first and the next rows right after READY, and stops it.
//! - "caught up" is the time at which it has read all existing files; it processes new records meanwhile.
//! - The state of a history that was read at once, and of another one that was written while the daemon followed it: its
//!   bytes on the disk for each record.
//! - The files are in the page cache, as after a restart of the daemon, not of the host.
//!
//! The history is kept for later runs and grows by the measured rows. Asserts that each row appears once; asserts no
//! time.

mod support;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

use support::daemon::{Appender, Daemon};
use support::figures::{Spread, Table, machine, mebibytes, megabytes, millis, ratio};
use support::history::{self, History, HistoryPlan};
use support::lake::{self, PairPath, Record};
use support::process::Memory;
use support::program::Program;
use support::summary::{self, Line};
use support::written_live::{self, StateSizes};
use support::{Failure, bench_dir, export_path, lines_in, remove_tree, settle_disk};

/// Mean length of the evidence texts of measured records.
const TEXT_BYTES: u32 = 1_620;
/// Records before each kill.
const JOURNALED: u32 = 20;
/// Records of the first second after READY and the first row, while the daemon may still be reading the history.
const FIRST_SECOND: u32 = 50;
/// Time between two records.
const PERIOD: Duration = Duration::from_millis(20);

/// Measures the time until a restarted daemon works again.
#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    size: history::Size,
    /// Rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Records of each round after those of its first second, 50 a second
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    next: u32,
    /// Runs of the history that is written live, 50 pairs
    #[arg(long, default_value_t = 400_000, value_parser = clap::value_parser!(u32).range(1..))]
    live: u32,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// A lake and the measurements of the rounds on it.
#[derive(Debug)]
struct Subject {
    name: &'static str,
    root: PathBuf,
    log: PathBuf,
    pair: PairPath,
    rows: u64,
    times: Times,
}

#[derive(Debug, Default)]
struct Times {
    ready_clean: Vec<Duration>,
    ready_killed: Vec<Duration>,
    caught_up: Vec<Duration>,
    first: Vec<Duration>,
    first_second: Vec<Duration>,
    next: Vec<Duration>,
    stop: Vec<Duration>,
    peak_rss_bytes: u64,
}

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let history = history::prepare(options.size.plan())?;
    let dir = bench_dir("restart");
    remove_tree(&dir)?;
    let mut subjects = [
        Subject::empty(&dir, history.plan.newest_pair())?,
        Subject::of_history(&history),
    ];
    for round in 1..=options.runs {
        for subject in &mut subjects {
            subject.one_round(options.next)?;
        }
        println!("round {round} of {}", options.runs);
    }
    let [empty, full] = subjects;
    let live = written_live::measure(&dir.join("live"), options.live)?;
    report(&dir, history.plan, &empty, &full, &live)?;
    Ok(remove_tree(&dir)?)
}

impl Subject {
    /// Creates a lake with one processed record.
    fn empty(dir: &Path, pair: PairPath) -> Result<Self, Failure> {
        let root = dir.join("empty");
        pair.make_dirs(&root)?;
        let record = Record::good(
            &mut fastrand::Rng::with_seed(3),
            "warm-up".to_owned(),
            TEXT_BYTES,
        );
        let (mut evidence, mut scored) = (Vec::new(), Vec::new());
        record.write_evidence(&pair, 0, &mut evidence);
        record.write_scored(&pair, 0, &mut scored);
        lake::append(&pair.evidence(&root), &evidence)?;
        lake::append(&pair.scored(&root), &scored)?;
        let log = dir.join("empty.log");
        Program::run(&root, &["run", "--once"], &log)?;
        Ok(Self {
            name: "empty lake",
            root,
            log,
            pair,
            rows: 1,
            times: Times::default(),
        })
    }

    fn of_history(history: &History) -> Self {
        Self {
            name: "history",
            root: history.root.clone(),
            log: history.dir.join("restart.log"),
            pair: history.plan.newest_pair(),
            rows: history.rows,
            times: Times::default(),
        }
    }

    fn one_round(&mut self, next: u32) -> Result<(), Failure> {
        settle_disk(&self.root)?;
        let mut daemon = Daemon::start(&self.root, &self.log)?;
        self.times.ready_clean.push(daemon.ready_after);
        self.times.caught_up.push(daemon.wait_until_caught_up()?);
        let mut appender = self.appender()?;
        appender.steadily(JOURNALED, PERIOD, &mut daemon.program)?;
        daemon.program.kill()?;
        appender.stop()?;
        self.rows += u64::from(JOURNALED);

        let mut appender = self.appender()?;
        let mut daemon = Daemon::start(&self.root, &self.log)?;
        self.times.ready_killed.push(daemon.ready_after);
        let first = appender.steadily(1, PERIOD, &mut daemon.program)?;
        self.times.first.extend(first);
        let busy = appender.steadily(FIRST_SECOND, PERIOD, &mut daemon.program)?;
        self.times.first_second.extend(busy);
        let rest = appender.steadily(next, PERIOD, &mut daemon.program)?;
        self.times.next.extend(rest);
        appender.stop()?;
        self.rows += u64::from(1 + FIRST_SECOND + next);
        daemon.wait_until_caught_up()?;
        let memory = Memory::of(daemon.program.id())?;
        self.times.peak_rss_bytes = self.times.peak_rss_bytes.max(memory.peak);
        let ((), took) = daemon.program.stop_and(|_| Ok(()))?;
        self.times.stop.push(took);
        self.count()
    }

    fn appender(&self) -> Result<Appender, Failure> {
        let pair = self.pair.clone();
        Ok(Appender::start(&self.root, pair, self.rows, TEXT_BYTES)?)
    }

    /// Counts the rows; a row that was written twice or lost is an error.
    fn count(&self) -> Result<(), Failure> {
        let lines = lines_in(&export_path(&self.root))?;
        if lines != self.rows {
            return Err(format!(
                "{}: the export has {lines} rows, {} were earned",
                self.name, self.rows
            )
            .into());
        }
        Ok(())
    }
}

/// A figure's name, its measurements, and their aggregation.
type Figure = (
    &'static str,
    fn(&Times) -> &Vec<Duration>,
    fn(&Spread) -> Duration,
);

const FIGURES: [Figure; 8] = [
    (
        "READY after a clean stop",
        |it| &it.ready_clean,
        Spread::median,
    ),
    ("READY after a kill", |it| &it.ready_killed, Spread::median),
    ("caught up", |it| &it.caught_up, Spread::median),
    ("first row after READY", |it| &it.first, Spread::median),
    (
        "rows of the next second, p50",
        |it| &it.first_second,
        Spread::median,
    ),
    (
        "next rows, p50",
        |it| &it.next,
        |spread| spread.percentile(50),
    ),
    (
        "next rows, p99",
        |it| &it.next,
        |spread| spread.percentile(99),
    ),
    ("stop", |it| &it.stop, Spread::median),
];

fn report(
    dir: &Path,
    plan: HistoryPlan,
    empty: &Subject,
    full: &Subject,
    live: &StateSizes,
) -> Result<(), Failure> {
    println!(
        "\nrestart: {} day-files and {} lines of history, {} runs waiting",
        2 * plan.pairs,
        plan.lines(),
        plan.waiting
    );
    println!("{}", machine(dir));
    println!("floor: the same on an empty lake, in the same rounds; medians unless marked p\n");
    let mut table = Table::new(&["", "n", "history", "min", "max", "floor", "x floor"]);
    for (name, of, sum_up) in FIGURES {
        let spread = Spread::of(of(&full.times).clone()).ok_or("no rounds")?;
        let floor = Spread::of(of(&empty.times).clone()).ok_or("no rounds")?;
        let (value, floor) = (sum_up(&spread), sum_up(&floor));
        let mut cells = vec![name.to_owned(), spread.count().to_string()];
        cells.extend([value, spread.min(), spread.max(), floor].map(millis));
        cells.push(ratio(value, floor));
        table.row(cells);
    }
    table.print();
    let mut lines = summary_lines(plan, empty, full)?;
    lines.push(live_line(live));
    summary::leave("restart", &lines)?;
    println!(
        "\nstate of {} records that were written live: {} after the stop ({:.1} B a record), {} after an idle moment",
        live.records,
        megabytes(live.written),
        live.written as f64 / live.records as f64,
        megabytes(live.idle)
    );
    println!(
        "\npeak rss: {} on the history, {} on the empty lake",
        mebibytes(full.times.peak_rss_bytes),
        mebibytes(empty.times.peak_rss_bytes)
    );
    Ok(())
}

/// Returns the line of the history that was written live.
fn live_line(live: &StateSizes) -> Line {
    let a_record = live.idle as f64 / live.records as f64;
    Line {
        what: format!(
            "restart, {} records written live: state on disk",
            live.records
        ),
        value: megabytes(live.idle),
        floor: String::new(),
        ratio: format!("{a_record:.1} B"),
        aim: "40 B",
    }
}

/// Returns the lines for the summary of all benchmarks.
fn summary_lines(plan: HistoryPlan, empty: &Subject, full: &Subject) -> Result<Vec<Line>, Failure> {
    let line = |figure: &Figure, of_ratio: bool, aim| -> Result<Line, Failure> {
        let (name, of, sum_up) = figure;
        let value = Spread::of(of(&full.times).clone()).ok_or("no rounds")?;
        let floor = Spread::of(of(&empty.times).clone()).ok_or("no rounds")?;
        let (value, floor) = (sum_up(&value), sum_up(&floor));
        Ok(Line {
            what: format!("restart, {} records: {name}", plan.lines()),
            value: millis(value),
            floor: millis(floor),
            ratio: if of_ratio {
                ratio(value, floor)
            } else {
                millis(value)
            },
            aim,
        })
    };
    let state = full.root.join("data/distilled/.distilld/state.redb");
    // The allocated size: the store makes its file longer than it needs.
    let state_bytes = std::fs::metadata(state)?.blocks() * 512;
    let a_record = state_bytes as f64 / plan.lines() as f64;
    Ok(vec![
        line(&FIGURES[0], false, "200 ms")?,
        line(&FIGURES[1], false, "200 ms")?,
        line(&FIGURES[5], true, "1.1 x")?,
        Line {
            what: format!("restart, {} records: state on disk, a record", plan.lines()),
            value: megabytes(state_bytes),
            floor: String::new(),
            ratio: format!("{a_record:.1} B"),
            aim: "40 B",
        },
    ])
}
