//! The ledger of retractions of the real daemon: each row of its table, files that are lost, cut or of another lake, and
//! readers.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::health::{Surfaces, listen};
use crate::support::kill_harness::wait_until;
use crate::support::lake_gen::Stream;
use crate::support::ledger::{Event, effective_rows, ledger_fault, read_ledger};
use crate::support::naive::{naive_batch, read_pairs};
use crate::support::process::{Bench, LONG, evidence, evidence_with, scored, scored_as};
use distilld::pair::checkpoint::FORMAT;
use distilld::platform::storage::OsStorage;
use distilld::query::health::Health;
use distilld::store::state::State;
use distilld::store::state::header::Header;

const PAIR: &str = "2026/01/01/audits.jsonl";
const OTHER: &str = "2026/01/02/other.jsonl";

/// Kind, cause and run of an event.
type Outline = (&'static str, &'static str, &'static str);

/// Lines in the order of their arrival, and the events that they give.
type Case<'a> = (&'a [(Stream, String)], &'a [Outline]);

/// A lake with its ledger.
struct Lake {
    bench: Bench,
}

impl Lake {
    fn new() -> Self {
        Self {
            bench: Bench::new(),
        }
    }

    /// A lake with rows of `kept`, of `out`, which is rejected, and a waiting run, and no daemon.
    fn with_history() -> Self {
        let lake = Self::new();
        for pair in [PAIR, OTHER] {
            lake.bench.append_run(pair, "kept");
            lake.bench.append_run(pair, "out");
        }
        lake.score(PAIR, "out", "rejected");
        lake.score(PAIR, "waits", "accepted");
        lake.bench.once();
        lake.check(1);
        lake
    }

    fn score(&self, pair: &str, run: &str, category: &str) {
        self.bench
            .append(Stream::Scored, pair, scored_as(run, category));
    }

    fn path(&self) -> PathBuf {
        self.bench.export().with_file_name("sft_retractions.jsonl")
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap_or_default()
    }

    fn events(&self) -> Vec<Event> {
        read_ledger(&self.bench.export_bytes(), &self.bytes()).unwrap()
    }

    /// Returns the events after `begin`, each as op, cause and run.
    fn outline(&self) -> Vec<(String, String, String)> {
        let events = self.events().into_iter().skip(1);
        events
            .map(|event| (event.op, event.cause, event.run_id))
            .collect()
    }

    /// Returns the effective rows.
    fn effective(&self) -> Vec<String> {
        let rows = effective_rows(&self.bench.export_bytes(), &self.events());
        let rows = String::from_utf8(rows).unwrap();
        rows.lines().map(str::to_owned).collect()
    }

    /// Runs `verify`, and returns its result and its exit code.
    fn verify(&self) -> (Value, Option<i32>) {
        let ended = self.bench.run(&mut self.bench.command(&["verify"]));
        (
            serde_json::from_str(&ended.stdout).unwrap(),
            ended.status.code(),
        )
    }

    /// Asserts on a quiet lake: `retracted` rows are out, by the fold, `status`, `verify` and the sources, and `rows` prints
    /// the others.
    fn check(&self, retracted: u64) {
        let pairs = read_pairs(&OsStorage, &self.bench.root()).unwrap();
        let (export, ledger) = (self.bench.export_bytes(), self.bytes());
        assert_eq!(
            ledger_fault(&export, &ledger, &naive_batch(&pairs, false)),
            None
        );
        self.check_figures(retracted);
    }

    /// As [`Self::check`], for sources that no longer give the reason why the rows are out.
    fn check_figures(&self, retracted: u64) {
        let (export, ledger) = (self.bench.export_bytes(), self.bytes());
        let rows = self.bench.run(&mut self.bench.command(&["rows"]));
        rows.check(0, &[]);
        let effective = effective_rows(&export, &self.events());
        assert!(rows.stdout.as_bytes() == effective);
        let (verified, code) = self.verify();
        assert_eq!(
            (code, &verified["equal"]),
            (Some(0), &true.into()),
            "{verified}"
        );
        assert_eq!(verified["retracted"], retracted, "{verified}");
        let status = self.bench.status();
        assert_eq!(status["retractions"]["rows"], retracted, "{status}");
        assert_eq!(status["retractions"]["len_bytes"], ledger.len(), "{status}");
    }

    /// Runs the daemon until it has read everything, and stops it.
    fn once(&self) {
        self.bench.once();
    }

    fn remove_ledger(&self) {
        fs::remove_file(self.path()).unwrap();
    }

    fn set_len(&self, len: usize) {
        let file = OpenOptions::new().write(true).open(self.path()).unwrap();
        file.set_len(len as u64).unwrap();
    }
}

fn outline(expected: &[Outline]) -> Vec<(String, String, String)> {
    let owned = |(op, cause, run): &(&str, &str, &str)| {
        ((*op).to_owned(), (*cause).to_owned(), (*run).to_owned())
    };
    expected.iter().map(owned).collect()
}

/// The table of the ledger's events, read at once and in the steps of a daemon.
#[test]
fn each_way_of_a_verdict_has_its_events() {
    let rejected = ("retract", "rejected", "a");
    let cases: [Case<'_>; 7] = [
        (
            &[
                (Stream::Evidence, evidence("a")),
                (Stream::Scored, scored("a")),
                (Stream::Scored, scored_as("a", "rejected")),
                (Stream::Scored, scored_as("a", "rejected")),
            ],
            &[rejected],
        ),
        (
            &[
                (Stream::Evidence, evidence("a")),
                (Stream::Scored, scored("a")),
                (Stream::Scored, scored_as("a", "needs_human_review")),
            ],
            &[("retract", "needs_human_review", "a")],
        ),
        (
            &[
                (Stream::Evidence, evidence("a")),
                (Stream::Scored, scored("a")),
                (Stream::Scored, scored_as("a", "never heard of")),
            ],
            &[("retract", "unknown_category", "a")],
        ),
        (
            &[
                (Stream::Scored, scored("a")),
                (Stream::Scored, scored_as("a", "rejected")),
                (Stream::Evidence, evidence("a")),
            ],
            &[rejected],
        ),
        (
            &[
                (Stream::Evidence, evidence("a")),
                (Stream::Scored, scored("a")),
                (Stream::Scored, scored_as("a", "rejected")),
                (Stream::Scored, scored("a")),
            ],
            &[rejected],
        ),
        (
            &[
                (Stream::Evidence, evidence("a")),
                (Stream::Scored, scored("a")),
                (Stream::Scored, scored_as("a", "partially_accepted")),
            ],
            &[("retract", "rescored", "a")],
        ),
        (
            &[
                (Stream::Evidence, evidence("a")),
                (Stream::Scored, scored("a")),
                (Stream::Evidence, evidence_with("a", "another text")),
            ],
            &[("note", "superseded", "a")],
        ),
    ];
    for (n, (steps, expected)) in cases.iter().enumerate() {
        let in_steps = Lake::new();
        for (stream, line) in *steps {
            in_steps.bench.append(*stream, PAIR, line);
            in_steps.once();
        }
        assert_eq!(in_steps.outline(), outline(expected), "case {n}");
        let retracted = expected.iter().filter(|event| event.0 == "retract").count();
        in_steps.check_figures(retracted as u64);
    }
}

/// A rejecting line that is edited or cut away restores the row, once, and a read of the pair again changes nothing.
#[test]
fn a_row_is_restored_when_no_line_rejects_it_any_more() {
    for edit in [
        scored("out") + &scored_as("out", "malformed").replace('{', "["),
        scored("out"),
        scored("out") + &scored("another"),
    ] {
        let lake = Lake::new();
        lake.bench.append(Stream::Evidence, PAIR, evidence("out"));
        lake.bench.append(
            Stream::Scored,
            PAIR,
            scored("out") + &scored_as("out", "rejected"),
        );
        lake.once();
        assert_eq!(lake.outline(), outline(&[("retract", "rejected", "out")]));
        let path = lake.bench.path(Stream::Scored, PAIR);
        fs::write(&path, edit).unwrap();
        lake.once();
        let both = [
            ("retract", "rejected", "out"),
            ("restore", "rejected", "out"),
        ];
        assert_eq!(lake.outline(), outline(&both));
        lake.check(0);
        // The line comes back, and then the whole file is touched by a copy.
        lake.score(PAIR, "out", "rejected");
        lake.once();
        let copy = path.with_extension("copy");
        fs::copy(&path, &copy).unwrap();
        fs::rename(&copy, &path).unwrap();
        lake.once();
        let three = [both[0], both[1], both[0]];
        assert_eq!(lake.outline(), outline(&three));
        lake.check(1);
    }
}

/// What remains of the scored day-file of a pair, of which one run is out and another one is not.
#[derive(Debug, Clone, Copy)]
enum Left {
    Nothing,
    AnEmptyFile,
    AnotherRun,
    ADirectoryElsewhere,
}

/// A row whose own line is gone has no verdict any more: it stays out if it was out, and effective if it was, until its
/// line is there again. With the ledger lost as well nothing shows that it ever was out.
#[test]
fn a_day_file_that_is_gone_is_no_verdict() {
    for left in [
        Left::Nothing,
        Left::AnEmptyFile,
        Left::AnotherRun,
        Left::ADirectoryElsewhere,
    ] {
        for lost in [&[][..], &["state"], &["state", "ledger"]] {
            let what = format!("{left:?}, lost {lost:?}");
            let lake = Lake::with_history();
            let path = lake.bench.path(Stream::Scored, PAIR);
            let lines = fs::read_to_string(&path).unwrap();
            match left {
                Left::Nothing => fs::remove_file(&path).unwrap(),
                Left::AnEmptyFile => fs::write(&path, "").unwrap(),
                Left::AnotherRun => fs::write(&path, scored("another")).unwrap(),
                Left::ADirectoryElsewhere => {
                    let day = path.parent().unwrap();
                    fs::rename(day, lake.bench.sibling("archive")).unwrap();
                }
            }
            for lost in lost {
                match *lost {
                    "state" => lake.bench.remove_state(),
                    _ => lake.remove_ledger(),
                }
            }
            let is_known = !lost.contains(&"ledger");
            let before = lake.bytes();
            lake.once();
            if is_known {
                assert!(lake.bytes() == before, "{what}: it is no event");
            }
            assert_eq!(lake.effective().len(), 3 + usize::from(!is_known), "{what}");
            let (verified, _) = lake.verify();
            for kind in ["unretracted", "unfounded", "ledger"] {
                assert_eq!(verified[kind], 0, "{what}: {verified}");
            }
            // The lines come back, with the rejection and without it.
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &lines).unwrap();
            lake.once();
            lake.check(1);
            if is_known {
                assert!(lake.bytes() == before, "{what}: it is no event");
            }
            fs::write(&path, lines.replace("\"rejected\"", "\"malformed").as_str()).unwrap();
            lake.once();
            lake.check(0);
        }
    }
}

