//! `retract`: standing orders of operators on the simulated disk against a naive set, and with the real daemon and
//! without one.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use distilld::batch::pair::{LakeReader, MAX_LINE_BYTES};
use distilld::batch::verify::{ROWS_HELD_MAX, VerifyOptions, verify};
use fastrand::Rng;
use serde_json::Value;

use crate::support::bench::{Bench as SimBench, EXPORT, LEDGER, ROOT, STATE_DIR};
use crate::support::lake_gen::{EvidenceMode, Shape, Step, Stream, pairs_of, script};
use crate::support::ledger::{Event, ledger_fault, read_ledger};
use crate::support::naive::{NaiveBatch, Pairs, naive_batch, verdicts};
use crate::support::process::{
    Bench, MEMORY_KIB_MAX, evidence, evidence_with, is_root, memory_kib_max, output_with_stdin,
    scored, scored_as,
};
use crate::support::sim_disk::{EIO, ENOSPC, Fate, Fault, SimDisk};

/// Random sequences in the ordinary run.
const SEQUENCES: u64 = 250;
const PAIR: &str = "2026/01/01/audits.jsonl";
const OTHER: &str = "2026/01/02/other.jsonl";

fn events_on(disk: &SimDisk) -> Vec<Event> {
    let bytes = |path| disk.read(path).unwrap_or_default();
    read_ledger(&bytes(EXPORT), &bytes(LEDGER)).unwrap()
}

/// Returns the runs with an order in force, each with the day-file that it is limited to or an empty text, as a reader of
/// the ledger finds them.
fn ordered_runs(events: &[Event]) -> BTreeSet<(String, String)> {
    let mut runs = BTreeSet::new();
    for event in events {
        let order = (event.run_id.clone(), event.day_file.clone());
        match event.op.as_str() {
            "order" => _ = runs.insert(order),
            "revoke" => _ = runs.remove(&order),
            _ => {}
        }
    }
    runs
}

/// Returns the difference between the fold of the ledger and the effective rows of the sources whose runs have no order.
fn fault_with_orders(disk: &SimDisk, pairs: &Pairs) -> Option<String> {
    let ordered = ordered_runs(&events_on(disk));
    let mut naive = NaiveBatch::default();
    for (path, pair) in pairs {
        let is_ordered = |row: &String| {
            let row: Value = serde_json::from_str(row).unwrap();
            let run = row["source_run_id"].as_str().unwrap();
            ["", path]
                .iter()
                .any(|day_file| ordered.contains(&(run.to_owned(), (*day_file).to_owned())))
        };
        let of_pair = naive_batch(&Pairs::from([(path.clone(), pair.clone())]), false);
        let effective = of_pair.effective.into_iter();
        naive
            .effective
            .extend(effective.filter(|row| !is_ordered(row)));
    }
    let bytes = |path| disk.read(path).unwrap_or_default();
    ledger_fault(&bytes(EXPORT), &bytes(LEDGER), &naive)
}

/// Asserts that `verify` counts the rows that later lines overrule as the engine does, those of runs with an order too.
fn check_contradicted(bench: &SimBench, what: &str) {
    let lake = LakeReader::new(&bench.disk, Path::new(ROOT)).unwrap();
    let options = VerifyOptions {
        max_line_bytes: MAX_LINE_BYTES,
        settle: Duration::ZERO,
        patience: Duration::ZERO,
        rows_held_max: ROWS_HELD_MAX,
    };
    let verified = verify(&lake, &options, &mut |_, _, _| {}).unwrap();
    assert_eq!(verified.first_difference, None, "{what}");
    let counts = bench.engine.as_ref().unwrap().totals().counts;
    assert_eq!(
        verified.result.contradicted, counts.contradicted,
        "{what}: contradicted, of {} rows with an order",
        verified.result.ordered
    );
}

