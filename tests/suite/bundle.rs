//! `check --json` and `check --bundle`: each problem has a fix, and the report has nothing of the lake but numbers.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use serde_json::{Value, json};

use crate::support::lake_gen::Stream;
use crate::support::process::Bench;

/// The markers: each place of a lake where a text of a person can be has one of its own.
const PLACES: [&str; 16] = [
    "run",
    "text",
    "role",
    "category",
    "file",
    "task",
    "model",
    "source",
    "corpus",
    "hash",
    "time",
    "contractor",
    "reason",
    "malformed",
    "excluded",
    "temporary",
];

fn marker(place: &str) -> String {
    format!("zq{place}qz")
}

/// Appends lines that have a marker in each field.
fn append_marked(bench: &Bench, pair: &str, run: &str, category: &str, role: &str) {
    let provenance = json!({
        "source_file": marker("source"), "line_offset": 7, "sig_hash": marker("hash"), "recorded_at": marker("time"),
    });
    let evidence = json!({
        "run_id": run, "task_id": marker("task"), "model_name": marker("model"), "model_role": role,
        "text": marker("text"), "source_files": [marker("source")],
        "retrieved_context": {"matrix_corpora": [marker("corpus")], "pathway_fingerprints_seen": 1},
        "provenance": provenance, "metadata": {"contractor": marker("contractor")},
    });
    let scored = json!({"evidence_run_id": run, "category": category, "provenance": provenance});
    bench.append(Stream::Evidence, pair, format!("{evidence}\n"));
    bench.append(Stream::Scored, pair, format!("{scored}\n"));
}

/// Returns a lake with markers in every place that `check`, `status`, the metrics and the log name.
fn marked_lake() -> Bench {
    let bench = Bench::new();
    let pair = format!("2026/01/01/{}.jsonl", marker("file"));
    let run = marker("run");
    append_marked(&bench, &pair, &run, "accepted", "executor");
    append_marked(
        &bench,
        &pair,
        &format!("{run}2"),
        &marker("category"),
        "executor",
    );
    append_marked(
        &bench,
        &pair,
        &format!("{run}3"),
        "accepted",
        &marker("role"),
    );
    // Retracted, waiting, malformed.
    append_marked(&bench, &pair, &run, "rejected", "executor");
    let waiting = json!({"evidence_run_id": format!("{run}4"), "category": "accepted"});
    bench.append(Stream::Scored, &pair, format!("{waiting}\n"));
    bench.append(Stream::Scored, &pair, format!("{}\n", marker("malformed")));
    for name in [marker("excluded"), format!("tmp{}", marker("temporary"))] {
        append_marked(
            &bench,
            &format!("2026/01/01/{name}.jsonl"),
            &run,
            "accepted",
            "executor",
        );
    }
    // What cannot be read is named in the verdict.
    let elsewhere = bench.sibling("elsewhere");
    fs::create_dir_all(elsewhere.join("03")).unwrap();
    fs::write(elsewhere.join("03/a.jsonl"), "{}\n").unwrap();
    let link = format!("data/scored-runs/2026/{}", marker("file"));
    symlink(&elsewhere, bench.root().join(link)).unwrap();
    bench
}