/// The state is lost, and the ledger is there, short of nothing, torn, gone, or of another export, with and without the
/// export: the retractions afterwards follow from the sources, and nothing is there twice.
#[test]
fn a_lost_state_adopts_the_ledger_or_begins_one() {
    let lake = Lake::with_history();
    let before = lake.bytes();
    lake.bench.remove_state();
    lake.once();
    assert!(lake.bytes() == before, "nothing is written twice");
    lake.check(1);

    // A rejection that came while there was no daemon and no state.
    lake.bench.remove_state();
    lake.score(OTHER, "out", "needs_human_review");
    lake.once();
    assert!(lake.bytes().starts_with(&before));
    lake.check(2);
    let whole = lake.bytes();

    // A torn last line.
    lake.bench.remove_state();
    lake.set_len(whole.len() - 7);
    lake.once();
    lake.check(2);
    assert_eq!(lake.events().len(), 3);

    // No ledger: an upgrade, or a batch export.
    lake.bench.remove_state();
    lake.remove_ledger();
    let rows = lake.bench.export_bytes();
    lake.once();
    assert!(lake.bench.export_bytes() == rows);
    let events = lake.events();
    assert_eq!(
        (events[0].op.as_str(), events[0].cause.as_str()),
        ("begin", "adopted")
    );
    lake.check(2);

    // No export and no state: the ledger is of an export that is gone.
    let ledger = lake.bytes();
    lake.bench.remove_state();
    fs::remove_file(lake.bench.export()).unwrap();
    let ended = lake.bench.run(&mut lake.bench.command(&["run", "--once"]));
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(
        lake.bytes() == ledger,
        "a ledger that does not fit is not touched"
    );
    lake.bench.ask(&["rebuild"]);
    lake.once();
    assert_ne!(lake.events()[0].export, events[0].export);
    lake.check(2);

    // All three are gone.
    lake.bench.remove_state();
    lake.remove_ledger();
    fs::remove_file(lake.bench.export()).unwrap();
    lake.once();
    assert_eq!(lake.events()[0].cause, "created");
    lake.check(2);
}

