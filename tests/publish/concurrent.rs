//! Twins of several hosts.

use std::process::{Child, Command, Stdio};

use crate::publisher::{PAIR, Publisher, many_runs, python};
use crate::support::lake_gen::Stream;
use crate::support::process::Bench;

/// Bytes that give a commit a few rows.
const SMALL: &str = "commit_bytes = \"2KiB\"\ncheckpoint_every = 7\n";

fn quietly(mut command: Command) -> Child {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::null()).spawn().unwrap()
}

fn two_hosts(table: &str) -> [Publisher; 2] {
    ["lake-01", "lake-02"].map(|host| Publisher::with(Bench::new(), table, host, SMALL))
}

fn append(publisher: &Publisher, name: &str, count: usize) {
    let (evidence, scored) = many_runs(&format!("{}-{name}", publisher.host), count);
    publisher.bench.append(Stream::Evidence, PAIR, evidence);
    publisher.bench.append(Stream::Scored, PAIR, scored);
}

#[test]
fn twins_of_two_hosts_publish_each_row_once() {
    if python().is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let hosts = two_hosts(&place.path().join("sft").display().to_string());
    for publisher in &hosts {
        append(publisher, "a", 60);
        publisher.bench.once();
    }
    let twins = hosts.iter().flat_map(|publisher| [publisher; 2]);
    let twins: Vec<Child> = twins
        .map(|publisher| quietly(publisher.command(&["once"])))
        .collect();
    for mut twin in twins {
        assert!(twin.wait().unwrap().success());
    }
    for publisher in &hosts {
        publisher.assert_published();
        assert_eq!(publisher.once()["commits"], 0);
    }
}