/// Random orders between the steps of random lakes, over restarts and lost states.
#[test]
fn any_sequence_of_orders_verdicts_and_restarts_equals_the_naive_set() {
    for seed in 0..SEQUENCES {
        let mut rng = Rng::with_seed(seed);
        let steps = script(seed, &Shape::small(&mut rng, EvidenceMode::Unique));
        let known = verdicts(&pairs_of(&steps));
        let runs: Vec<&str> = known.keys().map(String::as_str).collect();
        let all_pairs = pairs_of(&steps);
        let day_files: Vec<&str> = all_pairs.keys().map(String::as_str).collect();
        let mut bench = SimBench::new(SimDisk::new());
        bench.batch_bytes = rng.choice([1, 1 << 20]).unwrap();
        bench.threads = rng.usize(1..=2);
        bench.checkpoint_bytes = rng.choice([4 << 10, 1 << 20]).unwrap();
        bench.open().unwrap();
        let mut expected = BTreeSet::new();
        for (n, step) in steps.iter().enumerate() {
            let what = format!("seed {seed}, step {n}");
            bench.step(step, rng.u8(..4) > 0).unwrap();
            while !runs.is_empty() && rng.u8(..3) == 0 {
                let some: Vec<&str> = (0..rng.usize(1..4))
                    .map(|_| *rng.choice(&runs).unwrap())
                    .collect();
                let revoke = rng.bool();
                let day_file = rng.choice(&day_files).copied().filter(|_| rng.bool());
                for run in &some {
                    let order = ((*run).to_owned(), day_file.unwrap_or_default().to_owned());
                    match revoke {
                        true => _ = expected.remove(&order),
                        false => _ = expected.insert(order),
                    }
                }
                bench.order_in(day_file, &some, revoke).unwrap();
                let again = bench.order_in(day_file, &some, revoke).unwrap();
                assert_eq!((again.orders_changed, again.rows), (0, 0), "{what}");
                assert_eq!(ordered_runs(&events_on(&bench.disk)), expected, "{what}");
            }
            if matches!(step, Step::Quiet) {
                bench.quiet().unwrap();
                let fault = fault_with_orders(&bench.disk, &pairs_of(&steps[..=n]));
                assert_eq!(fault, None, "{what}");
                check_contradicted(&bench, &what);
            }
        }
        bench.quiet().unwrap();
        assert_eq!(
            fault_with_orders(&bench.disk, &pairs_of(&steps)),
            None,
            "seed {seed}"
        );
        // The state is lost: the orders and the retracted rows are those of the ledger, and nothing is written twice.
        let ledger = bench.disk.read(LEDGER);
        bench.engine = None;
        for file in ["state.redb", "journal"] {
            bench.disk.remove(format!("{STATE_DIR}/{file}"));
        }
        bench.open().unwrap();
        bench.quiet().unwrap();
        let after = bench.disk.read(LEDGER).unwrap();
        let more = String::from_utf8_lossy(&after[ledger.unwrap().len()..]).into_owned();
        // A line may refuse a row of another day's file of the same name until that claims it.
        let names = day_files.iter().map(|path| path.rsplit('/').next());
        if names.collect::<BTreeSet<_>>().len() == day_files.len() {
            assert_eq!(more, "", "seed {seed}: events after a lost state");
        }
        let fault = fault_with_orders(&bench.disk, &pairs_of(&steps));
        assert_eq!(fault, None, "seed {seed}: after a lost state, {more}");
        check_contradicted(&bench, &format!("seed {seed}, after a lost state"));
        for (run, day_file) in &expected {
            let day_file = Some(day_file.as_str()).filter(|day_file| !day_file.is_empty());
            bench.order_in(day_file, &[run], true).unwrap();
        }
        bench.quiet().unwrap();
        let naive = naive_batch(&pairs_of(&steps), false);
        assert_eq!(bench.ledger_fault(&naive), None, "seed {seed}, all ended");
    }
}

/// A lake in which the runs have a row each in two day-files, and wait in a third one.
fn lake_of(runs: &[&str]) -> Vec<Step> {
    let step = |stream, pair: &str, bytes: String| Step::Append {
        stream,
        pair: pair.to_owned(),
        bytes: bytes.into_bytes(),
    };
    let mut steps = Vec::new();
    for run in runs {
        for pair in [PAIR, OTHER] {
            steps.push(step(Stream::Evidence, pair, evidence(run)));
            steps.push(step(Stream::Scored, pair, scored(run)));
        }
        steps.push(step(Stream::Scored, "2026/01/03/late.jsonl", scored(run)));
    }
    steps
}

fn late_evidence(runs: &[&str]) -> Step {
    Step::Append {
        stream: Stream::Evidence,
        pair: "2026/01/03/late.jsonl".to_owned(),
        bytes: runs
            .iter()
            .map(|run| evidence(run))
            .collect::<String>()
            .into_bytes(),
    }
}

/// A copy of a bench on a copy of its disk.
fn fork(from: &SimBench) -> SimBench {
    let mut bench = SimBench::new(from.disk.fork());
    // Each run is committed in a frame of its own.
    bench.batch_bytes = 1;
    bench.open().unwrap();
    bench.quiet().unwrap();
    bench
}

