//! Day-files that are written again without some of their scored lines. Of a run that still has lines in its pair, the row of
//! the last one counts, and no row of a line that is gone; a run that has none keeps its row: absence is no verdict.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::bench::{Bench as SimBench, EXPORT, LEDGER, ROOT};
use crate::support::lake_gen::Stream;
use crate::support::ledger::read_ledger;
use crate::support::process::{Bench, evidence};
use crate::support::sim_disk::{Fate, SimDisk};

const PAIR: &str = "2026/01/01/a.jsonl";
const OTHER_DAY: &str = "2026/01/02/a.jsonl";

/// A scored line: run, category and the number of its provenance.
type Line = (&'static str, &'static str, u64);

fn scored(lines: &[Line]) -> String {
    let line = |(run, category, number): &Line| {
        format!(
            "{{\"evidence_run_id\":\"{run}\",\"category\":\"{category}\",\"provenance\":{{\"source_file\":\"s\",\
             \"line_offset\":{number},\"sig_hash\":\"h\",\"recorded_at\":\"2026-01-01T00:00:00Z\"}}}}\n"
        )
    };
    lines.iter().map(line).collect()
}

/// A day-file before and after it is written again, with the runs whose evidence is there then.
struct Rewrite {
    what: &'static str,
    before: &'static [Line],
    after: &'static [Line],
    evidence: &'static [&'static str],
    effective: &'static [&'static str],
}

const REWRITES: &[Rewrite] = &[
    Rewrite {
        what: "the second of two equal lines is removed",
        before: &[("r", "accepted", 1), ("r", "accepted", 1)],
        after: &[("r", "accepted", 1)],
        evidence: &["r"],
        effective: &["r"],
    },
    Rewrite {
        what: "a rescored line is removed",
        before: &[("r", "accepted", 1), ("r", "accepted", 2)],
        after: &[("r", "accepted", 1)],
        evidence: &["r"],
        effective: &["r"],
    },
    Rewrite {
        what: "the first line is removed",
        before: &[
            ("r", "accepted", 1),
            ("r", "accepted", 2),
            ("k", "accepted", 3),
        ],
        after: &[("r", "accepted", 2), ("k", "accepted", 3)],
        evidence: &["r", "k"],
        effective: &["k", "r"],
    },
    Rewrite {
        what: "a rejection takes the place of the line",
        before: &[("r", "accepted", 1), ("k", "accepted", 3)],
        after: &[("k", "accepted", 3), ("r", "rejected", 5)],
        evidence: &["r", "k"],
        effective: &["k"],
    },
    Rewrite {
        what: "an unknown category takes the place of the line",
        before: &[("r", "accepted", 1)],
        after: &[("r", "perhaps", 5)],
        evidence: &["r"],
        effective: &[],
    },
    Rewrite {
        what: "a line of another origin takes the place of the line",
        before: &[("r", "accepted", 1)],
        after: &[("k", "accepted", 3), ("r", "partially_accepted", 5)],
        evidence: &["r", "k"],
        effective: &["k", "r"],
    },
    Rewrite {
        what: "that line has no evidence",
        before: &[("r", "accepted", 1)],
        after: &[("k", "accepted", 3), ("r", "accepted", 5)],
        evidence: &["k"],
        effective: &["k"],
    },
    Rewrite {
        what: "the line is there and has no evidence any more",
        before: &[("r", "accepted", 1)],
        after: &[("k", "accepted", 3), ("r", "accepted", 1)],
        evidence: &["k"],
        effective: &["k", "r"],
    },
    Rewrite {
        what: "the run has no line any more",
        before: &[("r", "accepted", 1), ("r", "accepted", 2)],
        after: &[("k", "accepted", 3)],
        evidence: &["k"],
        effective: &["k", "r"],
    },
];

fn effective(bench: &Bench) -> Vec<String> {
    let mut runs = bench.effective_runs();
    runs.sort();
    runs
}

fn ledger(bench: &Bench) -> Vec<u8> {
    fs::read(bench.export().with_file_name("sft_retractions.jsonl")).unwrap()
}

impl Rewrite {
    fn start(&self) -> Bench {
        let bench = Bench::new();
        bench.append(Stream::Evidence, PAIR, evidence("r") + &evidence("k"));
        bench.append(Stream::Scored, PAIR, scored(self.before));
        bench.once();
        bench
    }

    fn write(&self, bench: &Bench, pair: &str) {
        let texts: String = self.evidence.iter().map(|run| evidence(run)).collect();
        fs::write(bench.path(Stream::Evidence, pair), texts).unwrap();
        fs::write(bench.path(Stream::Scored, pair), scored(self.after)).unwrap();
    }

