//! Operator queries: `explain` against the naive batch, `plan` against the run that follows, `dead-letters` and the
//! account per source class; with a daemon and without.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use distilld::lake::chunk::LineLimits;
use distilld::lake::path::{PairPath, ledger_path};
use distilld::pair::verdict::LineTotals;
use distilld::platform::clock::{Clock as _, HostClock};
use distilld::platform::root_lock::RootLock;
use distilld::query::explain::{ExplainContext, Explanation, Page, explain};
use distilld::query::plan::{Delta, Plan, PlanContext, plan};
use distilld::query::status::UnreadPairs;
use distilld::query::status::{measured, waiting_oldest};
use distilld::record::timestamp::moment;
use fastrand::Rng;
use serde_json::{Value, json};

use crate::support::bench::{Bench as EngineBench, EXPORT, ROOT};
use crate::support::http::get;
use crate::support::kill_harness::{Daemon, wait_until};
use crate::support::lake_gen::{EvidenceMode, Shape, Step, Stream, pairs_of, script};
use crate::support::naive::verdicts;
use crate::support::process::{Bench, LONG, evidence, evidence_with, scored, scored_as};
use crate::support::sim_disk::SimDisk;

/// Random lakes of each kind.
const CASES: u64 = 300;
const A: &str = "2026/05/01/audits.jsonl";
const B: &str = "2026/05/02/facts.jsonl";

fn explained(bench: &EngineBench, run_id: &str) -> Explanation {
    let state = bench.engine.as_ref().unwrap().state_snapshot();
    let explaining = ExplainContext {
        storage: &bench.disk,
        root: Path::new(ROOT),
        export_path: Path::new(EXPORT),
        line_bytes_max: 16 << 20,
        state: &state,
    };
    let page = |skip, limit| explain(run_id, Page { skip, limit }, &explaining).unwrap();
    let all = page(0, usize::MAX);
    assert!(!all.more, "{run_id}");
    // Pages have the same lines.
    let mut paged = page(0, 2);
    while paged.more {
        let next = page(paged.lines.len(), 2);
        paged.lines.extend(next.lines);
        paged.more = next.more;
    }
    assert_eq!(paged, all);
    all
}

/// A record without an id makes a run of the empty id, which may have many lines. They are shown page by page, and one more
/// line costs as much as the one before it.
#[test]
fn the_lines_of_a_run_are_shown_page_by_page() {
    const LINES: usize = 250;
    let bench = Bench::new();
    bench.append(Stream::Evidence, A, evidence(""));
    let lines = (0..LINES).map(|n| scored_as("", if n % 2 == 0 { "accepted" } else { "rejected" }));
    bench.append(Stream::Scored, A, lines.collect::<String>());
    bench.once();
    let daemon = bench.start_caught_up();
    let pages = |bench: &Bench| {
        let mut starts = Vec::new();
        for skip in ["0", "100", "200"] {
            let shown = bench.run(&mut bench.command(&["explain", "", "--skip", skip]));
            let more = format!(
                "more results: continue with --skip {}",
                skip.parse::<usize>().unwrap() + 100
            );
            shown.check(0, &[]);
            assert_eq!(
                shown.stderr.contains(&more),
                skip != "200",
                "{}",
                shown.stderr
            );
            let json = ["explain", "", "--json", "--skip", skip];
            let json: Value =
                serde_json::from_str(&bench.run(&mut bench.command(&json)).stdout).unwrap();
            assert_eq!(json["more"], skip != "200");
            starts.extend(json["lines"].as_array().unwrap().iter().map(|line| {
                // A retracted row names the category that overrules it.
                let of_retraction = &line["retraction"]["category"];
                assert!(
                    of_retraction.is_null() || of_retraction == "rejected",
                    "{line}"
                );
                line["offset"].as_u64().unwrap()
            }));
        }
        starts
    };
    let live = pages(&bench);
    assert_eq!(live.len(), LINES + 1);
    assert!(live[..LINES].is_sorted(), "{live:?}");
    let beyond = bench.run(&mut bench.command(&["explain", "", "--skip", "1000"]));
    beyond.check(0, &[]);
    bench.stop(daemon);
    assert_eq!(pages(&bench), live);
}

/// Asserts that each scored line of every run has the naive verdict, and that row and line are at the reported
/// positions.
fn check_explanations(seed: u64, bench: &EngineBench, steps: &[Step]) {
    let export = bench.disk.read(EXPORT).unwrap_or_default();
    let pairs = pairs_of(steps);
    let mut waiting = BTreeSet::new();
    for (run_id, mut expected) in verdicts(&pairs) {
        // Directory by directory, in walk order; within a pair in the order of the lines.
        expected.sort_by_key(|(pair, _)| PairPath::from_relative(Path::new(pair)));
        let explanation = explained(bench, &run_id);
        let scored = explanation
            .lines
            .iter()
            .filter(|line| line.stream == "scored");
        let mut found = Vec::new();
        for line in scored {
            found.push((line.day_file.clone(), line.verdict.as_str()));
            let day_file = pairs[&line.day_file].0.as_deref().unwrap();
            let before = &day_file[..line.offset as usize];
            let newlines = memchr::memchr_iter(b'\n', before).count() as u64;
            assert_eq!(
                line.line,
                Some(newlines + 1),
                "seed {seed}, {explanation:#?}"
            );
            assert!(!line.changed_since, "seed {seed}, {explanation:#?}");
            assert_eq!(line.row.is_some(), line.verdict == "exported");
            assert_eq!(line.waits_for.is_some(), line.verdict == "waiting");
            assert!(line.value.is_some(), "seed {seed}, {explanation:#?}");
            if let Some(since) = &line.waiting_since {
                let path = PairPath::from_relative(Path::new(&line.day_file)).unwrap();
                waiting.insert((since.clone(), path, line.offset, run_id.clone()));
            }
            if let Some(row) = &line.row {
                let from = row.offset as usize;
                let row = &export[from..from + row.len_bytes.unwrap() as usize];
                let row: Value = serde_json::from_slice(row).unwrap();
                assert_eq!(row["source_run_id"], *run_id, "seed {seed}");
            }
        }
        assert_eq!(
            found, expected,
            "seed {seed}, run {run_id:?}: {explanation:#?}"
        );
    }
    let state = bench.engine.as_ref().unwrap().state_snapshot();
    let oldest = waiting_oldest(&state, &bench.disk, Path::new(ROOT)).unwrap();
    let oldest: Vec<_> = oldest
        .into_iter()
        .map(|run| {
            let path = PairPath::from_relative(Path::new(&run.day_file)).unwrap();
            (run.since, path, run.offset, run.run_id.unwrap())
        })
        .collect();
    let expected: Vec<_> = waiting.into_iter().take(oldest.len().max(8)).collect();
    assert_eq!(oldest, expected, "seed {seed}: the oldest waiting runs");
}

