//! `wait --fresh`: it returns when everything that was in the lake has its row or its refusal, and each other end has an
//! exit code.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, Ended, evidence, scored, scored_as};

const PAIR: &str = "2026/01/01/a.jsonl";
const OTHER: &str = "2026/01/02/b.jsonl";

/// Waits, and must not need longer than this on a busy host.
fn wait(bench: &Bench) -> Ended {
    bench.run(&mut bench.command(&["wait", "--fresh", "--timeout", "60s"]))
}

/// Returns a bench with a daemon that notices nothing by itself for an hour.
fn deaf(bench: &Bench) -> crate::support::kill_harness::Daemon {
    let mut run = bench.command(&["run"]);
    run.env("DISTILLD_WATCH", "poll");
    run.env("DISTILLD_POLL_MS", "3600000");
    bench.catch_up(&mut run)
}

#[test]
fn what_no_event_reports_is_found_and_exported_before_the_wait_ends() {
    let bench = Bench::new();
    let daemon = deaf(&bench);
    for n in 0..20 {
        bench.append_run(PAIR, &format!("a{n}"));
        bench.append_run(&format!("2026/02/{:02}/c.jsonl", n + 1), &format!("c{n}"));
    }
    bench.append(Stream::Scored, PAIR, scored_as("refused", "rejected"));
    bench.append(Stream::Scored, PAIR, scored("without evidence"));
    let waited = wait(&bench);
    waited.check(0, &[]);
    assert_eq!(
        waited.stdout,
        "fresh: everything in the lake is exported or refused, 40 rows in the export, 1 run without evidence in the \
         lake\n"
    );
    assert_eq!(bench.row_count(), 40);
    // The evidence is in the lake now, so the run does not wait any more.
    bench.append(Stream::Evidence, PAIR, evidence("without evidence"));
    wait(&bench).check(0, &[]);
    assert!(bench.has("without evidence"));
    // A rejection is in the ledger when the wait ends.
    bench.append(Stream::Scored, PAIR, scored_as("a0", "rejected"));
    wait(&bench).check(0, &[]);
    let rows = bench.run(&mut bench.command(&["rows"])).stdout;
    assert!(!rows.contains("\"source_run_id\":\"a0\""));
    assert_eq!(rows.lines().count(), 40);
    bench.stop(daemon);
}

/// Runs `each` about six times a second while `check` runs; it gets the number of the call.
fn meanwhile(each: impl Fn(usize) + Sync, check: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                each(n);
                std::thread::sleep(Duration::from_millis(150));
            }
        });
        check();
        stop.store(true, Ordering::SeqCst);
    });
}

#[test]
fn a_still_last_line_settles_while_the_other_day_file_grows() {
    for still in Stream::BOTH {
        let bench = Bench::new();
        let mut run = bench.command(&["run"]);
        run.env("DISTILLD_SETTLE_MS", "1000");
        let daemon = bench.catch_up(&mut run);
        let lines = |stream: Stream, run: &str| match stream {
            Stream::Scored => scored(run),
            Stream::Evidence => evidence(run),
        };
        let other = match still {
            Stream::Scored => Stream::Evidence,
            Stream::Evidence => Stream::Scored,
        };
        bench.append(other, PAIR, lines(other, "still"));
        bench.append(still, PAIR, lines(still, "still").trim_end());
        // Each line comes in two pieces, so that the growing day-file always has an unterminated line.
        let grow = |n: usize| {
            let line = lines(other, &format!("run {}", n / 2));
            let pieces = line.split_at(30);
            bench.append(other, PAIR, [pieces.0, pieces.1][n % 2]);
        };
        meanwhile(grow, || {
            wait(&bench).check(0, &[]);
            assert!(bench.has("still"), "{still:?}");
        });
        bench.stop(daemon);
    }
}

