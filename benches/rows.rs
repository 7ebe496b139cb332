//! Rows: how fast `distilld rows` writes the effective rows of an export, against `cat` of the export in the same run:
//! without retractions, and with a tenth of the rows retracted at random.
//!
//! `cargo bench --bench rows [-- --rows N] [--runs R]`
//!
//! Export and ledger are synthetic and in the page cache; both programs write to a pipe that this program drains. It
//! asserts the number of bytes, no time.

mod support;

use std::fs::{self, File};
use std::io::{BufWriter, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;

use distilld::lake::path::ledger_path;
use distilld::record::ledger::{Cause, ExportId, LedgerLine, Op, RowSpan, row_hash};

use support::figures::{ratio, seconds};
use support::summary::{self, Line};
use support::{BUFFER_BYTES, Failure, bench_dir, remove_tree};

/// Measures the readers of an export.
#[derive(Debug, Parser)]
struct Options {
    /// Rows of the export, 2.4 KB each [default: 400,000; with --full 2,000,000]
    #[arg(long)]
    rows: Option<u64>,
    /// Runs of each program
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Use the target size
    #[arg(long)]
    full: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let rows = match (options.rows, options.full) {
        (Some(rows), _) => rows,
        (None, true) => 2_000_000,
        (None, false) => 400_000,
    };
    let dir = bench_dir("rows");
    remove_tree(&dir)?;
    fs::create_dir_all(&dir)?;
    let export = dir.join("sft_export.jsonl");
    let spans = write_export(&export, rows)?;
    let export_len = spans.last().map_or(0, |(row, _hash)| row.end());
    println!("{rows} rows, {} MB", export_len / 1_000_000);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut tenth = spans;
    rng.shuffle(&mut tenth);
    tenth.truncate(usize::try_from(rows / 10)?);
    let retracted_len: u64 = tenth.iter().map(|(row, _hash)| row.len_bytes).sum();
    let program = env!("CARGO_BIN_EXE_distilld");
    let mut lines = Vec::new();
    for (what, retracted) in [
        ("nothing retracted", &[][..]),
        ("a tenth retracted", &tenth),
    ] {
        write_ledger(&ledger_path(&export), export_len, retracted)?;
        let expected = match retracted {
            [] => export_len,
            _ => export_len - retracted_len,
        };
        let (mut floor, mut plain, mut offsets) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.runs {
            floor.push(timed(Command::new("cat").arg(&export), Some(export_len))?);
            let mut rows = Command::new(program);
            rows.args(["rows", "--export"]).arg(&export);
            plain.push(timed(&mut rows, Some(expected))?);
            offsets.push(timed(rows.arg("--offsets"), None)?);
        }
        let (floor, plain, offsets) = (middle(floor), middle(plain), middle(offsets));
        println!("{what:<20} cat {floor:.3?}, rows {plain:.3?}, rows --offsets {offsets:.3?}");
        lines.push(Line {
            what: format!("rows of {rows}, {what}"),
            value: seconds(plain),
            floor: seconds(floor),
            ratio: ratio(plain, floor),
            aim: if retracted.is_empty() { "1.1" } else { "3" },
        });
    }
    summary::leave("rows", &lines)?;
    Ok(remove_tree(&dir)?)
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Runs a program to its end and discards its output, which has `expected` bytes.
fn timed(command: &mut Command, expected: Option<u64>) -> Result<Duration, Failure> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let from = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().ok_or("no stdout")?;
    let mut bytes = 0;
    loop {
        match stdout.read(&mut buffer)? {
            0 => break,
            read => bytes += read as u64,
        }
    }
    let status = child.wait()?;
    let took = from.elapsed();
    assert!(status.success(), "{status}");
    assert_eq!(bytes, expected.unwrap_or(bytes));
    Ok(took)
}

fn write_export(path: &Path, rows: u64) -> Result<Vec<(RowSpan, [u8; 16])>, Failure> {
    let mut file = BufWriter::with_capacity(BUFFER_BYTES, File::create(path)?);
    let mut rng = fastrand::Rng::with_seed(0);
    let text: String = std::iter::repeat_with(|| rng.alphanumeric())
        .take(6_000)
        .collect();
    let (mut spans, mut offset) = (Vec::new(), 0);
    for number in 0..rows {
        let text = &text[..rng.usize(1_000..3_600)];
        let row = format!("{{\"id\":\"a.jsonl:{number}\",\"response\":\"{text}\"}}\n");
        file.write_all(row.as_bytes())?;
        let len_bytes = row.len() as u64;
        spans.push((RowSpan { offset, len_bytes }, row_hash(row.as_bytes())));
        offset += len_bytes;
    }
    file.flush()?;
    Ok(spans)
}

fn write_ledger(
    path: &Path,
    export_len: u64,
    retracted: &[(RowSpan, [u8; 16])],
) -> Result<(), Failure> {
    let mut file = BufWriter::with_capacity(BUFFER_BYTES, File::create(path)?);
    let begin = LedgerLine {
        seq: 0,
        op: Op::Begin,
        export: ExportId([7; 8]),
        export_len: 0,
        row: None,
        row_hash: [0; 16],
        id: String::new(),
        source_run_id: String::new(),
        cause: Cause::Created,
        day_file: String::new(),
        line_offset: None,
        reason: String::new(),
        at: "2026-05-02T03:04:05.678Z".into(),
    };
    let events = (1..).zip(retracted).map(|(seq, (row, hash))| LedgerLine {
        seq,
        op: Op::Retract,
        export_len,
        row: Some(*row),
        row_hash: *hash,
        id: format!("audits.jsonl:{seq}"),
        source_run_id: format!("audits-20260101-{seq:07}"),
        cause: Cause::Rejected,
        day_file: "2026/01/01/audits.jsonl".into(),
        line_offset: Some(seq),
        ..begin.clone()
    });
    let mut line = Vec::new();
    for event in std::iter::once(begin.clone()).chain(events) {
        line.clear();
        event.write(&mut line);
        file.write_all(&line)?;
    }
    Ok(file.flush()?)
}