#[test]
fn the_lag_is_the_input_after_the_offsets() {
    let mut bench = EngineBench::new(SimDisk::new());
    bench.open().unwrap();
    let path = PairPath::from_relative(Path::new(A)).unwrap();
    let append = |bench: &EngineBench, stream: Stream, text: String| {
        bench
            .disk
            .append_durable(stream.path(Path::new(ROOT), A), text.as_bytes());
        text.len() as u64
    };
    append(&bench, Stream::Scored, scored("a"));
    bench.scan().unwrap();
    bench.catch_up().unwrap();
    let lag_of = |bench: &EngineBench, all| {
        let unread = UnreadPairs {
            pairs: vec![path.clone()],
            is_complete: all,
        };
        let engine = bench.engine.as_ref().unwrap();
        let (lag, state) = (engine.lag(), engine.state_snapshot());
        measured(lag, &state, &unread, &bench.disk, Path::new(ROOT))
    };
    assert_eq!(
        (lag_of(&bench, true).bytes, lag_of(&bench, true).lines),
        (0, Some(0))
    );
    let bytes = append(&bench, Stream::Scored, scored("b") + &scored("c"))
        + append(&bench, Stream::Evidence, evidence("a"));
    let lag = lag_of(&bench, true);
    assert_eq!(
        (lag.bytes, lag.lines, lag.bytes_exact),
        (bytes, Some(3), true)
    );
    assert_eq!(
        (
            lag_of(&bench, false).lines,
            lag_of(&bench, false).bytes_exact
        ),
        (None, false)
    );
}

#[test]
fn explanations_of_random_lakes_equal_the_verdicts_of_the_batch() {
    for seed in 0..CASES {
        let mut rng = Rng::with_seed(seed);
        let steps = script(seed, &Shape::small(&mut rng, EvidenceMode::Unique));
        let mut bench = EngineBench::new(SimDisk::new());
        bench.checkpoint_bytes = rng.choice([4 << 10, 1 << 20]).unwrap();
        bench.open().unwrap();
        for step in &steps {
            bench.step(step, rng.u8(..4) > 0).unwrap();
        }
        bench.step(&Step::Quiet, true).unwrap();
        check_explanations(seed, &bench, &steps);
        let unknown = explained(&bench, "a missing run");
        assert!(!unknown.known && unknown.lines.is_empty());
    }
}

fn planned(bench: &EngineBench) -> Plan {
    plan(&PlanContext {
        storage: &bench.disk,
        root: Path::new(ROOT),
        export_path: Path::new(EXPORT),
        limits: LineLimits {
            line_bytes_max: 16 << 20,
        },
        now_ms: bench.clock.wall_ms(),
        state: &bench.engine.as_ref().unwrap().state_snapshot(),
        exclude: &Default::default(),
    })
    .unwrap()
}

fn rows(bench: &EngineBench) -> i64 {
    let export = bench.disk.read(EXPORT).unwrap_or_default();
    memchr::memchr_iter(b'\n', &export).count() as i64
}

/// Returns how many events of a kind the ledger has.
fn events(bench: &EngineBench, op: &str) -> i64 {
    let ledger = bench.disk.read(ledger_path(Path::new(EXPORT))).unwrap();
    let op = format!("\"op\":\"{op}\"");
    memchr::memmem::find_iter(&ledger, op.as_bytes()).count() as i64
}

/// Returns what a run did, in a plan's figures; the rows and the events of the ledger are compared separately.
fn done(planned: &Delta, before: &LineTotals, after: &LineTotals) -> Delta {
    Delta {
        rows: planned.rows,
        claimed: planned.claimed,
        retracted: planned.retracted,
        restored: planned.restored,
        ..Delta::between(before, after)
    }
}

/// Rewrites a day-file of every fourth lake under the engine: lines removed, lines duplicated, or a different
/// beginning.
fn rewrite_one(rng: &mut Rng, bench: &EngineBench, steps: &[Step]) {
    let pairs: Vec<String> = pairs_of(steps).into_keys().collect();
    let Some(pair) = rng.choice(&pairs) else {
        return;
    };
    let stream = *rng.choice(&[Stream::Scored, Stream::Evidence]).unwrap();
    let path = stream.path(Path::new(ROOT), pair);
    if let Some(bytes) = bench.disk.read(&path) {
        let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        lines.retain(|_| rng.u8(..4) > 0);
        let duplicated = lines.clone();
        lines.extend(duplicated.iter().take(2));
        let rewritten = [b"\n", lines.concat().as_slice()].concat();
        bench.disk.write_file(&path, &rewritten);
        bench.disk.settle(&path);
    }
}

/// Removes the lines of refused categories, so that the rows that they overrule return.
fn remove_refusals(bench: &EngineBench, steps: &[Step]) {
    for pair in pairs_of(steps).into_keys() {
        let path = Stream::Scored.path(Path::new(ROOT), &pair);
        if let Some(bytes) = bench.disk.read(&path) {
            let is_refused = |line: &&[u8]| {
                let line = String::from_utf8_lossy(line);
                line.contains("rejected") || line.contains("needs_human_review")
            };
            let lines = bytes.split_inclusive(|byte| *byte == b'\n');
            let lines: Vec<&[u8]> = lines.filter(|line| !is_refused(line)).collect();
            bench.disk.write_file(&path, &lines.concat());
            bench.disk.settle(&path);
        }
    }
}

/// Moves a pair of another fourth of the lakes to another day.
fn move_one(rng: &mut Rng, bench: &EngineBench, steps: &[Step]) {
    let pairs: Vec<String> = pairs_of(steps).into_keys().collect();
    let Some(pair) = rng.choice(&pairs) else {
        return;
    };
    let (_, name) = pair.rsplit_once('/').unwrap();
    for stream in [Stream::Scored, Stream::Evidence] {
        let from = stream.path(Path::new(ROOT), pair);
        if bench.disk.read(&from).is_some() {
            let to = stream.path(Path::new(ROOT), &format!("2031/12/30/{name}"));
            bench.disk.move_file(from, to);
        }
    }
}

