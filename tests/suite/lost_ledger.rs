//! A retraction ledger that is lost, cut or damaged while the state still has its standing orders and its rows that are out:
//! they outlive each way out, on the real disk and over crashes of the simulated one.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use distilld::recovery::rebuild::rebuild_state;
use serde_json::Value;

use crate::support::bench::{Bench as SimBench, EXPORT, LEDGER, ROOT};
use crate::support::lake_gen::{Step, Stream};
use crate::support::ledger::read_ledger;
use crate::support::process::{Bench, evidence, scored, scored_as};
use crate::support::sim_disk::{Fate, SimDisk};

const PAIR: &str = "2026/01/01/audits.jsonl";
/// Of the same name: the day of a row is not in it.
const GONE: &str = "2026/01/02/audits.jsonl";
const WAYS_OUT: [&[&str]; 3] = [
    &["rebuild"],
    &["rebuild", "--effective"],
    &["rebuild", "--state-only"],
];

/// What happens to the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Missing,
    Emptied,
    /// Only the first line is left.
    Cut,
    /// The lines that end the order on `back` are cut off.
    BeforeTheRevoke,
    /// The line of the order on `a` cannot be read.
    Damaged,
    OfAnotherLake,
}

const LOSSES: [Loss; 6] = [
    Loss::Missing,
    Loss::Emptied,
    Loss::Cut,
    Loss::BeforeTheRevoke,
    Loss::Damaged,
    Loss::OfAnotherLake,
];

impl Loss {
    /// The number of orders whose reason is lost.
    fn without_reason(self) -> u64 {
        match self {
            Loss::BeforeTheRevoke => 0,
            Loss::Damaged => 1,
            _ => 3,
        }
    }

    fn happen(self, bench: &Bench) {
        let path = ledger_path(bench);
        let ledger = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = ledger.split_inclusive('\n').collect();
        let left = match self {
            Loss::Missing => return fs::remove_file(path).unwrap(),
            Loss::Emptied => String::new(),
            Loss::Cut => lines[0].to_owned(),
            Loss::BeforeTheRevoke => {
                let revoke = lines.iter().position(|line| line.contains("\"revoke\""));
                lines[..revoke.unwrap()].concat()
            }
            Loss::Damaged => ledger.replacen("\"order\"", "\"0rder\"", 1),
            Loss::OfAnotherLake => {
                let other = Bench::new();
                other.append_run(PAIR, "a");
                other.once();
                fs::read_to_string(ledger_path(&other)).unwrap()
            }
        };
        fs::write(path, left).unwrap();
    }
}

fn ledger_path(bench: &Bench) -> PathBuf {
    bench.export().with_file_name("sft_retractions.jsonl")
}

/// A lake without a daemon, with an order on `a`, one on `b` in its day-file, one on a run that never arrived, and one on
/// `back` that was ended.
fn lake_with_orders() -> Bench {
    let bench = Bench::new();
    for run in ["a", "b", "back", "kept"] {
        bench.append_run(PAIR, run);
    }
    bench.once();
    let order = |args: &[&str]| bench.ask(&[&["retract", "--json"], args].concat());
    order(&["a", "--reason", "consent withdrawn"]);
    order(&["b", "--reason", "wrong license", "--day-file", PAIR]);
    order(&["never", "--reason", "a promise", "--unseen"]);
    order(&["back", "--reason", "an error"]);
    order(&["back", "--revoke"]);
    bench
}

/// Returns the runs of the effective rows in the order of their bytes.
fn effective(bench: &Bench) -> Vec<String> {
    let mut runs = bench.effective_runs();
    runs.sort();
    runs
}

/// Returns run, day-file and reason of each order in force.
fn listed(bench: &Bench) -> Vec<[String; 3]> {
    let list = bench.ask(&["retract", "--list", "--json"]);
    let list = list.as_array().unwrap().iter();
    list.map(|order| {
        ["run_id", "day_file", "reason"].map(|key| order[key].as_str().unwrap().to_owned())
    })
    .collect()
}

