//! The follower, while a daemon writes: it gives each effective row, and each retraction of a row that it gave.

use std::collections::BTreeSet;

use super::{PAIR, effective, offsets, python, run};
use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, scored_as};

/// A follower that is started, prints some lines, ends, and is started again.
struct Consumer<'b> {
    bench: &'b Bench,
    /// The rows that it has, by offset, as its lines have them.
    rows: BTreeSet<u64>,
}

impl Consumer<'_> {
    /// Takes a number of lines and returns them without their offsets.
    fn take(&mut self, count: usize) -> Vec<String> {
        let (export, count) = (self.bench.export(), count.to_string());
        let resume = self.bench.sibling("seen.json");
        let mut arguments = vec!["follow.py", export.to_str().unwrap(), "--lines", &count];
        arguments.extend(["--resume", resume.to_str().unwrap(), "--pause", "0.02"]);
        let ended = run(self.bench, &arguments);
        ended.check(0, &[]);
        let mut seen = Vec::new();
        for line in ended.stdout.lines() {
            let mut words = line.split(' ');
            let (kind, offset) = (words.next().unwrap(), words.next().unwrap());
            let offset: u64 = offset.parse().unwrap();
            match kind {
                "row" => assert!(self.rows.insert(offset), "{line}: twice"),
                "retracted" => assert!(self.rows.remove(&offset), "{line}: not there"),
                // The row follows.
                "restored" => assert!(!self.rows.contains(&offset), "{line}"),
                _ => panic!("{line}"),
            }
            let rest: Vec<&str> = words.collect();
            seen.push(format!("{kind} {}", rest.join(" ")));
        }
        seen
    }

    fn check(&self) {
        let wanted: BTreeSet<u64> = offsets(&effective(self.bench, &[])).into_iter().collect();
        assert_eq!(self.rows, wanted);
    }
}

#[test]
fn a_follower_has_the_effective_rows_whenever_it_is_started_again() {
    if python().is_none() {
        return;
    }
    let bench = Bench::new();
    let mut daemon = bench.start_caught_up();
    let mut consumer = Consumer {
        bench: &bench,
        rows: BTreeSet::new(),
    };
    let append = |runs: &[&str]| runs.iter().for_each(|run| bench.append_run(PAIR, run));
    append(&["a", "b", "c"]);
    assert_eq!(consumer.take(2), ["row a", "row b"]);
    append(&["d", "e"]);
    assert_eq!(consumer.take(3), ["row c", "row d", "row e"]);
    consumer.check();

    // Only a retraction of a row that was given is printed.
    bench.append(Stream::Scored, PAIR, scored_as("b", "rejected"));
    assert_eq!(consumer.take(1), ["retracted b rejected"]);
    consumer.check();
    let retract = |arguments: &[&str]| {
        let mut command = bench.command(&["retract", "--reason", "licence"]);
        bench.run(command.args(arguments)).check(0, &[]);
    };
    retract(&["d"]);
    append(&["f"]);
    assert_eq!(consumer.take(2), ["retracted d operator", "row f"]);
    retract(&["d", "--revoke"]);
    // Between the event and its row: the event is repeated, because the row is not there yet.
    assert_eq!(consumer.take(1), ["restored d operator"]);
    assert_eq!(consumer.take(2), ["restored d operator", "row d"]);
    consumer.check();

    // Retracted before the follower comes: neither the row nor its retraction.
    append(&["g"]);
    bench.wait_run(&mut daemon, "g");
    retract(&["g"]);
    append(&["h"]);
    assert_eq!(consumer.take(1), ["row h"]);
    consumer.check();
    bench.stop(daemon);
}

#[test]
fn a_follower_waits_for_an_export_that_is_not_there_yet() {
    if python().is_none() {
        return;
    }
    let bench = Bench::new();
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| {
            let mut consumer = Consumer {
                bench: &bench,
                rows: BTreeSet::new(),
            };
            consumer.take(1)
        });
        bench.append_run(PAIR, "a");
        // The follower writes its output to the files of the bench, so the daemon is started without them.
        let daemon = bench.start();
        assert_eq!(follower.join().unwrap(), ["row a"]);
        bench.stop(daemon);
    });
}
