//! Twins, several hosts, and processes that are killed.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

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

#[test]
fn processes_that_are_killed_lose_nothing_and_double_nothing() {
    if python().is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let hosts = two_hosts(&place.path().join("sft").display().to_string());
    let mut daemons: Vec<_> = hosts
        .iter()
        .map(|publisher| publisher.bench.start())
        .collect();
    for round in 0..20 {
        for publisher in &hosts {
            append(publisher, &round.to_string(), 12);
        }
        let twins = hosts.iter().flat_map(|publisher| [publisher; 2]);
        let twins = twins.map(|publisher| quietly(publisher.command(&["once"])));
        let mut twins: Vec<Child> = twins.collect();
        for twin in &mut twins {
            // Any moment of a publisher: its length is no condition of the test.
            std::thread::sleep(Duration::from_micros(fastrand::u64(0..40_000)));
            let _ = twin.kill();
        }
        for mut twin in twins {
            twin.wait().unwrap();
        }
    }
    for (publisher, daemon) in hosts.iter().zip(&mut daemons) {
        publisher.bench.wait_rows(daemon, 20 * 12);
        publisher.bench.probe(daemon);
    }
    for (publisher, daemon) in hosts.iter().zip(daemons) {
        publisher.bench.stop(daemon);
        publisher.once();
        publisher.assert_published();
    }
}