#[test]
fn a_plan_predicts_the_following_run_on_random_lakes() {
    let mut rows_planned = 0;
    let mut all_events = [0, 0];
    for seed in 0..CASES {
        let mut rng = Rng::with_seed(seed);
        let mode = *rng
            .choice(&[EvidenceMode::Unique, EvidenceMode::Free])
            .unwrap();
        let steps = script(seed, &Shape::small(&mut rng, mode));
        let mut bench = EngineBench::new(SimDisk::new());
        bench.open().unwrap();
        let known = rng.usize(..=steps.len());
        for step in &steps[..known] {
            bench.step(step, true).unwrap();
        }
        bench.catch_up().unwrap();
        if rng.bool() {
            bench.engine.as_mut().unwrap().checkpoint().unwrap();
        }
        // A process that ran before may take a last line without a newline earlier than newer evidence.
        bench.open().unwrap();
        bench.append_unnoticed(&steps[known..]);
        match seed % 4 {
            0 => rewrite_one(&mut rng, &bench, &steps),
            1 => move_one(&mut rng, &bench, &steps),
            2 => remove_refusals(&bench, &steps),
            _ => {}
        }
        let before = bench.engine.as_ref().unwrap().account().clone();
        let rows_before = rows(&bench);
        let events_before = ["retract", "restore"].map(|op| events(&bench, op));
        let plan = planned(&bench);
        assert_eq!(bench.engine.as_ref().unwrap().account(), &before);
        assert_eq!(rows(&bench), rows_before);

        bench.scan().unwrap();
        assert!(bench.settle_all().unwrap());
        bench.engine.as_mut().unwrap().checkpoint().unwrap();
        let after = bench.engine.as_ref().unwrap().account().clone();
        assert_eq!(
            plan.total.rows,
            rows(&bench) - rows_before,
            "seed {seed}: {plan:#?}"
        );
        rows_planned += plan.total.rows;
        let written = ["retract", "restore"].map(|op| events(&bench, op));
        let written = [0, 1].map(|n| written[n] - events_before[n]);
        let planned_events = [plan.total.retracted, plan.total.restored];
        assert_eq!(planned_events, written, "seed {seed}: {plan:#?}");
        all_events = [0, 1].map(|n| all_events[n] + written[n]);
        let total = done(&plan.total, &before.totals, &after.totals);
        assert_eq!(plan.total, total, "seed {seed}");
        for (class, after) in &after.classes {
            let before = before.classes.get(class).copied().unwrap_or_default();
            let planned = plan.classes.get(class).copied().unwrap_or_default();
            assert_eq!(
                planned,
                done(&planned, &before, after),
                "seed {seed}, {class}"
            );
        }
        assert_eq!(planned(&bench).total, Delta::default(), "seed {seed}");
    }
    assert!(
        rows_planned > CASES as i64,
        "only {rows_planned} rows in all"
    );
    let [retracted, restored] = all_events;
    assert!(
        retracted > 20 && restored > 2,
        "only {retracted} retractions and {restored} restores in all"
    );
}

/// Writes two classes: one with every verdict, one with a run that is exported, superseded and contradicted.
fn lake(bench: &Bench) {
    let dull = |run: &str| evidence(run).replace("executor", "extractor");
    let a_evidence = [
        evidence("a"),
        dull("d"),
        evidence_with("e", " "),
        "[\n".into(),
    ];
    let a_scored = [
        scored("a"),
        scored_as("b", "rejected"),
        scored_as("c", "odd"),
        scored("d"),
        scored("e"),
        scored("f"),
        "{\"\x1b]0;title\x07\n".into(),
    ];
    bench.append(Stream::Evidence, A, a_evidence.concat());
    bench.append(Stream::Scored, A, a_scored.concat());
    bench.append_run(B, "g");
}

/// Runs the check with a daemon and, after that was killed, without: its rows are in state and journal then.
fn with_and_without_a_daemon(bench: &Bench, mut check: impl FnMut(&Bench, Option<&mut Daemon>)) {
    let mut daemon = bench.start_caught_up();
    check(bench, Some(&mut daemon));
    daemon.kill_9().unwrap();
    check(bench, None);
}

#[test]
fn the_account_is_reported_per_source_class_with_and_without_a_daemon() {
    let bench = Bench::new();
    lake(&bench);
    with_and_without_a_daemon(&bench, |bench, daemon| {
        let status = bench.status();
        assert_eq!(status["running"], daemon.is_some());
        let classes = status["classes"].as_array().unwrap();
        assert_eq!(classes.len(), 2, "{status}");
        let audits = &classes[0];
        assert_eq!(audits["class"], "audits");
        for figure in [
            "exported",
            "firewalled",
            "unknown_category",
            "wrong_role",
            "blank_text",
            "waiting",
            "malformed",
            "evidence_malformed",
        ] {
            assert_eq!(audits[figure], 1, "{figure} in {status}");
        }
        assert_eq!(
            (&audits["lines"], &classes[1]["exported"]),
            (&7.into(), &1.into())
        );
        assert_eq!(status["export"]["rows_today"], 2, "{status}");
        let waiting = status["waiting_oldest"].as_array().unwrap();
        assert_eq!(waiting.len(), 1, "{status}");
        assert_eq!(
            (&waiting[0]["run_id"], &waiting[0]["day_file"]),
            (&"f".into(), &A.into())
        );
        assert_eq!(status["scored"]["balanced"], true);
    });
}

#[test]
fn the_last_day_is_reported_by_minute_and_survives_the_daemon() {
    let bench = Bench::new();
    lake(&bench);
    let (daemon, address) = bench.listening();
    let recent = get(address, "/recent.json").json();
    bench.stop(daemon);
    let sum = |recent: &Value, class: &str, what: &str| -> u64 {
        let steps = recent["series"][class][what].as_array().unwrap();
        assert_eq!(steps.len(), 24 * 60);
        steps.iter().map(|figure| figure.as_u64().unwrap()).sum()
    };
    let sums = |recent: &Value, class: &str| {
        (
            sum(recent, class, "exported"),
            sum(recent, class, "refused"),
        )
    };
    // A malformed line is no refused one.
    assert_eq!(sums(&recent, "audits"), (1, 4));
    assert_eq!(sums(&recent, "facts"), (1, 0));
    assert_eq!(recent["step_s"], 60);
    let now_s = HostClock::new().wall_ms() / 1_000;
    let first_s = recent["minute_s"].as_u64().unwrap();
    assert!(
        (now_s - first_s).abs_diff(86_400) < 300,
        "{first_s} {now_s}"
    );
    let (mut daemon, address) = bench.listening();
    bench.append_run(B, "h");
    bench.wait_run(&mut daemon, "h");
    let recent = get(address, "/recent.json").json();
    bench.stop(daemon);
    assert_eq!(sums(&recent, "audits"), (1, 4));
    assert_eq!(sums(&recent, "facts"), (2, 0));
}