/// Runs an order on a disk that fails at its `n`-th call; returns whether it was answered, or `None` if no call failed.
fn order_into(bench: &mut SimBench, runs: &[&str], revoke: bool, n: u64) -> Option<bool> {
    let answered = bench.order(runs, revoke).is_ok();
    let is_whole = answered && !bench.disk.is_dead() && bench.disk.failed_calls().is_empty();
    assert!(n < 10_000, "an order of {n} calls");
    (!is_whole).then_some(answered)
}

const RUNS: [&str; 3] = ["a", "b", "c"];

fn prepared(revoke: bool) -> (SimBench, Vec<Step>) {
    let mut steps = lake_of(&RUNS);
    let mut bench = SimBench::new(SimDisk::new());
    bench.open().unwrap();
    for step in &steps {
        bench.step(step, true).unwrap();
    }
    if revoke {
        bench.order(&RUNS, false).unwrap();
        // The evidence of waiting lines comes while the order is in force.
        steps.push(late_evidence(&RUNS));
        bench.step(&steps[steps.len() - 1], true).unwrap();
    }
    bench.quiet().unwrap();
    bench.engine.as_mut().unwrap().checkpoint().unwrap();
    bench.engine = None;
    (bench, steps)
}

#[test]
fn a_crash_at_any_call_of_an_order_leaves_each_run_ordered_or_not() {
    for revoke in [false, true] {
        let (before, steps) = prepared(revoke);
        let mut whole = 0;
        for n in 0.. {
            let mut crashed = fork(&before);
            crashed.disk.crash_at(n);
            let Some(answered) = order_into(&mut crashed, &RUNS, revoke, n) else {
                assert!(n > 3, "an order of {n} calls");
                break;
            };
            crashed.engine = None;
            for fate in Fate::ALL {
                let what = format!("revoke {revoke}, crash at call {n}, writes {fate:?}");
                let mut found = SimBench::new(crashed.disk.power_cut(n, fate));
                found
                    .open()
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                found.quiet().unwrap();
                assert_eq!(
                    fault_with_orders(&found.disk, &pairs_of(&steps)),
                    None,
                    "{what}"
                );
                let ordered = ordered_runs(&events_on(&found.disk)).len();
                let done = if revoke { 0 } else { RUNS.len() };
                if answered {
                    assert_eq!(ordered, done, "{what}: it was answered");
                }
                whole += usize::from(ordered == done);
                // A repetition completes it; the evidence of waiting lines comes later.
                found.order(&RUNS, revoke).unwrap();
                let late = [&steps[..], &[late_evidence(&RUNS)]].concat();
                let all = if revoke { &steps } else { &late };
                if !revoke {
                    found.step(&late[late.len() - 1], true).unwrap();
                }
                found.quiet().unwrap();
                assert_eq!(
                    fault_with_orders(&found.disk, &pairs_of(all)),
                    None,
                    "{what}"
                );
                assert_eq!(ordered_runs(&events_on(&found.disk)).len(), done, "{what}");
            }
        }
        assert!(whole > 0, "no crash left the whole order");
    }
}

#[test]
fn an_error_at_any_call_of_an_order_loses_no_part_of_it() {
    for (revoke, errno) in [(false, ENOSPC), (true, ENOSPC), (false, EIO), (true, EIO)] {
        let (before, steps) = prepared(revoke);
        for n in 0.. {
            let what = format!("revoke {revoke}, errno {errno} at call {n}");
            let mut bench = fork(&before);
            bench.disk.fail_at(n, Fault::once(errno));
            if order_into(&mut bench, &RUNS, revoke, n).is_none() {
                break;
            }
            bench.disk.heal();
            let mut tries = 0;
            // As the operator who repeats the command; the process ends where an error is not transient.
            while let Err(error) = bench.order(&RUNS, revoke) {
                tries += 1;
                assert!(tries < 4, "{what}: {error}");
                bench
                    .open()
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
            }
            bench
                .quiet()
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(
                fault_with_orders(&bench.disk, &pairs_of(&steps)),
                None,
                "{what}"
            );
            let ordered = ordered_runs(&events_on(&bench.disk)).len();
            assert_eq!(ordered, if revoke { 0 } else { RUNS.len() }, "{what}");
        }
    }
}

