//! A long history that distilld has processed already: many day-files of short records, some runs that wait for their
//! evidence, and the export and state that one `distilld run --once` made of them. Creating one can take minutes, so
//! it is kept and reused by all benchmarks with the same parameters. They only append to it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use distilld::pair::checkpoint::FORMAT;

use super::figures::{mebibytes, megabytes, seconds};
use super::lake::{PairPath, text};
use super::program::Program;
use super::{Failure, bench_dir, export_path, lines_in, remove_tree};

/// Incremented when the bytes created for the same plan change, so that no older history is reused.
const GENERATOR_VERSION: u32 = 1;
/// Mean length of an evidence text before its last piece.
const TEXT_BYTES: usize = 40;
/// Interval of progress messages during work that takes minutes.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Command-line options for the size of a history.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Size {
    /// 58,000 day-files with ten million records, 100,000 of which wait; made once, in minutes, with 10 GB of disk
    #[arg(long)]
    full: bool,
    /// Pairs of day-files, sixteen a day
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "full")]
    pairs: Option<u32>,
    /// Scored runs of each pair
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "full")]
    records: Option<u32>,
}

impl Size {
    /// Returns the requested history; one in fifty of its runs waits.
    pub fn plan(&self) -> HistoryPlan {
        if self.full {
            return HistoryPlan {
                pairs: 29_000,
                records: 173,
                waiting: 100_000,
            };
        }
        let (pairs, records) = (self.pairs.unwrap_or(2_000), self.records.unwrap_or(100));
        HistoryPlan {
            pairs,
            records,
            waiting: (u64::from(pairs) * u64::from(records) / 50) as u32,
        }
    }
}

/// The parameters of a history. Equal parameters give equal bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryPlan {
    /// Pairs of day-files, sixteen a day.
    pub pairs: u32,
    /// Scored runs of each pair.
    pub records: u32,
    /// Scored runs without evidence, spread evenly over all.
    pub waiting: u32,
}

impl HistoryPlan {
    /// Scored runs of all pairs.
    pub fn runs(&self) -> u64 {
        u64::from(self.pairs) * u64::from(self.records)
    }

    /// Lines of both kinds.
    pub fn lines(&self) -> u64 {
        2 * self.runs() - u64::from(self.waiting)
    }

    /// Returns the newest pair, to which measured records are appended.
    pub fn newest_pair(&self) -> PairPath {
        PairPath::of_history(self.pairs - 1)
    }

    /// Waiting runs are distributed as evenly as whole numbers allow.
    fn waits(&self, run: u64) -> bool {
        let before = |run: u64| run * u64::from(self.waiting) / self.runs();
        before(run) != before(run + 1)
    }

    fn dir(&self) -> PathBuf {
        let Self {
            pairs,
            records,
            waiting,
        } = self;
        bench_dir("history").join(format!("{pairs}-{records}-{waiting}"))
    }
}

/// A processed history on disk.
#[derive(Debug)]
pub struct History {
    /// The value for `--root`.
    pub root: PathBuf,
    /// A directory next to the root for logs.
    pub dir: PathBuf,
    /// The parameters of the history.
    pub plan: HistoryPlan,
    /// Rows in the export now; more than the plan earns once a benchmark has appended to it.
    pub rows: u64,
}

/// Returns the history of this plan: one from an earlier run if the plan, the generator and the format of the state
/// are the same, otherwise a new one.
pub fn prepare(plan: HistoryPlan) -> Result<History, Failure> {
    let dir = plan.dir();
    let (root, made, taken_in) = (dir.join("root"), dir.join("made"), dir.join("taken-in"));
    let (head, format) = (
        format!("v{GENERATOR_VERSION} {plan:?}"),
        format!("format {FORMAT}"),
    );
    let earned = match earned_rows(&made, &head) {
        Some(rows) => rows,
        None => {
            remove_tree(&dir)?;
            let rows = write_day_files(&root, &plan)?;
            // Written last, so that an incomplete history is created again.
            fs::write(&made, format!("{head}\n{rows}\n"))?;
            rows
        }
    };
    if fs::read_to_string(&taken_in).ok().as_ref() != Some(&format) {
        take_in(&dir, &root, &plan, earned)?;
        fs::write(&taken_in, format)?;
    }
    let rows = lines_in(&export_path(&root))?;
    Ok(History {
        root,
        dir,
        plan,
        rows,
    })
}

