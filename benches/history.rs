//! Measures what reads a history that is there: the start after a lost state and `rebuild` against a backfill of the same
//! lake, and `verify` against `export`.
//!
//! `cargo bench --bench history [-- --full | --pairs N --records M --runs R]`
//!
//! Each round runs all of them in turn, so that other load on the machine affects all. The day-files are in the page cache.
//! The ratios are those of the medians. Asserts what each of them found; asserts no time.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;

use support::figures::{Spread, Table, machine, mebibytes, megabytes, ratio, seconds};
use support::lake::{self, Lake, LakePlan};
use support::program::{Finished, Program};
use support::summary::{self, Line};
use support::{Failure, bench_dir, export_path, lines_in, remove_tree, settle_disk};

/// Measures distilld on a history that it processed before.
#[derive(Debug, Parser)]
struct Options {
    /// A lake of 611 MB
    #[arg(long, conflicts_with = "pairs")]
    full: bool,
    /// Pairs of day-files, eight a day
    #[arg(long, default_value_t = 112, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Records of each pair
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    records: u32,
    /// Mean length of an evidence text, bytes
    #[arg(long, default_value_t = 1_620)]
    text_bytes: u32,
    /// Rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured, in the order in which a round runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Case {
    Backfill,
    Adoption,
    Rebuild,
    Export,
    VerifyEqual,
    VerifyGo,
    VerifyDiffering,
}

const CASES: [Case; 7] = [
    Case::Backfill,
    Case::Adoption,
    Case::Rebuild,
    Case::Export,
    Case::VerifyEqual,
    Case::VerifyGo,
    Case::VerifyDiffering,
];

impl Case {
    fn name(self) -> &'static str {
        match self {
            Case::Backfill => "run --once",
            Case::Adoption => "run --once, state lost",
            Case::Rebuild => "rebuild",
            Case::Export => "export",
            Case::VerifyEqual => "verify, equal",
            Case::VerifyGo => "verify, all rows of the other dialect",
            Case::VerifyDiffering => "verify, all rows altered",
        }
    }

    /// Returns the case that it is compared with, and the greatest ratio that is wanted.
    fn floor(self) -> Option<(Case, &'static str)> {
        match self {
            Case::Backfill | Case::Export => None,
            Case::Adoption | Case::Rebuild => Some((Case::Backfill, "1.3 x")),
            Case::VerifyEqual => Some((Case::Export, "1.5 x")),
            Case::VerifyGo | Case::VerifyDiffering => Some((Case::Export, "4 x")),
        }
    }
}

type Rounds = BTreeMap<Case, Vec<Finished>>;

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let dir = bench_dir("history");
    let plan = LakePlan {
        pairs: if options.full { 224 } else { options.pairs },
        records: options.records,
        text_bytes: options.text_bytes,
        seed: 7,
    };
    let start = Instant::now();
    let lake = lake::prepare(&dir, &plan)?;
    println!("lake: {} in {}", dir.display(), seconds(start.elapsed()));
    let mut rounds = Rounds::new();
    for round in 1..=options.runs {
        for case in CASES {
            settle_disk(&dir)?;
            let finished = measure(&dir, &lake, case)?;
            rounds.entry(case).or_default().push(finished);
        }
        println!("round {round} of {}", options.runs);
    }
    report(&dir, &lake, &rounds)?;
    remove_tree(&lake.root.join("data/distilled"))?;
    Ok(summary::leave("history", &lines(&lake, &rounds)?)?)
}

/// Prepares what a case reads, and measures it.
fn measure(dir: &Path, lake: &Lake, case: Case) -> Result<Finished, Failure> {
    let (root, log) = (&lake.root, dir.join("distilld.log"));
    let distilled = root.join("data/distilled");
    let run = |args: &[&str]| Program::run(root, args, &log);
    let finished = match case {
        Case::Backfill => {
            remove_tree(&distilled)?;
            run(&["run", "--once"])?
        }
        Case::Adoption => {
            remove_tree(&distilled.join(".distilld"))?;
            run(&["run", "--once"])?
        }
        Case::Rebuild => {
            let finished = run(&["rebuild"])?;
            remove_kept(&export_path(root))?;
            finished
        }
        Case::Export => {
            let output = dir.join("export.jsonl");
            let finished = run(&["export", "--output", &output.to_string_lossy()])?;
            fs::remove_file(&output)?;
            finished
        }
        Case::VerifyEqual => run(&["verify"])?,
        Case::VerifyGo => {
            remove_tree(&distilled)?;
            run(&["export", "--dialect", "go"])?;
            // Rows without a character that the other exporter escapes are equal.
            verify_finding(root, &log, &["\"missing\":0,", "\"altered\":0,"])?
        }
        Case::VerifyDiffering => {
            remove_tree(&distilled)?;
            run(&["export"])?;
            alter_rows(&export_path(root))?;
            let altered = format!("\"altered\":{},", lake.facts.rows);
            verify_finding(root, &log, &[&altered, "\"other_dialect\":0,"])?
        }
    };
    let rows = lines_in(&export_path(root))?;
    match rows == lake.facts.rows {
        true => Ok(finished),
        false => Err(format!("{} left {rows} rows", case.name()).into()),
    }
}