/// The rows of runs that no line owns any more, or not yet, are taken out like the others.
#[test]
fn rows_that_no_line_owns_are_ordered_out_and_restored() {
    let bench = Bench::new();
    bench.append_run(PAIR, "stays");
    bench.append_run(OTHER, "rewritten");
    bench.once();
    let path = bench.path(Stream::Scored, OTHER);
    fs::write(&path, scored("another")).unwrap();
    bench.once();
    for day_file in [None, Some(OTHER)] {
        let order = |more: &[&str]| {
            let limit = day_file.map_or(vec![], |day_file| vec!["--day-file", day_file]);
            let arguments = [&["retract", "rewritten", "--json"][..], &limit, more].concat();
            bench.ask(&arguments)
        };
        let dry = order(&["--reason", "r", "--dry-run"]);
        assert_eq!((&dry["rows"], &dry["orders"]), (&1.into(), &0.into()));
        assert_eq!(order(&["--reason", "r"])["rows"], 1);
        assert_eq!(bench.effective_runs(), ["stays"]);
        bench.run(&mut bench.command(&["verify"])).check(0, &[]);
        assert_eq!(order(&["--revoke"])["rows"], 1);
        assert_eq!(bench.effective_runs(), ["stays", "rewritten"]);
    }
    // A run that is refused later stays out when its order ends.
    bench.ask(&["retract", "rewritten", "--reason", "r", "--json"]);
    bench.append(Stream::Scored, OTHER, scored_as("rewritten", "rejected"));
    bench.once();
    assert_eq!(
        bench.ask(&["retract", "rewritten", "--revoke", "--json"])["rows"],
        0
    );
    assert_eq!(bench.effective_runs(), ["stays"]);

    // The state is lost while the day-files are away: an order on one of them finds the row when its line claims it.
    bench.remove_state();
    let away = bench.sibling("away");
    fs::rename(bench.path(Stream::Scored, PAIR), &away).unwrap();
    bench.once();
    bench.ask(&[
        "retract",
        "stays",
        "--reason",
        "r",
        "--unseen",
        "--day-file",
        PAIR,
        "--json",
    ]);
    fs::rename(&away, bench.path(Stream::Scored, PAIR)).unwrap();
    bench.once();
    assert_eq!(bench.effective_runs(), [""; 0]);
    bench.run(&mut bench.command(&["verify"])).check(0, &[]);
}

/// The end of an order on a run that waits has the evidence of its pair read again, with its malformed lines.
#[test]
fn malformed_lines_are_listed_once_when_the_evidence_is_read_again() {
    let bench = Bench::new();
    bench.append(Stream::Scored, PAIR, "{\n");
    bench.append_run(PAIR, "a");
    bench.append(Stream::Scored, PAIR, scored("waits"));
    bench.append(Stream::Evidence, PAIR, "[\n");
    bench.append(Stream::Evidence, PAIR, evidence("another"));
    bench.append(Stream::Evidence, PAIR, "]\n");
    let letters = || {
        let listed = bench.ask(&["dead-letters", "--json"]);
        let letters = listed["letters"].as_array().unwrap().iter();
        let streams = letters.map(|letter| letter["stream"].as_str().unwrap().to_owned());
        streams.collect::<Vec<_>>()
    };
    let daemon = bench.start_caught_up();
    for _ in 0..2 {
        bench.ask(&["retract", "waits", "--reason", "r", "--json"]);
        bench.ask(&["retract", "waits", "--revoke", "--json"]);
        bench.ask(&["wait", "--fresh", "--json"]);
        assert_eq!(bench.status()["evidence"]["malformed"], 2);
        assert_eq!(letters(), ["scored", "evidence", "evidence"]);
    }
    // A query of the files reads the same of the journal.
    drop(daemon);
    assert_eq!(letters(), ["scored", "evidence", "evidence"]);
}

/// The order is the only thing that is known of its run.
#[test]
fn an_order_on_a_run_that_never_arrived_can_be_ended() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    bench.once();
    for day_file in [&[][..], &["--day-file", OTHER]] {
        let retract = |more: &[&str]| {
            let arguments = [&["retract", "never", "--json"][..], day_file, more].concat();
            bench.run(&mut bench.command(&arguments))
        };
        retract(&["--reason", "r", "--unseen"]).check(0, &[]);
        let ended = retract(&["--revoke"]);
        ended.check(0, &[]);
        let result: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(
            (&result["orders_changed"], &result["orders"]),
            (&1.into(), &0.into())
        );
        retract(&["--revoke"]).check(1, &["no line has the run"]);
    }
}

