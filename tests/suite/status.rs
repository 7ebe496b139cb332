//! `status`: from a running daemon, and from the state of a dead one.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::support::kill_harness::{Daemon, daemon_command, wait_until};
use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, evidence, scored};

const PAIR: &str = "2026/05/01/n.jsonl";
const DEADLINE: Duration = Duration::from_secs(60);

fn status(root: &Path, flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_distilld"))
        .arg("--root")
        .arg(root)
        .arg("status")
        .args(flags)
        .output()
        .unwrap()
}

fn json(root: &Path) -> Option<serde_json::Value> {
    let output = status(root, &["--json"]);
    output
        .status
        .success()
        .then(|| serde_json::from_slice(&output.stdout).unwrap())
}

fn write(root: &Path, stream: Stream, lines: &[&str]) {
    let path = stream.path(root, PAIR);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(path, text).unwrap();
}

/// Writes one line of each kind: exported, firewalled, unknown, role, blank, waiting, malformed.
fn lake(root: &Path) {
    let scored = |run: &str, category: &str| {
        format!("{{\"evidence_run_id\":\"{run}\",\"category\":\"{category}\"}}")
    };
    let evidence = |run: &str, role: &str, text: &str| {
        format!("{{\"run_id\":\"{run}\",\"model_role\":\"{role}\",\"text\":\"{text}\"}}")
    };
    let scored_lines = [
        scored("a", "accepted"),
        scored("b", "rejected"),
        scored("c", "odd"),
        scored("d", "accepted"),
        scored("e", "accepted"),
        scored("f", "accepted"),
        "{".into(),
    ];
    let evidence_lines = [
        evidence("a", "executor", "t"),
        evidence("d", "extractor", "t"),
        evidence("e", "executor", " "),
        "[".into(),
    ];
    let as_lines = |lines: &[String]| lines.join("\n");
    write(root, Stream::Evidence, &[&as_lines(&evidence_lines)]);
    write(root, Stream::Scored, &[&as_lines(&scored_lines)]);
}

fn check_figures(status: &serde_json::Value) {
    for (key, expected) in [
        ("lines", 7),
        ("exported", 1),
        ("firewalled", 1),
        ("unknown_category", 1),
        ("wrong_role", 1),
        ("blank_text", 1),
        ("waiting", 1),
        ("malformed", 1),
    ] {
        assert_eq!(status["scored"][key], expected, "{key} in {status}");
    }
    assert_eq!(status["scored"]["balanced"], true);
    assert_eq!(status["evidence"]["malformed"], 1);
    assert_eq!(status["export"]["rows"], 1);
    for (file, name) in [
        ("export", "sft_export.jsonl"),
        ("retractions", "sft_retractions.jsonl"),
    ] {
        let path = status[file]["path"].as_str().unwrap();
        let expected = format!("data/distilled/sft/{name}");
        assert!(Path::new(path).ends_with(expected), "{path} in {status}");
    }
}

#[test]
fn without_a_daemon_the_state_is_reported() {
    let root = tempfile::tempdir().unwrap();
    lake(root.path());
    let mut once = daemon_command(root.path());
    assert!(once.arg("--once").output().unwrap().status.success());
    let answer = json(root.path()).unwrap();
    check_figures(&answer);
    assert_eq!(answer["running"], false);
    let export = root.path().join("data/distilled/sft/sft_export.jsonl");
    assert_eq!(
        answer["export"]["len_bytes"],
        fs::metadata(export).unwrap().len()
    );
    let page = String::from_utf8(status(root.path(), &[]).stdout).unwrap();
    assert!(page.starts_with("daemon    not running\n"), "{page}");
    assert!(!page.contains('\x1b'), "{page}");
}

#[test]
fn a_running_daemon_reports_and_after_its_death_the_state_and_journal_are_read() {
    let root = tempfile::tempdir().unwrap();
    lake(root.path());
    let log = root.path().join("log");
    let mut daemon = Daemon::start(&mut daemon_command(root.path()), &log).unwrap();
    let mut answer = serde_json::Value::Null;
    let found = wait_until(DEADLINE, || {
        daemon.check_running()?;
        answer = json(root.path()).unwrap_or_default();
        Ok(answer["running"] == true
            && answer["scored"]["lines"] == 7
            && answer["lag"]["files"] == 0)
    });
    assert!(
        found.unwrap(),
        "{answer}: {}",
        fs::read_to_string(&log).unwrap()
    );
    check_figures(&answer);
    assert!(answer["last_row_at"].is_string(), "{answer}");

    daemon.kill_9().unwrap();
    let answer = json(root.path()).unwrap();
    check_figures(&answer);
    assert_eq!(answer["running"], false);
}

