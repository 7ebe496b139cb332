//! The real daemon in ordinary operation: what it follows, how it ends, what it refuses, what a start reads.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::support::kill_harness::Daemon;
use crate::support::lake_gen::Stream;
use crate::support::process::{
    Bench, LONG, STOP, evidence, evidence_with, memory_kib_max, scored, scored_as,
};

const PAIR: &str = "2026/01/01/audits.jsonl";

/// Starts a daemon, caught up, whose next scan is beyond any deadline: later changes are found by events alone.
fn start_with_events_only(bench: &Bench) -> Daemon {
    let mut command = bench.command(&["run"]);
    command.env("DISTILLD_RECENT_SCAN_MS", "3600000");
    bench.catch_up(&mut command)
}

#[test]
fn new_directories_are_followed() {
    let bench = Bench::new();
    let mut daemon = start_with_events_only(&bench);
    let appearing = [
        "2026/01/01/a.jsonl",
        "2026/01/01/b.jsonl",
        "2026/01/02/a.jsonl",
        "2026/02/01/a.jsonl",
        "2027/01/01/a.jsonl",
        "2025/12/31/a.jsonl",
    ];
    for (number, pair) in appearing.iter().enumerate() {
        bench.append_run(pair, &format!("run-{number}"));
        bench.wait_rows(&mut daemon, number + 1);
    }
    bench.stop(daemon);
    bench.assert_batch();
}

/// Gives a day-file of the pair another name, by which it is written.
type Name = fn(&Bench, Stream) -> fs::File;

fn append_to(path: &Path) -> fs::File {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap()
}

fn spool(bench: &Bench, stream: Stream) -> std::path::PathBuf {
    let day_file = bench.path(stream, PAIR);
    fs::create_dir_all(day_file.parent().unwrap()).unwrap();
    bench.root().join(format!("{stream:?}.spool"))
}

fn symbolic_link(bench: &Bench, stream: Stream) -> fs::File {
    let spool = spool(bench, stream);
    let file = append_to(&spool);
    std::os::unix::fs::symlink(&spool, bench.path(stream, PAIR)).unwrap();
    file
}

fn hard_link(bench: &Bench, stream: Stream) -> fs::File {
    let spool = spool(bench, stream);
    let file = append_to(&spool);
    fs::hard_link(&spool, bench.path(stream, PAIR)).unwrap();
    file
}

/// A file that had no name when it was opened.
fn unnamed(bench: &Bench, stream: Stream) -> fs::File {
    use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};
    let day_file = bench.path(stream, PAIR);
    let day = day_file.parent().unwrap();
    fs::create_dir_all(day).unwrap();
    let flags = OFlags::TMPFILE | OFlags::RDWR;
    let file = openat(CWD, day, flags, Mode::from_raw_mode(0o644)).unwrap();
    let file = fs::File::from(file);
    let number = std::os::fd::AsRawFd::as_raw_fd(&file);
    let open = format!("/proc/self/fd/{number}");
    linkat(CWD, open, CWD, &day_file, AtFlags::SYMLINK_FOLLOW).unwrap();
    file
}

#[test]
fn a_day_file_that_is_written_under_another_name_is_followed() {
    for is_running in [false, true] {
        for name in [symbolic_link, hard_link, unnamed] as [Name; 3] {
            let bench = Bench::new();
            for day in 2..=4 {
                bench.append_run(
                    &format!("2026/01/0{day}/audits.jsonl"),
                    &format!("day {day}"),
                );
            }
            let files = |bench: &Bench| Stream::BOTH.map(|stream| name(bench, stream));
            let before = (!is_running).then(|| files(&bench));
            let mut daemon = start_with_events_only(&bench);
            let mut files = before.unwrap_or_else(|| files(&bench));
            for run in ["a", "b", "c"] {
                for (stream, file) in Stream::BOTH.into_iter().zip(&mut files) {
                    let line = match stream {
                        Stream::Scored => scored(run),
                        Stream::Evidence => evidence(run),
                    };
                    std::io::Write::write_all(file, line.as_bytes()).unwrap();
                }
                bench.wait_run(&mut daemon, run);
            }
            bench.stop(daemon);
            bench.assert_distinct(6);
            bench.run(&mut bench.command(&["verify"])).check(0, &[]);
        }
    }
}