#[test]
fn a_run_is_explained_with_and_without_a_daemon() {
    let bench = Bench::new();
    lake(&bench);
    bench.append(Stream::Evidence, B, evidence_with("run-77", "first"));
    bench.append(Stream::Scored, B, scored("run-77"));
    let mut daemon = bench.start_caught_up();
    bench.append(Stream::Evidence, B, evidence_with("run-77", "second"));
    bench.append(Stream::Scored, B, scored_as("run-77", "rejected"));
    bench.wait_for(&mut daemon, "the run is contradicted", || {
        bench.status()["export"]["contradicted"] == 1
    });
    bench.stop(daemon);
    with_and_without_a_daemon(&bench, |bench, _| {
        let explanation = bench.ask(&["explain", "run-77", "--json"]);
        let lines = explanation["lines"].as_array().unwrap();
        let verdicts: Vec<_> = lines
            .iter()
            .map(|line| line["verdict"].as_str().unwrap())
            .collect();
        assert_eq!(
            verdicts,
            ["exported", "firewalled", "replaced", "counts"],
            "{explanation}"
        );
        assert_eq!(
            (&lines[0]["superseded"], &lines[0]["contradicted"]),
            (&true.into(), &true.into())
        );
        assert_eq!(
            (&lines[1]["line"], &lines[1]["value"]),
            (&3.into(), &"rejected".into())
        );
        let (from, len) = (
            lines[0]["row"]["offset"].as_u64(),
            lines[0]["row"]["len_bytes"].as_u64(),
        );
        let from = from.unwrap() as usize;
        let row = &bench.export_bytes()[from..from + len.unwrap() as usize];
        assert!(row.starts_with(b"{\"schema_version\"") && row.ends_with(b"}\n"));

        let role = bench.ask(&["explain", "d", "--json"]);
        assert_eq!(
            (&role["lines"][0]["verdict"], &role["lines"][0]["value"]),
            (&"wrong_role".into(), &"extractor".into())
        );
        let page = bench.run(&mut bench.command(&["explain", "f"]));
        page.check(0, &[]);
        assert!(
            page.stdout.contains("waits") && page.stdout.contains("line 6"),
            "{}",
            page.stdout
        );

        let unknown = bench.run(&mut bench.command(&["explain", "run-7"]));
        unknown.check(1, &[]);
        assert!(unknown.stdout.contains("\"run-77\""), "{}", unknown.stdout);
        let odd = bench.run(&mut bench.command(&["explain", "a&b=c \u{1b}[31m%"]));
        odd.check(1, &[]);
        assert!(!odd.stdout.contains('\u{1b}'), "{}", odd.stdout);
    });
}

/// A day-file was deleted and then the state was lost: no index has the run of its row.
#[test]
fn a_row_without_a_line_and_an_order_without_a_row_are_explained() {
    const RUN: &str = "r 'q\" ü";
    let bench = Bench::new();
    let id = json!(RUN).to_string();
    let id = id.trim_matches('"');
    bench.append_run(A, id);
    bench.append_run(B, "other");
    bench.once();
    fs::remove_file(bench.path(Stream::Scored, A)).unwrap();
    fs::remove_file(bench.path(Stream::Evidence, A)).unwrap();
    bench.remove_state();
    bench.once();
    with_and_without_a_daemon(&bench, |bench, _| {
        let unknown = bench.run(&mut bench.command(&["explain", RUN]));
        unknown.check(1, &["rows of the export without a line in the sources: 1"]);
        let command = unknown.stderr.split('`').nth(1).unwrap();
        let found = Command::new("bash").args(["-c", command]).output().unwrap();
        let row: Value = serde_json::from_slice(&found.stdout).unwrap();
        assert_eq!(row["source_run_id"], RUN);
    });
    for run in [RUN, "never seen"] {
        let order = ["retract", run, "--unseen", "--reason", "licence"];
        bench.run(&mut bench.command(&order)).check(0, &[]);
    }
    bench.once();
    with_and_without_a_daemon(&bench, |bench, _| {
        let never_seen = bench.ask(&["explain", "never seen", "--json"]);
        assert_eq!(never_seen["orders"][0]["reason"], "licence");
        let row = bench.ask(&["explain", RUN, "--json"]);
        assert_eq!(row["lines"], json!([]));
        assert_eq!(row["retracted"][0]["row"]["offset"], 0);
        assert_eq!(row["retracted"][0]["reason"], "licence");
        let beyond = bench.ask(&["explain", RUN, "--json", "--skip", "1"]);
        assert_eq!(beyond["retracted"], json!([]));
        let page = bench.run(&mut bench.command(&["explain", RUN]));
        page.check(0, &[]);
        for part in [
            "order     since",
            "a row that no line",
            "bytes 0 to",
            "by an order",
        ] {
            assert!(page.stdout.contains(part), "{}", page.stdout);
        }
    });
}

/// In C the accepting line itself becomes the rejecting one.
const C: &str = "2026/05/03/facts.jsonl";

/// Writes a lake in which `g` and `run-77` are rejected after their accepting lines, `h` in the place of its own.
fn contradicted_lake(bench: &Bench) {
    lake(bench);
    bench.append_run(B, "run-77");
    bench.append_run(C, "h");
    bench.once();
    bench.append(Stream::Scored, B, scored_as("run-77", "needs_human_review"));
    bench.append(Stream::Scored, B, scored_as("g", "rejected").repeat(2));
    fs::write(
        bench.path(Stream::Scored, C),
        scored_as("h", "rejected").repeat(2),
    )
    .unwrap();
    bench.once();
}

/// Returns run, cause, day-file and overruling line of each listed row, and asserts that the row is the run's.
fn retracted(bench: &Bench, listing: &Value) -> Vec<(String, String, String, Value)> {
    let export = bench.export_bytes();
    let rows = listing["rows"].as_array().unwrap().iter();
    rows.map(|row| {
        let text = |key: &str| row[key].as_str().unwrap().to_owned();
        let run = text("run_id");
        let place = |key: &str| row["row"][key].as_u64().unwrap() as usize;
        let bytes = &export[place("offset")..][..place("len_bytes")];
        let found: Value = serde_json::from_slice(bytes).unwrap();
        assert_eq!(found["source_run_id"], *run);
        assert!(moment(&text("at")).is_some(), "{row}");
        (
            run,
            text("cause"),
            text("day_file"),
            row["line_offset"].clone(),
        )
    })
    .collect()
}

