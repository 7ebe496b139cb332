//! A copy of a whole lake, with state and locks, next to the lake that it was made of: each command on one of them changes
//! and reads that one alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, scored_as};

const PAIR: &str = "2026/01/01/a.jsonl";

/// Returns the bytes of each file below a directory.
fn files_below(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if path.is_file() {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

/// Returns the files of a lake that only a command could change: of a running daemon those outside its state, to which it
/// writes at moments of its own.
fn files_of(bench: &Bench, running: bool) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = files_below(&bench.root());
    let state_dir = bench.state_dir();
    files.retain(|path, _| !running || !path.starts_with(&state_dir));
    files
}

/// Returns a lake with the rows of `q` and `r`, and the root of its copy.
fn lake_and_copy() -> (Bench, PathBuf) {
    let bench = Bench::new();
    for run in ["q", "r"] {
        bench.append_run(PAIR, run);
    }
    bench.once();
    let copy = bench.sibling("copy");
    let copied = Command::new("cp")
        .arg("-a")
        .args([bench.root(), copy.clone()])
        .status();
    assert!(copied.unwrap().success());
    (bench, copy)
}

#[test]
fn commands_on_a_copy_leave_the_lake_alone_and_change_the_copy() {
    for running in [false, true] {
        let (bench, copy) = lake_and_copy();
        let daemon = running.then(|| bench.start_caught_up());
        let before = files_of(&bench, running);
        let run = |arguments: &[&str]| bench.run(&mut bench.command_on(&copy, arguments));
        run(&["retract", "r", "--reason", "licence"]).check(0, &[]);
        run(&["dead-letters", "retry", PAIR]).check(0, &[]);
        let status = run(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
        assert_eq!(status["running"], false);
        let waited = run(&["wait", "--fresh", "--timeout", "1s"]);
        waited.check(4, &["no daemon runs on this root"]);
        run(&["rebuild", "--dry-run"]).check(0, &[]);
        assert_eq!(files_of(&bench, running), before, "running {running}");
        let rows = run(&["rows"]);
        assert!(!rows.stdout.contains("\"source_run_id\":\"r\""));
        if let Some(daemon) = daemon {
            bench.stop(daemon);
        }
        // Both go on, each by itself.
        let rejected = scored_as("q", "rejected");
        fs::write(Stream::Scored.path(&copy, PAIR), rejected).unwrap();
        run(&["run", "--once"]).check(0, &[]);
        run(&["verify"]).check(0, &[]);
        bench.once();
        bench.run(&mut bench.command(&["verify"])).check(0, &[]);
        assert_eq!(bench.effective_runs(), ["q", "r"]);
        fs::remove_dir_all(&copy).unwrap();
        bench.once();
    }
}

/// A lake that was moved, or is mounted elsewhere, keeps the state directory that its daemon had.
#[test]
fn commands_on_a_lake_that_was_moved_find_its_state() {
    let bench = Bench::new();
    bench.append_run(PAIR, "q");
    let state_dir = bench.sibling("state");
    let mut once = bench.command(&["--state-dir"]);
    once.arg(&state_dir).args(["run", "--once"]);
    bench.run(&mut once).check(0, &[]);
    let moved = bench.sibling("moved");
    fs::rename(bench.root(), &moved).unwrap();
    let explained = bench.run(&mut bench.command_on(&moved, &["explain", "q"]));
    explained.check(0, &[]);
    assert!(
        explained.stdout.contains("exported"),
        "{}",
        explained.stdout
    );
}
