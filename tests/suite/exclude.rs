//! The key `exclude`: day-files under the temporary names of a writer give no rows, in the daemon and in the batch.

use std::fs;
use std::process::Command;

use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, evidence, scored};

const PAIR: &str = "2026/05/01/a.jsonl";
const TEMPORARY: &str = "2026/05/01/tmp1.jsonl";

/// Writes both day-files under a temporary name.
fn write_temporary(bench: &Bench, runs: &[&str]) {
    let evidence: String = runs.iter().map(|run| evidence(run)).collect();
    let scored: String = runs.iter().map(|run| scored(run)).collect();
    bench.append(Stream::Evidence, TEMPORARY, evidence);
    bench.append(Stream::Scored, TEMPORARY, scored);
}

fn rename(bench: &Bench) {
    for stream in Stream::BOTH {
        fs::rename(bench.path(stream, TEMPORARY), bench.path(stream, PAIR)).unwrap();
    }
}

/// Returns a command with patterns in each of the ways in which they can be given.
fn ways(bench: &Bench, arguments: &[&str], patterns: &str) -> Vec<Command> {
    let file = bench.sibling("distilld.toml");
    fs::write(&file, format!("exclude = [\"{patterns}\"]\n")).unwrap();
    let by = |change: &dyn Fn(&mut Command)| {
        let mut command = bench.command(arguments);
        change(&mut command);
        command
    };
    vec![
        by(&|command| {
            command.args(["--exclude", "none*", "--exclude", patterns]);
        }),
        by(&|command| {
            command.env("DISTILLD_EXCLUDE", format!("none*:{patterns}"));
        }),
        by(&|command| {
            command.arg("--config").arg(&file);
        }),
    ]
}

#[test]
fn a_writer_with_temporary_names_gives_each_row_once() {
    let bench = Bench::new();
    write_temporary(&bench, &["a", "b"]);
    let mut run = bench.command(&["run", "--exclude", "tmp*"]);
    let mut daemon = bench.catch_up(run.env("DISTILLD_RECENT_SCAN_MS", "50"));
    bench.probe(&mut daemon);
    assert_eq!(bench.row_count(), 1, "only that of the probe");
    rename(&bench);
    bench.wait_rows(&mut daemon, 3);
    write_temporary(&bench, &["c"]);
    bench.probe(&mut daemon);
    assert_eq!(bench.row_count(), 4);
    bench.stop(daemon);
    for mut command in ways(&bench, &["verify"], "tmp*") {
        bench.run(&mut command).check(0, &[]);
    }
    bench.run(&mut bench.command(&["verify"])).check(1, &[]);
    for mut command in ways(&bench, &["export", "--dry-run"], "2026/*/01/tmp*") {
        let ended = bench.run(&mut command);
        ended.check(0, &[]);
        assert!(ended.stdout.contains("\"records_exported\":4"), "{ended:?}");
    }
    for mut command in ways(&bench, &["plan", "--json"], "tmp*") {
        let plan: serde_json::Value =
            serde_json::from_str(&bench.run(&mut command).stdout).unwrap();
        assert_eq!(plan["total"]["rows"], 0);
    }
    assert_eq!(bench.ask(&["plan", "--json"])["total"]["rows"], 1);
}

#[test]
fn rows_of_a_day_file_that_is_excluded_later_stay_until_a_rebuild() {
    let bench = Bench::new();
    write_temporary(&bench, &["a"]);
    bench.append_run(PAIR, "b");
    bench.once();
    assert_eq!(bench.row_count(), 2);
    write_temporary(&bench, &["c"]);
    for mut command in ways(&bench, &["run", "--once"], "tmp*") {
        bench.run(&mut command).check(0, &[]);
        assert_eq!(bench.row_count(), 2);
    }
    // Nothing drops rows without a word.
    let mut rebuild = bench.command(&["rebuild", "--exclude", "tmp*"]);
    bench.run(&mut rebuild).check(1, &["--drop-missing"]);
    let mut rebuild = bench.command(&["rebuild", "--exclude", "tmp*", "--drop-missing"]);
    bench.run(&mut rebuild).check(0, &[]);
    bench.assert_runs(&["b"]);
}

#[test]
fn check_names_the_key_where_names_look_temporary() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    let check = |arguments: &[&str]| bench.run(&mut bench.command(arguments)).stdout;
    assert!(!check(&["check"]).contains("exclude"));
    write_temporary(&bench, &["b"]);
    bench.append_run("2026/05/01/.hidden.jsonl", "c");
    bench.append_run("2026/05/01/x.tmp.jsonl", "d");
    let text = check(&["check"]);
    let finding = "3 look like temporary files";
    assert_eq!(text.matches(finding).count(), 2, "{text}");
    assert!(text.contains("set the key `exclude`"), "{text}");
    let text = check(&["check", "--exclude", "{tmp*,.*,*.tmp.jsonl}"]);
    assert!(!text.contains(finding), "{text}");
    assert_eq!(
        text.matches("3 day-files match the key `exclude`").count(),
        2,
        "{text}"
    );
}

#[test]
fn an_invalid_pattern_is_named_with_its_place() {
    let bench = Bench::new();
    for mut command in ways(&bench, &["check"], "a[") {
        bench.run(&mut command).check(78, &["exclude", "a["]);
    }
}