#[test]
fn a_wait_ends_while_lines_are_written_into_reserved_room() {
    use std::os::unix::fs::FileExt as _;
    let bench = Bench::new();
    bench.append_run(PAIR, "1");
    let path = Stream::Scored.path(&bench.root(), PAIR);
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let end = file.metadata().unwrap().len();
    file.set_len(1 << 20).unwrap();
    let daemon = bench.start_caught_up();
    let line = scored("without evidence");
    let write = |n: usize| {
        let offset = end + (n * line.len()) as u64;
        file.write_all_at(line.as_bytes(), offset).unwrap();
    };
    meanwhile(write, || {
        for _ in 0..3 {
            wait(&bench).check(0, &[]);
        }
    });
    bench.stop(daemon);
}

/// All that changes here had been read to its length before.
#[test]
fn what_is_as_long_as_before_is_read_before_the_wait_ends() {
    let bench = Bench::new();
    let daemon = deaf(&bench);
    let path = |stream: Stream| stream.path(&bench.root(), PAIR);
    let new = bench.sibling("new.jsonl");
    let replace = |stream: Stream, bytes: String| {
        fs::write(&new, bytes).unwrap();
        fs::rename(&new, path(stream)).unwrap();
    };
    let waited = |run: &str| {
        wait(&bench).check(0, &[]);
        assert!(bench.has(run), "{run}");
    };
    bench.append_run(PAIR, "1");
    bench.append(Stream::Evidence, PAIR, evidence("2"));
    waited("1");
    replace(Stream::Scored, scored("2"));
    waited("2");
    let evidences = [evidence("3"), evidence("4")].concat();
    fs::write(path(Stream::Evidence), evidences).unwrap();
    fs::write(path(Stream::Scored), scored("3")).unwrap();
    waited("3");
    replace(Stream::Scored, scored("4"));
    waited("4");
    // The evidence comes while the scored day-file is away.
    replace(Stream::Scored, scored("5"));
    wait(&bench).check(0, &[]);
    let away = bench.sibling("away.jsonl");
    fs::rename(path(Stream::Scored), &away).unwrap();
    wait(&bench).check(0, &[]);
    bench.append(Stream::Evidence, PAIR, evidence("5"));
    wait(&bench).check(0, &[]);
    fs::rename(&away, path(Stream::Scored)).unwrap();
    waited("5");
    bench.stop(daemon);
}

#[test]
fn a_lake_without_sources_is_not_called_fresh() {
    let bench = Bench::new();
    let daemon = bench.start_caught_up();
    let waited = wait(&bench);
    waited.check(0, &[]);
    let root = bench.root().canonicalize().unwrap();
    assert_eq!(
        waited.stdout,
        format!(
            "no sources: waiting for {}/data/scored-runs, which does not exist, 0 rows in the export\n",
            root.display()
        )
    );
    let checked = bench.run(&mut bench.command(&["check"])).stdout;
    let health = checked
        .lines()
        .find(|line| line.contains("health of the daemon"));
    assert!(
        health.is_some_and(|line| line.starts_with("warn ")),
        "{checked}"
    );
    bench.stop(daemon);
}

#[test]
fn a_wait_ends_while_scorers_write() {
    let bench = Bench::new();
    let daemon = bench.start_caught_up();
    let (stop, written) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let run = written.load(Ordering::SeqCst);
                bench.append_run(
                    if run % 2 == 0 { PAIR } else { OTHER },
                    &format!("run-{run}"),
                );
                written.store(run + 1, Ordering::SeqCst);
                // A writer that is faster than a daemon without optimization would be a backlog.
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        while written.load(Ordering::SeqCst) < 50 {
            std::thread::yield_now();
        }
        for _ in 0..5 {
            let before = written.load(Ordering::SeqCst);
            let waited = wait(&bench);
            let rows = bench.row_count();
            if waited.status.code() != Some(0) || rows < before {
                stop.store(true, Ordering::SeqCst);
            }
            waited.check(0, &[]);
            assert!(rows >= before, "{rows} rows of {before} runs");
        }
        stop.store(true, Ordering::SeqCst);
    });
    bench.stop(daemon);
}

