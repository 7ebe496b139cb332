//! The order of syncs, as the kernel sees it, and names that were made although the answer is an error.

use std::fs;
use std::process::Command;

use crate::publisher::{Publisher, preloadable, python};
use crate::support::tools::tool;

#[test]
fn a_file_and_its_name_are_synced_before_the_commit_that_needs_it() {
    let Some(strace) = tool("strace") else { return };
    let publisher = Publisher::new();
    publisher.export_runs(&["a"]);
    publisher.once();
    publisher.export_runs(&["b"]);
    let trace = publisher.bench.sibling("trace");
    let once = publisher.command(&["once"]);
    let mut traced = Command::new(strace);
    traced.args([
        "-f",
        "-y",
        "-s",
        "300",
        "-e",
        "trace=fsync,link,linkat,rename,renameat,renameat2",
        "-o",
    ]);
    traced
        .arg(&trace)
        .arg(once.get_program())
        .args(once.get_args());
    publisher.bench.run(&mut traced).check(0, &[]);
    let trace = fs::read_to_string(&trace).unwrap();
    let calls: Vec<&str> = trace
        .lines()
        .filter_map(|line| line.split_once(' ').map(|(_thread, call)| call.trim()))
        .filter(|call| call.contains("= 0") || call.contains("unfinished"))
        .collect();
    let table = fs::canonicalize(&publisher.table)
        .unwrap()
        .display()
        .to_string();
    let steps = [
        ("fsync(", ".parquet".to_owned()),
        ("link", ".parquet".to_owned()),
        ("fsync(", format!("<{table}>")),
        ("fsync(", "00002.json".to_owned()),
        ("link", "00002.json\"".to_owned()),
        ("fsync(", format!("<{table}/_delta_log>")),
    ];
    let mut left = calls.iter();
    for (call, path) in steps {
        let found = left.any(|line| line.starts_with(call) && line.contains(&path));
        assert!(found, "no {call} of {path} in its place in {calls:#?}");
    }
}

#[test]
fn a_link_that_was_made_and_is_answered_with_eexist_doubles_nothing() {
    if python().is_none() {
        return;
    }
    let publisher = Publisher::new();
    let Some(library) = preloadable(&publisher.bench, "retried_link") else {
        return;
    };
    publisher.configure("commit_bytes = \"1KiB\"\ncheckpoint_every = 2\n");
    let once = || {
        let mut command = publisher.command(&["once"]);
        let ended = publisher.bench.run(command.env("LD_PRELOAD", &library));
        ended.check(0, &[]);
        let account: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        // Its own commits look like those of a twin.
        assert_eq!(account["commits"], 0);
        assert!(account["conflicts"].as_u64() > Some(0), "{account}");
        publisher.assert_published();
    };
    publisher.export_runs(&["a", "b", "c", "d", "e", "f"]);
    once();
    publisher.judge("b", "rejected");
    publisher.export_runs(&["g"]);
    once();
}