#[test]
fn either_stream_may_be_created_long_after_the_other() {
    for first in Stream::BOTH {
        let bench = Bench::new();
        fs::create_dir(bench.root().join("data")).unwrap();
        let mut daemon = bench.start_caught_up();
        let give = |stream| {
            let line = match stream {
                Stream::Scored => scored("a"),
                Stream::Evidence => evidence("a"),
            };
            bench.append(stream, PAIR, line);
        };
        // No probe in between: it would create the base directory of the other stream, which must be missing.
        give(first);
        give(first.other());
        bench.wait_rows(&mut daemon, 1);
        bench.stop(daemon);
        bench.assert_batch();
    }
}

#[test]
fn a_directory_moved_in_is_followed() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    let mut daemon = start_with_events_only(&bench);
    let aside = Bench::new();
    aside.append_run("2026/03/01/x.jsonl", "b");
    for stream in ["evidence", "scored-runs"] {
        let from = aside.root().join("data").join(stream).join("2026/03");
        fs::rename(from, bench.root().join("data").join(stream).join("2026/03")).unwrap();
    }
    bench.wait_rows(&mut daemon, 2);
    bench.append_run("2026/03/01/x.jsonl", "c");
    bench.wait_rows(&mut daemon, 3);
    bench.stop(daemon);
    bench.assert_batch();
}

#[test]
fn partial_lines_and_characters_are_followed() {
    let bench = Bench::new();
    let mut daemon = bench.start_caught_up();
    let given = evidence_with("lauf-ü", "größer 😀 als");
    let run = scored("lauf-ü");
    for (stream, line) in [(Stream::Evidence, &given), (Stream::Scored, &run)] {
        let inside_a_character = line.find('ü').unwrap() + 1;
        let cuts = [0, 1, 17, inside_a_character, line.len() - 1, line.len()];
        for cut in cuts.windows(2) {
            bench.append(stream, PAIR, &line.as_bytes()[cut[0]..cut[1]]);
            bench.probe(&mut daemon);
        }
    }
    bench.wait_run(&mut daemon, "lauf-ü");
    bench.stop(daemon);
    bench.assert_batch();
}

#[test]
fn a_signal_ends_an_idle_daemon() {
    for signal in [Signal::TERM, Signal::INT] {
        let bench = Bench::new();
        bench.append_run(PAIR, "a");
        let mut daemon = bench.start_caught_up();
        bench.wait_rows(&mut daemon, 1);
        let status = daemon.end_by(signal, STOP).unwrap();
        assert_eq!(status.code(), Some(0), "{signal:?} {}", bench.log_text());
        bench.assert_batch();
    }
}

const BACKFILL_PAIRS: usize = 100;
const BACKFILL_RUNS: usize = 100;

/// Creates a lake of about 50 MB, mostly text.
fn backfill_lake() -> Bench {
    let bench = Bench::new();
    let text = "what a model said, at length. ".repeat(160);
    for pair in 0..BACKFILL_PAIRS {
        let name = format!("2026/01/{:02}/f{}.jsonl", 1 + pair % 20, pair / 20);
        let (mut runs, mut given) = (String::new(), String::new());
        for number in 0..BACKFILL_RUNS {
            let run = format!("run-{pair}-{number}");
            runs.push_str(&scored(&run));
            given.push_str(&evidence_with(&run, &text));
        }
        bench.append(Stream::Evidence, &name, given);
        bench.append(Stream::Scored, &name, runs);
    }
    bench
}