    /// Runs until the lake is read, and checks that as many rows become effective as planned.
    fn run_as_planned(&self, bench: &Bench) {
        let plan = bench.ask(&["plan", "--json"]);
        let before = effective(bench).len() as i64;
        bench.once();
        let planned = |figure: &str| plan["total"][figure].as_i64().unwrap();
        let difference = planned("rows") - planned("retracted") + planned("restored");
        assert_eq!(
            effective(bench).len() as i64 - before,
            difference,
            "{}: {plan:#}",
            self.what
        );
    }

    /// Runs until the lake is read, as planned, and checks the effective set.
    fn check(&self, bench: &Bench) {
        self.run_as_planned(bench);
        assert_eq!(effective(bench), self.effective, "{}", self.what);
        let known = ledger(bench);
        bench.run(&mut bench.command(&["verify"])).check(0, &[]);
        bench.once();
        assert_eq!(ledger(bench), known, "{}", self.what);
        bench.remove_state();
        bench.once();
        assert_eq!(effective(bench), self.effective, "{}", self.what);
        bench.run(&mut bench.command(&["verify"])).check(0, &[]);
    }
}

#[test]
fn of_a_run_that_has_lines_only_the_row_of_the_last_one_is_effective() {
    for rewrite in REWRITES {
        let bench = rewrite.start();
        rewrite.write(&bench, PAIR);
        rewrite.check(&bench);
    }
}

#[test]
fn the_same_holds_for_a_day_file_that_was_moved_and_then_written_again() {
    for rewrite in REWRITES {
        let bench = rewrite.start();
        for stream in [Stream::Scored, Stream::Evidence] {
            let (from, to) = (bench.path(stream, PAIR), bench.path(stream, OTHER_DAY));
            fs::rename(from.parent().unwrap(), to.parent().unwrap()).unwrap();
        }
        bench.once();
        rewrite.write(&bench, OTHER_DAY);
        rewrite.check(&bench);
    }
}

#[test]
fn the_end_of_an_order_brings_no_row_back_whose_line_is_gone() {
    let [.., removed, moved_on, _, _] = REWRITES else {
        unreachable!()
    };
    for rewrite in [removed, moved_on] {
        let bench = rewrite.start();
        let order = |arguments: &[&str]| {
            let ended = bench.run(&mut bench.command(&[&["retract", "r"], arguments].concat()));
            ended.check(0, &[]);
        };
        order(&["--reason", "licence"]);
        rewrite.write(&bench, PAIR);
        bench.once();
        order(&["--revoke"]);
        bench.once();
        assert_eq!(effective(&bench), rewrite.effective, "{}", rewrite.what);
    }
}

/// Returns the effective runs of a simulated lake, sorted.
fn effective_runs(disk: &SimDisk) -> Vec<String> {
    let [export, ledger] = [EXPORT, LEDGER].map(|path| disk.read(path).unwrap_or_default());
    let mut out = BTreeSet::new();
    for event in read_ledger(&export, &ledger).unwrap() {
        match (event.op.as_str(), event.row) {
            ("retract", Some((offset, _))) => drop(out.insert(offset)),
            ("restore", Some((offset, _))) => drop(out.remove(&offset)),
            _ => {}
        }
    }
    let mut runs = Vec::new();
    let mut at = 0;
    for row in export.split_inclusive(|byte| *byte == b'\n') {
        let value: serde_json::Value = serde_json::from_slice(row).unwrap();
        if !out.contains(&at) {
            runs.push(value["source_run_id"].as_str().unwrap().to_owned());
        }
        at += row.len() as u64;
    }
    runs.sort();
    runs
}

/// A lake whose day-file was written again, before that is noticed.
fn rewritten(rewrite: &Rewrite, batch_bytes: usize, is_seen_short: bool) -> SimBench {
    let mut bench = SimBench::new(SimDisk::new());
    bench.batch_bytes = batch_bytes;
    bench.open().unwrap();
    let path = |stream: Stream| stream.path(Path::new(ROOT), PAIR);
    let disk = &bench.disk;
    disk.append_durable(
        path(Stream::Evidence),
        (evidence("r") + &evidence("k")).as_bytes(),
    );
    disk.append_durable(path(Stream::Scored), scored(rewrite.before).as_bytes());
    bench.scan().unwrap();
    bench.quiet().unwrap();
    bench.engine.as_mut().unwrap().checkpoint().unwrap();
    let texts: String = rewrite.evidence.iter().map(|run| evidence(run)).collect();
    for stream in [Stream::Evidence, Stream::Scored] {
        bench.disk.truncate(path(stream), 0);
    }
    if is_seen_short {
        bench.scan().unwrap();
        bench.quiet().unwrap();
    }
    for (stream, text) in [
        (Stream::Evidence, texts),
        (Stream::Scored, scored(rewrite.after)),
    ] {
        bench.disk.append_durable(path(stream), text.as_bytes());
    }
    bench.scan().unwrap();
    bench
}

