//! The table of all benchmarks: each benchmark stores its figures here at its end, the benchmark `summary` prints
//! them. Measures nothing.

use std::fs;
use std::io;

use super::bench_dir;

/// A measurement with its floor and target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The measurement and its input size.
    pub what: String,
    /// The figure.
    pub value: String,
    /// The floor, measured in the same run; empty if the target is not a ratio.
    pub floor: String,
    /// The value that is compared with the target.
    pub ratio: String,
    /// The target; empty if there is none.
    pub aim: &'static str,
}

/// Stores the lines of one benchmark, replacing those of its last run.
pub fn leave(bench: &str, lines: &[Line]) -> io::Result<()> {
    let dir = bench_dir("summary");
    fs::create_dir_all(&dir)?;
    let rows = lines.iter().map(|line| {
        let Line {
            what,
            value,
            floor,
            ratio,
            aim,
        } = line;
        format!("{what}\t{value}\t{floor}\t{ratio}\t{aim}\n")
    });
    fs::write(dir.join(bench), rows.collect::<String>())
}

/// Returns the cells that a benchmark stored in its last run; empty if it never ran.
pub fn left_by(bench: &str) -> io::Result<Vec<Vec<String>>> {
    match fs::read_to_string(bench_dir("summary").join(bench)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        text => Ok(text?
            .lines()
            .map(|line| line.split('\t').map(str::to_owned).collect())
            .collect()),
    }
}
