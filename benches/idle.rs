//! Measures an idle daemon: CPU time, wake-ups and memory with a long history, and with many waiting runs, against an
//! empty lake in the same period.
//!
//! `cargo bench --bench idle [-- --full | --pairs N --records N] [--waiting N] [--seconds S]`
//!
//! The three daemons run concurrently and are measured over the same seconds, once none of them has used CPU time for a
//! while; other load on the machine affects all. Wake-ups are counted as context switches, a few of which are
//! preemptions. Asserts no figure.

mod support;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;

use support::daemon::Daemon;
use support::figures::{Table, machine, mebibytes, millis, ratio, seconds};
use support::history::{self, HistoryPlan};
use support::process::{Activity, Memory};
use support::summary::{self, Line};
use support::{Failure, bench_dir, export_path, lines_in, remove_tree};

/// A daemon is quiet when it used less than [`QUIET_CPU`] in this time.
const QUIET: Duration = Duration::from_secs(5);
/// Room for the frequent scan, which is part of being idle and may fall into [`QUIET`].
const QUIET_CPU: Duration = Duration::from_millis(5);
/// Maximum time to wait until a daemon is quiet.
const QUIET_DEADLINE: Duration = Duration::from_secs(180);

/// Measures the cost of an idle daemon.
#[derive(Debug, Parser)]
struct Options {
    #[command(flatten)]
    size: history::Size,
    /// Runs that wait in the second history; all of its runs or a million, whichever is less, unless given
    #[arg(long)]
    waiting: Option<u32>,
    /// Duration of the measurement
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// A daemon that idles.
#[derive(Debug)]
struct Subject {
    name: String,
    root: PathBuf,
    rows: u64,
    daemon: Daemon,
}

/// The resources that one daemon used.
#[derive(Debug)]
struct Outcome {
    name: String,
    activity: Activity,
    memory: Memory,
}

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let dir = bench_dir("idle");
    remove_tree(&dir)?;
    let plan = options.size.plan();
    let waiting = options.waiting.unwrap_or(plan.runs().min(1_000_000) as u32);
    let mut subjects = vec![Subject::empty(&dir)?];
    subjects.push(Subject::of_history(plan)?);
    subjects.push(Subject::of_history(HistoryPlan { waiting, ..plan })?);
    let quiet_after = wait_until_quiet(&mut subjects)?;
    let over = Duration::from_secs(options.seconds.into());
    let outcomes = measure(&mut subjects, over)?;
    for subject in subjects {
        subject.finish()?;
    }
    println!(
        "\nidle: over {}, quiet {} before",
        seconds(over),
        seconds(quiet_after)
    );
    println!(
        "history: {} day-files, {} lines",
        2 * plan.pairs,
        plan.lines()
    );
    println!("{}", machine(&dir));
    println!("floor: the daemon on an empty lake, over the same seconds\n");
    report(&outcomes);
    summary::leave("idle", &summary_lines(&outcomes, over))?;
    Ok(remove_tree(&dir)?)
}

impl Subject {
    fn empty(dir: &Path) -> Result<Self, Failure> {
        let root = dir.join("root");
        std::fs::create_dir_all(root.join("data/scored-runs"))?;
        std::fs::create_dir_all(root.join("data/evidence"))?;
        Self::start("empty lake".to_owned(), root, dir.join("empty.log"), 0)
    }

    fn of_history(plan: HistoryPlan) -> Result<Self, Failure> {
        let history = history::prepare(plan)?;
        let log = history.dir.join("idle.log");
        let name = format!("{} waiting", plan.waiting);
        Self::start(name, history.root, log, history.rows)
    }

    fn start(name: String, root: PathBuf, log: PathBuf, rows: u64) -> Result<Self, Failure> {
        let mut daemon = Daemon::start(&root, &log)?;
        daemon.wait_until_caught_up()?;
        Ok(Self {
            name,
            root,
            rows,
            daemon,
        })
    }

    fn activity(&mut self) -> Result<Activity, Failure> {
        self.daemon.program.check_alive()?;
        Ok(Activity::of(self.daemon.program.id())?)
    }

    /// Stops the daemon and asserts that idling added no row.
    fn finish(self) -> Result<(), Failure> {
        self.daemon.program.stop()?;
        let rows = lines_in(&export_path(&self.root))?;
        if rows != self.rows {
            return Err(format!("{}: {rows} rows, {} before", self.name, self.rows).into());
        }
        Ok(())
    }
}

/// Waits until all are quiet at once; gives the time that took, the quiet time not included.
fn wait_until_quiet(subjects: &mut [Subject]) -> Result<Duration, Failure> {
    let start = Instant::now();
    while start.elapsed() < QUIET_DEADLINE {
        let before = activities(subjects)?;
        let quiet_from = start.elapsed();
        thread::sleep(QUIET);
        let after = activities(subjects)?;
        let quiet = |(before, after): (&Activity, &Activity)| after.since(*before).cpu < QUIET_CPU;
        if before.iter().zip(&after).all(quiet) {
            return Ok(quiet_from);
        }
    }
    Err("the daemons did not go quiet".into())
}

fn activities(subjects: &mut [Subject]) -> Result<Vec<Activity>, Failure> {
    subjects.iter_mut().map(Subject::activity).collect()
}

fn measure(subjects: &mut [Subject], over: Duration) -> Result<Vec<Outcome>, Failure> {
    let before = activities(subjects)?;
    thread::sleep(over);
    let mut outcomes = Vec::new();
    for (subject, before) in subjects.iter_mut().zip(before) {
        outcomes.push(Outcome {
            name: subject.name.clone(),
            activity: subject.activity()?.since(before),
            memory: Memory::of(subject.daemon.program.id())?,
        });
    }
    Ok(outcomes)
}

fn report(outcomes: &[Outcome]) {
    let mut table = Table::new(&[
        "",
        "cpu",
        "x floor",
        "wake-ups",
        "rss",
        "peak rss",
        "own memory",
    ]);
    for Outcome {
        name,
        activity,
        memory,
    } in outcomes
    {
        table.row(vec![
            name.clone(),
            millis(activity.cpu),
            match outcomes[0].activity.cpu {
                // The floor did not wake up at all.
                Duration::ZERO => "-".to_owned(),
                floor => ratio(activity.cpu, floor),
            },
            activity.switches.to_string(),
            mebibytes(memory.resident),
            mebibytes(memory.peak),
            mebibytes(memory.anonymous),
        ]);
    }
    table.print();
}

/// Returns the lines for the summary of all benchmarks.
fn summary_lines(outcomes: &[Outcome], over: Duration) -> Vec<Line> {
    let mut lines = Vec::new();
    for Outcome {
        name,
        activity,
        memory,
    } in &outcomes[1..]
    {
        let a_minute = activity.cpu.mul_f64(60.0 / over.as_secs_f64());
        lines.push(Line {
            what: format!("idle, {name}: CPU a minute"),
            value: millis(a_minute),
            floor: String::new(),
            ratio: millis(a_minute),
            aim: "10 ms",
        });
        lines.push(Line {
            what: format!("idle, {name}: memory"),
            value: mebibytes(memory.resident),
            floor: String::new(),
            ratio: mebibytes(memory.resident),
            aim: "32 MiB",
        });
    }
    lines
}