#[test]
fn a_signal_ends_a_backfill_promptly_and_the_next_start_resumes() {
    let bench = backfill_lake();
    let mut partial = 0;
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = bench.start();
        let before = bench.row_count();
        bench.wait_for(&mut daemon, "the backfill has begun", || {
            bench.row_count() > before || before == BACKFILL_PAIRS * BACKFILL_RUNS
        });
        let memory_kib = memory_kib_max(daemon.pid());
        assert!(memory_kib < 96 << 10, "{memory_kib} KiB");
        let status = daemon.end_by(signal, STOP).unwrap();
        assert_eq!(status.code(), Some(0), "{}", bench.log_text());
        partial += usize::from(bench.row_count() < BACKFILL_PAIRS * BACKFILL_RUNS);
    }
    assert!(partial > 0, "both signals came too late");
    bench.once();
    bench.assert_distinct(BACKFILL_PAIRS * BACKFILL_RUNS);
}

#[test]
fn a_second_daemon_is_refused_with_the_process_of_the_first() {
    let bench = Bench::new();
    let daemon = bench.start_caught_up();
    let named = format!("process {}", daemon.pid());
    let elsewhere = bench.sibling("state");
    let elsewhere = elsewhere.to_str().unwrap();
    for arguments in [
        &["run"][..],
        &["run", "--once"],
        &["run", "--state-dir", elsewhere],
    ] {
        let ended = bench.run(&mut bench.command(arguments));
        ended.check(1, &[&named, "another distilld"]);
    }
    bench.stop(daemon);
    bench.once();
}

#[test]
fn a_second_run_writes_nothing_and_reads_little() {
    let bench = Bench::new();
    let text = "x".repeat(20_000);
    for number in 0..200 {
        let run = format!("run-{number}");
        bench.append(Stream::Evidence, PAIR, evidence_with(&run, &text));
        // Few rows, so that the journal, which each start reads, remains short.
        let category = if number < 3 { "accepted" } else { "rejected" };
        bench.append(Stream::Scored, PAIR, scored_as(&run, category));
    }
    assert!(bench.once().read_bytes > 4_000_000);
    let export = bench.export_bytes();
    let modified = |bench: &Bench| fs::metadata(bench.export()).unwrap().modified().unwrap();
    let before = modified(&bench);
    let second = bench.once();
    assert!(second.read_bytes < 1_000_000, "{}", second.read_bytes);
    assert!(bench.export_bytes() == export && modified(&bench) == before);
    bench.append_run(PAIR, "one more");
    let third = bench.once();
    assert!(third.read_bytes < 1_000_000, "{}", third.read_bytes);
    bench.assert_batch();
    assert!(bench.export_bytes().starts_with(&export));
}

/// The content of the journal is repeatedly applied to the state and overwritten: the journal does not grow with the
/// export.
#[test]
fn the_journal_length_is_bounded_for_any_number_of_rows() {
    const CHECKPOINT_BYTES: u64 = 64 << 10;
    const RUNS_AT_ONCE: usize = 100;
    let bench = Bench::new();
    let mut command = bench.command(&["run"]);
    command.env("DISTILLD_CHECKPOINT_BYTES", CHECKPOINT_BYTES.to_string());
    let mut daemon = bench.catch_up(&mut command);
    let journal = bench.state_dir().join("journal");
    let mut longest_part = 0;
    for part in 1..=100 {
        let before = bench.export_bytes().len() as u64;
        let runs = (0..RUNS_AT_ONCE).map(|number| format!("run-{part}-{number}"));
        let (given, scored): (Vec<_>, Vec<_>) =
            runs.map(|run| (evidence(&run), scored(&run))).unzip();
        bench.append(Stream::Evidence, PAIR, given.concat());
        bench.append(Stream::Scored, PAIR, scored.concat());
        bench.wait_rows(&mut daemon, part * RUNS_AT_ONCE);
        longest_part = (bench.export_bytes().len() as u64 - before).max(longest_part);
        let len = fs::metadata(&journal).unwrap().len();
        // While a checkpoint is written, at most as much follows, and a batch: its rows, and the checkpoints of its pairs.
        // Frames go after all others only where those of that length do not fit before the oldest that is not applied.
        assert!(
            len < 5 * (CHECKPOINT_BYTES + 2 * longest_part),
            "{len} bytes after {part} parts of up to {longest_part}"
        );
    }
    bench.stop(daemon);
    bench.assert_batch();
}