/// A rebuild names the order as the reason why a row is dropped, and needs no option for it, also where no state knows of
/// which day-file the row is. A row whose line is gone is another matter.
#[test]
fn a_rebuild_without_a_state_names_the_order_that_drops_a_row() {
    for limit in [&[][..], &["--day-file", PAIR]] {
        let bench = Bench::new();
        for run in ["a", "gone"] {
            bench.append_run(PAIR, run);
            bench.append_run("2026/01/02/audits.jsonl", run);
        }
        bench.once();
        let order = ["retract", "a", "--reason", "r", "--json"];
        bench.ask(&[&order[..], limit].concat());
        bench.remove_state();
        let dry = bench.ask(&["rebuild", "--dry-run"]);
        let dropped = if limit.is_empty() { 2 } else { 1 };
        assert_eq!(dry["rows_dropped"], dropped, "{dry}");
        assert_eq!(dry["refused"], Value::Null, "{dry}");
        assert_eq!(dry["dropped"][0]["reason"], "ordered", "{dry}");
        let path = bench.path(Stream::Scored, PAIR);
        let lines = fs::read_to_string(&path).unwrap();
        fs::write(&path, lines.replace(&scored("gone"), "")).unwrap();
        let dry = bench.ask(&["rebuild", "--dry-run"]);
        assert_eq!(dry["refused"], "line_gone", "{dry}");
        bench.ask(&["rebuild", "--drop-missing"]);
        bench.once();
        assert_eq!(bench.row_count(), 3 - dropped, "{limit:?}");
        bench.run(&mut bench.command(&["verify"])).check(0, &[]);
    }
}

/// A row is retracted once, for the cause that came first, and restored when no cause is left.
#[test]
fn an_order_and_a_rejection_of_one_row_are_one_retraction() {
    for order_first in [true, false] {
        let bench = Bench::new();
        bench.append_run(PAIR, "a");
        bench.once();
        let accepted = fs::read(bench.path(Stream::Scored, PAIR)).unwrap();
        let order = || bench.ask(&["retract", "a", "--reason", "r", "--json"])["rows"].clone();
        let reject = || {
            bench.append(Stream::Scored, PAIR, scored_as("a", "rejected"));
            bench.once();
        };
        if order_first {
            assert_eq!(order(), 1);
            reject();
        } else {
            reject();
            assert_eq!(order(), 0);
        }
        let outline = || -> Vec<(String, String)> {
            let events = read_ledger(&bench.export_bytes(), &ledger_bytes(&bench)).unwrap();
            let rows = events.into_iter().filter(|event| event.row.is_some());
            rows.map(|event| (event.op, event.cause)).collect()
        };
        let cause = if order_first { "operator" } else { "rejected" };
        let out = ("retract".to_owned(), cause.to_owned());
        assert_eq!(outline(), std::slice::from_ref(&out));
        let ended = bench.ask(&["retract", "a", "--revoke", "--json"]);
        assert_eq!((&ended["rows"], &ended["orders"]), (&0.into(), &0.into()));
        assert_eq!(outline(), std::slice::from_ref(&out));
        bench.run(&mut bench.command(&["verify"])).check(0, &[]);
        fs::write(bench.path(Stream::Scored, PAIR), accepted).unwrap();
        bench.once();
        let back = ("restore".to_owned(), cause.to_owned());
        assert_eq!(outline(), [out, back]);
        assert_eq!(bench.effective_runs(), ["a"]);
    }
}

/// The path of the real ledger.
/// The verdicts are those of the list in their order, whichever of order, line and evidence comes last.
#[test]
fn an_order_comes_before_role_and_text_whatever_arrives_last() {
    let bad_evidence = [
        evidence("r").replace("executor", "extractor"),
        evidence_with("r", " "),
        evidence("r"),
    ];
    let order = |bench: &Bench, flags: &[&str]| {
        let arguments = [&["retract", "r"], flags].concat();
        bench.run(&mut bench.command(&arguments)).check(0, &[]);
    };
    for text in bad_evidence {
        for last in ["order", "line", "evidence"] {
            let bench = Bench::new();
            let steps: [(&str, &dyn Fn()); 3] = [
                ("order", &|| order(&bench, &["--unseen", "--reason", "r"])),
                ("line", &|| bench.append(Stream::Scored, PAIR, scored("r"))),
                ("evidence", &|| bench.append(Stream::Evidence, PAIR, &text)),
            ];
            let (at_last, first): (Vec<_>, Vec<_>) =
                steps.iter().partition(|(what, _)| *what == last);
            bench.append_run(OTHER, "other");
            bench.once();
            for (_, step) in first.iter().chain(&at_last) {
                step();
                bench.once();
            }
            let figures = bench.status();
            let row = u64::from(last == "order" && text == evidence("r"));
            assert_eq!(figures["scored"]["ordered"], 1 - row, "{last} last: {text}");
            let explained = bench.ask(&["explain", "r", "--json"]);
            let verdict = if row > 0 { "exported" } else { "ordered" };
            assert_eq!(
                explained["lines"][0]["verdict"], verdict,
                "{last} last: {text}"
            );
            assert_eq!(bench.effective_runs(), ["other"]);
            bench.run(&mut bench.command(&["verify"])).check(0, &[]);
            order(&bench, &["--revoke"]);
            bench.once();
            assert_eq!(
                bench.status()["scored"]["ordered"],
                0,
                "{last} last: {text}"
            );
            bench.run(&mut bench.command(&["verify"])).check(0, &[]);
        }
    }
}

