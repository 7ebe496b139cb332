//! Summarizes and prints measurements: spreads of durations, a table, and a line that describes the machine.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// Durations of one kind of act, in ascending order; never empty.
#[derive(Debug, Clone)]
pub struct Spread(Vec<Duration>);

impl Spread {
    /// Sorts the durations; `None` where there is none.
    pub fn of(mut durations: Vec<Duration>) -> Option<Self> {
        durations.sort_unstable();
        if durations.is_empty() {
            None
        } else {
            Some(Self(durations))
        }
    }

    /// Returns the number of values.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest duration that at least `percent` of all do not exceed (nearest rank).
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0[rank - 1]
    }

    /// The middle one, of an even number the mean of the two in the middle.
    pub fn median(&self) -> Duration {
        let (low, high) = ((self.0.len() - 1) / 2, self.0.len() / 2);
        (self.0[low] + self.0[high]) / 2
    }

    /// The shortest.
    pub fn min(&self) -> Duration {
        self.0[0]
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        self.0[self.0.len() - 1]
    }
}

/// `a / b`, as a person reads a ratio.
pub fn ratio(a: Duration, b: Duration) -> String {
    format!("{:.2} x", a.as_secs_f64() / b.as_secs_f64())
}

/// Seconds with three decimals.
pub fn seconds(duration: Duration) -> String {
    format!("{:.3} s", duration.as_secs_f64())
}

/// Milliseconds with three decimals.
pub fn millis(duration: Duration) -> String {
    format!("{:.3} ms", duration.as_secs_f64() * 1e3)
}

/// Bytes in units of 1,000,000.
pub fn megabytes(len_bytes: u64) -> String {
    format!("{:.1} MB", len_bytes as f64 / 1e6)
}

/// Bytes in units of 1,048,576, as memory is counted.
pub fn mebibytes(len_bytes: u64) -> String {
    format!("{:.1} MiB", len_bytes as f64 / f64::from(1 << 20))
}

/// Rows of text in columns as wide as their widest cell.
#[derive(Debug)]
pub struct Table(Vec<Vec<String>>);

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        Self(vec![
            headings.iter().map(|&heading| heading.to_owned()).collect(),
        ])
    }

    /// Adds a row; cells beyond the headings are not shown.
    pub fn row(&mut self, cells: Vec<String>) {
        self.0.push(cells);
    }

    /// Prints it: the first column to the left, figures to the right.
    pub fn print(&self) {
        let widths: Vec<usize> = (0..self.0[0].len())
            .map(|column| {
                self.0
                    .iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        for row in &self.0 {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                match column {
                    0 => line.push_str(&format!("{cell:<width$}")),
                    _ => line.push_str(&format!("  {cell:>width$}")),
                }
            }
            println!("{}", line.trim_end());
        }
    }
}

/// One line: processors, memory, kernel, what else is running, and the file system that holds `dir`.
pub fn machine(dir: &Path) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory_kib = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| first_number(&text))
        .unwrap_or(0);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let model = fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| model_name(&text))
        .unwrap_or_default();
    let file_system = mount_of(dir).unwrap_or_else(|| "unknown".to_owned());
    format!(
        "machine: {cores} cores {model}, {:.1} GB memory, kernel {}, load {}, target/ on {file_system}",
        memory_kib as f64 * 1024.0 / 1e9,
        kernel.trim(),
        load.split(' ').next().unwrap_or_default()
    )
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().find_map(|word| word.parse().ok())
}

fn model_name(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))?;
    Some(format!("({})", line.split_once(':')?.1.trim()))
}

/// Device, kind and options of the mount with the longest path that leads to `dir`.
fn mount_of(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mut best: Option<(usize, String)> = None;
    for line in mounts.lines() {
        let [device, at, kind, options] = line.split(' ').take(4).collect::<Vec<_>>()[..] else {
            continue;
        };
        if dir.starts_with(at) && best.as_ref().is_none_or(|(len, _)| *len <= at.len()) {
            best = Some((at.len(), format!("{kind} ({device}, {options})")));
        }
    }
    best.map(|(_, text)| text)
}
