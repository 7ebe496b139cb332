//! `rebuild --effective`: what it leaves out, that it stays out, and what `verify` still finds.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use distilld::batch::pair::{LakeReader, MAX_LINE_BYTES};
use distilld::batch::verify::{ROWS_HELD_MAX, VerifyOptions, VerifyResult, verify};
use distilld::engine::{Engine, OrderRequest};
use distilld::recovery::rebuild::{RebuildError, RebuildOptions, Rebuilt, rebuild};
use fastrand::Rng;
use serde_json::Value;

use crate::rebuild::{
    EXPORT, LEDGER, ROOT, evidence, lake_with_history, put, rebuild_on, rows, run, scored, setup,
    source, try_rebuild,
};
use crate::support::lake_gen::{EvidenceMode, Shape, Stream, pairs_of, script};
use crate::support::ledger::{ledger_fault, read_ledger};
use crate::support::naive::{NaiveBatch, Pairs, naive_batch, read_pairs};
use crate::support::process::Bench;
use crate::support::sim_disk::{Fate, SimDisk};

const EFFECTIVE: RebuildOptions = RebuildOptions {
    dry_run: false,
    drop_missing: false,
    effective: true,
};
const PAIR: &str = "2026/05/01/a.jsonl";

/// Verifies the export, with its differing rows in memory at once and in many slices.
fn verified(disk: &SimDisk) -> VerifyResult {
    let [whole, sliced] = [ROWS_HELD_MAX, 2].map(|rows| verified_with(disk, rows));
    assert_eq!(whole, sliced);
    whole
}

fn verified_with(disk: &SimDisk, rows_held_max: u64) -> VerifyResult {
    let lake = LakeReader::new(disk, Path::new(ROOT)).unwrap();
    let options = VerifyOptions {
        max_line_bytes: MAX_LINE_BYTES,
        settle: Duration::ZERO,
        patience: Duration::ZERO,
        rows_held_max,
    };
    verify(&lake, &options, &mut |_, _, _| {}).unwrap().result
}

fn naive(disk: &SimDisk) -> NaiveBatch {
    naive_batch(&read_pairs(disk, Path::new(ROOT)).unwrap(), false)
}

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort();
    rows
}

fn ledger(disk: &SimDisk) -> (Vec<u8>, Vec<u8>) {
    let [export, ledger] = [EXPORT, LEDGER].map(|path| disk.read(path).unwrap_or_default());
    (export, ledger)
}

/// Returns the number of rows that the ledger has out.
fn retractions(disk: &SimDisk) -> usize {
    let (export, ledger) = ledger(disk);
    let events = read_ledger(&export, &ledger).unwrap();
    events.iter().filter(|event| event.op == "retract").count()
}

fn append(disk: &SimDisk, stream: &str, text: &str) {
    disk.append_durable(source(stream, PAIR), text.as_bytes());
}

/// Appends to each pair later lines of some of its runs, and other evidence of some.
fn score_again(disk: &SimDisk, pairs: &Pairs, rng: &mut Rng) {
    for (pair, (scored_lines, _)) in pairs {
        let text = String::from_utf8_lossy(scored_lines.as_deref().unwrap_or_default());
        let values = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let runs: Vec<String> = values
            .filter_map(|value| Some(value["evidence_run_id"].as_str()?.to_owned()))
            .collect();
        let separator = if text.ends_with('\n') { "" } else { "\n" };
        disk.append_durable(source("scored-runs", pair), separator.as_bytes());
        for _ in 0..rng.usize(0..4) {
            let Some(run) = rng.choice(&runs) else { break };
            let category = rng.choice(["rejected", "accepted", "partially_accepted", "?"]);
            let category = category.unwrap();
            let line = serde_json::json!({"evidence_run_id": run, "category": category});
            let line = format!("{line}\n");
            disk.append_durable(source("scored-runs", pair), line.as_bytes());
            if rng.u8(0..3) == 0 {
                let run = serde_json::json!(run);
                let text = rng.u32(..);
                let line = format!(
                    "\n{{\"run_id\":{run},\"model_role\":\"executor\",\"text\":\"{text}\"}}\n"
                );
                disk.append_durable(source("evidence", pair), line.as_bytes());
            }
        }
    }
}

