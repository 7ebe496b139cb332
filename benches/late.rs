//! Measures late evidence: the time until all rows exist when the evidence of many waiting runs arrives at once,
//! against a lake whose evidence exists before the daemon starts; also the size of the state and the writes per row, and
//! the time until all rows are retracted when all runs are rejected at once.
//!
//! `cargo bench --bench late [-- --full | --records N] [--pairs N] [--runs R]`
//!
//! - The evidence day-files are prepared next to the root and renamed into it while the daemon runs: they appear
//!   complete, and writing them is not measured.
//! - Both times end when the last row is readable in the export. That of the backfill begins with the process.
//! - Disk writes are counted in three ways: bytes passed to `write`, dirtied pages, and bytes that all processes wrote
//!   to the block device; the last is the load on the disk if the machine does nothing else. Each write to a large page
//!   counts the whole page. The floor is one append and `fdatasync` per row, counted in the same ways.
//!
//! Asserts that each row appears once; asserts no time.

mod support;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;

use support::daemon::{Appender, DEADLINE, Daemon};
use support::figures::{Spread, Table, machine, megabytes, ratio, seconds};
use support::floor::{Floor, ROW_BYTES};
use support::lake::{PairPath, Record};
use support::process::Written;
use support::summary::{self, Line};
use support::{Failure, bench_dir, export_path, lines_in, remove_tree, settle_disk};

/// Mean length of the evidence texts.
const TEXT_BYTES: u32 = 1_620;
/// Polling interval of the export.
const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// Appends of the floor of disk writes.
const FLOOR_APPENDS: u64 = 200;
const FLOOR_BYTES: u64 = FLOOR_APPENDS * ROW_BYTES as u64;

/// Measures the cost of late evidence and of each row.
#[derive(Debug, Parser)]
struct Options {
    /// 100,000 waiting runs
    #[arg(long)]
    full: bool,
    /// Waiting runs
    #[arg(long, default_value_t = 20_000, conflicts_with = "full", value_parser = clap::value_parser!(u32).range(1..))]
    records: u32,
    /// Pairs they are spread over
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Rounds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Records of the steady load, 500 a second
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    steady: u32,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// The measurements of all rounds.
#[derive(Debug, Default)]
struct Outcome {
    late: Vec<Duration>,
    rejected: Vec<Duration>,
    backfill: Vec<Duration>,
    late_state: StateBytes,
    backfill_state: StateBytes,
}

/// The size of the state directory on disk after a clean stop.
#[derive(Debug, Default, Clone, Copy)]
struct StateBytes {
    /// Grows with the records.
    store: u64,
    /// Bytes of preallocated space that is reused.
    journal: u64,
}

/// Bytes written to the disk for a steady load.
#[derive(Debug)]
struct Writes {
    rows: u64,
    row_bytes: u64,
    /// Until the last row was readable.
    shown: Written,
    /// Until the daemon had ended and its state was complete.
    ended: Written,
    /// For [`FLOOR_BYTES`] of rows.
    floor: Written,
}

/// A lake of runs whose evidence is in place or next to the root.
#[derive(Debug)]
struct Lake {
    root: PathBuf,
    dir: PathBuf,
    pairs: Vec<PairPath>,
    rows: u64,
}

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let dir = bench_dir("late");
    remove_tree(&dir)?;
    let records = if options.full {
        100_000
    } else {
        options.records
    };
    let lake = Lake::make(&dir, options.pairs, records)?;
    let mut outcome = Outcome::default();
    for round in 1..=options.runs {
        lake.late(&mut outcome)?;
        lake.rejected(&mut outcome)?;
        lake.backfill(&mut outcome)?;
        println!("round {round} of {}", options.runs);
    }
    let writes = lake.steadily(options.steady)?;
    report(&lake, &outcome, &writes)?;
    Ok(remove_tree(&dir)?)
}

