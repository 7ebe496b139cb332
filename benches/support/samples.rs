//! What a running daemon holds at a moment: memory, descriptors, threads, watches, and the files of its output. One line of
//! a table of comma-separated values for each moment.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::export_path;
use super::process::Memory;

/// One measured column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Name in the table, with its unit.
    pub name: &'static str,
    /// Its position.
    pub index: usize,
}

macro_rules! columns {
    ($($constant:ident = $name:literal at $index:literal: $doc:literal;)*) => {
        impl Column {
            $(#[doc = $doc] pub const $constant: Self = Self { name: $name, index: $index };)*
            /// All, in their order.
            pub const ALL: &'static [Self] = &[$(Self::$constant),*];
        }
    };
}

columns! {
    ELAPSED_S = "elapsed_s" at 0: "Time since the start of the load.";
    LINES = "lines" at 1: "Lines written by the scorers.";
    ROWS = "rows" at 2: "Rows seen in the export.";
    RESIDENT_MIB = "resident_mib" at 3: "Resident memory.";
    OWN_MIB = "own_mib" at 4: "Resident memory that no file backs.";
    DESCRIPTORS = "descriptors" at 5: "Open descriptors.";
    THREADS = "threads" at 6: "Threads.";
    WATCHES = "watches" at 7: "Watches of inotify.";
    STATE_MB = "state_mb" at 8: "Disk blocks of the directory of the state, without the journal.";
    JOURNAL_MB = "journal_mb" at 9: "Disk blocks of the journal.";
    LEDGER_MB = "ledger_mb" at 10: "Disk blocks of the ledger.";
    EXPORT_MB = "export_mb" at 11: "Disk blocks of the export.";
    LOG_KB = "log_kb" at 12: "Length of the log.";
    CPU_PERCENT = "cpu_percent" at 13: "CPU time of the daemon since the last sample, of one processor.";
    LATENCY_P50_MS = "latency_p50_ms" at 14: "From a write to its row, of the rows since the last sample.";
    LATENCY_P99_MS = "latency_p99_ms" at 15: "The same, 99th percentile.";
    LATENCY_MAX_MS = "latency_max_ms" at 16: "The same, the longest.";
    STATUS_MS = "status_ms" at 17: "Duration of `distilld status --json`, with the start of its process.";
    FRESH = "fresh" at 18: "1 if the verdict of that status was `fresh`.";
}

/// The values of all columns; not a number where there was nothing to measure.
#[derive(Debug, Clone)]
pub struct Sample(Vec<f64>);

impl Sample {
    /// Returns what the process holds now; the columns of the load are still empty.
    ///
    /// # Errors
    /// The process has ended, or a file cannot be read.
    pub fn of(process_id: u32, root: &Path, log: &Path) -> io::Result<Self> {
        let mut sample = Self(vec![f64::NAN; Column::ALL.len()]);
        let memory = Memory::of(process_id)?;
        let mebi = f64::from(1 << 20);
        sample.set(Column::RESIDENT_MIB, memory.resident as f64 / mebi);
        sample.set(Column::OWN_MIB, memory.anonymous as f64 / mebi);
        let proc_dir = Path::new("/proc").join(process_id.to_string());
        sample.set(Column::DESCRIPTORS, entries(&proc_dir.join("fd"))? as f64);
        sample.set(Column::THREADS, entries(&proc_dir.join("task"))? as f64);
        sample.set(Column::WATCHES, watches(&proc_dir)? as f64);
        let output = root.join("data/distilled");
        let journal = disk_bytes(&output.join(".distilld/journal"))?;
        let state = disk_bytes(&output.join(".distilld"))?.saturating_sub(journal);
        sample.set(Column::STATE_MB, state as f64 / 1e6);
        sample.set(Column::JOURNAL_MB, journal as f64 / 1e6);
        let ledger = output.join("sft/sft_retractions.jsonl");
        sample.set(Column::LEDGER_MB, disk_bytes(&ledger)? as f64 / 1e6);
        let export = disk_bytes(&export_path(root))?;
        sample.set(Column::EXPORT_MB, export as f64 / 1e6);
        sample.set(Column::LOG_KB, fs::metadata(log)?.len() as f64 / 1e3);
        Ok(sample)
    }

    /// Sets a column.
    pub fn set(&mut self, column: Column, value: f64) {
        self.0[column.index] = value;
    }

    /// Returns the value of a column.
    pub fn get(&self, column: Column) -> f64 {
        self.0[column.index]
    }

    /// Returns the line of the table, newline included; an empty field where there was nothing to measure.
    pub fn line(&self) -> String {
        let cell = |value: &f64| match value.is_nan() {
            true => String::new(),
            false => format!("{value:.3}"),
        };
        let cells: Vec<String> = self.0.iter().map(cell).collect();
        cells.join(",") + "\n"
    }
}

/// Returns the first line of the table, newline included.
pub fn heading() -> String {
    let names: Vec<&str> = Column::ALL.iter().map(|column| column.name).collect();
    names.join(",") + "\n"
}

fn entries(dir: &Path) -> io::Result<usize> {
    Ok(fs::read_dir(dir)?.count())
}

/// Counts the watches of all descriptors of inotify. A descriptor that was closed meanwhile has none.
fn watches(proc_dir: &Path) -> io::Result<usize> {
    let mut count = 0;
    for info in fs::read_dir(proc_dir.join("fdinfo"))? {
        let text = fs::read_to_string(info?.path()).unwrap_or_default();
        count += text
            .lines()
            .filter(|line| line.starts_with("inotify "))
            .count();
    }
    Ok(count)
}

/// Returns the bytes on the disk of a file, or of all files below a directory. What is gone meanwhile has none.
fn disk_bytes(path: &Path) -> io::Result<u64> {
    let meta = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        meta => meta?,
    };
    let mut sum = meta.blocks() * 512;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            sum += disk_bytes(&entry?.path())?;
        }
    }
    Ok(sum)
}