#[test]
fn the_fresh_export_of_any_lake_has_the_effective_rows_and_no_other_row_returns() {
    let (mut left_out, mut retracted) = (0, 0);
    for seed in 0..16 {
        let mut rng = Rng::with_seed(seed);
        let mode = [EvidenceMode::Unique, EvidenceMode::Free][seed as usize % 2];
        let pairs = pairs_of(&script(seed, &Shape::small(&mut rng, mode)));
        let disk = SimDisk::new();
        put(&disk, &pairs);
        // The old ledger has all of the rows out, some of them, or none.
        if seed % 4 < 2 {
            run(&disk).unwrap();
        }
        score_again(&disk, &pairs, &mut rng);
        if seed % 3 == 0 {
            run(&disk).unwrap();
        }
        let before = rows(&disk).len() as u64;
        // A line that is refused now for other evidence drops its row, with the option and without.
        let options = RebuildOptions {
            drop_missing: mode == EvidenceMode::Free,
            ..EFFECTIVE
        };
        let dry_run = RebuildOptions {
            dry_run: true,
            ..options
        };
        let planned = try_rebuild(&disk, dry_run).unwrap();
        assert_eq!(rows(&disk).len() as u64, before, "seed {seed}");
        let plain = RebuildOptions {
            effective: false,
            ..dry_run
        };
        let plain = try_rebuild(&disk, plain).unwrap();
        let rebuilt = try_rebuild(&disk, options).unwrap();
        let expected = naive(&disk);
        let effective = sorted(expected.effective.clone());
        assert_eq!(sorted(rows(&disk)), effective, "seed {seed}");
        let planned = Rebuilt {
            kept_path: rebuilt.kept_path.clone(),
            ..planned
        };
        assert_eq!(planned, rebuilt, "seed {seed}");
        let gone = rebuilt.rows_kept + rebuilt.rows_replaced + rebuilt.rows_left_out;
        assert_eq!(gone + rebuilt.rows_dropped, before, "seed {seed}");
        assert!(rebuilt.rows_dropped <= plain.rows_dropped, "seed {seed}");
        left_out += expected.counts.contradicted;

        run(&disk).unwrap();
        assert_eq!(sorted(rows(&disk)), effective, "seed {seed}: rows returned");
        assert_eq!(retractions(&disk), 0, "seed {seed}");
        let result = verified(&disk);
        let figures = (result.left_out, result.contradicted, result.earned);
        let counts = (expected.counts.contradicted, 0, expected.counts.exported);
        assert!(result.equal && figures == counts, "seed {seed}: {result:?}");

        score_again(&disk, &pairs, &mut rng);
        run(&disk).unwrap();
        retracted += retractions(&disk);
        let expected = naive(&disk);
        let (export, ledger) = ledger(&disk);
        assert_eq!(ledger_fault(&export, &ledger, &expected), None, "{seed}");
        let result = verified(&disk);
        let contradicted = result.left_out + result.contradicted;
        assert!(result.equal, "seed {seed}: {result:?}");
        assert_eq!(contradicted, expected.counts.contradicted, "seed {seed}");
        assert_eq!(result.contradicted, retractions(&disk) as u64);

        // Without the option every row is there again.
        rebuild_on(&disk);
        assert_eq!(rows(&disk), expected.rows, "seed {seed}");
        let result = verified(&disk);
        assert!(result.equal && result.left_out == 0, "seed {seed}");
    }
    assert!(left_out > 20 && retracted > 20, "{left_out} {retracted}");
}

/// Writes accepted runs with evidence, and lines that overrule two of them.
fn lake() -> SimDisk {
    let disk = SimDisk::new();
    for run in ["kept", "rejected", "rescored"] {
        append(&disk, "scored-runs", &scored(run, "accepted"));
        append(&disk, "evidence", &evidence(run, run));
    }
    run(&disk).unwrap();
    append(&disk, "scored-runs", &scored("rejected", "rejected"));
    append(
        &disk,
        "scored-runs",
        &scored("rescored", "partially_accepted"),
    );
    disk
}

#[test]
fn a_rewritten_day_file_brings_a_row_back_that_nothing_overrules_any_more() {
    let disk = lake();
    // The old ledger does not have the rows out yet.
    let rebuilt = try_rebuild(&disk, EFFECTIVE).unwrap();
    assert_eq!((rebuilt.rows_after, rebuilt.rows_left_out), (2, 2));
    let lines = scored("kept", "accepted") + &scored("rejected", "accepted");
    disk.write_file(source("scored-runs", PAIR), lines.as_bytes());
    disk.settle(source("scored-runs", PAIR));
    run(&disk).unwrap();
    let rows = rows(&disk);
    let of_run = |run: &str| rows.iter().filter(|row| row.contains(run)).count();
    assert_eq!(
        (of_run("\"kept\""), of_run("\"rejected\"")),
        (1, 1),
        "{rows:#?}"
    );
}