impl Lake {
    /// Creates a lake whose evidence is next to the root.
    fn make(dir: &Path, pairs: u32, records: u32) -> Result<Self, Failure> {
        let lake = Self {
            root: dir.join("root"),
            dir: dir.to_owned(),
            pairs: (0..pairs).map(PairPath::numbered).collect(),
            rows: records.into(),
        };
        let mut rng = fastrand::Rng::with_seed(19);
        for (number, pair) in lake.pairs.iter().enumerate() {
            let (mut evidence, mut scored) = (Vec::new(), Vec::new());
            for run in (number as u32..records).step_by(lake.pairs.len()) {
                let record = Record::good(&mut rng, format!("late-{run:09}"), TEXT_BYTES);
                record.write_evidence(pair, run, &mut evidence);
                record.write_scored(pair, run, &mut scored);
            }
            pair.make_dirs(&lake.root)?;
            pair.make_dirs(&lake.staged_dir())?;
            File::create(pair.evidence(&lake.staged_dir()))?.write_all(&evidence)?;
            File::create(pair.scored(&lake.root))?.write_all(&scored)?;
        }
        Ok(lake)
    }

    fn staged_dir(&self) -> PathBuf {
        self.dir.join("beside")
    }

    /// Makes the evidence available while the daemon runs.
    fn late(&self, outcome: &mut Outcome) -> Result<(), Failure> {
        let mut daemon = self.start()?;
        daemon.wait_until_caught_up()?;
        if lines_in(&export_path(&self.root))? != 0 {
            return Err("a row came without its evidence".into());
        }
        settle_disk(&self.dir)?;
        let start = Instant::now();
        for pair in &self.pairs {
            fs::rename(pair.evidence(&self.staged_dir()), pair.evidence(&self.root))?;
        }
        outcome.late.push(self.wait_for_rows(start, &mut daemon)?);
        outcome.late_state = self.stop(daemon)?;
        Ok(())
    }

    /// Rejects all runs at once after their rows were written, and takes the rejections back afterwards.
    fn rejected(&self, outcome: &mut Outcome) -> Result<(), Failure> {
        let mut daemon = self.start()?;
        self.wait_for_rows(Instant::now(), &mut daemon)?;
        settle_disk(&self.dir)?;
        let mut lengths = Vec::new();
        let mut rejections = vec![String::new(); self.pairs.len()];
        for run in 0..self.rows as usize {
            let line =
                format!("{{\"evidence_run_id\":\"late-{run:09}\",\"category\":\"rejected\"}}\n");
            rejections[run % self.pairs.len()].push_str(&line);
        }
        let start = Instant::now();
        for (pair, lines) in self.pairs.iter().zip(&rejections) {
            let path = pair.scored(&self.root);
            lengths.push(fs::metadata(&path)?.len());
            let mut scored = File::options().append(true).open(&path)?;
            scored.write_all(lines.as_bytes())?;
        }
        let ledger = export_path(&self.root).with_file_name("sft_retractions.jsonl");
        let (mut len, mut lines) = (0, 0);
        // One line is the beginning of the ledger.
        while lines <= self.rows {
            let len_now = fs::metadata(&ledger)?.len();
            lines += rows_between(&ledger, len, len_now)?;
            len = len_now;
            if start.elapsed() > DEADLINE {
                return Err(daemon
                    .program
                    .failure(&format!("{lines} lines of the ledger came")));
            }
            daemon.program.check_alive()?;
            thread::sleep(POLL_INTERVAL);
        }
        outcome.rejected.push(start.elapsed());
        daemon.program.stop()?;
        for (pair, len) in self.pairs.iter().zip(lengths) {
            File::options()
                .write(true)
                .open(pair.scored(&self.root))?
                .set_len(len)?;
        }
        Ok(())
    }

    /// Runs with the same day-files and the evidence in place, and moves the evidence out of the root afterwards.
    fn backfill(&self, outcome: &mut Outcome) -> Result<(), Failure> {
        let start = Instant::now();
        let mut daemon = self.start()?;
        outcome
            .backfill
            .push(self.wait_for_rows(start, &mut daemon)?);
        outcome.backfill_state = self.stop(daemon)?;
        for pair in &self.pairs {
            fs::rename(pair.evidence(&self.root), pair.evidence(&self.staged_dir()))?;
        }
        Ok(())
    }