fn ledger_bytes(bench: &Bench) -> Vec<u8> {
    fs::read(bench.export().with_file_name("sft_retractions.jsonl")).unwrap()
}

/// What an operator does with orders, by the running daemon and without one.
#[test]
fn orders_are_given_listed_and_ended_with_a_daemon_and_without() {
    for with_daemon in [true, false] {
        let bench = Bench::new();
        bench.append_run(PAIR, "a");
        bench.append_run(OTHER, "a");
        bench.append_run(PAIR, "b");
        bench.append(Stream::Scored, PAIR, scored("waits"));
        let mut daemon = bench.start_caught_up();
        bench.wait_rows(&mut daemon, 3);
        let daemon = match with_daemon {
            true => Some(daemon),
            false => {
                bench.stop(daemon);
                None
            }
        };
        let before = ledger_bytes(&bench);
        for refused in [&["--reason", " "][..], &["--reason", ""]] {
            let arguments = [&["retract", "a"][..], refused].concat();
            bench
                .run(&mut bench.command(&arguments))
                .check(1, &["needs a reason", "--reason TEXT"]);
        }
        bench
            .run(&mut bench.command(&["retract", "nothing", "--reason", "r"]))
            .check(1, &["no line has the run \"nothing\"", "--unseen"]);
        let dry = bench.ask(&["retract", "a", "b", "--reason", "r", "--dry-run", "--json"]);
        assert_eq!(
            (&dry["rows"], &dry["orders_changed"]),
            (&3.into(), &0.into())
        );
        assert!(
            ledger_bytes(&bench) == before,
            "a dry run and refusals change nothing"
        );

        let of_day = bench.ask(&[
            "retract",
            "a",
            "--reason",
            "r",
            "--day-file",
            OTHER,
            "--json",
        ]);
        assert_eq!((&of_day["rows"], &of_day["orders"]), (&1.into(), &1.into()));
        assert_eq!(bench.effective_runs(), ["a", "b"]);
        let all = [
            "retract",
            "a",
            "waits",
            "--reason",
            "wrong license",
            "--json",
        ];
        assert_eq!(bench.ask(&all)["rows"], 1);
        let once = ledger_bytes(&bench);
        let again = bench.ask(&all);
        assert_eq!(
            (&again["rows"], &again["orders_changed"]),
            (&0.into(), &0.into())
        );
        assert!(ledger_bytes(&bench) == once, "a repetition changes nothing");
        assert_eq!(bench.effective_runs(), ["b"]);
        let list = bench.ask(&["retract", "--list", "--json"]);
        let listed = list.as_array().unwrap().iter();
        let listed: Vec<_> = listed
            .map(|order| ["run_id", "day_file", "reason"].map(|key| order[key].as_str().unwrap()))
            .collect();
        let expected = [
            ["a", "", "wrong license"],
            ["a", OTHER, "r"],
            ["waits", "", "wrong license"],
        ];
        assert_eq!(listed, expected);
        let status = bench.status();
        let figures = ["rows", "orders"].map(|key| status["retractions"][key].as_u64().unwrap());
        assert_eq!(figures, [2, 3]);
        let verified = bench.ask(&["verify"]);
        assert_eq!(
            (&verified["retracted"], &verified["ordered"]),
            (&2.into(), &2.into())
        );

        // One order of two is ended: the other one still keeps the rows of its day-file out.
        bench.append(Stream::Evidence, PAIR, evidence("waits"));
        assert_eq!(
            bench.ask(&["retract", "a", "waits", "--revoke", "--json"])["rows"],
            1
        );
        match daemon {
            None => _ = bench.once(),
            Some(mut daemon) => {
                bench.wait_rows(&mut daemon, 4);
                // Killed right after an answer: it was durable.
                bench.ask(&["retract", "b", "--reason", "last", "--json"]);
                daemon.kill_9().unwrap();
                bench.once();
                bench.ask(&["retract", "b", "--revoke", "--json"]);
            }
        }
        let mut runs = bench.effective_runs();
        runs.sort();
        assert_eq!(runs, ["a", "b", "waits"]);
        bench.run(&mut bench.command(&["verify"])).check(0, &[]);
    }
}