/// Asserts the number of last lines that wait for their newline; they are not lag.
fn assert_unterminated(bench: &Bench, lines: usize, bytes: usize) {
    let status = bench.status();
    let wanted = serde_json::json!({ "lines": lines, "bytes": bytes });
    assert_eq!(status["unterminated"], wanted, "{status}");
    if status["running"] == true {
        assert_eq!(status["lag"]["bytes"], 0, "{status}");
    }
}

#[test]
fn an_unterminated_last_line_settles_and_its_later_newline_has_no_effect() {
    let bench = Bench::new();
    bench.append(Stream::Evidence, PAIR, evidence("a") + &evidence("b"));
    let mut patient = bench.command(&["run"]);
    patient.env("DISTILLD_SETTLE_MS", "3600000");
    patient.env("DISTILLD_RECENT_SCAN_MS", "3600000");
    let mut daemon = bench.catch_up(&mut patient);
    assert_unterminated(&bench, 0, 0);
    bench.append(Stream::Scored, PAIR, scored("a").trim_end());
    bench.probe(&mut daemon);
    bench.probe(&mut daemon);
    assert!(!bench.has("a"), "it was not still");
    let torn_bytes = scored("a").trim_end().len();
    assert_unterminated(&bench, 1, torn_bytes);
    bench.stop(daemon);
    assert_unterminated(&bench, 1, torn_bytes);

    let mut daemon = bench.start();
    bench.wait_run(&mut daemon, "a");
    assert_unterminated(&bench, 0, 0);
    bench.append(Stream::Scored, PAIR, "\n");
    bench.probe(&mut daemon);
    bench.append(Stream::Scored, PAIR, scored("b"));
    bench.wait_run(&mut daemon, "b");
    // Settled again, and the next line arrives after its newline in one piece.
    bench.append(Stream::Evidence, PAIR, evidence("c").trim_end());
    bench.append(Stream::Scored, PAIR, scored("c").trim_end());
    bench.wait_run(&mut daemon, "c");
    bench.append(Stream::Evidence, PAIR, format!("\n{}", evidence("d")));
    bench.append(Stream::Scored, PAIR, format!("\r\n{}", scored("d")));
    bench.wait_run(&mut daemon, "d");
    bench.stop(daemon);
    assert_unterminated(&bench, 0, 0);
    bench.assert_batch();
}

#[test]
fn a_torn_line_removed_with_its_day_file_is_no_longer_counted() {
    let bench = Bench::new();
    let mut command = bench.command(&["run"]);
    command
        .env("DISTILLD_SETTLE_MS", "3600000")
        .env("DISTILLD_WATCH", "poll")
        .env("DISTILLD_POLL_MS", "20");
    let mut daemon = bench.catch_up(&mut command);
    // The state does not have them, and for a pair without other lines no listing shows their removal.
    bench.append(Stream::Scored, PAIR, "{\"torn\":");
    bench.append(Stream::Evidence, "2026/01/01/z.jsonl", "{\"to");
    bench.wait_for(&mut daemon, "both are counted", || {
        bench.status()["unterminated"] == serde_json::json!({ "lines": 2, "bytes": 12 })
    });
    fs::remove_file(bench.path(Stream::Scored, PAIR)).unwrap();
    bench.wait_for(&mut daemon, "one is counted", || {
        bench.status()["unterminated"] == serde_json::json!({ "lines": 1, "bytes": 4 })
    });
    bench.stop(daemon);
}