/// An upgrade: the state is of a format without a ledger.
#[test]
fn a_lake_of_an_older_format_gets_a_ledger_at_the_first_start_and_keeps_its_rows() {
    let lake = Lake::with_history();
    lake.remove_ledger();
    let path = lake.bench.state_dir().join("state.redb");
    let mut state = State::open(&OsStorage, &path).unwrap();
    let header = state.header().clone();
    let older = Header {
        format: FORMAT - 1,
        ..header
    };
    state.write_header(older).unwrap();
    drop(state);
    lake.bench
        .run(&mut lake.bench.command(&["rows"]))
        .check(1, &["has no ledger", "fix: start `distilld run`"]);
    let rows = lake.bench.export_bytes();
    let expected = format!("it is of format {}", FORMAT - 1);
    lake.bench.once().check(0, &[&expected]);
    assert!(lake.bench.export_bytes() == rows);
    let begin = lake.events()[0].clone();
    assert_eq!((&*begin.op, &*begin.cause), ("begin", "adopted"));
    assert_eq!(begin.export_len, rows.len() as u64);
    lake.check(1);
    let ledger = lake.bytes();
    lake.once();
    assert!(lake.bytes() == ledger && lake.bench.export_bytes() == rows);
}

/// Damage of the ledger under an intact state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Missing,
    Short,
    Changed,
    OfAnotherLake,
}