    /// Starts a daemon without a state, on a quiet disk.
    fn start(&self) -> Result<Daemon, Failure> {
        remove_tree(&self.root.join("data/distilled"))?;
        settle_disk(&self.dir)?;
        Daemon::start(&self.root, &self.dir.join("distilld.log"))
    }

    fn wait_for_rows(&self, start: Instant, daemon: &mut Daemon) -> Result<Duration, Failure> {
        let export = export_path(&self.root);
        let (mut len, mut rows) = (0, 0);
        while start.elapsed() < DEADLINE {
            let len_now = fs::metadata(&export).map_or(0, |meta| meta.len());
            if len_now > len {
                rows += rows_between(&export, len, len_now)?;
                len = len_now;
            }
            if rows >= self.rows {
                return Ok(start.elapsed());
            }
            daemon.program.check_alive()?;
            thread::sleep(POLL_INTERVAL);
        }
        let what = format!("{rows} of {} rows came", self.rows);
        Err(daemon.program.failure(&what))
    }

    /// Stops the daemon, counts the rows and returns the size of the state on disk.
    fn stop(&self, daemon: Daemon) -> Result<StateBytes, Failure> {
        daemon.program.stop()?;
        let rows = lines_in(&export_path(&self.root))?;
        if rows != self.rows {
            return Err(format!("{rows} rows came, {} were earned", self.rows).into());
        }
        let dir = self.root.join("data/distilled/.distilld");
        let on_disk = |name| Ok::<_, io::Error>(fs::metadata(dir.join(name))?.blocks() * 512);
        Ok(StateBytes {
            store: on_disk("state.redb")?,
            journal: on_disk("journal")?,
        })
    }

    /// Measures the daemon's writes under a steady load on one pair, while all other runs wait.
    fn steadily(&self, rows: u32) -> Result<Writes, Failure> {
        let floor = floor_of_writes(&self.dir.join("floor.bin"))?;
        let mut daemon = self.start()?;
        daemon.wait_until_caught_up()?;
        let process_id = daemon.program.id();
        let mut appender =
            Appender::start(&self.root, PairPath::on("2100/01/01", 0), 0, TEXT_BYTES)?;
        PairPath::on("2100/01/01", 0).make_dirs(&self.root)?;
        // The first row includes the cost of the new pair.
        appender.steadily(1, POLL_INTERVAL, &mut daemon.program)?;
        let export = export_path(&self.root);
        let (before, len) = (
            Written::of(process_id, &export)?,
            fs::metadata(&export)?.len(),
        );
        appender.steadily(rows, Duration::from_secs(1) / 500, &mut daemon.program)?;
        let shown = Written::of(process_id, &export)?.since(before);
        appender.stop()?;
        let (ended, _) = daemon.program.stop_and(|id| Written::of(id, &export))?;
        let row_bytes = fs::metadata(&export)?.len() - len;
        let lines = lines_in(&export)?;
        if lines != u64::from(rows) + 1 {
            return Err(format!("{lines} rows came, {} were earned", rows + 1).into());
        }
        Ok(Writes {
            rows: rows.into(),
            row_bytes,
            shown,
            ended: ended.since(before),
            floor,
        })
    }
}

fn rows_between(path: &Path, from: u64, to: u64) -> io::Result<u64> {
    use std::os::unix::fs::FileExt as _;
    let mut bytes = vec![0; (to - from) as usize];
    File::open(path)?.read_exact_at(&mut bytes, from)?;
    Ok(memchr::memchr_iter(b'\n', &bytes).count() as u64)
}

/// Rows appended and synced one by one, without distilld.
fn floor_of_writes(path: &Path) -> io::Result<Written> {
    let mut floor = Floor::create(path)?;
    let process_id = std::process::id();
    let before = Written::of(process_id, path)?;
    for _ in 0..FLOOR_APPENDS {
        floor.once()?;
    }
    Ok(Written::of(process_id, path)?.since(before))
}