#[test]
fn evidence_may_arrive_many_starts_later() {
    let bench = Bench::new();
    bench.append(
        Stream::Scored,
        PAIR,
        scored("late") + &scored_as("no", "rejected"),
    );
    for start in 0..3 {
        bench.once();
        bench.append(Stream::Evidence, PAIR, evidence(&format!("other-{start}")));
        let daemon = bench.start_caught_up();
        bench.stop(daemon);
        assert_eq!(bench.row_count(), 0);
    }
    let mut daemon = bench.start_caught_up();
    bench.append(Stream::Evidence, PAIR, evidence("late") + &evidence("no"));
    bench.wait_rows(&mut daemon, 1);
    bench.stop(daemon);
    bench.once();
    bench.assert_runs(&["late"]);
    bench.assert_batch();
}

#[test]
fn a_batch_does_not_replace_the_export_of_a_daemon() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    bench.once();
    let kept = bench.export_bytes();
    let refused = bench.run(&mut bench.command(&["export"]));
    refused.check(1, &["--output FILE", "distilld rebuild"]);
    let output = bench.sibling("out.jsonl");
    let output = output.to_str().unwrap();
    let elsewhere = bench.run(&mut bench.command(&["export", "--output", output]));
    elsewhere.check(0, &[]);
    assert!(elsewhere.stdout.contains("\"records_exported\":1"));
    assert_eq!(
        fs::read(output)
            .unwrap()
            .iter()
            .filter(|byte| **byte == b'\n')
            .count(),
        1
    );
    let counted = bench.run(&mut bench.command(&["export", "--dry-run"]));
    counted.check(0, &[]);
    assert!(counted.stdout.contains("\"records_exported\":1"));
    assert_eq!(bench.export_bytes(), kept);

    // The daemon's state may be anywhere, even if this command does not know its path.
    let moved = Bench::new();
    moved.append_run(PAIR, "a");
    let state = moved.sibling("state");
    let state = state.to_str().unwrap();
    let once = moved.run(&mut moved.command(&["--state-dir", state, "run", "--once"]));
    once.check(0, &[]);
    moved
        .run(&mut moved.command(&["export"]))
        .check(1, &[state, "distilld rebuild"]);
}

#[test]
fn exit_codes_distinguish_usage_from_configuration() {
    let bench = Bench::new();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_distilld"));
        command.env_clear().args(arguments);
        bench.run(&mut command)
    };
    let file = bench.sibling("bad.toml");
    fs::write(&file, "settle = 5\n").unwrap();
    let (root, file) = (bench.root(), file.to_str().unwrap().to_owned());
    let root = root.to_str().unwrap();
    run(&["run"]).check(78, &[]);
    run(&["--root", "", "run"]).check(78, &[]);
    // The service manager should retry: the file system may be mounted later.
    run(&["--root", "/nonexistent/lake", "run"]).check(1, &["/nonexistent/lake"]);
    run(&["--root", root, "--config", &file, "run"]).check(78, &["settle_ms"]);
    run(&["--root", root, "runn"]).check(2, &["run"]);
    run(&["--root", root, "run", "--twice"]).check(2, &["--twice"]);
    run(&[]).check(78, &["no root"]);
    let mut bad = bench.command(&["run"]);
    bad.env("DISTILLD_SETTLE_MS", "soon");
    bench
        .run(&mut bad)
        .check(78, &["DISTILLD_SETTLE_MS", "soon"]);
}

/// Damages the export of a running daemon, which must stop appending and name the recovery, with a next append and
/// without one.
fn check_harm_while_running(harm: impl Fn(&Path), message: &str) {
    for append in [true, false] {
        let bench = Bench::new();
        bench.append_run(PAIR, "a");
        bench.append_run(PAIR, "b");
        let mut command = bench.command(&["run"]);
        let scan_ms = if append { "3600000" } else { "100" };
        command.env("DISTILLD_RECENT_SCAN_MS", scan_ms);
        let mut daemon = bench.catch_up(&mut command);
        bench.wait_rows(&mut daemon, 2);
        harm(&bench.export());
        if append {
            bench.append_run(PAIR, "c");
        }
        bench.wait_stopped(daemon);
        for message in [message, "distilld rebuild"] {
            assert!(bench.log_text().contains(message), "{}", bench.log_text());
        }
        // The next start refuses too, or still has the rows in its journal and writes them again.
        let next = bench.run(&mut bench.command(&["run", "--once"]));
        match next.status.code() {
            Some(0) => bench.assert_batch(),
            _ => next.check(1, &["distilld rebuild"]),
        }
    }
}