const DAMAGES: [Damage; 4] = [
    Damage::Missing,
    Damage::Short,
    Damage::Changed,
    Damage::OfAnotherLake,
];

fn damage(lake: &Lake, damage: Damage) {
    let len = lake.bytes().len();
    match damage {
        Damage::Missing => lake.remove_ledger(),
        Damage::Short => lake.set_len(len - 400),
        Damage::Changed => {
            let mut bytes = lake.bytes();
            let at = bytes.len() - 20;
            bytes[at] ^= 1;
            fs::write(lake.path(), bytes).unwrap();
        }
        Damage::OfAnotherLake => {
            let other = Lake::with_history();
            other.score(OTHER, "kept", "rejected");
            other.once();
            fs::copy(other.path(), lake.path()).unwrap();
        }
    }
}

#[test]
fn a_ledger_that_is_lost_or_changed_stops_the_daemon_and_the_ways_out_work() {
    for kind in DAMAGES {
        for way_out in ["restore", "--state-only", "rebuild"] {
            let what = format!("{kind:?}, {way_out}");
            let lake = Lake::with_history();
            let intact = lake.bytes();
            damage(&lake, kind);
            let found = lake.bytes();
            let surfaces = Surfaces::start_stopped(&lake.bench, &mut listen(&lake.bench));
            surfaces.expect(Health::Stopped, "sft_retractions.jsonl");
            let health = lake.bench.status()["health"].clone();
            let fix = health["fix"].as_str().unwrap_or_default();
            assert!(fix.contains("rebuild"), "{what}: {health}");
            let rows = lake.bench.export_bytes();
            lake.score(PAIR, "kept", "rejected");
            surfaces.stop();
            assert!(
                lake.bytes() == found,
                "{what}: a damaged ledger is not touched"
            );
            assert!(lake.bench.export_bytes() == rows, "{what}");
            match way_out {
                "restore" => fs::write(lake.path(), &intact).unwrap(),
                "rebuild" => _ = lake.bench.ask(&["rebuild"]),
                _ => {
                    _ = lake
                        .bench
                        .run(&mut lake.bench.command(&["rebuild", way_out]))
                }
            }
            lake.once();
            lake.check(2);
        }
    }
}

/// The ledger is lost or changed while the daemon runs.
#[test]
fn a_ledger_that_is_changed_under_the_daemon_stops_its_rows() {
    for kind in DAMAGES {
        let lake = Lake::with_history();
        let mut daemon = lake.bench.start_caught_up();
        damage(&lake, kind);
        let rows = lake.bench.row_count();
        lake.score(PAIR, "kept", "rejected");
        lake.bench.append_run(OTHER, "new");
        lake.bench.wait_for(&mut daemon, "it stops", || {
            lake.bench.status()["health"]["verdict"] == "stopped"
        });
        assert_eq!(lake.bench.row_count(), rows, "{kind:?}");
        lake.bench.stop(daemon);
    }
}