/// A run that is ordered before it arrives earns no row, and orders outlive the state and a rebuild.
#[test]
fn orders_outlive_the_state_and_a_rebuild_and_the_batch_honours_them() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    bench.append_run(PAIR, "b");
    let mut daemon = bench.start_caught_up();
    bench.ask(&[
        "retract", "b", "later", "--reason", "r", "--unseen", "--json",
    ]);
    bench.append_run(OTHER, "later");
    // It is in a new directory, which a probe in another one may overtake.
    bench.wait_for(&mut daemon, "the later run is refused", || {
        let explained = bench.run(&mut bench.command(&["explain", "later"]));
        explained.stdout.contains("ordered")
    });
    bench.probe(&mut daemon);
    bench.stop(daemon);
    let explained = bench.run(&mut bench.command(&["explain", "later"]));
    assert!(explained.stdout.contains("ordered"), "{}", explained.stdout);
    let orders = bench.ask(&["retract", "--list", "--json"]);
    let rows = bench.effective_runs();
    assert_eq!(rows.len(), 2);
    let batch = |more: &[&str]| {
        let arguments = [&["export", "--output", "-"][..], more].concat();
        let ended = bench.run(&mut bench.command(&arguments));
        ended.check(0, &[]);
        ended
            .stdout
            .lines()
            .filter(|line| line.contains("source_run_id"))
            .count()
    };
    assert_eq!(batch(&[]), 2);
    assert_eq!(batch(&["--effective"]), 2);
    assert_eq!(batch(&["--dialect", "go"]), 4);

    bench.remove_state();
    bench.once();
    assert_eq!(bench.effective_runs(), rows);
    assert_eq!(bench.ask(&["retract", "--list", "--json"]), orders);
    bench.run(&mut bench.command(&["verify"])).check(0, &[]);

    // A rebuild leaves the row of the ordered run out, and names the reason.
    let dry = bench.ask(&["rebuild", "--dry-run"]);
    assert_eq!(
        (&dry["rows_dropped"], &dry["refused"]),
        (&1.into(), &Value::Null),
        "{dry}"
    );
    assert_eq!(dry["dropped"][0]["reason"], "ordered", "{dry}");
    bench.ask(&["rebuild"]);
    assert_eq!(bench.row_count(), 2);
    let runs_of = |orders: &Value| -> Vec<Value> {
        orders
            .as_array()
            .unwrap()
            .iter()
            .map(|order| order["run_id"].clone())
            .collect()
    };
    assert_eq!(
        runs_of(&bench.ask(&["retract", "--list", "--json"])),
        runs_of(&orders)
    );
    bench.run(&mut bench.command(&["verify"])).check(0, &[]);
    // Ended, both runs have their rows.
    bench.ask(&["retract", "b", "later", "--revoke", "--json"]);
    bench.once();
    assert_eq!(bench.row_count(), 4);
    bench.assert_batch();
    bench.run(&mut bench.command(&["verify"])).check(0, &[]);
}

/// Many runs of a file, and of standard input: the memory of daemon and command is bounded.
#[test]
fn a_hundred_thousand_runs_from_a_file_take_bounded_memory() {
    const RUNS: usize = 100_000;
    let bench = Bench::new();
    let known: Vec<String> = (0..2_000).map(|n| format!("known run {n}")).collect();
    bench.append(
        Stream::Evidence,
        PAIR,
        known.iter().map(|run| evidence(run)).collect::<String>(),
    );
    bench.append(
        Stream::Scored,
        PAIR,
        known.iter().map(|run| scored(run)).collect::<String>(),
    );
    let mut daemon = bench.start_caught_up();
    bench.wait_rows(&mut daemon, known.len());
    let unseen = (known.len()..RUNS).map(|n| format!("a run of some other lake, number {n}"));
    let ids: Vec<String> = known.iter().cloned().chain(unseen).collect();
    let list = bench.sibling("ids");
    fs::write(&list, ids.join("\n")).unwrap();
    let list = list.to_str().unwrap();
    let ended = bench.run(&mut bench.command(&[
        "retract", "--from", list, "--reason", "r", "--unseen", "--json",
    ]));
    ended.check(0, &[]);
    let result: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(result["orders_changed"], RUNS);
    assert_eq!(result["rows"], known.len());
    let daemon_kib = memory_kib_max(daemon.pid());
    eprintln!("command {} KiB, daemon {daemon_kib} KiB", ended.memory_kib);
    assert!(daemon_kib.max(ended.memory_kib) < MEMORY_KIB_MAX);
    assert_eq!(bench.effective_runs().len(), 0);

    let mut command = bench.command(&["retract", "--from", "-", "--revoke", "--json"]);
    let output = output_with_stdin(&mut command, &fs::read(list).unwrap());
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&result["orders"], &result["rows"]),
        (&0.into(), &known.len().into())
    );
    assert_eq!(bench.effective_runs().len(), known.len());
    bench.stop(daemon);
    bench.run(&mut bench.command(&["verify"])).check(0, &[]);
}