#[test]
fn the_orders_that_a_state_has_outlive_the_loss_of_their_ledger() {
    for loss in LOSSES {
        for way_out in WAYS_OUT {
            let what = format!("{loss:?}, {way_out:?}");
            let bench = lake_with_orders();
            let before = listed(&bench);
            loss.happen(&bench);
            let stopped = bench.run(&mut bench.command(&["run", "--once"]));
            stopped.check(1, &["retraction ledger", "fix: ", "rebuild --state-only"]);
            assert!(!stopped.stderr.contains("restore the export;"), "{what}");
            let planned = (!way_out.contains(&"--state-only"))
                .then(|| bench.ask(&[way_out, &["--dry-run"]].concat()));
            let ended = bench.run(&mut bench.command(way_out));
            ended.check(0, &[]);
            let done: Value = serde_json::from_str(&ended.stdout).unwrap();
            if let Some(planned) = planned {
                for key in ["rows_after", "dropped", "orders", "orders_without_reason"] {
                    assert_eq!(planned[key], done[key], "{what}: {key}");
                }
            }
            let figures = [&done["orders"], &done["orders_without_reason"]];
            let lost = loss.without_reason();
            assert_eq!(figures, [3, lost], "{what}");
            assert_eq!(done["orders_unknown"], false, "{what}");
            let is_told = ended.stderr.contains("their reasons are lost");
            assert_eq!(is_told, lost > 0, "{what}: {}", ended.stderr);

            bench.once().check(0, &[]);
            assert_eq!(effective(&bench), ["back", "kept"], "{what}");
            let after = listed(&bench);
            let keys = |orders: &[[String; 3]]| -> Vec<_> {
                orders
                    .iter()
                    .map(|[run, day_file, _]| [run.clone(), day_file.clone()])
                    .collect()
            };
            assert_eq!(keys(&after), keys(&before), "{what}");
            let same = after.iter().filter(|order| before.contains(order)).count();
            assert_eq!(same as u64, 3 - lost, "{what}: {after:?}");
            bench.run(&mut bench.command(&["verify"])).check(0, &[]);
            bench.ask(&["retract", "a", "never", "--revoke", "--json"]);
            bench.ask(&["retract", "b", "--day-file", PAIR, "--revoke", "--json"]);
            bench.once().check(0, &[]);
            assert_eq!(effective(&bench), ["a", "b", "back", "kept"], "{what}");
        }
    }
}

/// The ledger has what came after the state: an older copy of the state brings no order back.
/// Without its last lines a ledger is whole in itself: only what wrote it knows that it had more.
#[test]
fn verify_and_plan_fail_where_a_start_would_miss_lines_of_the_ledger() {
    for loss in LOSSES {
        let bench = lake_with_orders();
        bench.run(&mut bench.command(&["verify"])).check(0, &[]);
        bench.run(&mut bench.command(&["plan"])).check(0, &[]);
        loss.happen(&bench);
        let once = bench.run(&mut bench.command(&["run", "--once"]));
        once.check(1, &[]);
        let verified = bench.run(&mut bench.command(&["verify"]));
        verified.check(1, &["ledger: "]);
        let result: Value = serde_json::from_str(&verified.stdout).unwrap();
        assert_eq!(result["ledger"], 1, "{loss:?}: {result}");
        assert_eq!(result["equal"], false, "{loss:?}");
        bench
            .run(&mut bench.command(&["plan"]))
            .check(1, &["fix: "]);
    }
    // A running daemon knows how much it wrote.
    let bench = lake_with_orders();
    let daemon = bench.start_caught_up();
    Loss::BeforeTheRevoke.happen(&bench);
    let verified = bench.run(&mut bench.command(&["verify"]));
    verified.check(1, &["bytes of it were"]);
    daemon.kill_9().unwrap();
}

#[test]
fn a_ledger_that_is_whole_has_the_last_word_over_an_older_state() {
    for way_out in WAYS_OUT {
        let bench = lake_with_orders();
        let files = ["state.redb", "journal"].map(|name| bench.state_dir().join(name));
        let older = files.clone().map(|path| fs::read(path).unwrap());
        bench.ask(&["retract", "a", "--revoke", "--json"]);
        for (path, bytes) in files.iter().zip(older) {
            fs::write(path, bytes).unwrap();
        }
        let done = bench.ask(way_out);
        assert_eq!(
            (&done["orders"], &done["orders_without_reason"]),
            (&2.into(), &0.into())
        );
        bench.once().check(0, &[]);
        assert_eq!(effective(&bench), ["a", "back", "kept"], "{way_out:?}");
    }
}

/// A start that cannot use a state still has its orders.
#[test]
fn a_start_without_a_usable_state_and_without_a_ledger_keeps_the_orders() {
    for loss in [
        Loss::Missing,
        Loss::Emptied,
        Loss::Cut,
        Loss::BeforeTheRevoke,
    ] {
        let bench = lake_with_orders();
        loss.happen(&bench);
        fs::remove_file(bench.state_dir().join("journal")).unwrap();
        bench.once().check(0, &[]);
        assert_eq!(effective(&bench), ["back", "kept"], "{loss:?}");
        assert_eq!(listed(&bench).len(), 3, "{loss:?}");
        bench.run(&mut bench.command(&["verify"])).check(0, &[]);
    }
}