fn report(lake: &Lake, outcome: &Outcome, writes: &Writes) -> Result<(), Failure> {
    let rows = lake.rows;
    println!(
        "\nlate: {rows} runs in {} pairs whose evidence comes at once",
        lake.pairs.len()
    );
    println!("{}", machine(&lake.dir));
    println!("floor: the daemon's start on the same day-files, evidence in place; medians\n");
    let backfill = Spread::of(outcome.backfill.clone()).ok_or("no rounds")?;
    let late = Spread::of(outcome.late.clone()).ok_or("no rounds")?;
    let mut table = Table::new(&[
        "", "min", "median", "max", "a row", "x floor", "state", "a record", "journal",
    ]);
    for (name, spread, state) in [
        ("late evidence", &late, outcome.late_state),
        ("backfill", &backfill, outcome.backfill_state),
    ] {
        let mut cells = vec![name.to_owned()];
        cells.extend([spread.min(), spread.median(), spread.max()].map(seconds));
        let us_a_row = spread.median().as_secs_f64() * 1e6 / rows as f64;
        cells.push(format!("{us_a_row:.1} us"));
        cells.push(ratio(spread.median(), backfill.median()));
        cells.push(megabytes(state.store));
        cells.push(format!("{:.1} B", state.store as f64 / (2 * rows) as f64));
        cells.push(megabytes(state.journal));
        table.row(cells);
    }
    table.print();
    let rejected = Spread::of(outcome.rejected.clone()).ok_or("no rounds")?;
    println!(
        "\nall runs rejected at once: {} until all rows are retracted, {} the backfill",
        seconds(rejected.median()),
        ratio(rejected.median(), backfill.median())
    );
    report_writes(writes);
    let a_record = |store: u64| store as f64 / (2 * rows) as f64;
    let written = |written: &Written, row_bytes: u64| written.given as f64 / row_bytes as f64;
    let (measured, least) = (
        written(&writes.ended, writes.row_bytes),
        written(&writes.floor, FLOOR_BYTES),
    );
    let lines = [
        Line {
            what: format!("late evidence for {rows} runs, against a backfill"),
            value: seconds(late.median()),
            floor: seconds(backfill.median()),
            ratio: ratio(late.median(), backfill.median()),
            aim: "about 1 x",
        },
        Line {
            what: format!("{rows} runs rejected at once, against a backfill"),
            value: seconds(rejected.median()),
            floor: seconds(backfill.median()),
            ratio: ratio(rejected.median(), backfill.median()),
            aim: "about 1 x",
        },
        Line {
            what: "state without the journal, a record".to_owned(),
            value: megabytes(outcome.backfill_state.store),
            floor: String::new(),
            ratio: format!("{:.1} B", a_record(outcome.backfill_state.store)),
            aim: "40 B",
        },
        Line {
            what: "bytes written for each byte of a row, 500 rows/s".to_owned(),
            value: format!("{measured:.2}"),
            floor: format!("{least:.2}"),
            ratio: format!("{:.2} x", measured / least),
            aim: "",
        },
    ];
    Ok(summary::leave("late", &lines)?)
}

fn report_writes(writes: &Writes) {
    println!(
        "\ndisk writes: {} rows, 500 a second, {} in the export; as multiples of the rows' own bytes\n",
        writes.rows,
        megabytes(writes.row_bytes)
    );
    let mut table = Table::new(&[
        "",
        "given to write",
        "x floor",
        "pages dirtied",
        "x floor",
        "device, all",
        "x floor",
    ]);
    let counted: [fn(&Written) -> u64; 3] = [|it| it.given, |it| it.dirtied, |it| it.device];
    for (name, written, row_bytes) in [
        (
            "until the last row was there",
            &writes.shown,
            writes.row_bytes,
        ),
        (
            "until the daemon had ended",
            &writes.ended,
            writes.row_bytes,
        ),
        ("floor", &writes.floor, FLOOR_BYTES),
    ] {
        let mut cells = vec![name.to_owned()];
        for count in counted {
            let share = count(written) as f64 / row_bytes as f64;
            let floor = count(&writes.floor) as f64 / FLOOR_BYTES as f64;
            cells.push(format!("{share:.2}"));
            cells.push(format!("{:.2} x", share / floor));
        }
        table.row(cells);
    }
    table.print();
}