#[test]
fn a_reader_of_the_export_may_list_orders_and_give_none() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    let refused = |daemon: &str| {
        let ended = bench.run(&mut bench.as_unprivileged(&["retract", "a", "--reason", "r"]));
        assert_eq!(ended.status.code(), Some(1), "{daemon}: {}", ended.stderr);
        assert!(ended.stderr.contains("fix:"), "{daemon}: {}", ended.stderr);
        ended.stderr
    };
    let daemon = bench.start_caught_up();
    bench.ask(&["retract", "a", "--reason", "of the owner", "--json"]);
    let before = ledger_bytes(&bench);
    eprintln!("{}", refused("running"));
    let list = bench.run(&mut bench.as_unprivileged(&["retract", "--list"]));
    list.check(0, &[]);
    assert!(list.stdout.contains("of the owner"), "{}", list.stdout);
    bench.stop(daemon);
    eprintln!("{}", refused("stopped"));
    assert!(ledger_bytes(&bench) == before);
}

/// After the loss of the state the day of a row whose day-file is deleted is not known: an order that is limited to a
/// day-file takes the rows of its name out, and its end restores them.
#[test]
fn an_order_on_a_deleted_day_is_given_and_ended_after_the_loss_of_the_state() {
    const SAME_NAME: &str = "2026/01/03/audits.jsonl";
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    bench.append_run(OTHER, "kept");
    bench.append(Stream::Evidence, SAME_NAME, evidence("a"));
    let line = scored("a").replace("hash of a", "another hash");
    bench.append(Stream::Scored, SAME_NAME, line);
    bench.once();
    let lose_the_state = || {
        bench.remove_state();
        bench.once().check(0, &[]);
    };
    let rows = |day_file: &str, more: &[&str]| {
        let arguments = [&["retract", "a", "--json", "--day-file", day_file], more].concat();
        let planned = bench.ask(&[&arguments[..], &["--dry-run"]].concat());
        let done = bench.ask(&arguments);
        assert_eq!(planned["rows"], done["rows"], "{day_file}, {more:?}");
        done["rows"].as_u64().unwrap()
    };
    let order = |day_file: &str| rows(day_file, &["--reason", "r"]);
    let revoke = |day_file: &str| rows(day_file, &["--revoke"]);
    let effective = || {
        let mut runs = bench.effective_runs();
        runs.sort();
        runs
    };

    assert_eq!(order(PAIR), 1);
    for stream in [Stream::Scored, Stream::Evidence] {
        fs::remove_file(bench.path(stream, PAIR)).unwrap();
    }
    bench.once();
    lose_the_state();
    assert_eq!(effective(), ["a", "kept"]);
    assert_eq!(revoke(PAIR), 1);
    assert_eq!(effective(), ["a", "a", "kept"]);
    assert_eq!(order(PAIR), 1);
    assert_eq!(effective(), ["a", "kept"]);

    // Each of two orders on the name may be the one that keeps the row out.
    assert_eq!(order(SAME_NAME), 1);
    assert_eq!(revoke(PAIR), 0);
    assert_eq!(effective(), ["kept"]);
    assert_eq!(revoke(SAME_NAME), 2);
    assert_eq!(effective(), ["a", "a", "kept"]);
    bench.run(&mut bench.command(&["verify"])).check(0, &[]);

    // While the other day is away too, the row of either may be meant.
    let (there, away) = (bench.path(Stream::Scored, SAME_NAME), bench.sibling("away"));
    fs::rename(&there, &away).unwrap();
    lose_the_state();
    assert_eq!(order(PAIR), 2);
    assert_eq!(effective(), ["kept"]);
    fs::rename(&away, &there).unwrap();
    bench.once().check(0, &[]);
    assert_eq!(effective(), ["a", "kept"]);
    bench.run(&mut bench.command(&["verify"])).check(0, &[]);
}
