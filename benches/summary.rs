//! Prints one table with the results, floors and targets of all benchmarks. `cargo bench` runs it last.
//!
//! `cargo bench [-- --full]`

mod support;

use support::figures::{Table, machine};
use support::{Failure, bench_dir, summary};

const BENCHES: [&str; 11] = [
    "backfill",
    "history",
    "freshness",
    "saturation",
    "restart",
    "idle",
    "late",
    "explain",
    "rows",
    "soak",
    "publish",
];

fn main() -> Result<(), Failure> {
    println!("\n{}\n", machine(&bench_dir("")));
    let mut table = Table::new(&["", "measured", "floor", "ratio", "aim"]);
    for bench in BENCHES {
        let lines = summary::left_by(bench)?;
        if lines.is_empty() {
            table.row(vec![format!("{bench}: not run")]);
        }
        lines.into_iter().for_each(|line| table.row(line));
    }
    table.print();
    Ok(())
}
