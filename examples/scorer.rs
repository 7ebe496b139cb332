//! Plays a scorer: appends invented runs, evidence and score, to the day-files of a lake at an even rate.
//!
//! `cargo run --example scorer -- --root DIR --rate 5`

mod support;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use support::Expected;
use support::scorer::{Clock, Scorer};

/// Append invented runs to the day-files of a lake, until Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "scorer")]
struct Arguments {
    /// Root of the lake; it must exist, its day-files need not
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Runs a second, from 0.01 to 10000
    #[arg(long, value_name = "N", default_value_t = 5.0, value_parser = rate)]
    rate: f64,
    /// Stop after this time [default: never]
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Every fifth run that earns a row gets its evidence after this delay; 0 for none
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    late_evidence: u64,
    /// The same seed gives the same runs [default: another each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write to the files of this day [default: today, UTC]
    #[arg(long, value_name = "YYYY/MM/DD", value_parser = day)]
    day: Option<String>,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text
        .parse()
        .ok()
        .filter(|rate| (0.01..=10_000.0).contains(rate));
    rate.ok_or_else(|| "not a number from 0.01 to 10000".to_owned())
}

fn day(text: &str) -> Result<String, String> {
    let lengths: Vec<usize> = text.split('/').map(str::len).collect();
    let digits = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'/');
    if digits && lengths == [4, 2, 2] {
        Ok(text.to_owned())
    } else {
        Err("not a day such as 2026/11/23".to_owned())
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of the output has closed it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scorer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    if !arguments.root.is_dir() {
        let text = format!(
            "--root {} is not a directory; make it first",
            arguments.root.display()
        );
        return Err(io::Error::other(text));
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let seed = arguments
        .seed
        .unwrap_or_else(|| fastrand::u64(..=0xff_ffff));
    let late_after =
        Some(Duration::from_secs(arguments.late_evidence)).filter(|after| !after.is_zero());
    let mut scorer = Scorer::new(&arguments.root, arguments.day.clone(), seed, late_after);
    writeln!(
        io::stdout(),
        "seed {seed}, {} runs a second, below {}",
        arguments.rate,
        arguments.root.display()
    )?;

    let (start, mut clock, mut second) = (
        Instant::now(),
        Clock::new(arguments.rate),
        Second::default(),
    );
    let over = || {
        arguments
            .seconds
            .is_some_and(|seconds| start.elapsed() >= Duration::from_secs(seconds))
    };
    while !stop.load(Ordering::Relaxed) && !over() {
        while clock.due() && !over() {
            let written = scorer.score()?;
            second.runs += 1;
            *second.expected.entry(written.expected).or_default() += 1;
            second.late += u64::from(written.late);
        }
        second.evidence += give_evidence(&mut scorer, false)?;
        second.print_if_over(start)?;
        std::thread::sleep(Duration::from_millis(1));
    }
    second.evidence += give_evidence(&mut scorer, true)?;
    second.print(start)
}

fn give_evidence(scorer: &mut Scorer, all: bool) -> io::Result<u64> {
    let mut count = 0;
    while scorer.give_evidence(all)?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// The work done since the last printed line.
#[derive(Debug, Default)]
struct Second {
    number: u64,
    runs: u64,
    expected: BTreeMap<Expected, u64>,
    late: u64,
    evidence: u64,
}

impl Second {
    fn print_if_over(&mut self, start: Instant) -> io::Result<()> {
        let number = start.elapsed().as_secs();
        if number > self.number {
            self.print(start)?;
            *self = Self {
                number,
                ..Self::default()
            };
        }
        Ok(())
    }

    fn print(&self, start: Instant) -> io::Result<()> {
        let expected: Vec<_> = self
            .expected
            .iter()
            .map(|(expected, count)| format!("{expected} {count}"))
            .collect();
        let (time, runs) = (start.elapsed().as_secs(), self.runs);
        let (late, evidence) = (self.late, self.evidence);
        let expected = match expected.join(", ") {
            none if none.is_empty() => "none".to_owned(),
            some => some,
        };
        writeln!(
            io::stdout(),
            "{time:>4} s  {runs} scored: {expected}; evidence held back: {late}, given late: {evidence}"
        )
    }
}