fn order(run: &str, revoke: bool) -> OrderRequest {
    OrderRequest {
        run_ids: vec![run.to_owned()],
        reason: "licence".to_owned(),
        day_file: None,
        revoke,
        dry_run: false,
        unseen: false,
    }
}

#[test]
fn rows_that_are_out_for_an_order_are_left_out_and_return_when_it_ends() {
    for options in [EFFECTIVE, RebuildOptions::default()] {
        let disk = lake();
        run(&disk).unwrap();
        let change = |revoke| {
            let (mut engine, _) = Engine::open(setup(&disk)).unwrap();
            engine.order(&order("kept", revoke)).unwrap();
            engine.checkpoint().unwrap();
        };
        change(false);
        let rebuilt = try_rebuild(&disk, options).unwrap();
        let expected = if options.effective { (1, 3) } else { (3, 0) };
        assert_eq!((rebuilt.rows_after, rebuilt.rows_left_out), expected);
        let is_dropped = u64::from(!options.effective);
        assert_eq!(rebuilt.rows_dropped, is_dropped);
        run(&disk).unwrap();
        assert_eq!(rows(&disk).len(), expected.0 as usize);
        assert!(verified(&disk).equal, "{:?}", verified(&disk));
        change(true);
        run(&disk).unwrap();
        assert_eq!(rows(&disk).len(), expected.0 as usize + 1);
        let (export, ledger) = ledger(&disk);
        assert_eq!(ledger_fault(&export, &ledger, &naive(&disk)), None);
        assert!(verified(&disk).equal, "{:?}", verified(&disk));
    }
}

/// A day was copied, so that the rows of both days are equal, and the copy's runs are ordered out. The row that the order
/// drops is the one of the copy, also where another one is out because a later line overrules it.
#[test]
fn an_order_on_the_copy_of_a_day_drops_the_rows_of_the_copy() {
    const COPY: &str = "2026/05/02/a.jsonl";
    for options in [EFFECTIVE, RebuildOptions::default()] {
        for is_overruled in [false, true] {
            let disk = SimDisk::new();
            for pair in [PAIR, COPY] {
                let lines = scored("a1", "accepted") + &scored("a2", "accepted");
                disk.append_durable(source("scored-runs", pair), lines.as_bytes());
                let lines = evidence("a1", "one") + &evidence("a2", "two");
                disk.append_durable(source("evidence", pair), lines.as_bytes());
                run(&disk).unwrap();
            }
            if is_overruled {
                append(&disk, "scored-runs", &scored("a1", "rejected"));
                run(&disk).unwrap();
            }
            let (mut engine, _) = Engine::open(setup(&disk)).unwrap();
            let of_copy = OrderRequest {
                day_file: Some(COPY.to_owned()),
                ..order("a1", false)
            };
            assert_eq!(engine.order(&of_copy).unwrap().rows, 1);
            engine.checkpoint().unwrap();
            drop(engine);
            let rebuilt = try_rebuild(&disk, options).unwrap();
            let figures = (
                rebuilt.rows_after,
                rebuilt.rows_left_out,
                rebuilt.rows_dropped,
            );
            let expected = match (options.effective, is_overruled) {
                (false, _) => (3, 0, 1),
                (true, false) => (3, 1, 0),
                (true, true) => (2, 2, 0),
            };
            assert_eq!(figures, expected, "overruled {is_overruled}");
            run(&disk).unwrap();
            assert!(verified(&disk).equal, "{:?}", verified(&disk));
        }
    }
}

/// The order is in the journal alone if the power was cut before the ledger was written.
#[test]
fn an_order_of_the_journal_survives_a_rebuild_without_a_start_in_between() {
    let base = lake();
    run(&base).unwrap();
    let (mut engine, _) = Engine::open(setup(&base)).unwrap();
    engine.order(&order("kept", false)).unwrap();
    let mut without_line = 0;
    for fate in Fate::ALL {
        let disk = base.power_cut(1, fate);
        let ledger = String::from_utf8(disk.read(LEDGER).unwrap()).unwrap();
        without_line += u64::from(!ledger.contains("licence"));
        try_rebuild(&disk, EFFECTIVE).unwrap();
        run(&disk).unwrap();
        let of_run = |row: &String| row.contains("\"source_run_id\":\"kept\"");
        assert!(!rows(&disk).iter().any(of_run), "{fate:?}");
        let ledger = String::from_utf8(disk.read(LEDGER).unwrap()).unwrap();
        assert!(ledger.contains("licence"), "{fate:?}");
        assert!(verified(&disk).equal, "{fate:?}");
    }
    assert!(without_line > 0);
}