/// Without a ledger nothing shows which rows are retracted, and no command reports that none is: with the daemon, whose state
/// knows better, and without it.
#[test]
fn a_lost_ledger_is_never_taken_for_one_without_retractions() {
    for is_running in [true, false] {
        for is_emptied in [true, false] {
            let lake = Lake::with_history();
            let daemon = is_running.then(|| lake.bench.start_caught_up());
            match is_emptied {
                true => lake.set_len(0),
                false => lake.remove_ledger(),
            }
            let what = format!("running {is_running}, emptied {is_emptied}");
            let (verified, code) = lake.verify();
            let found = (&verified["ledger"], &verified["equal"]);
            assert_eq!(
                (found, code),
                ((&1.into(), &false.into()), Some(1)),
                "{what}"
            );
            for args in [
                &["explain", "--retracted"][..],
                &["retract", "--list"],
                &["rows"],
                &["cite"],
            ] {
                let ended = lake.bench.run(&mut lake.bench.command(args));
                ended.check(1, &["ledger", "fix: "]);
            }
            if let Some(daemon) = daemon {
                daemon.kill_9().unwrap();
            }
        }
    }
}

/// The export that a rebuild replaced is read with the ledger that was replaced with it: the new ledger lacks the
/// retractions of rows that were left out. Before, a ledger is replaced alone, and the numbers of both must not diverge.
#[test]
fn a_replaced_export_is_read_with_its_own_ledger() {
    let lake = Lake::with_history();
    let run = |args: &[&str]| lake.bench.run(&mut lake.bench.command(args));
    fs::write(lake.path(), "{}\n").unwrap();
    run(&["rebuild", "--state-only"]).check(0, &[]);
    lake.once();
    let version = lake.bench.ask(&["cite", "--json"])["version"].clone();
    let version = version.as_str().unwrap();
    let (rows, len) = (run(&["rows"]).stdout, lake.bench.export_bytes().len());
    assert!(rows.lines().count() < lake.bench.row_count());
    run(&["rebuild", "--effective"]).check(0, &[]);
    let beside = fs::read_dir(lake.bench.export().parent().unwrap()).unwrap();
    let kept = beside.map(|entry| entry.unwrap().path()).find(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("sft_export.jsonl.before-rebuild")
    });
    let kept = kept.unwrap();
    let kept = kept.to_str().unwrap();
    assert_eq!(run(&["rows", "--export", kept]).stdout, rows);
    for command in ["rows", "cite", "verify"] {
        run(&[command, "--at", version, "--export", kept]).check(0, &[]);
    }
    let first = String::from_utf8(lake.bytes()).unwrap();
    let replaced = format!(", {len} bytes, with a ledger of");
    assert!(first.lines().next().unwrap().contains(&replaced), "{first}");
}

/// A ledger that `verify` must not call equal.
#[test]
fn verify_names_what_is_wrong_with_a_ledger() {
    let lake = Lake::with_history();
    let intact = String::from_utf8(lake.bytes()).unwrap();
    let lines: Vec<&str> = intact.split_inclusive('\n').collect();
    let retract_kept = |seq: usize| {
        let row = lake.bench.export_bytes();
        let row = row
            .split_inclusive(|byte| *byte == b'\n')
            .next()
            .unwrap()
            .to_vec();
        let hash = distilld::record::ledger::to_hex(&distilld::record::ledger::row_hash(&row));
        let mut value: Value = serde_json::from_str(lines[1]).unwrap();
        value["seq"] = seq.into();
        value["row_offset"] = 0.into();
        value["row_len"] = row.len().into();
        value["row_hash"] = hash.into();
        let row: Value = serde_json::from_slice(&row).unwrap();
        value["id"] = row["id"].clone();
        value["source_run_id"] = row["source_run_id"].clone();
        in_order_of_keys(&value)
    };
    for (kind, ledger) in [
        ("unretracted", lines[0].to_owned()),
        ("unfounded", format!("{intact}{}", retract_kept(2))),
        ("ledger", format!("{intact}{}", retract_kept(3))),
        (
            "ledger",
            format!("{intact}{}", lines[1].replace("\"seq\":1", "\"seq\":2")),
        ),
        (
            "ledger",
            intact.replace("\"row_hash\":\"", "\"row_hash\":\"0"),
        ),
        (
            "ledger",
            intact.replace("\"row_offset\":", "\"row_offset\":1"),
        ),
        ("ledger", flipped_hash(&intact)),
        ("ledger", lines[1].to_owned()),
        ("ledger", String::new()),
    ] {
        fs::write(lake.path(), &ledger).unwrap();
        let (verified, code) = lake.verify();
        assert_eq!(code, Some(1), "{kind}: {verified} of {ledger}");
        assert!(
            verified[kind].as_u64() > Some(0),
            "{kind}: {verified} of {ledger}"
        );
    }
    fs::remove_file(lake.path()).unwrap();
    assert_eq!(lake.verify().0["ledger"], 1);
    fs::write(lake.path(), intact).unwrap();
    lake.check(1);
}