/// Runs a `verify` that fails, since these exports have no ledger, and whose result must have these counts.
fn verify_finding(root: &Path, log: &Path, wanted: &[&str]) -> Result<Finished, Failure> {
    let finished = Program::run_to_end(root, &["verify"], log)?;
    let printed: String = fs::read_to_string(log)?.split_whitespace().collect();
    match wanted.iter().find(|count| !printed.contains(**count)) {
        None => Ok(finished),
        Some(count) => Err(format!("verify does not print {count}").into()),
    }
}

/// Changes the text of each row, so that no source makes it.
fn alter_rows(export: &Path) -> Result<(), Failure> {
    let rows = fs::read(export)?;
    let mut altered = Vec::with_capacity(rows.len() + rows.len() / 64);
    let (mark, mut from) = (&b"\"context\":\""[..], 0);
    for at in memchr::memmem::find_iter(&rows, mark) {
        altered.extend_from_slice(&rows[from..at + mark.len()]);
        altered.push(b'x');
        from = at + mark.len();
    }
    altered.extend_from_slice(&rows[from..]);
    Ok(fs::write(export, altered)?)
}

/// Removes the files that a rebuild keeps next to the fresh export.
fn remove_kept(export: &Path) -> Result<(), Failure> {
    let dir = export.parent().ok_or("the export has no directory")?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains(".before-") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn median(rounds: &Rounds, case: Case) -> Result<Duration, Failure> {
    let runs = rounds.get(&case).into_iter().flatten();
    let spread = Spread::of(runs.map(|run| run.wall).collect()).ok_or("no rounds")?;
    Ok(spread.median())
}

fn peak(rounds: &Rounds, case: Case) -> u64 {
    let runs = rounds.get(&case).into_iter().flatten();
    let peaks = runs.map(|run| run.usage.peak_rss_bytes);
    peaks.max().unwrap_or(0)
}

fn lines(lake: &Lake, rounds: &Rounds) -> Result<Vec<Line>, Failure> {
    let mut lines = Vec::new();
    for case in CASES {
        let Some((floor, aim)) = case.floor() else {
            continue;
        };
        let (value, floor) = (median(rounds, case)?, median(rounds, floor)?);
        lines.push(Line {
            what: format!("{} of {}", case.name(), megabytes(lake.facts.input_bytes)),
            value: seconds(value),
            floor: seconds(floor),
            ratio: ratio(value, floor),
            aim,
        });
    }
    let peak = mebibytes(peak(rounds, Case::VerifyDiffering));
    lines.push(Line {
        what: "  peak memory of the last one".to_owned(),
        value: peak.clone(),
        floor: String::new(),
        ratio: peak,
        aim: "64 MiB",
    });
    Ok(lines)
}

fn report(dir: &Path, lake: &Lake, rounds: &Rounds) -> Result<(), Failure> {
    let facts = lake.facts;
    println!(
        "\nhistory: {} records, {}; {} rows",
        facts.records,
        megabytes(facts.input_bytes),
        facts.rows
    );
    println!("{}", machine(dir));
    println!("floor: a backfill, or `export`; cpu: user and system time, ratio to the floor's\n");
    let mut table = Table::new(&[
        "", "min", "median", "max", "x floor", "cpu", "x floor", "peak rss",
    ]);
    for case in CASES {
        table.row(cells(rounds, case)?);
    }
    table.print();
    Ok(())
}

fn cells(rounds: &Rounds, case: Case) -> Result<Vec<String>, Failure> {
    let spread_of = |case: Case, of: fn(&Finished) -> Duration| {
        let runs = rounds.get(&case).into_iter().flatten();
        Spread::of(runs.map(of).collect()).ok_or("no rounds")
    };
    let (wall, cpu) = (
        spread_of(case, |run| run.wall)?,
        spread_of(case, |run| run.usage.cpu)?,
    );
    let floor = case.floor().map_or(case, |(floor, _)| floor);
    let floor_cpu = spread_of(floor, |run| run.usage.cpu)?;
    Ok(vec![
        case.name().to_owned(),
        seconds(wall.min()),
        seconds(wall.median()),
        seconds(wall.max()),
        ratio(wall.median(), median(rounds, floor)?),
        seconds(cpu.median()),
        ratio(cpu.median(), floor_cpu.median()),
        mebibytes(peak(rounds, case)),
    ])
}
