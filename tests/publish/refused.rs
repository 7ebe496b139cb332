//! Exports and tables that are refused.

use std::fs;
use std::process::Command;

use crate::publisher::{Publisher, python};
use crate::support::process::Bench;

#[test]
fn an_export_that_was_rebuilt_is_refused() {
    let publisher = Publisher::new();
    publisher.export_runs(&["a", "b"]);
    publisher.once();
    let bench = &publisher.bench;
    bench.run(&mut bench.command(&["rebuild"])).check(0, &[]);
    let ended = publisher.run(&["once"]);
    ended.check(1, &["are of the export", "`distilld-publish replace`"]);
}

#[test]
fn a_second_host_of_the_same_name_is_refused() {
    let publisher = Publisher::new();
    publisher.export_runs(&["a"]);
    publisher.once();
    let other = Publisher::with(Bench::new(), &publisher.table, &publisher.host, "");
    other.export_runs(&["b"]);
    other
        .run(&["once"])
        .check(1, &["the host lake-07", "give one of them another `host`"]);
}

#[test]
fn an_export_that_was_restored_from_an_old_copy_is_refused() {
    let publisher = Publisher::new();
    publisher.export_runs(&["a"]);
    let bench = &publisher.bench;
    let old = fs::read(bench.export()).unwrap();
    publisher.export_runs(&["b"]);
    publisher.once();
    let whole = fs::read(bench.export()).unwrap();
    fs::write(bench.export(), &old).unwrap();
    let fix = "put the newest copy back";
    publisher
        .run(&["once"])
        .check(1, &["is shorter than what was published", fix]);
    // The newest rows come back, as after a power cut.
    fs::write(bench.export(), &whole).unwrap();
    assert_eq!(publisher.once()["commits"], 0);
    // The copy grows by another row, of the same length as the lost one.
    let grown = String::from_utf8(old.clone()).unwrap();
    fs::write(
        bench.export(),
        grown.clone() + &grown.replace("\"a\"", "\"x\"") + &grown,
    )
    .unwrap();
    publisher
        .run(&["once"])
        .check(1, &["has other lines there", fix]);
}

#[test]
fn a_table_with_other_columns_is_refused() {
    let Some(python) = python() else { return };
    let publisher = Publisher::new();
    publisher.export_runs(&["a"]);
    let write = "import sys, pyarrow, deltalake\n\
                 deltalake.write_deltalake(sys.argv[1], pyarrow.table({'host': ['a']}))";
    let mut command = Command::new(python);
    publisher
        .bench
        .run(command.args(["-c", write, &publisher.table]))
        .check(0, &[]);
    let ended = publisher.run(&["once"]);
    ended.check(1, &["its columns are host string", "name another `table`"]);
}

#[test]
fn a_table_that_forgets_numbers_is_refused() {
    let Some(python) = python() else { return };
    let publisher = Publisher::new();
    publisher.export_runs(&["a"]);
    publisher.once();
    let set = "import sys, deltalake\n\
               deltalake.DeltaTable(sys.argv[1]).alter.set_table_properties(\
               {'delta.setTransactionRetentionDuration': 'interval 1 days'}, raise_if_not_exists=False)";
    let mut command = Command::new(python);
    publisher
        .bench
        .run(command.args(["-c", set, &publisher.table]))
        .check(0, &[]);
    let ended = publisher.run(&["once"]);
    ended.check(1, &["delta.setTransactionRetentionDuration is set"]);
}

#[test]
fn what_is_missing_is_named() {
    let publisher = Publisher::new();
    let ended = publisher.run(&["once"]);
    ended.check(1, &["there is no export at", "correct `export`"]);
    publisher.export_runs(&["a"]);
    fs::remove_file(publisher.config()).unwrap();
    publisher.run(&["once"]).check(
        78,
        &["publish.toml", "create it, or name another with `--config`"],
    );
    let missing = publisher
        .bench
        .sibling("not-mounted/sft")
        .display()
        .to_string();
    let elsewhere = Publisher::with(Bench::new(), &missing, "lake-07", "");
    elsewhere.export_runs(&["a"]);
    let ended = elsewhere.run(&["once"]);
    ended.check(
        1,
        &["not-mounted/sft", "mount the file system of the table"],
    );
}