#[test]
fn retracted_rows_are_listed_by_page_with_and_without_a_daemon() {
    let bench = Bench::new();
    contradicted_lake(&bench);
    let [g, run_77] = ["g", "run-77"].map(|run| scored(run).len());
    let refused_77 = scored_as("run-77", "needs_human_review").len();
    let row_of = |run: &str, cause: &str, day_file: &str, line: usize| {
        let [run, cause, day_file] = [run, cause, day_file].map(str::to_owned);
        (run, cause, day_file, Value::from(line))
    };
    let mut expected = vec![
        row_of("g", "rejected", B, g + run_77 + refused_77),
        row_of("run-77", "needs_human_review", B, g + run_77),
        row_of("h", "rejected", C, 0),
    ];
    let check = |bench: &Bench, expected: &[(String, String, String, Value)]| {
        let list = bench.ask(&["explain", "--retracted", "--json"]);
        let listed = retracted(bench, &list);
        let (mut sorted, mut wanted) = (listed.clone(), expected.to_vec());
        sorted.sort_by_key(|row| row.0.clone());
        wanted.sort_by_key(|row| row.0.clone());
        assert_eq!(sorted, wanted, "{list}");
        let count = expected.len();
        assert_eq!(
            (&list["counted"], &list["more"]),
            (&count.into(), &false.into())
        );
        for (n, one) in listed.iter().enumerate() {
            let skip = n.to_string();
            // The name that the flag had first.
            let page = ["--contradicted", "--json", "--limit", "1", "--skip", &skip];
            let page = bench.ask(&[&["explain"][..], &page].concat());
            assert_eq!(retracted(bench, &page), std::slice::from_ref(one), "{page}");
            assert_eq!(page["more"], n + 1 < count, "{page}");
        }
        let page = bench.run(&mut bench.command(&["explain", "--retracted", "--limit", "2"]));
        page.check(0, &["more results: continue with --skip 2"]);
        let page = bench.run(&mut bench.command(&["explain", "--retracted"]));
        page.check(0, &[]);
        assert!(page.stdout.contains("\"run-77\""), "{}", page.stdout);
        assert!(
            page.stdout.contains("needs human review"),
            "{}",
            page.stdout
        );
        assert_eq!(bench.status()["retractions"]["rows"], count);
    };
    with_and_without_a_daemon(&bench, |bench, _| check(bench, &expected));
    // The information of the ledger remains after the loss of the state, and of the day-file.
    bench.remove_state();
    fs::remove_file(bench.path(Stream::Scored, C)).unwrap();
    bench.once();
    check(&bench, &expected);
    // A second accepting line leaves the first row out; an order takes its own row out as well.
    bench.append(Stream::Scored, B, scored("g"));
    bench.once();
    check(&bench, &expected);
    let order = ["retract", "g", "--reason", "a wrong prompt"];
    bench.run(&mut bench.command(&order)).check(0, &[]);
    expected.push(row_of(
        "g",
        "operator",
        B,
        g + run_77 + refused_77 + 2 * scored_as("g", "rejected").len(),
    ));
    let list = bench.ask(&["explain", "--retracted", "--json"]);
    assert_eq!(retracted(&bench, &list).last(), expected.last(), "{list}");
    assert_eq!(list["rows"][3]["reason"], "a wrong prompt", "{list}");
    bench
        .run(&mut bench.command(&["retract", "g", "--revoke"]))
        .check(0, &[]);
    check(&bench, &expected[..3]);
}

#[test]
fn without_retracted_rows_the_list_is_empty() {
    let bench = Bench::new();
    lake(&bench);
    let none = bench.run(&mut bench.command(&["explain", "--retracted"]));
    none.check(
        1,
        &["cannot read the retraction ledger", "start `distilld run`"],
    );
    with_and_without_a_daemon(&bench, |bench, _| {
        let list = bench.ask(&["explain", "--retracted", "--json"]);
        assert_eq!(
            (&list["counted"], &list["rows"]),
            (&0.into(), &Value::Array(Vec::new()))
        );
        let page = bench.run(&mut bench.command(&["explain", "--retracted"]));
        assert_eq!(page.stdout, "no row is retracted\n");
        for arguments in [&["explain"][..], &["explain", "g", "--retracted"]] {
            bench.run(&mut bench.command(arguments)).check(2, &[]);
        }
    });
}

/// Each line of a run shows whether its row is effective, and if not, the line or the order that is the reason.
#[test]
fn an_explanation_shows_whether_a_row_is_effective_and_why() {
    let bench = Bench::new();
    lake(&bench);
    bench.append_run(B, "twice");
    bench.append(Stream::Scored, B, scored("twice"));
    bench.append(Stream::Scored, B, scored_as("g", "needs_human_review"));
    bench.append(Stream::Scored, B, scored("late"));
    // Evidence of a waiting run in another pair.
    bench.append(Stream::Evidence, C, evidence("f"));
    bench.once();
    let order = ["retract", "a", "f", "--reason", "a wrong prompt"];
    bench.run(&mut bench.command(&order)).check(0, &[]);
    with_and_without_a_daemon(&bench, |bench, _| {
        let lines = |run: &str| bench.ask(&["explain", run, "--json"])["lines"].clone();
        let text = |run: &str| bench.run(&mut bench.command(&["explain", run])).stdout;
        let g = lines("g");
        let overruled = &g[0];
        assert_eq!(overruled["effective"], false, "{g}");
        assert_eq!(overruled["contradicted"], true, "{g}");
        let reason = &overruled["retraction"];
        assert_eq!(reason["cause"], "needs_human_review", "{g}");
        assert_eq!(reason["line_offset"], g[1]["offset"], "{g}");
        assert_eq!(reason["category"], "needs_human_review", "{g}");
        let at = reason["at"].as_str().unwrap();
        let shown = format!("retracted since {at}, needs human review by the line at byte");
        assert!(text("g").contains(&shown), "{}", text("g"));

        let twice = lines("twice");
        let (first, last) = (&twice[0], &twice[1]);
        assert_eq!(
            (&first["effective"], &last["effective"]),
            (&false.into(), &true.into())
        );
        assert_eq!(first["retraction"]["cause"], "rescored", "{twice}");
        assert_eq!(
            first["retraction"]["line_offset"], last["offset"],
            "{twice}"
        );
        assert_eq!(last["retraction"], Value::Null, "{twice}");
        assert!(text("twice").contains("effective yes"), "{}", text("twice"));

        let a = lines("a");
        assert_eq!(a[0]["effective"], false, "{a}");
        assert_eq!(a[0]["contradicted"], false, "{a}");
        assert_eq!(a[0]["retraction"]["cause"], "operator", "{a}");
        assert_eq!(a[0]["retraction"]["reason"], "a wrong prompt", "{a}");
        assert!(
            text("a").contains("by an order: \"a wrong prompt\""),
            "{}",
            text("a")
        );

        // Without the order it would wait.
        let f = lines("f");
        assert_eq!(f[0]["verdict"], "ordered", "{f}");
        assert_eq!(f[0]["order"]["reason"], "a wrong prompt", "{f}");
        assert_eq!(f[0]["order"]["day_file"], "", "{f}");
        assert!(
            text("f").contains("in all day-files: \"a wrong prompt\""),
            "{}",
            text("f")
        );
        assert_eq!(
            lines("late")[0]["evidence_elsewhere"],
            serde_json::json!([])
        );
    });
    bench
        .run(&mut bench.command(&["retract", "f", "--revoke"]))
        .check(0, &[]);
    with_and_without_a_daemon(&bench, |bench, _| {
        let f = bench.ask(&["explain", "f", "--json"]);
        assert_eq!(f["lines"][0]["verdict"], "waiting", "{f}");
        assert_eq!(
            f["lines"][0]["evidence_elsewhere"],
            serde_json::json!([C]),
            "{f}"
        );
        let text = bench.run(&mut bench.command(&["explain", "f"])).stdout;
        assert!(
            text.contains(&format!("evidence of the run is in data/evidence/{C}")),
            "{text}"
        );
    });
}