#[test]
fn orders_that_nothing_can_tell_are_reported() {
    for way_out in WAYS_OUT {
        for loss in [Loss::Missing, Loss::Damaged] {
            let bench = lake_with_orders();
            bench.remove_state();
            loss.happen(&bench);
            let ended = bench.run(&mut bench.command(way_out));
            ended.check(
                0,
                &["the standing orders are not known", "distilld retract"],
            );
            let done: Value = serde_json::from_str(&ended.stdout).unwrap();
            assert_eq!(
                done["orders_unknown"], true,
                "{way_out:?}, {loss:?}: {done}"
            );
        }
    }
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    assert_eq!(bench.ask(&["rebuild"])["orders_unknown"], false);
}

/// Adds a day to [`lake_with_orders`] and deletes it: rows that are out by orders, by a later line, and not at all. An order
/// that is limited to the other day does not name the row of this one.
fn delete_a_day(bench: &Bench) {
    for run in ["all", "day", "bad", "well"] {
        bench.append_run(GONE, run);
    }
    bench.append(Stream::Evidence, GONE, evidence("b"));
    let line = scored("b").replace("hash of b", "another hash");
    bench.append(Stream::Scored, GONE, line);
    bench.once();
    bench.append(Stream::Scored, GONE, scored_as("bad", "rejected"));
    bench.once();
    let order =
        |args: &[&str]| bench.ask(&[&["retract", "--reason", "x", "--json"], args].concat());
    order(&["all"]);
    order(&["day", "--day-file", GONE]);
    for stream in [Stream::Scored, Stream::Evidence] {
        fs::remove_file(bench.path(stream, GONE)).unwrap();
    }
    bench.once();
    assert_eq!(effective(bench), ["b", "back", "kept", "well"]);
}

/// No line claims a row of a deleted day-file again, so its retraction is in the new ledger from the start.
#[test]
fn a_row_of_a_deleted_day_stays_out_when_the_ledger_is_lost() {
    for loss in LOSSES {
        for has_journal in [true, false] {
            let what = format!("{loss:?}, journal {has_journal}");
            let bench = lake_with_orders();
            delete_a_day(&bench);
            loss.happen(&bench);
            if !has_journal {
                fs::remove_file(bench.state_dir().join("journal")).unwrap();
            }
            let ended = bench.run(&mut bench.command(&["rebuild", "--state-only"]));
            ended.check(0, &[]);
            assert!(!ended.stderr.contains("effective again"), "{what}");
            for _ in 0..3 {
                assert_eq!(effective(&bench), ["b", "back", "kept", "well"], "{what}");
                read_ledger(
                    &bench.export_bytes(),
                    &fs::read(ledger_path(&bench)).unwrap(),
                )
                .unwrap_or_else(|fault| panic!("{what}: {fault}"));
                bench.once().check(0, &[]);
            }
            bench.run(&mut bench.command(&["verify"])).check(0, &[]);
            bench.ask(&["retract", "all", "--revoke", "--json"]);
            assert_eq!(
                effective(&bench),
                ["all", "b", "back", "kept", "well"],
                "{what}"
            );
        }
    }
}

/// A start that sets the state aside keeps them too.
#[test]
fn a_start_without_a_usable_state_and_without_a_ledger_keeps_rows_out() {
    for loss in [Loss::Missing, Loss::Emptied, Loss::Cut] {
        let bench = Bench::new();
        bench.append_run(PAIR, "kept");
        bench.append_run(GONE, "bad");
        bench.once();
        bench.append(Stream::Scored, GONE, scored_as("bad", "rejected"));
        bench.once();
        for stream in [Stream::Scored, Stream::Evidence] {
            fs::remove_file(bench.path(stream, GONE)).unwrap();
        }
        bench.once();
        loss.happen(&bench);
        fs::remove_file(bench.state_dir().join("journal")).unwrap();
        for _ in 0..2 {
            bench.once().check(0, &[]);
            assert_eq!(effective(&bench), ["kept"], "{loss:?}");
        }
    }
}

/// The state is lost too, and the lines that take rows out are damaged: the orders name their rows, and the command
/// reports that others may return.
#[test]
fn an_order_takes_out_the_rows_that_it_names_where_no_line_does() {
    let bench = lake_with_orders();
    delete_a_day(&bench);
    bench.remove_state();
    let ledger = fs::read_to_string(ledger_path(&bench)).unwrap();
    fs::write(
        ledger_path(&bench),
        ledger.replace("\"retract\"", "\"retracc\""),
    )
    .unwrap();
    let ended = bench.run(&mut bench.command(&["rebuild", "--state-only"]));
    ended.check(0, &["nor the rows that were out", "effective again"]);
    // The order on `b` is limited to the other day, and the day of a row is not in it.
    assert_eq!(effective(&bench), ["back", "bad", "kept", "well"]);
    bench.once().check(0, &[]);
    assert_eq!(effective(&bench), ["back", "bad", "kept", "well"]);
}