#[test]
fn a_root_where_no_daemon_ran_is_not_changed() {
    let root = tempfile::tempdir().unwrap();
    let output = status(root.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no daemon has run"));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
}

#[test]
fn a_query_with_another_state_directory_does_not_change_the_recorded_one() {
    let root = tempfile::tempdir().unwrap();
    lake(root.path());
    let state_dir = root.path().join("state");
    let mut once = daemon_command(root.path());
    let once = once.arg("--once").arg("--state-dir").arg(&state_dir);
    assert!(once.output().unwrap().status.success());
    for _ in 0..2 {
        let answer = json(root.path()).unwrap();
        assert_eq!(answer["state_dir"], state_dir.to_str().unwrap());
    }
}

#[test]
fn a_torn_line_is_reported_without_a_daemon_even_if_overlong() {
    let bench = Bench::new();
    let run = |arguments: &[&str]| {
        let mut command = bench.command(arguments);
        let ended = bench.run(command.env("DISTILLD_MAX_LINE_BYTES", "1024"));
        ended.check(0, &[]);
        ended.stdout
    };
    let unterminated = || {
        let unterminated: serde_json::Value =
            serde_json::from_str(&run(&["status", "--json"])).unwrap();
        assert_eq!(unterminated["running"], false);
        unterminated["unterminated"].clone()
    };
    bench.append_run(PAIR, "a");
    bench.append(Stream::Scored, PAIR, "{");
    run(&["run", "--once"]);
    for (more, bytes) in [(0, 1), (1_023, 1_024), (1, 1_025), (3_000, 4_025)] {
        bench.append(Stream::Scored, PAIR, "x".repeat(more));
        let wanted = serde_json::json!({ "lines": 1, "bytes": bytes });
        assert_eq!(unterminated(), wanted, "before it is read");
        run(&["run", "--once"]);
        assert_eq!(unterminated(), wanted);
    }
    bench.append(Stream::Scored, PAIR, "\n{\"to");
    run(&["run", "--once"]);
    assert_eq!(
        unterminated(),
        serde_json::json!({ "lines": 1, "bytes": 4 })
    );
    let page = run(&["status"]);
    let line = "\npartial   1 partial line without a newline yet, 4 bytes\n";
    assert!(page.contains(line), "{page}");
}

#[test]
fn an_overlong_unterminated_line_is_reported_by_the_daemon() {
    let bench = Bench::new();
    let mut command = bench.command(&["run"]);
    command.env("DISTILLD_MAX_LINE_BYTES", "1024");
    let mut daemon = bench.catch_up(&mut command);
    for bytes in [3_000, 5_000] {
        let len = fs::read(bench.path(Stream::Scored, PAIR)).map_or(0, |len| len.len());
        bench.append(Stream::Scored, PAIR, "x".repeat(bytes - len));
        bench.wait_for(&mut daemon, "it is reported", || {
            bench.status()["unterminated"] == serde_json::json!({ "lines": 1, "bytes": bytes })
        });
    }
    bench.append(Stream::Scored, PAIR, "\n");
    bench.wait_for(&mut daemon, "it has become a dead letter", || {
        let answer = bench.status();
        answer["unterminated"]["lines"] == 0 && answer["scored"]["malformed"] == 1
    });
    bench.stop(daemon);
}

#[test]
fn an_unreadable_day_file_is_reported_until_it_is_readable() {
    let bench = Bench::new();
    let evidence_path = bench.path(Stream::Evidence, PAIR);
    fs::create_dir_all(&evidence_path).unwrap();
    bench.append(Stream::Scored, PAIR, scored("a"));
    let mut command = bench.command(&["run"]);
    command.env("DISTILLD_RECENT_SCAN_MS", "50");
    let mut daemon = bench.catch_up(&mut command);
    bench.wait_for(&mut daemon, "it is reported", || {
        bench.status()["day_files_skipped"] == 1
    });
    let answer = bench.status();
    let skipped = &answer["skipped"][0];
    assert_eq!(
        (&skipped["path"], &skipped["stream"]),
        (&format!("data/evidence/{PAIR}").into(), &"evidence".into())
    );
    assert_eq!(skipped["why"], "not a regular file");
    // Caught up once the engine is idle, possibly a pass after it has reported the day-file.
    bench.wait_for(&mut daemon, "the screen shows it", || {
        let screen = bench.run(&mut bench.command(&["status"])).stdout;
        let ends = |label, end| {
            let mut lines = screen.lines();
            lines.any(|line| line.starts_with(label)) && screen.contains(end)
        };
        ends("health ", "incomplete: cannot read 1 day-file")
            && ends("skipped ", "n.jsonl (not a regular file)")
    });
    fs::remove_dir(&evidence_path).unwrap();
    bench.append(Stream::Evidence, PAIR, evidence("a"));
    bench.wait_run(&mut daemon, "a");
    bench.wait_for(&mut daemon, "it is no longer reported", || {
        bench.status()["day_files_skipped"] == 0
    });
    assert_eq!(bench.status()["skipped"], serde_json::json!([]));
    bench.stop(daemon);
}

#[test]
fn an_unresponsive_daemon_is_not_reported_as_fresh() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    let mut daemon = bench.start_caught_up();
    bench.wait_run(&mut daemon, "a");
    assert_eq!(bench.status()["health"]["verdict"], "fresh");
    let signal = |signal| {
        let process = Pid::from_raw(daemon.pid().cast_signed()).unwrap();
        rustix::process::kill_process(process, signal).unwrap();
    };
    signal(Signal::STOP);
    let children = [&["status", "--json"][..], &["status"]].map(|arguments| {
        let mut command = bench.command(arguments);
        command.stdout(Stdio::piped()).spawn().unwrap()
    });
    let [json, screen] = children.map(|children| children.wait_with_output().unwrap().stdout);
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let screen = String::from_utf8(screen).unwrap();
    signal(Signal::CONT);
    assert_eq!(json["health"]["verdict"], "unresponsive", "{json}");
    assert!(
        screen.contains("unresponsive: ") && !screen.contains("fresh"),
        "{screen}"
    );
    bench.stop(daemon);
}