#[test]
fn a_last_line_without_a_newline_is_waited_for_while_it_may_settle() {
    let bench = Bench::new();
    let daemon = bench.start_caught_up();
    bench.append(Stream::Evidence, PAIR, evidence("a"));
    bench.append(Stream::Scored, PAIR, scored("a").trim_end());
    wait(&bench).check(0, &[]);
    assert!(bench.has("a"));
    // What is no complete value is not a line yet.
    bench.append(Stream::Scored, OTHER, "{\"evidence_run_id\":");
    wait(&bench).check(0, &[]);
    bench.stop(daemon);
}

#[test]
fn each_other_end_has_an_exit_code() {
    let bench = Bench::new();
    wait(&bench).check(4, &["not fresh: not running", "start `distilld run`"]);
    bench.append_run(PAIR, "a");
    let daemon = bench.start_caught_up();
    bench.stop(daemon);
    wait(&bench).check(4, &["not fresh: not running", "systemctl start distilld"]);
    // A line that may settle for minutes.
    let mut run = bench.command(&["run"]);
    let daemon = bench.catch_up(run.env("DISTILLD_SETTLE_MS", "600000"));
    bench.append(Stream::Scored, PAIR, scored("b").trim_end());
    let wait_json = ["wait", "--fresh", "--timeout", "300ms", "--json"];
    let waited = bench.run(&mut bench.command(&wait_json));
    waited.check(3, &["not fresh in the given time"]);
    let end: Value = serde_json::from_str(&waited.stdout).unwrap();
    assert_eq!(end["result"], "timeout");
    bench.stop(daemon);
}

#[test]
fn an_unreadable_directory_is_not_fresh_and_the_rest_is_exported() {
    let bench = Bench::new();
    let daemon = deaf(&bench);
    bench.append_run(PAIR, "a");
    let elsewhere = bench.sibling("elsewhere");
    fs::create_dir_all(elsewhere.join("03")).unwrap();
    fs::write(elsewhere.join("03/a.jsonl"), scored("b")).unwrap();
    symlink(&elsewhere, bench.root().join("data/scored-runs/2026/02")).unwrap();
    let waited = wait(&bench);
    waited.check(6, &["not fresh: incomplete", "`distilld check`"]);
    bench.assert_runs(&["a"]);
    bench.stop(daemon);
}

#[test]
fn a_daemon_that_is_stopped_by_a_fault_ends_a_wait() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    let mut daemon = bench.start_caught_up();
    fs::write(bench.export(), "changed\n").unwrap();
    bench.append_run(PAIR, "b");
    let waited = wait(&bench);
    waited.check(5, &["not fresh: stopped", "rebuild --state-only"]);
    bench.wait_for(&mut daemon, "it stays up", || {
        bench.status()["health"]["verdict"] == "stopped"
    });
    wait(&bench).check(5, &["not fresh: stopped"]);
    bench.stop(daemon);
}

#[test]
fn a_wait_begins_while_the_daemon_starts_and_ends_when_it_has_read() {
    let bench = Bench::new();
    for run in 0..2_000 {
        bench.append_run(PAIR, &format!("run-{run}"));
    }
    let mut daemon = bench.start();
    let mut ended = None;
    // Until the daemon holds the lock, none runs.
    bench.wait_for(&mut daemon, "it holds the lock", || {
        let waited = wait(&bench);
        let is_running = waited.status.code() != Some(4);
        ended = Some(waited);
        is_running
    });
    ended.unwrap().check(0, &[]);
    assert_eq!(bench.row_count(), 2_000);
    bench.stop(daemon);
}

#[test]
fn a_stop_of_the_daemon_ends_a_wait() {
    let bench = Bench::new();
    let mut run = bench.command(&["run"]);
    let daemon = bench.catch_up(run.env("DISTILLD_SETTLE_MS", "600000"));
    let mut file = OpenOptions::new();
    bench.append(Stream::Scored, PAIR, "");
    let path = bench.path(Stream::Scored, PAIR);
    let mut file = file.append(true).open(path).unwrap();
    file.write_all(scored("a").trim_end().as_bytes()).unwrap();
    let wait = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(&bench));
        bench.stop(daemon);
        waiting.join().unwrap()
    });
    wait.check(4, &["not fresh: not running"]);
}
