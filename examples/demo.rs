//! Shows distilld at work: a small lake, the daemon on it, a scorer that writes, and each row as it arrives.
//!
//! `cargo run --example demo`

mod support;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::Value;
use support::Expected;
use support::scorer::{Clock, Scorer, Written};

/// Delay of the late evidence.
const LATE: Duration = Duration::from_millis(700);
/// Maximum time to wait for the rows of the history, for the last rows, and for the daemon to stop.
const PATIENCE: Duration = Duration::from_secs(10);

/// Run distilld on a copy of a small lake, score runs, and show the rows as they arrive.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Duration for which the scorer writes
    #[arg(long, value_name = "N", default_value_t = 10)]
    seconds: u64,
    /// Runs a second
    #[arg(long, value_name = "N", default_value_t = 5)]
    rate: u32,
    /// Keep the lake after the end
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // The reader of the output has closed it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether all rows have appeared.
fn run(arguments: &Arguments) -> io::Result<bool> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let mut directory = tempfile::Builder::new()
        .prefix("distilld-demo-")
        .tempdir()?;
    directory.disable_cleanup(arguments.keep);
    let root = directory.path();
    copy_tree(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/lake"),
        root,
    )?;
    writeln!(io::stdout(), "lake: {}", root.display())?;

    let daemon = start_daemon(root);
    let mut show = Show::new(root.join("data/distilled/sft/sft_export.jsonl"));
    let played = show
        .history(&daemon)
        .and_then(|()| show.play(root, arguments, &stop, &daemon));
    // Ctrl-C reaches the daemon as well; a second signal would end it without a clean stop.
    let interrupted = stop.load(Ordering::Relaxed);
    let stopped = stop_daemon(daemon, interrupted)?;
    played?;
    // Rows that were written during the stop.
    show.read_rows()?;
    show.summary()?;
    if arguments.keep {
        writeln!(io::stdout(), "the lake is still there: {}", root.display())?;
    }
    Ok(stopped && (interrupted || show.rows_missing() == 0))
}

/// Starts the daemon like `distilld run`, but on a thread of this program.
fn start_daemon(root: &Path) -> JoinHandle<ExitCode> {
    let mut arguments: Vec<OsString> = vec!["distilld".into(), "--root".into(), root.into()];
    arguments.extend(["--log".into(), "warn".into(), "run".into()]);
    std::thread::spawn(move || distilld::cli::main_with(arguments))
}