#[test]
fn dead_letters_are_listed_by_page_and_shown_escaped() {
    let bench = Bench::new();
    lake(&bench);
    with_and_without_a_daemon(&bench, |bench, _| {
        let listing = bench.ask(&["dead-letters", "--json"]);
        let letters = listing["letters"].as_array().unwrap();
        assert_eq!(letters.len(), 2, "{listing}");
        let scored = letters
            .iter()
            .find(|letter| letter["stream"] == "scored")
            .unwrap();
        assert_eq!(
            (&scored["line"], &scored["reason"]),
            (&7.into(), &"syntax".into())
        );
        let detail = scored["detail"].as_str().unwrap();
        assert!(detail.starts_with("not JSON at byte 2: "), "{detail}");
        let first = bench.ask(&["dead-letters", "--json", "--limit", "1"]);
        let second = bench.ask(&["dead-letters", "--json", "--limit", "1", "--skip", "1"]);
        assert_eq!(
            (&first["more"], &second["more"]),
            (&true.into(), &false.into())
        );
        let pages = [&first["letters"][0], &second["letters"][0]];
        let distinct: BTreeSet<String> = pages.iter().map(ToString::to_string).collect();
        assert_eq!(distinct.len(), 2);

        let offset = scored["offset"].to_string();
        let shown = bench.run(&mut bench.command(&["dead-letters", "show", A, &offset]));
        shown.check(0, &[]);
        assert_eq!(shown.stdout, "{\"\\u{1b}]0;title\\u{7}\n");
        let raw = bench.run(&mut bench.command(&["dead-letters", "show", A, &offset, "--raw"]));
        assert_eq!(raw.stdout, "{\"\x1b]0;title\x07");
        let none = bench.run(&mut bench.command(&["dead-letters", "show", A, "1"]));
        none.check(1, &["no dead letter starts at byte 1"]);
    });
}

#[test]
fn a_dead_letter_names_the_field_or_the_byte() {
    let bench = Bench::new();
    let cases = [
        (
            Stream::Scored,
            r#"{"provenance":{"line_offset":7.5}}"#,
            "wrong-type",
            "field provenance.line_offset is not ",
        ),
        (
            Stream::Scored,
            r#"  {"category":1}"#,
            "wrong-type",
            "field category is not ",
        ),
        (
            Stream::Evidence,
            r#"{"source_files":[1]}"#,
            "wrong-type",
            "field source_files is not ",
        ),
        (
            Stream::Evidence,
            r#"{"run_id":"r",}"#,
            "syntax",
            "not JSON at byte 14: ",
        ),
        (
            Stream::Evidence,
            "[1]",
            "not-an-object",
            "neither an object nor null",
        ),
    ];
    for (stream, line, ..) in cases {
        bench.append(stream, A, format!("{line}\n"));
    }
    // With a row in their batch, they are in the journal at once.
    bench.append_run(B, "row");
    with_and_without_a_daemon(&bench, |bench, _| {
        let letters = bench.ask(&["dead-letters", "--json"])["letters"].clone();
        let table = bench.run(&mut bench.command(&["dead-letters"])).stdout;
        let letters = letters.as_array().unwrap();
        assert_eq!(letters.len(), cases.len());
        for (letter, (stream, line, reason, detail)) in letters.iter().zip(cases) {
            let found = letter["detail"].as_str().unwrap();
            assert!(
                letter["reason"] == reason && found.starts_with(detail),
                "{line}: {letter}"
            );
            assert!(table.contains(&format!("{reason}: {found}")), "{table}");
            let offset = letter["offset"].to_string();
            let mut show = vec!["dead-letters", "show", A, &offset];
            show.extend((stream == Stream::Evidence).then_some("--evidence"));
            bench.run(&mut bench.command(&show)).check(0, &[found]);
        }
    });
}

/// Replaces a line with another of the same length, in the middle of a day-file, far from its end, and restores the
/// modification time: no part of the source's identity changes.
fn repair(bench: &Bench, broken: &str, repaired: &str) {
    let path = bench.path(Stream::Scored, A);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(
        (text.matches(broken).count(), broken.len()),
        (1, repaired.len())
    );
    // Not truncated first: the daemon could see that as a rewrite.
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(text.replace(broken, repaired).as_bytes(), 0)
        .unwrap();
    file.set_modified(modified).unwrap();
}

/// Creates a lake with more lines than a source's head and tail cover, the middle one malformed.
fn broken_lake(bench: &Bench) -> (String, String) {
    let repaired = scored("run-20");
    let broken = repaired.replacen('{', "?", 1);
    for n in 0..40 {
        let run = format!("run-{n:02}");
        bench.append(Stream::Evidence, A, evidence(&run));
        let line = if n == 20 {
            broken.clone()
        } else {
            scored(&run)
        };
        bench.append(Stream::Scored, A, line);
    }
    (broken, repaired)
}

fn check_retried(bench: &Bench, report: &Value) {
    assert_eq!(
        (
            &report["before"]["malformed"],
            &report["after"]["malformed"]
        ),
        (&1.into(), &0.into())
    );
    assert_eq!(
        (&report["before"]["exported"], &report["after"]["exported"]),
        (&39.into(), &40.into())
    );
    bench.assert_distinct(40);
    assert_eq!(
        bench.ask(&["dead-letters", "--json"])["letters"],
        Value::Array(Vec::new())
    );
}