#[test]
fn a_crash_at_any_call_after_a_day_file_was_written_again_leaves_the_same_effective_set() {
    // Where each read is a commit of its own, its rows may be examined in a later one.
    let ways = [(1, false), (1 << 20, false), (1 << 20, true)];
    for (rewrite, (size, is_seen_short)) in REWRITES
        .iter()
        .flat_map(|rewrite| ways.map(|way| (rewrite, way)))
    {
        for call in 0.. {
            let mut bench = rewritten(rewrite, size, is_seen_short);
            bench.disk.crash_at(call);
            _ = bench.quiet();
            if !bench.disk.is_dead() {
                // Where the short day-file was read before, one commit is left.
                let calls_min = if is_seen_short { 1 } else { 20 };
                assert!(call > calls_min, "only {call} calls");
                assert_eq!(
                    effective_runs(&bench.disk),
                    rewrite.effective,
                    "{}",
                    rewrite.what
                );
                break;
            }
            for fate in Fate::ALL {
                let mut found = SimBench::new(bench.disk.power_cut(call, fate));
                found.open().unwrap();
                found.scan().unwrap();
                found.quiet().unwrap();
                let what = format!("{}: crash at call {call}, {fate:?}", rewrite.what);
                assert_eq!(effective_runs(&found.disk), rewrite.effective, "{what}");
            }
        }
    }
}

#[test]
fn rows_of_more_pairs_than_a_checkpoint_takes_are_examined_once() {
    // The engine writes a checkpoint after 2,048 examined pairs.
    const PAIRS: usize = 2_100;
    let mut bench = SimBench::new(SimDisk::new());
    bench.open().unwrap();
    let path = |stream: Stream, number: usize| {
        stream.path(Path::new(ROOT), &format!("2026/01/01/{number:04}.jsonl"))
    };
    for number in 0..PAIRS {
        let disk = &bench.disk;
        disk.append_durable(path(Stream::Evidence, number), evidence("r").as_bytes());
        let lines = scored(&[("r", "accepted", 1), ("r", "accepted", 2)]);
        disk.append_durable(path(Stream::Scored, number), lines.as_bytes());
    }
    bench.scan().unwrap();
    bench.quiet().unwrap();
    bench.engine.as_mut().unwrap().checkpoint().unwrap();
    for number in 0..PAIRS {
        bench.disk.truncate(path(Stream::Scored, number), 0);
        let line = scored(&[("r", "accepted", 1)]);
        bench
            .disk
            .append_durable(path(Stream::Scored, number), line.as_bytes());
    }
    bench.scan().unwrap();
    bench.quiet().unwrap();
    assert_eq!(effective_runs(&bench.disk).len(), PAIRS);
    let known = bench.disk.read(LEDGER).unwrap();
    let mut found = SimBench::new(bench.disk.power_cut(0, Fate::ALL[0]));
    found.open().unwrap();
    found.scan().unwrap();
    found.quiet().unwrap();
    assert_eq!(effective_runs(&found.disk).len(), PAIRS);
    assert_eq!(found.disk.read(LEDGER).unwrap(), known);
}

/// Appends lines to a day-file that was read while some of them were missing: with truncation first, or line by line.
fn write_in_steps(rewrite: &Rewrite, bench: &Bench, with_restart: bool) {
    let texts: String = rewrite.evidence.iter().map(|run| evidence(run)).collect();
    let path = bench.path(Stream::Scored, PAIR);
    for stream in [Stream::Evidence, Stream::Scored] {
        fs::write(bench.path(stream, PAIR), "").unwrap();
    }
    let step = |text: &str, stream: Stream| {
        bench.append(stream, PAIR, text);
        match with_restart {
            true => rewrite.run_as_planned(bench),
            false => drop(bench.ask(&["wait", "--fresh", "--json"])),
        }
    };
    step("", Stream::Scored);
    step(&texts, Stream::Evidence);
    for line in scored(rewrite.after).split_inclusive('\n') {
        step(line, Stream::Scored);
    }
    assert_eq!(fs::read_to_string(path).unwrap(), scored(rewrite.after));
}

#[test]
fn the_same_holds_for_a_day_file_that_is_read_while_it_is_written_again() {
    for rewrite in REWRITES {
        let bench = rewrite.start();
        write_in_steps(rewrite, &bench, true);
        rewrite.check(&bench);
        let bench = rewrite.start();
        let daemon = bench.start_caught_up();
        write_in_steps(rewrite, &bench, false);
        assert_eq!(effective(&bench), rewrite.effective, "{}", rewrite.what);
        bench.stop(daemon);
        rewrite.check(&bench);
    }
}