/// Returns a line with the keys in the order of the ledger.
fn in_order_of_keys(value: &Value) -> String {
    let keys = [
        "schema_version",
        "seq",
        "op",
        "export",
        "export_len",
        "row_offset",
        "row_len",
        "row_hash",
        "id",
        "source_run_id",
        "cause",
        "day_file",
        "line_offset",
        "reason",
        "at",
    ];
    let parts: Vec<String> = keys
        .iter()
        .map(|key| format!("\"{key}\":{}", value[*key]))
        .collect();
    format!("{{{}}}\n", parts.join(","))
}

/// Returns a ledger whose first row has another hash of the same length.
fn flipped_hash(intact: &str) -> String {
    let at = intact.rfind("\"row_hash\":\"").unwrap() + 12;
    let digit = if &intact[at..=at] == "0" { "1" } else { "0" };
    format!("{}{digit}{}", &intact[..at], &intact[at + 1..])
}

/// The disk has no room for the ledger: rows stop too, and nothing is lost when there is room.
#[test]
fn where_the_ledger_cannot_be_written_rows_stop_too() {
    if !crate::support::process::is_root() {
        return;
    }
    let lake = Lake::with_history();
    let attribute = |flag: &str| {
        let done = Command::new("chattr").arg(flag).arg(lake.path()).output();
        done.is_ok_and(|output| output.status.success())
    };
    if !attribute("+i") {
        eprintln!("chattr is missing, or the file system has no such attribute");
        return;
    }
    // It holds the file open or opens it: with either, nothing is shown.
    for is_started_before in [true, false] {
        assert!(attribute("-i"));
        let mut daemon = is_started_before.then(|| lake.bench.start_caught_up());
        assert!(attribute("+i"));
        let mut daemon = daemon.take().unwrap_or_else(|| lake.bench.start());
        let run = format!("new {is_started_before}");
        lake.score(PAIR, "kept", "rejected");
        lake.bench.append_run(OTHER, &run);
        let reports = || {
            Ok(daemon.end().is_ok_and(|end| end.is_some())
                || lake.bench.log_text().contains("cannot"))
        };
        let _ended = wait_until(LONG, reports).unwrap();
        assert!(!lake.bench.has(&run), "{}", lake.bench.log_text());
        daemon.kill_9().ok();
    }
    assert!(attribute("-i"));
    let rows = 4;
    let mut daemon = lake.bench.start_caught_up();
    lake.bench.wait_rows(&mut daemon, rows + 2);
    lake.bench.stop(daemon);
    lake.check(2);
}

/// Yesterday's version after growth and after a rebuild.
#[test]
fn a_version_outlives_growth_and_names_a_rebuild() {
    let lake = Lake::with_history();
    let cite = |lake: &Lake| lake.bench.ask(&["cite", "--json"]);
    let old = cite(&lake)["version"].as_str().unwrap().to_owned();
    let at = ["rows", "--at", &old];
    let rows = lake.bench.run(&mut lake.bench.command(&at)).stdout;
    lake.score(PAIR, "kept", "rejected");
    lake.bench.append(Stream::Evidence, PAIR, evidence("waits"));
    lake.once();
    lake.check(2);
    lake.bench
        .run(&mut lake.bench.command(&["verify", "--at", &old]))
        .check(0, &[]);
    assert!(lake.bench.run(&mut lake.bench.command(&at)).stdout == rows);
    let stamps = |lake: &Lake| -> Vec<Value> {
        let export = lake.bench.export_bytes();
        let rows = export.split_inclusive(|byte| *byte == b'\n');
        let stamp = |row| serde_json::from_slice::<Value>(row).unwrap()["created_at"].clone();
        let mut stamps: Vec<Value> = rows.map(stamp).collect();
        stamps.sort_by_key(Value::to_string);
        stamps
    };
    let (before, identity) = (stamps(&lake), lake.events()[0].export.clone());
    lake.bench.ask(&["rebuild"]);
    assert_eq!(stamps(&lake), before, "rows keep their times");
    lake.once();
    lake.check(2);
    let new = lake.events()[0].export.clone();
    assert_ne!(new, identity);
    assert_eq!(lake.events()[0].cause, "rebuild");
    lake.bench
        .run(&mut lake.bench.command(&["verify", "--at", &old]))
        .check(1, &[&new, "rebuild"]);
}