/// A day-file with a dead letter is deleted: it was read, so a retry names what is missing, and changes nothing. Its lines
/// are explained as those of a deleted day-file, until it is restored.
#[test]
fn a_retry_of_a_deleted_day_file_names_what_is_missing() {
    for with_daemon in [false, true] {
        let bench = Bench::new();
        let evidence_lines = evidence("a") + "no record\n";
        bench.append(Stream::Evidence, A, evidence_lines);
        bench.append(Stream::Scored, A, scored("a"));
        bench.once();
        let daemon = with_daemon.then(|| bench.start_caught_up());
        let path = bench.path(Stream::Evidence, A);
        let aside = bench.sibling("aside.jsonl");
        fs::rename(&path, &aside).unwrap();
        match daemon.is_some() {
            true => _ = bench.ask(&["wait", "--fresh", "--json"]),
            false => _ = bench.once(),
        }
        let retry = ["dead-letters", "retry", "--evidence", A];
        let letters = bench.ask(&["dead-letters", "--json"]);
        let refused = bench.run(&mut bench.command(&retry));
        let named = format!("cannot read {} now", path.display());
        refused.check(
            1,
            &[&named, "No such file", "restore the day-file", "fix: "],
        );
        assert!(!refused.stderr.contains("never read"), "{}", refused.stderr);
        assert_eq!(bench.ask(&["dead-letters", "--json"]), letters);

        let notes = || {
            let explained = bench.ask(&["explain", "a", "--json"]);
            let lines = explained["lines"].as_array().unwrap().iter();
            let mut notes: Vec<_> = lines
                .map(|line| {
                    let flag = |key: &str| line[key].as_bool().unwrap();
                    let stream = line["stream"].as_str().unwrap().to_owned();
                    (stream, flag("deleted"), flag("changed_since"))
                })
                .collect();
            notes.sort();
            notes
        };
        let of = |evidence_is_deleted, scored_is_deleted| {
            vec![
                ("evidence".to_owned(), evidence_is_deleted, false),
                ("scored".to_owned(), scored_is_deleted, false),
            ]
        };
        assert_eq!(notes(), of(true, false));
        let text = bench.run(&mut bench.command(&["explain", "a"])).stdout;
        assert!(text.contains("its day-file is deleted"), "{text}");
        assert!(!text.contains("will be read again"), "{text}");
        fs::rename(&aside, &path).unwrap();
        assert_eq!(notes(), of(false, false));
        let scored_path = bench.path(Stream::Scored, A);
        fs::rename(&scored_path, &aside).unwrap();
        assert_eq!(notes(), of(false, true));
        fs::rename(&aside, &scored_path).unwrap();
        let retried = bench.ask(&retry);
        assert_eq!(retried["before"], retried["after"]);
        if let Some(daemon) = daemon {
            bench.stop(daemon);
        }
        bench.run(&mut bench.command(&["verify"])).check(0, &[]);
    }
}

#[test]
fn a_line_repaired_in_place_has_its_row_after_a_retry_by_the_daemon() {
    let bench = Bench::new();
    let (broken, repaired) = broken_lake(&bench);
    // A daemon that does not look for changes while the test runs.
    let mut command = bench.command(&["run"]);
    command.env("DISTILLD_WATCH", "poll");
    command.env("DISTILLD_POLL_MS", "3600000");
    let mut daemon = bench.catch_up(&mut command);
    repair(&bench, &broken, &repaired);
    assert!(!bench.has("run-20"));
    let report = bench.ask(&["dead-letters", "retry", A]);
    daemon.check_running().unwrap();
    assert_eq!(
        (
            &report["before"]["malformed"],
            &report["after"]["malformed"]
        ),
        (&1.into(), &0.into())
    );
    assert_eq!(
        (&report["before"]["exported"], &report["after"]["exported"]),
        (&39.into(), &40.into())
    );
    bench.assert_distinct(40);
    let unknown = bench.run(&mut bench.command(&["dead-letters", "retry", "2026/05/09/x.jsonl"]));
    unknown.check(1, &["2026/05/09/x.jsonl was never read", "fix: "]);
    bench.stop(daemon);
    bench.run(&mut bench.command(&["verify"])).check(0, &[]);
}

#[test]
fn a_line_repaired_in_place_has_its_row_after_a_retry_without_a_daemon() {
    let bench = Bench::new();
    let (broken, repaired) = broken_lake(&bench);
    bench.once();
    repair(&bench, &broken, &repaired);
    let report = bench.ask(&["dead-letters", "retry", A]);
    check_retried(&bench, &report);
    let again = bench.ask(&["dead-letters", "retry", A, "--evidence"]);
    assert_eq!(again["before"], again["after"]);
    // Rows after the repaired line keep the index that they were written with.
    bench.run(&mut bench.command(&["verify"])).check(0, &[]);
}

#[test]
fn a_day_file_whose_name_is_no_text_is_like_any_other() {
    let bench = Bench::new();
    let name = OsStr::from_bytes(b"2026/05/01/caf\xe9 x\xe2\x82.jsonl");
    for stream in [Stream::Scored, Stream::Evidence] {
        let path = bench.path(stream, A);
        let path = path.with_file_name(Path::new(name).file_name().unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let line = match stream {
            Stream::Scored => scored("a") + "broken\n",
            Stream::Evidence => evidence("a"),
        };
        fs::write(path, line).unwrap();
    }
    let check = || {
        let run = |before: &[&str], after: &[&str]| {
            let mut command = bench.command(before);
            bench.run(command.arg(name).args(after))
        };
        run(&["dead-letters", "--day-file"], &[]).check(0, &[]);
        let offset = scored("a").len().to_string();
        let shown = run(&["dead-letters", "show"], &[&offset]);
        shown.check(0, &[]);
        assert_eq!(shown.stdout, "broken\n");
        run(&["dead-letters", "retry"], &[]).check(0, &[]);
        bench.ask(&["explain", "a", "--json"]);
        bench.ask(&["plan", "--json"]);
        bench.run(&mut bench.command(&["verify"])).check(0, &[]);
    };
    let daemon = bench.start_caught_up();
    check();
    bench.stop(daemon);
    check();
    bench.run(&mut bench.command(&["rebuild"])).check(0, &[]);
    bench.run(&mut bench.command(&["verify"])).check(0, &[]);
}

#[test]
fn a_plan_without_a_daemon_predicts_run_once() {
    let bench = Bench::new();
    lake(&bench);
    bench.once();
    bench.append_run(B, "new");
    bench.append(Stream::Evidence, A, evidence("f"));
    let plan = bench.ask(&["plan", "--json"]);
    let total = &plan["total"];
    assert_eq!(
        (&total["rows"], &total["waiting"], &total["lines"]),
        (&2.into(), &(-1).into(), &1.into())
    );
    assert_eq!(bench.row_count(), 2);
    let page = bench.run(&mut bench.command(&["plan"]));
    assert!(
        page.stdout.contains("2 pairs of day-files"),
        "{}",
        page.stdout
    );
    assert!(
        page.stdout
            .lines()
            .any(|line| line.split_whitespace().eq(["rows", "+2", "+1", "+1"])),
        "{}",
        page.stdout
    );
    // A day-file that has just changed may still be changing.
    for (stream, pair) in [
        (Stream::Scored, B),
        (Stream::Evidence, B),
        (Stream::Evidence, A),
    ] {
        let file = OpenOptions::new()
            .write(true)
            .open(bench.path(stream, pair));
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_nanos(1);
        file.unwrap().set_modified(long_ago).unwrap();
    }
    bench.once();
    assert_eq!(bench.row_count(), 4);
    let idle = wait_until(LONG, || {
        bench.once();
        let idle = bench.run(&mut bench.command(&["plan"]));
        Ok(idle.stdout.starts_with("nothing to do"))
    });
    assert_eq!(idle, Ok(true));
    let daemon = bench.start_caught_up();
    assert_eq!(bench.ask(&["plan", "--json"])["total"]["rows"], 0);
    bench.stop(daemon);
}

#[test]
fn only_a_retry_is_a_post_and_no_request_stops_the_daemon() {
    let bench = Bench::new();
    lake(&bench);
    let mut daemon = bench.start_caught_up();
    let socket = bench.state_dir().join("control.sock");
    let curl = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
            "--unix-socket",
        ]);
        let output = command.arg(&socket).args(arguments).output();
        output
            .ok()
            .map(|output| String::from_utf8(output.stdout).unwrap())
    };
    for (arguments, code) in [
        (&["-X", "POST", "http://d/status.json"][..], "405"),
        (
            &["http://d/dead-letters/retry?day_file=x&stream=scored"],
            "404",
        ),
        (
            &[
                "-X",
                "POST",
                "http://d/dead-letters/retry?day_file=../../x&stream=scored",
            ],
            "400",
        ),
        (&["http://d/explain.json"], "400"),
        (&["http://d/explain.json?run_id=%ff%00"], "200"),
        (
            &["http://d/dead-letters.json?limit=99999999999999999999&skip=-1"],
            "200",
        ),
        (&["http://d/recent.json"], "200"),
        (&["http://d/plan.json"], "200"),
    ] {
        match curl(arguments) {
            Some(expected) => assert_eq!(expected, code, "{arguments:?}"),
            None if std::env::var_os("CI").is_none() => {
                eprintln!("skipped: curl is not installed");
                return;
            }
            None => panic!("curl is not installed"),
        }
    }
    bench.probe(&mut daemon);
    bench.stop(daemon);
}