/// Without the hashes of the ledger the offsets of the state mean nothing in another export.
#[test]
fn a_state_of_another_export_takes_no_row_out_and_says_so() {
    let bench = lake_with_orders();
    delete_a_day(&bench);
    fs::remove_file(ledger_path(&bench)).unwrap();
    let rows = bench.export_bytes();
    let first = rows.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    fs::write(bench.export(), &rows[first..]).unwrap();
    let ended = bench.run(&mut bench.command(&["rebuild", "--state-only"]));
    ended.check(0, &["rows as out that cannot be found", "effective again"]);
    let left = effective(&bench);
    assert!(
        left.contains(&"well".into()) && left.contains(&"bad".into()),
        "{left:?}"
    );
    assert!(!left.contains(&"all".into()), "{left:?}");
}

fn append(stream: Stream, bytes: String) -> Step {
    append_to(PAIR, stream, bytes)
}

fn append_to(pair: &str, stream: Stream, bytes: String) -> Step {
    Step::Append {
        stream,
        pair: pair.to_owned(),
        bytes: bytes.into_bytes(),
    }
}

/// Returns the runs of the rows that are out on a simulated disk.
fn rows_out(disk: &SimDisk) -> Vec<String> {
    let bytes = |path| disk.read(path).unwrap_or_default();
    let mut out = BTreeMap::new();
    for event in read_ledger(&bytes(EXPORT), &bytes(LEDGER)).unwrap() {
        match event.op.as_str() {
            "retract" => drop(out.insert(event.row, event.run_id)),
            "restore" => drop(out.remove(&event.row)),
            _ => {}
        }
    }
    let mut runs: Vec<_> = out.into_values().collect();
    runs.sort();
    runs
}

/// Returns the runs with an order in force on a simulated disk.
fn ordered(disk: &SimDisk) -> Vec<String> {
    let bytes = |path| disk.read(path).unwrap_or_default();
    let mut runs = Vec::new();
    for event in read_ledger(&bytes(EXPORT), &bytes(LEDGER)).unwrap() {
        match event.op.as_str() {
            "order" => runs.push(event.run_id),
            "revoke" => runs.retain(|run| *run != event.run_id),
            _ => {}
        }
    }
    runs
}

/// The way out is interrupted at any call; it, or a start that succeeds, continues with all orders and all rows that are out.
#[test]
fn a_crash_while_the_state_is_renewed_loses_no_order_and_no_row_that_is_out() {
    let mut base = SimBench::new(SimDisk::new());
    base.open().unwrap();
    for run in ["a", "b", "kept"] {
        base.step(&append(Stream::Evidence, evidence(run)), true)
            .unwrap();
        base.step(&append(Stream::Scored, scored(run)), true)
            .unwrap();
    }
    for (run, category) in [
        ("bad", "accepted"),
        ("gone", "accepted"),
        ("bad", "rejected"),
    ] {
        base.step(&append_to(GONE, Stream::Evidence, evidence(run)), true)
            .unwrap();
        let line = scored_as(run, category);
        base.step(&append_to(GONE, Stream::Scored, line), true)
            .unwrap();
    }
    base.order(&["a", "b", "gone"], false).unwrap();
    base.quiet().unwrap();
    for stream in ["scored-runs", "evidence"] {
        base.disk.remove(format!("{ROOT}/data/{stream}/{GONE}"));
    }
    base.engine.as_mut().unwrap().checkpoint().unwrap();
    base.engine = None;
    let ledger = base.disk.read(LEDGER).unwrap();
    let first = ledger.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for left in [None, Some(&ledger[..first]), Some(&b"{}\n"[..])] {
        match left {
            None => base.disk.remove(LEDGER),
            Some(left) => base.disk.write_file(LEDGER, left),
        }
        let renew = |disk: &SimDisk| {
            let bench = SimBench::new(disk.clone());
            rebuild_state(&bench.setup(), &mut |_, _, _| {})
        };
        for call in 0.. {
            let disk = base.disk.fork();
            disk.crash_at(call);
            let _died = renew(&disk);
            if !disk.is_dead() {
                assert!(call > 10, "{call} calls");
                break;
            }
            for fate in Fate::ALL {
                let what = format!("{left:?}, call {call}, {fate:?}");
                let mut started = SimBench::new(disk.power_cut(call, fate));
                let renewed = disk.power_cut(call, fate);
                if started.open().is_ok() {
                    assert_eq!(
                        ordered(&started.disk),
                        ["a", "b", "gone"],
                        "{what}, started"
                    );
                    let out = rows_out(&started.disk);
                    assert!(
                        out.ends_with(&["bad".into(), "gone".into()]),
                        "{what}: {out:?}"
                    );
                }
                let (_, orders) = renew(&renewed).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(orders.orders, 3, "{what}");
                assert_eq!(ordered(&renewed), ["a", "b", "gone"], "{what}");
                assert_eq!(rows_out(&renewed), ["a", "b", "bad", "gone"], "{what}");
            }
        }
    }
}