#[test]
fn an_export_removed_under_the_daemon_stops_it() {
    check_harm_while_running(|export| fs::remove_file(export).unwrap(), "missing");
}

#[test]
fn an_export_shortened_under_the_daemon_stops_it() {
    check_harm_while_running(|export| cut(export, 1), "bytes long");
}

fn cut(path: &Path, bytes: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - bytes)
        .unwrap();
}

#[test]
fn an_export_damaged_while_no_daemon_runs_stops_the_start() {
    type Harm = fn(&Path);
    let harms: [(Harm, &str); 4] = [
        (|export| fs::remove_file(export).unwrap(), "is missing"),
        (|export| cut(export, 1), "bytes long"),
        (
            |export| {
                OpenOptions::new()
                    .write(true)
                    .open(export)
                    .unwrap()
                    .set_len(0)
                    .unwrap()
            },
            "is 0 bytes long",
        ),
        (
            |export| {
                let file = OpenOptions::new().write(true).open(export).unwrap();
                let len = file.metadata().unwrap().len();
                file.write_all_at(b"X", len - 10).unwrap();
            },
            "changed by someone else",
        ),
    ];
    for (harm, message) in harms {
        let bench = Bench::new();
        bench.append_run(PAIR, "a");
        bench.append_run(PAIR, "b");
        bench.once();
        let kept = bench.export_bytes();
        harm(&bench.export());
        let harmed = fs::read(bench.export()).ok();
        bench.append_run(PAIR, "c");
        bench
            .run(&mut bench.command(&["run", "--once"]))
            .check(1, &[message, "distilld rebuild"]);
        assert_eq!(fs::read(bench.export()).ok(), harmed);
        // After the restore that the message names, the daemon works.
        fs::write(bench.export(), kept).unwrap();
        bench.once();
        bench.assert_batch();
    }
}

#[test]
fn a_removed_and_recreated_directory_is_followed() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    let mut daemon = bench.start_caught_up();
    bench.wait_rows(&mut daemon, 1);
    for run in ["b", "c"] {
        // The whole month, so that the probe's day is removed too and no other watch remains.
        for stream in Stream::BOTH {
            fs::remove_dir_all(bench.path(stream, "2026/01")).unwrap();
        }
        bench.append_run(PAIR, run);
        bench.wait_run(&mut daemon, run);
        bench.append_run("2026/01/02/b.jsonl", &format!("{run} again"));
        bench.wait_run(&mut daemon, &format!("{run} again"));
    }
    bench.stop(daemon);
    bench.once();
    bench.assert_runs(&["a", "b", "b again", "c", "c again"]);
}

#[test]
fn polling_finds_the_same_changes_as_events() {
    let bench = Bench::new();
    let mut command = bench.command(&["run"]);
    command
        .env("DISTILLD_WATCH", "poll")
        .env("DISTILLD_POLL_MS", "20");
    let mut daemon = bench.catch_up(&mut command);
    for (number, pair) in [PAIR, PAIR, "2027/02/03/new.jsonl"].iter().enumerate() {
        bench.append_run(pair, &format!("run-{number}"));
        bench.wait_rows(&mut daemon, number + 1);
    }
    bench.wait_for(&mut daemon, "all day-files are counted as polled", || {
        bench.status()["scanned_only"]["day_files"] == 4
    });
    let status = bench.status();
    assert_eq!(status["scanned_only"]["why"], "configured");
    assert_eq!(status["scanned_only"]["within_ms"], 20 * 30);
    let reason = status["health"]["reason"].as_str().unwrap();
    assert!(
        reason.contains("scans alone find the growth of 4 day-files"),
        "{reason}"
    );
    bench.stop(daemon);
    bench.assert_batch();
}