fn earned_rows(made: &Path, head: &str) -> Option<u64> {
    let text = fs::read_to_string(made).ok()?;
    let (first, rest) = text.split_once('\n')?;
    (first == head).then(|| rest.trim().parse().ok())?
}

/// Processes the history with distilld and counts the rows.
fn take_in(dir: &Path, root: &Path, plan: &HistoryPlan, earned: u64) -> Result<(), Failure> {
    // An earlier benchmark may have appended to the day-files; the number of rows that its records earned is unknown.
    let untouched = !dir.join("taken-in").try_exists()?;
    remove_tree(&root.join("data/distilled"))?;
    println!("history: distilld takes in {} lines", plan.lines());
    let start = Instant::now();
    let program = Program::start(root, &["run", "--once"], &dir.join("take-in.log"))?;
    let (mut reported, mut peak_rss_bytes) = (Instant::now(), 0);
    while !program.ended() {
        peak_rss_bytes = program.usage().peak_rss_bytes.max(peak_rss_bytes);
        if reported.elapsed() > PROGRESS_INTERVAL {
            reported = Instant::now();
            let export_bytes = fs::metadata(export_path(root)).map_or(0, |meta| meta.len());
            println!(
                "history: export of {} after {}",
                megabytes(export_bytes),
                seconds(start.elapsed())
            );
        }
        thread::sleep(Duration::from_millis(20));
    }
    let usage = program.usage();
    program.wait()?;
    println!(
        "history: taken in after {}, cpu {}, peak rss {}",
        seconds(start.elapsed()),
        seconds(usage.cpu),
        mebibytes(peak_rss_bytes)
    );
    let rows = lines_in(&export_path(root))?;
    if rows < earned || (untouched && rows != earned) {
        return Err(format!("the history gave {rows} rows, it earns {earned}").into());
    }
    Ok(())
}

fn write_day_files(root: &Path, plan: &HistoryPlan) -> io::Result<u64> {
    println!("history: making {} pairs", plan.pairs);
    let mut rng = fastrand::Rng::with_seed(17);
    let (mut evidence, mut scored) = (Vec::new(), Vec::new());
    let (mut rows, mut reported) = (0, Instant::now());
    for number in 0..plan.pairs {
        if reported.elapsed() > PROGRESS_INTERVAL {
            reported = Instant::now();
            println!("history: {number} of {} pairs made", plan.pairs);
        }
        let pair = PairPath::of_history(number);
        evidence.clear();
        scored.clear();
        for line in 0..plan.records {
            let run = u64::from(number) * u64::from(plan.records) + u64::from(line);
            rows += u64::from(write_run(
                &mut rng,
                line,
                run,
                plan.waits(run),
                &mut evidence,
                &mut scored,
            )?);
        }
        pair.make_dirs(root)?;
        File::create(pair.evidence(root))?.write_all(&evidence)?;
        File::create(pair.scored(root))?.write_all(&scored)?;
    }
    Ok(rows)
}

/// Writes one run with minimal content around its fields; returns whether it earns a row.
fn write_run(
    rng: &mut fastrand::Rng,
    line: u32,
    run: u64,
    waits: bool,
    evidence: &mut Vec<u8>,
    scored: &mut Vec<u8>,
) -> io::Result<bool> {
    let category = match rng.u32(..100) {
        _ if waits => "accepted",
        0..61 => "accepted",
        61..76 => "partially_accepted",
        76..94 => "rejected",
        _ => "needs_human_review",
    };
    let role = if rng.u32(..100) < 95 {
        "executor"
    } else {
        "extractor"
    };
    let sig_hash = rng.u64(..);
    writeln!(
        scored,
        r#"{{"evidence_run_id":"run-{run:09}","category":"{category}","provenance":{{"source_file":"data/evidence/a.jsonl","line_offset":{line},"sig_hash":"{sig_hash:016x}","recorded_at":"2026-05-02T03:04:05.678Z"}}}}"#
    )?;
    if !waits {
        writeln!(
            evidence,
            r#"{{"run_id":"run-{run:09}","task_id":"task-{line}","model_name":"kimi-k2:1t","model_role":"{role}","source_files":["src/a.rs"],"text":"{}","provenance":{{"source_file":"data/_kb/audits.jsonl","line_offset":{line},"sig_hash":"{sig_hash:016x}","recorded_at":"2026-05-02T03:04:05.678Z"}}}}"#,
            text(rng, TEXT_BYTES)
        )?;
    }
    Ok(!waits && role == "executor" && matches!(category, "accepted" | "partially_accepted"))
}