fn check_report(bench: &Bench, name: &str) -> Value {
    let report = bench.sibling(name);
    let exclude = format!("{}*", marker("excluded"));
    let arguments = [
        "check",
        "--exclude",
        &exclude,
        "--bundle",
        report.to_str().unwrap(),
    ];
    let ended = bench.run(&mut bench.command(&arguments));
    ended.check(1, &["the report is in"]);
    assert!(ended.stdout.contains(&marker("file")), "{}", ended.stdout);
    let text = fs::read_to_string(&report).unwrap();
    for place in PLACES {
        let found = text.to_lowercase().find(&marker(place));
        assert_eq!(found, None, "{place}: {text}");
    }
    assert!(!text.contains("zq"), "{text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_report_has_figures_and_nothing_of_the_lake() {
    let bench = marked_lake();
    let exclude = format!("{}*", marker("excluded"));
    let mut daemon = bench.catch_up(&mut bench.command(&["run", "--exclude", &exclude]));
    let retract = ["retract", &marker("run"), "--reason", &marker("reason")];
    bench.run(&mut bench.command(&retract)).check(0, &[]);
    bench.wait_for(&mut daemon, "the link is found", || {
        bench.status()["health"]["verdict"] == "incomplete"
    });
    let status = bench.status();
    let report = check_report(&bench, "running.json");
    assert_eq!(report["versions"]["distilld"], env!("CARGO_PKG_VERSION"));
    let root = report["config"]["settings"][0].clone();
    assert_eq!(root["value"], bench.root().to_str().unwrap());
    assert_eq!(
        report["config"]["settings"][2]["value"], 1,
        "patterns are counted"
    );
    let figures = &report["status"];
    assert_eq!(figures["health"]["verdict"], "incomplete");
    assert_eq!(figures["scored"]["lines"], status["scored"]["lines"]);
    assert_eq!(
        figures["classes"][0]["malformed"],
        status["classes"][0]["malformed"]
    );
    let metrics = report["metrics"].as_array().unwrap();
    let has = |name: &str| {
        metrics
            .iter()
            .any(|line| line.as_str().unwrap().starts_with(name))
    };
    assert!(
        has("distilld_export_rows ") && has("distilld_health{"),
        "{metrics:?}"
    );
    let checks = report["checks"].as_array().unwrap();
    let unreadable = checks
        .iter()
        .find(|check| check["severity"] == "fail")
        .unwrap();
    assert!(
        unreadable["why"]
            .as_str()
            .unwrap()
            .starts_with("1 of its directories"),
        "{unreadable}"
    );
    bench.stop(daemon);
    // The same from the files.
    let report = check_report(&bench, "stopped.json");
    assert_eq!(report["status"]["health"]["verdict"], "not_running");
    assert_eq!(report["metrics"], Value::Null);
}

#[test]
fn a_report_names_no_row_of_a_damaged_export_or_ledger() {
    let bench = marked_lake();
    bench.run(&mut bench.command(&["run", "--once"]));
    let damaged = format!("{}\n", marker("text"));
    for path in [
        bench.export(),
        distilld::lake::path::ledger_path(&bench.export()),
    ] {
        fs::write(path, &damaged).unwrap();
        let name = format!("{}.json", fastrand::u64(..));
        let report = check_report(&bench, &name);
        assert!(report["checks"].as_array().unwrap().len() > 5);
    }
}

#[test]
fn a_report_replaces_no_file() {
    let bench = Bench::new();
    let report = bench.sibling("report.json");
    fs::write(&report, "mine").unwrap();
    let arguments = ["check", "--bundle", report.to_str().unwrap()];
    let ended = bench.run(&mut bench.command(&arguments));
    ended.check(
        1,
        &[
            "cannot create the report",
            "name a file that does not exist",
        ],
    );
    assert_eq!(fs::read_to_string(&report).unwrap(), "mine");
}

#[test]
fn every_problem_has_a_fix_and_json_has_the_lines() {
    let bench = marked_lake();
    let day = bench.root().join("data/evidence/2026/01/01");
    fs::set_permissions(&day, fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = bench.as_unprivileged(&["check", "--json"]);
    command.env("DISTILLD_SETLE_MS", "1");
    let ended = bench.run(&mut command);
    fs::set_permissions(&day, fs::Permissions::from_mode(0o755)).unwrap();
    ended.check(1, &[]);
    let result: Value = serde_json::from_str(&ended.stdout).unwrap();
    let checks = result["checks"].as_array().unwrap();
    let with = |severity: &str| {
        checks
            .iter()
            .filter(|check| check["severity"] == severity)
            .count()
    };
    assert_eq!(result["fails"], with("fail"));
    assert_eq!(result["warns"], with("warn"));
    for check in checks {
        let has_fix = check["fix"].as_str().is_some_and(|fix| !fix.is_empty());
        assert_eq!(has_fix, check["severity"] != "ok", "{check}");
    }
    let evidence = checks
        .iter()
        .find(|check| check["what"].as_str().unwrap().starts_with("evidence "));
    let fix = evidence.unwrap()["fix"].as_str().unwrap();
    let wanted: &[&str] = match crate::support::process::is_root() {
        // It is root's, and membership in root's group would give far more.
        true => &["chgrp -R nogroup ", "chmod -R g+rX"],
        // The directory is of the user who runs the tests.
        false => &["chmod -R u+rX"],
    };
    assert!(wanted.iter().all(|part| fix.contains(part)), "{fix}");
}