#[test]
fn day_files_that_scans_alone_find_are_counted_on_every_surface() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    let again = bench.path(Stream::Scored, "2026/01/02/again.jsonl");
    fs::create_dir_all(again.parent().unwrap()).unwrap();
    // One file under two names of the lake: its events have one of them.
    fs::hard_link(bench.path(Stream::Scored, PAIR), &again).unwrap();
    let mut command = bench.command(&["run", "--listen", "127.0.0.1:0"]);
    let (mut daemon, address) = bench.listening_by(command.env("DISTILLD_RECENT_SCAN_MS", "50"));
    let metric = || {
        let metrics = crate::support::http::get(address, "/metrics").body;
        crate::support::http::metric(&metrics, "distilld_day_files_scanned_only")
    };
    bench.wait_for(&mut daemon, "one of them is counted", || {
        metric() == Some(1.0)
    });
    let status = bench.status();
    assert_eq!(
        (&status["watch"], &status["scanned_only"]["day_files"]),
        (&"events".into(), &1.into())
    );
    let text = bench.run(&mut bench.command(&["status"])).stdout;
    assert!(
        text.contains("scans alone find the growth of 1 day-file, within 3600 s"),
        "{text}"
    );
    fs::remove_file(&again).unwrap();
    bench.wait_for(&mut daemon, "none is counted", || metric() == Some(0.0));
    assert_eq!(bench.status()["health"]["verdict"], "fresh");
    bench.stop(daemon);
}

#[test]
fn a_torn_line_may_be_completed_after_a_long_pause() {
    let bench = Bench::new();
    let line = scored("torn");
    bench.append(Stream::Evidence, PAIR, evidence("torn") + &evidence("next"));
    bench.append(Stream::Scored, PAIR, &line[..20]);
    // The line has settled meanwhile, and was found not to be a complete value.
    bench.once();
    let mut daemon = bench.start_caught_up();
    bench.append(Stream::Scored, PAIR, &line[20..40]);
    bench.probe(&mut daemon);
    bench.append(Stream::Scored, PAIR, &line[40..]);
    bench.wait_run(&mut daemon, "torn");
    bench.append(Stream::Scored, PAIR, scored("next"));
    bench.wait_run(&mut daemon, "next");
    bench.stop(daemon);
    bench.assert_batch();
}

#[test]
fn a_signal_ends_a_run_that_waits_for_a_line_to_settle() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    bench.append(Stream::Scored, PAIR, scored("b").trim_end());
    let mut command = bench.command(&["run", "--once"]);
    command.env("DISTILLD_SETTLE_MS", "3600000");
    let mut daemon = bench.start_command(&mut command);
    bench.wait_rows(&mut daemon, 1);
    let status = daemon.end_by(Signal::TERM, STOP).unwrap();
    assert_eq!(status.code(), Some(0), "{}", bench.log_text());
    bench.append(Stream::Evidence, PAIR, evidence("b"));
    bench.once();
    bench.assert_batch();
}

#[test]
fn a_state_removed_under_the_daemon_stops_it_and_the_next_start_rebuilds() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    let mut command = bench.command(&["run"]);
    command.env("DISTILLD_RECENT_SCAN_MS", "100");
    let mut daemon = bench.catch_up(&mut command);
    bench.wait_rows(&mut daemon, 1);
    bench.remove_state();
    let status = daemon.wait(LONG).unwrap();
    assert_eq!(status.code(), Some(1), "{}", bench.log_text());
    assert!(
        bench.log_text().contains("removed while distilld ran"),
        "{}",
        bench.log_text()
    );
    bench.append_run(PAIR, "b");
    bench.once();
    bench.assert_batch();
}