#[test]
fn effective_rows_whose_source_is_gone_are_refused_and_retracted_ones_left_out() {
    let disk = lake();
    run(&disk).unwrap();
    disk.write_file(source("scored-runs", PAIR), b"");
    disk.settle(source("scored-runs", PAIR));
    let refused = try_rebuild(&disk, EFFECTIVE);
    let Err(RebuildError::WouldDrop(rebuilt, _)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((rebuilt.rows_dropped, rebuilt.rows_left_out), (2, 2));
}

/// A later read must not leave out the line that has taken the place of an overruled one.
#[test]
fn a_day_file_that_is_rewritten_during_the_rebuild_changes_nothing() {
    let disk = SimDisk::new();
    let lines = scored("a1", "accepted") + &scored("a1", "rejected");
    append(&disk, "scored-runs", &lines);
    append(&disk, "evidence", &evidence("a1", "one"));
    append(&disk, "evidence", &evidence("a2", "two"));
    // Lines for several reads.
    let long = evidence("z", &"x".repeat(900 << 10)).repeat(12);
    append(&disk, "evidence", &long);
    run(&disk).unwrap();
    let old = disk.read(EXPORT).unwrap();
    let mut steps = 0;
    let result = rebuild(
        &setup(&disk),
        EFFECTIVE,
        &AtomicBool::new(false),
        &mut |label, _, _| {
            if label == "rebuilding" && steps == 0 {
                let lines = scored("a2", "accepted") + &scored("a1", "rejected");
                disk.write_file(source("scored-runs", PAIR), lines.as_bytes());
                steps += 1;
            }
        },
    );
    assert!(
        matches!(&result, Err(RebuildError::Rewritten { path }) if path.ends_with(PAIR)),
        "{result:?}"
    );
    assert_eq!(disk.read(EXPORT).unwrap(), old);
    disk.settle(source("scored-runs", PAIR));
    run(&disk).unwrap();
    assert_eq!(sorted(naive(&disk).effective).len(), 1);
    let (export, ledger) = ledger(&disk);
    assert!(export.starts_with(&old));
    assert!(read_ledger(&export, &ledger).is_ok());
}

#[test]
fn a_crash_at_any_call_leaves_the_old_export_or_the_effective_rows() {
    let base = lake_with_history();
    let options = RebuildOptions {
        drop_missing: true,
        ..EFFECTIVE
    };
    let old = base.read(EXPORT).unwrap();
    let whole = base.fork();
    let first = whole.calls();
    let rebuilt = try_rebuild(&whole, options).unwrap();
    assert!(rebuilt.rows_left_out > 0, "{rebuilt:?}");
    let fresh = whole.read(EXPORT).unwrap();
    let calls = whole.calls() - first;
    let mut fresh_found = 0;
    for call in 0..calls {
        let disk = base.fork();
        disk.crash_at(call);
        try_rebuild(&disk, options).unwrap_err();
        for fate in Fate::ALL {
            let when = format!("call {call} of {calls}, {fate:?}");
            let after = disk.power_cut(call, fate);
            run(&after).unwrap_or_else(|error| panic!("{when}: {error}"));
            let export = after.read(EXPORT).unwrap();
            fresh_found += u64::from(export == fresh);
            // A state that is lost in the swap takes the rows that were left out with it: they return retracted.
            assert!(export == old || export.starts_with(&fresh), "{when}");
            if export != old {
                assert!(verified(&after).equal, "{when}");
                let (export, ledger) = ledger(&after);
                assert_eq!(ledger_fault(&export, &ledger, &naive(&after)), None);
            }
        }
    }
    assert!(fresh_found > 0);
}

/// The swap renames the ledger first. Without the marker in the state directory the start has to see by the files which of
/// them belong together.
#[test]
fn a_kill_at_any_call_of_a_rebuild_and_the_loss_of_the_state_directory_leave_one_dataset() {
    let base = lake_with_history();
    let old = base.read(EXPORT).unwrap();
    let (mut old_found, mut fresh_found) = (0, 0);
    for effective in [true, false] {
        let options = RebuildOptions {
            drop_missing: true,
            effective,
            ..EFFECTIVE
        };
        let whole = base.fork();
        let first = whole.calls();
        try_rebuild(&whole, options).unwrap();
        let calls = whole.calls() - first;
        for call in 0..calls {
            let when = format!("call {call} of {calls}, effective {effective}");
            let disk = base.fork();
            disk.crash_at(call);
            try_rebuild(&disk, options).unwrap_err();
            let after = disk.power_cut(call, Fate::Kept);
            lose_state_directory(&after);
            run(&after).unwrap_or_else(|error| panic!("{when}: {error}"));
            let (export, ledger) = ledger(&after);
            let events = read_ledger(&export, &ledger).unwrap();
            let is_old = export.starts_with(&old);
            assert_eq!(is_old, events[0].cause != "rebuild", "{when}");
            if is_old {
                old_found += 1;
                continue;
            }
            fresh_found += 1;
            assert!(verified(&after).equal, "{when}");
            assert_eq!(ledger_fault(&export, &ledger, &naive(&after)), None);
        }
    }
    assert!(old_found > 0 && fresh_found > 0);
}

fn lose_state_directory(disk: &SimDisk) {
    for dir in ["rebuilding/", ""] {
        for name in ["state.redb", "journal", "swap-rebuilt"] {
            let path = format!("{ROOT}/data/distilled/.distilld/{dir}{name}");
            if disk.read(&path).is_some() {
                disk.remove(path);
            }
        }
    }
}

fn answer(bench: &Bench, code: i32, arguments: &[&str]) -> Value {
    let ended = bench.run(&mut bench.command(arguments));
    ended.check(code, &[]);
    serde_json::from_str(&ended.stdout).unwrap_or_default()
}

#[test]
fn the_commands_leave_rows_out_and_verify_finds_what_is_wrong() {
    let bench = Bench::new();
    let append = |stream, text: String| bench.append(stream, PAIR, text);
    for run in ["kept", "rejected", "later"] {
        append(Stream::Scored, scored(run, "accepted"));
        append(Stream::Evidence, evidence(run, run));
    }
    append(Stream::Scored, scored("rejected", "rejected"));
    bench.once().check(0, &[]);
    let whole = bench.export_bytes();
    bench
        .run(&mut bench.command(&["rebuild", "--effective", "--state-only"]))
        .check(2, &["--state-only"]);
    let dry = answer(&bench, 0, &["rebuild", "--effective", "--dry-run"]);
    assert_eq!(bench.export_bytes(), whole);
    let done = answer(&bench, 0, &["rebuild", "--effective"]);
    for key in ["rows_before", "rows_after", "rows_left_out", "rows_dropped"] {
        assert_eq!(dry[key], done[key], "{key}");
    }
    let counts = [
        &done["rows_before"],
        &done["rows_after"],
        &done["rows_left_out"],
    ];
    assert_eq!(counts, [3, 2, 1]);
    bench.once().check(0, &[]);
    bench.assert_runs(&["kept", "later"]);
    assert_eq!(bench.status()["scored"]["overruled"], 1);
    let explained = answer(&bench, 0, &["explain", "rejected", "--json"]);
    assert_eq!(explained["lines"][0]["verdict"], "overruled");
    let rule = explained["lines"][0]["rule"].as_str().unwrap();
    assert!(rule.contains("left its row out"), "{rule}");
    assert_eq!(answer(&bench, 0, &["verify"])["left_out"], 1);

    append(Stream::Scored, scored("later", "rejected"));
    bench.once().check(0, &[]);
    bench.assert_runs(&["kept", "later"]);
    let verified = answer(&bench, 0, &["verify"]);
    assert_eq!(
        (&verified["left_out"], &verified["retracted"]),
        (&1.into(), &1.into())
    );

    // An effective row that is missing, and an overruled one that is there and not out.
    let fresh = bench.export_bytes();
    let line_of = |run: &str, bytes: &[u8]| {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let mut lines = text.split_inclusive('\n');
        let line = lines.find(|line| line.contains(&format!("\"source_run_id\":\"{run}\"")));
        line.unwrap().to_owned()
    };
    let kept = line_of("kept", &fresh);
    let unrelated = kept.replace("\"kept\"", "\"tpek\"");
    let text = String::from_utf8(fresh.clone()).unwrap();
    fs::write(bench.export(), text.replace(&kept, &unrelated)).unwrap();
    assert_eq!(answer(&bench, 1, &["verify"])["missing"], 1);
    let returned = text + &line_of("rejected", &whole);
    fs::write(bench.export(), returned).unwrap();
    assert_eq!(answer(&bench, 1, &["verify"])["unretracted"], 1);
    fs::write(bench.export(), fresh).unwrap();
    answer(&bench, 0, &["verify"]);

    // Without its state the daemon reads the lines again: their rows return, retracted.
    bench.remove_state();
    bench.once().check(0, &[]);
    bench.assert_runs(&["kept", "later", "rejected"]);
    let verified = answer(&bench, 0, &["verify"]);
    assert_eq!(
        (&verified["left_out"], &verified["retracted"]),
        (&0.into(), &2.into())
    );
}