/// Returns whether the daemon stopped in time and without an error.
fn stop_daemon(daemon: JoinHandle<ExitCode>, stop_requested: bool) -> io::Result<bool> {
    if !stop_requested {
        signal_hook::low_level::raise(signal_hook::consts::SIGTERM)?;
    }
    let deadline = Instant::now() + PATIENCE;
    while !daemon.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(daemon.is_finished() && daemon.join().is_ok_and(|code| code == ExitCode::SUCCESS))
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Follows the export like a consumer, and counts runs and rows.
#[derive(Debug)]
struct Show {
    export: PathBuf,
    /// End of the rows that were read completely.
    offset: u64,
    /// Runs of the scorer whose row has not appeared yet, with the time of their last line.
    awaited: HashMap<String, Option<Instant>>,
    lines: BTreeMap<Expected, u64>,
    late: u64,
    rows_of_history: u64,
    latencies_ms: Vec<f64>,
}

impl Show {
    fn new(export: PathBuf) -> Self {
        Self {
            export,
            offset: 0,
            awaited: HashMap::new(),
            lines: BTreeMap::new(),
            late: 0,
            rows_of_history: 0,
            latencies_ms: Vec::new(),
        }
    }

    /// Waits for the first rows, those of the existing runs.
    fn history(&mut self, daemon: &JoinHandle<ExitCode>) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.rows_of_history == 0 {
            if daemon.is_finished() {
                return Err(io::Error::other(
                    "the daemon ended early; its error is printed above",
                ));
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!(
                    "no row in {} after {PATIENCE:?}",
                    self.export.display()
                )));
            }
            std::thread::sleep(Duration::from_millis(1));
            self.read_rows()?;
        }
        writeln!(
            io::stdout(),
            "\n{} rows from the history; now a scorer writes\n",
            self.rows_of_history
        )?;
        writeln!(
            io::stdout(),
            "{:>9}  {:<27} {:<18} instruction",
            "after",
            "id",
            "quality"
        )
    }

    /// Scores for the requested time, then waits for the remaining rows.
    fn play(
        &mut self,
        root: &Path,
        arguments: &Arguments,
        stop: &AtomicBool,
        daemon: &JoinHandle<ExitCode>,
    ) -> io::Result<()> {
        let mut scorer = Scorer::new(root, None, fastrand::u64(..=0xff_ffff), Some(LATE));
        let mut clock = Clock::new(f64::from(arguments.rate));
        let end = Instant::now() + Duration::from_secs(arguments.seconds);
        let mut scoring = true;
        while scoring || (self.rows_missing() > 0 && Instant::now() < end + PATIENCE) {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if daemon.is_finished() {
                return Err(io::Error::other(
                    "the daemon ended early; its error is printed above",
                ));
            }
            scoring = scoring && Instant::now() < end;
            if scoring && clock.due() {
                self.note(&scorer.score()?);
            }
            while let Some(evidence) = scorer.give_evidence(!scoring)? {
                self.note(&evidence);
            }
            self.read_rows()?;
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    fn note(&mut self, written: &Written) {
        let late_evidence = written.late && written.complete;
        if !late_evidence {
            *self.lines.entry(written.expected).or_default() += 1;
            self.late += u64::from(written.late);
        }
        if written.expected == Expected::Exported {
            self.awaited.insert(
                written.run_id.clone(),
                written.complete.then_some(written.at),
            );
        }
    }

    /// Reads the new rows. A last line without its newline remains for the next call.
    fn read_rows(&mut self) -> io::Result<()> {
        let mut file = match File::open(&self.export) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(self.offset))?;
        let mut reader = BufReader::new(file.take(1 << 20));
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            self.offset += line.len() as u64;
            self.row(&serde_json::from_slice(&line)?)?;
            line.clear();
        }
        Ok(())
    }

    fn row(&mut self, row: &Value) -> io::Result<()> {
        let text = |key: &str| row[key].as_str().unwrap_or_default();
        let Some(written) = self.awaited.remove(text("source_run_id")) else {
            self.rows_of_history += 1;
            return Ok(());
        };
        let ms = written.map_or(0.0, |at| at.elapsed().as_secs_f64() * 1000.0);
        self.latencies_ms.push(ms);
        let instruction: String = text("instruction").chars().take(60).collect();
        writeln!(
            io::stdout(),
            "{ms:>6.1} ms  {:<27} {:<18} {instruction}",
            text("id"),
            text("quality_score")
        )
    }

    fn rows_missing(&self) -> usize {
        self.awaited.len()
    }

    fn summary(&mut self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let runs: u64 = self.lines.values().sum();
        writeln!(out, "\n{runs} runs scored")?;
        for (expected, count) in &self.lines {
            let remark = match expected {
                Expected::Exported => format!(
                    "{} rows arrived, {} missing",
                    self.latencies_ms.len(),
                    self.rows_missing()
                ),
                _ => "no row, as it must be".to_owned(),
            };
            writeln!(out, "{count:>6}  {expected:<17} {remark}")?;
        }
        writeln!(
            out,
            "{:>6}  of them got their evidence {} ms after the score",
            self.late,
            LATE.as_millis()
        )?;
        self.latencies_ms.sort_by(f64::total_cmp);
        if let (Some(median), Some(worst)) = (
            self.latencies_ms.get(self.latencies_ms.len() / 2),
            self.latencies_ms.last(),
        ) {
            writeln!(
                out,
                "from the last line of a run to its row: {median:.1} ms median, {worst:.1} ms at worst"
            )?;
        }
        Ok(())
    }
}