/// Another process holds the daemon's lock.
#[test]
fn invalid_answers_end_every_query() {
    const LETTERS: &str = r#"{"letters":[],"more":true}"#;
    const EXPLANATION: &str = r#"{"run_id":"r1","known":true,"near":[],"lines":[{"stream":"scored","day_file":"d",
        "line":1,"offset":18446744073709551615,"len_bytes":1,"verdict":"exported","rule":"r","value":null,
        "row":{"offset":1,"len_bytes":18446744073709551615},"waiting_since":null,"waits_for":null,
        "superseded":false,"contradicted":false,"changed_since":false}]}"#;
    let bench = Bench::new();
    fs::create_dir_all(bench.state_dir()).unwrap();
    let root = bench.root().canonicalize().unwrap();
    let _lock = RootLock::take(&root, &bench.state_dir()).unwrap();
    let listener = UnixListener::bind(bench.state_dir().join("control.sock")).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut request) = (stream.unwrap(), [0; 4096]);
            let len = stream.read(&mut request).unwrap();
            let explain = request[..len].starts_with(b"GET /explain");
            let body = if explain { EXPLANATION } else { LETTERS };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all((head + body).as_bytes()).unwrap();
        }
    });
    let shown = bench.run(&mut bench.command(&["dead-letters", "show", A, "1"]));
    shown.check(1, &["no dead letter starts at byte 1"]);
    let explained = bench.run(&mut bench.command(&["explain", "r1"]));
    explained.check(0, &[]);
    assert!(
        explained.stdout.contains("exported"),
        "{}",
        explained.stdout
    );
}

#[test]
fn a_failed_control_socket_is_created_once_possible() {
    let bench = Bench::new();
    bench.append_run(A, "a");
    bench.once();
    // Something is in its place that cannot be replaced.
    let in_the_way = bench.state_dir().join("control.sock/full");
    fs::create_dir_all(&in_the_way).unwrap();
    let mut daemon = bench.start_caught_up();
    let explain = || bench.run(&mut bench.command(&["explain", "a"]));
    explain().check(1, &["gives no answer"]);
    fs::remove_dir_all(in_the_way.parent().unwrap()).unwrap();
    bench.wait_for(&mut daemon, "it answers", || {
        explain().status.code() == Some(0)
    });
    bench.stop(daemon);
}

#[test]
fn a_run_whose_line_is_gone_is_not_reported_to_lack_evidence() {
    let bench = Bench::new();
    bench.append(Stream::Scored, A, scored("w"));
    bench.once();
    let rule = || {
        let explanation = bench.ask(&["explain", "w", "--json"]);
        let line = explanation["lines"].as_array().unwrap()[0].clone();
        assert_eq!(line["verdict"], "waiting", "{explanation}");
        line["rule"].to_string()
    };
    assert!(rule().contains("no evidence"));
    fs::remove_file(bench.path(Stream::Scored, A)).unwrap();
    bench.append(Stream::Evidence, A, evidence("w"));
    bench.once();
    assert!(rule().contains("cannot be read any more"), "{}", rule());
}

/// An id may be as long as a line.
#[test]
fn a_run_with_a_very_long_id_is_explained_and_not_listed() {
    let bench = Bench::new();
    let ids = [
        "i".repeat(5_000),
        "\u{df}".repeat(10_000),
        "w".repeat(100_000),
    ];
    for id in &ids {
        bench.append(Stream::Scored, A, scored(id));
    }
    let check = || {
        for id in &ids {
            let explanation = bench.ask(&["explain", id, "--json"]);
            assert_eq!(explanation["run_id"], **id);
            assert_eq!(explanation["lines"][0]["verdict"], "waiting");
        }
        let status = bench.status();
        let waiting = status["waiting_oldest"].as_array().unwrap();
        assert_eq!(waiting.len(), ids.len());
        assert!(waiting.iter().all(|run| run["run_id"].is_null()));
    };
    bench.once();
    check();
    let mut daemon = bench.start_caught_up();
    check();
    for id in &ids {
        bench.append(Stream::Evidence, A, evidence(id));
        bench.wait_run(&mut daemon, id);
        bench.append(Stream::Scored, A, scored_as(id, "rejected"));
    }
    bench.wait_for(&mut daemon, "all rows are retracted", || {
        bench.status()["retractions"]["rows"] == ids.len()
    });
    let listed = bench.ask(&["explain", "--retracted", "--json"]);
    let rows = listed["rows"].as_array().unwrap();
    assert_eq!(rows.len(), ids.len());
    assert!(rows.iter().all(|row| row["run_id"].is_null()), "{rows:?}");
    let text = bench.run(&mut bench.command(&["explain", "--retracted"]));
    let long = "(longer than 4 KiB)";
    assert_eq!(text.stdout.matches(long).count(), ids.len(), "{text:?}");
    bench.stop(daemon);
}
