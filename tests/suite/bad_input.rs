//! The real daemon with lines, day-files and directories that should not exist: they affect nothing else, block
//! nothing and cost no memory.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::SystemTime;

use crate::support::http::{get, metric};
use crate::support::kill_harness::Daemon;
use crate::support::lake_gen::Stream;
use crate::support::naive::compare::blank_stamps;
use crate::support::naive::multiset_difference;
use crate::support::process::{
    Bench, MEMORY_KIB_MAX, evidence, evidence_with, memory_kib_max, scored, scored_as,
};

const PAIR: &str = "2026/01/01/audits.jsonl";
const MIB: usize = 1 << 20;

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn the_golden_lake_gives_the_golden_rows() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/golden");
    let bench = Bench::new();
    copy_tree(&golden.join("lake"), &bench.root());
    let ended = bench.once();
    let expected = fs::read_to_string(golden.join("expected.native.jsonl")).unwrap();
    let expected: Vec<String> = expected.lines().map(blank_stamps).collect();
    assert_eq!(multiset_difference(&bench.export_bytes(), &expected), None);
    ended.check(0, &["exported=178", "firewalled=66"]);
    let export = bench.export_bytes();
    bench.once();
    assert!(bench.export_bytes() == export);
}

#[test]
fn a_category_in_any_letter_case_closes_the_firewall() {
    let bench = Bench::new();
    let second = |key: &str| {
        scored("r").replacen("category", &format!("category\":\"accepted\",\"{key}"), 1)
    };
    let refused =
        second("Category").replacen("\"Category\":\"accepted\"", "\"Category\":\"rejected\"", 1);
    bench.append(Stream::Evidence, PAIR, evidence("r"));
    bench.append(Stream::Scored, PAIR, &refused);
    bench.once().check(0, &["exported=0", "firewalled=1"]);
    bench.assert_batch();
    for dialect in ["native", "go"] {
        let arguments = ["export", "--dialect", dialect, "--output", "-"];
        let ended = bench.run(&mut bench.command(&arguments));
        ended.check(0, &["firewall=1"]);
        assert_eq!(ended.stdout, "", "{dialect}");
    }
    // An accepted category in another letter case is no category in the native dialect.
    bench.append(Stream::Scored, PAIR, second("CATEGORY"));
    bench.once().check(0, &["exported=1", "firewalled=1"]);
}

/// Returns a line of `len` bytes and its newline.
fn long_line(front: &str, len: usize) -> Vec<u8> {
    let mut line = front.as_bytes().to_vec();
    line.resize(len, b'x');
    line.extend_from_slice(b"\"}\n");
    line
}

/// Asserts that the last line of the log reports these totals.
fn assert_totals(log: &str, wanted: &[&str]) {
    let last = log.lines().rfind(|line| line.contains("caught up"));
    let last = last.unwrap_or_else(|| panic!("nothing was caught up with: {log}"));
    for wanted in wanted {
        assert!(last.contains(wanted), "no {wanted:?} in {last}");
    }
}

/// Counts the lines of a log that report this of a day-file.
fn count_reports(log: &str, what: &str, day_file: &Path) -> usize {
    // A whole word of the message: no path is the beginning of another one.
    let named = day_file.display().to_string();
    let is_named = |line: &&str| {
        line.contains(what)
            && line
                .split([' ', ',', ';', ':', '"'])
                .any(|word| word == named)
    };
    log.lines().filter(is_named).count()
}

const MALFORMED: &str = "moved to dead letters";

/// Asserts that one line of the stream's day-file is a dead letter, after the line of a run, and was reported once.
fn assert_one_too_long(bench: &Bench, log: &str, stream: Stream) {
    let status = bench.status();
    for of in Stream::BOTH {
        let key = match of {
            Stream::Scored => "scored",
            Stream::Evidence => "evidence",
        };
        assert_eq!(
            status[key]["malformed"],
            usize::from(of == stream),
            "{status}"
        );
    }
    assert_eq!(log.matches(MALFORMED).count(), 1, "{log}");
    assert_eq!(
        count_reports(log, MALFORMED, &bench.path(stream, PAIR)),
        1,
        "{log}"
    );
    let offset = match stream {
        Stream::Scored => scored("before"),
        Stream::Evidence => evidence("before"),
    };
    let fields = format!(" lines=1 offset={} reason=too-long", offset.len());
    assert!(log.contains(&fields), "no {fields} in {log}");
}

#[test]
fn a_line_of_64_mib_is_a_dead_letter_and_is_not_buffered() {
    for (stream, front) in [
        (
            Stream::Scored,
            r#"{"category":"accepted","evidence_run_id":""#,
        ),
        (Stream::Evidence, r#"{"run_id":"long","text":""#),
    ] {
        let bench = Bench::new();
        bench.append_run(PAIR, "before");
        bench.append(stream, PAIR, long_line(front, 64 * MIB));
        bench.append_run(PAIR, "after");
        let ended = bench.once();
        bench.assert_runs(&["before", "after"]);
        assert_one_too_long(&bench, &ended.stderr, stream);
        let malformed = usize::from(stream == Stream::Scored);
        assert_totals(&ended.stderr, &[&format!("malformed={malformed}")]);
        assert!(ended.memory_kib < MEMORY_KIB_MAX, "{}", ended.memory_kib);
        let again = bench.once();
        assert!(again.read_bytes < MIB as u64, "{}", again.read_bytes);
        assert_eq!(bench.row_count(), 2);
    }
}

#[test]
fn a_line_of_64_mib_may_arrive_piece_by_piece() {
    for stream in Stream::BOTH {
        let bench = Bench::new();
        bench.append_run(PAIR, "before");
        let mut daemon = bench.start_caught_up();
        let line = long_line(r#"{"run_id":"long","text":""#, 64 * MIB);
        for (number, piece) in line.chunks(64 << 10).enumerate() {
            bench.append(stream, PAIR, piece);
            if number % 100 == 0 {
                bench.probe(&mut daemon);
            }
        }
        bench.append_run(PAIR, "after");
        bench.wait_run(&mut daemon, "after");
        assert_memory_bounded(&daemon);
        assert_one_too_long(&bench, &bench.log_text(), stream);
        bench.stop(daemon);
        assert!(bench.has("before") && !bench.has("long"));
    }
}

fn assert_memory_bounded(daemon: &Daemon) {
    let memory_kib = memory_kib_max(daemon.pid());
    assert!(
        memory_kib > 0 && memory_kib < MEMORY_KIB_MAX,
        "{memory_kib} KiB"
    );
}

#[test]
fn a_file_of_zeros_affects_no_other() {
    let bench = Bench::new();
    bench.append(Stream::Scored, PAIR, vec![0; 32 * MIB]);
    bench.append(Stream::Evidence, PAIR, vec![0; 32 * MIB]);
    bench.append_run("2026/01/01/z.jsonl", "other");
    let mut daemon = bench.start_caught_up();
    bench.wait_run(&mut daemon, "other");
    bench.append(Stream::Scored, PAIR, "\n");
    bench.append(Stream::Evidence, PAIR, "\n");
    bench.append_run(PAIR, "behind");
    bench.wait_run(&mut daemon, "behind");
    assert_memory_bounded(&daemon);
    bench.stop(daemon);
}

#[test]
fn a_lake_of_malformed_lines_is_counted() {
    const LINES: usize = 50_000;
    let bench = Bench::new();
    for day in 1..=4 {
        let pair = format!("2026/01/0{day}/audits.jsonl");
        let half = LINES / 4;
        bench.append(Stream::Scored, &pair, "{\"category\":5}\n".repeat(half));
        bench.append(Stream::Evidence, &pair, "no JSON\n".repeat(half));
    }
    let ended = bench.once();
    let scored = format!("scored_lines={LINES}");
    assert_totals(
        &ended.stderr,
        &[&scored, &format!("malformed={LINES}"), "exported=0"],
    );
    assert!(ended.memory_kib < MEMORY_KIB_MAX, "{}", ended.memory_kib);
    // One warning for all day-files of a pass.
    let fields = format!(" day_files=8 lines={} offset=0 reason=", 2 * LINES);
    assert_eq!(
        ended.stderr.matches(MALFORMED).count(),
        1,
        "{}",
        ended.stderr
    );
    assert_eq!(ended.stderr.matches(&fields).count(), 1, "{}", ended.stderr);
    bench.append_run("2026/01/01/audits.jsonl", "good");
    bench.once();
    bench.assert_runs(&["good"]);
}

/// What is kept of a short line takes many times the memory of its bytes.
#[test]
fn a_million_short_lines_take_the_memory_of_a_few_long_ones() {
    const LINES: usize = 1_000_000;
    let numbered = |number: usize| format!("{{\"run_id\":\"{number}\"}}\n");
    let evidence: String = (0..LINES).map(numbered).collect();
    for (stream, lines, wanted) in [
        (Stream::Scored, "x\n".repeat(LINES), "malformed=1000000"),
        (Stream::Scored, "{}\n".repeat(LINES), "scored_lines=1000000"),
        (Stream::Scored, "\n \n".repeat(LINES), "scored_lines=0"),
        (Stream::Evidence, "x\n".repeat(LINES), "exported=1"),
        (Stream::Evidence, evidence, "exported=1"),
    ] {
        let bench = Bench::new();
        bench.append(stream, PAIR, lines);
        if stream == Stream::Evidence {
            bench.append_run(PAIR, "last");
        }
        let ended = bench.once();
        assert_totals(&ended.stderr, &[wanted]);
        let memory_kib = ended.memory_kib;
        assert!(memory_kib < MEMORY_KIB_MAX, "{wanted}: {memory_kib} KiB");
    }
}

#[test]
fn a_value_nested_a_million_times_is_one_line() {
    let bench = Bench::new();
    let (open, close) = ("[".repeat(1_000_000), "]".repeat(1_000_000));
    let given =
        evidence("deep").replace("{\"run_id\"", &format!("{{\"x\":{open}{close},\"run_id\""));
    let objects = "{\"a\":".repeat(1_000_000);
    bench.append(Stream::Evidence, PAIR, given);
    bench.append(Stream::Evidence, PAIR, format!("{objects}\n"));
    bench.append(Stream::Scored, PAIR, format!("{open}\n{}", scored("deep")));
    bench.append(Stream::Scored, PAIR, &open);
    let ended = bench.once();
    bench.assert_runs(&["deep"]);
    assert_totals(&ended.stderr, &["malformed=1", "exported=1"]);
}

/// Puts entries into a directory of the lake that have names of day-files and are none.
fn put_non_day_files(bench: &Bench, stream: Stream) -> UnixListener {
    let dir = bench.path(stream, "2026/01/01");
    fs::create_dir_all(&dir).unwrap();
    let outside = bench.sibling("outside.jsonl");
    fs::write(&outside, scored("outside") + &evidence("outside")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.join("fifo.jsonl"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_bits_truncate(0o666),
        0,
    )
    .unwrap();
    fs::create_dir(dir.join("dir.jsonl")).unwrap();
    symlink("/nonexistent", dir.join("dangling.jsonl")).unwrap();
    symlink(&outside, dir.join("leaves.jsonl")).unwrap();
    symlink("loop.jsonl", dir.join("loop.jsonl")).unwrap();
    symlink("/dev/zero", dir.join("device.jsonl")).unwrap();
    symlink("fifo.jsonl", dir.join("to-fifo.jsonl")).unwrap();
    symlink("audits.jsonl", dir.join("inside.jsonl")).unwrap();
    UnixListener::bind(dir.join("socket.jsonl")).unwrap()
}

/// Starts a daemon that continuously scans the newest days and every pair in memory, caught up; returns it and its
/// address.
fn start_scanning(bench: &Bench) -> (Daemon, SocketAddr) {
    let mut command = bench.command(&["run", "--listen", "127.0.0.1:0"]);
    command.env("DISTILLD_RECENT_SCAN_MS", "20");
    bench.listening_by(&mut command)
}

/// Waits until scans have ended that began after this call.
fn wait_scans(bench: &Bench, daemon: &mut Daemon, address: SocketAddr) {
    let scans = || {
        let metrics = get(address, "/metrics").body;
        metric(&metrics, "distilld_scans_total{kind=\"recent\"}").unwrap()
    };
    let before = scans();
    bench.wait_for(daemon, "it scans", || scans() >= before + 3.0);
}

#[test]
fn entries_that_are_not_day_files_block_nothing() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    let _sockets = Stream::BOTH.map(|stream| put_non_day_files(&bench, stream));
    let expected = ["a", "a", "later", "later"];
    let (mut daemon, address) = start_scanning(&bench);
    bench.wait_rows(&mut daemon, 2);
    // The link inside the root is a day-file of its own; only its target's name has events.
    bench.append_run(PAIR, "later");
    bench.wait_run(&mut daemon, "later");
    for _ in 0..3 {
        wait_scans(&bench, &mut daemon, address);
        bench.probe(&mut daemon);
    }
    wait_scans(&bench, &mut daemon, address);
    bench.stop(daemon);
    bench.once();
    let mut found = bench.runs();
    found.retain(|run| !run.starts_with("probe "));
    found.sort_unstable();
    assert_eq!(found, expected);
    for stream in Stream::BOTH {
        for name in [
            "fifo", "dir", "leaves", "loop", "device", "to-fifo", "socket", "dangling",
        ] {
            let path = bench.path(stream, &format!("2026/01/01/{name}.jsonl"));
            let warned = count_reports(&bench.log_text(), "skipped, retrying", &path);
            assert_eq!(warned, 1, "{name}: {}", bench.log_text());
        }
    }
    // Reported once each: the log does not have a line per scan.
    assert!(
        bench.log_text().lines().count() < 40,
        "{}",
        bench.log_text()
    );
}

#[test]
fn a_link_that_leads_to_no_file_is_input_that_is_not_read() {
    let bench = Bench::new();
    bench.append_run("2026/01/01/z.jsonl", "other");
    bench.append(Stream::Evidence, PAIR, evidence("late"));
    let disk = bench.root().join("disk");
    symlink(disk.join("a.jsonl"), bench.path(Stream::Scored, PAIR)).unwrap();
    let ended = bench.run(&mut bench.command(&["run", "--once"]));
    ended.check(
        0,
        &["cannot read 1 day-file", "symbolic link leads to no file"],
    );
    let (mut daemon, _) = start_scanning(&bench);
    bench.wait_run(&mut daemon, "other");
    bench.wait_for(&mut daemon, "the link is named", || {
        let status = bench.status();
        status["health"]["verdict"] == "incomplete" && status["day_files_skipped"] == 1
    });
    let verified = bench.run(&mut bench.command(&["verify"]));
    verified.check(1, &["symbolic link leads to no file"]);
    // The file system is mounted.
    let mounted = bench.root().join("mounted");
    fs::create_dir(&mounted).unwrap();
    fs::write(mounted.join("a.jsonl"), scored("late")).unwrap();
    fs::rename(mounted, disk).unwrap();
    bench.wait_run(&mut daemon, "late");
    bench.wait_for(&mut daemon, "it is fresh", || {
        bench.status()["health"]["verdict"] == "fresh"
    });
    bench.stop(daemon);
    assert_eq!(bench.ask(&["verify"])["complete"], true);
}

/// Its own removal causes a hint, that of its day does not.
#[test]
fn what_cannot_be_read_is_no_fault_any_more_after_its_day_was_moved_away() {
    for stream in Stream::BOTH {
        let bench = Bench::new();
        bench.append_run("2026/01/02/z.jsonl", "other");
        let day = bench.path(stream, "2026/01/01");
        fs::create_dir_all(day.join("dir.jsonl")).unwrap();
        symlink("/nowhere", day.join("dangling.jsonl")).unwrap();
        let (mut daemon, _) = start_scanning(&bench);
        bench.wait_for(&mut daemon, "they are named", || {
            bench.status()["day_files_skipped"] == 2
        });
        fs::rename(&day, bench.root().join("away")).unwrap();
        bench.wait_for(&mut daemon, "it is fresh", || {
            let status = bench.status();
            status["health"]["verdict"] == "fresh" && status["day_files_skipped"] == 0
        });
        bench.stop(daemon);
    }
}

#[test]
fn a_fifo_that_becomes_a_day_file_is_read() {
    let bench = Bench::new();
    bench.append_run("2026/01/01/z.jsonl", "other");
    let fifo = bench.path(Stream::Scored, PAIR);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_bits_truncate(0o666),
        0,
    )
    .unwrap();
    let mut daemon = bench.start_caught_up();
    bench.wait_run(&mut daemon, "other");
    fs::remove_file(fifo).unwrap();
    bench.append_run(PAIR, "a");
    bench.wait_run(&mut daemon, "a");
    bench.stop(daemon);
    bench.assert_batch();
}

type Rewrite = fn(&Bench, Stream, &str);

fn by_rename(bench: &Bench, stream: Stream, content: &str) {
    let path = bench.path(stream, PAIR);
    let new = bench.sibling("new");
    fs::write(&new, content).unwrap();
    fs::rename(new, path).unwrap();
}

fn in_place(bench: &Bench, stream: Stream, content: &str) {
    fs::write(bench.path(stream, PAIR), content).unwrap();
}

/// Overwrites without truncation and restores the old times, like `cp --preserve` and backups.
fn over_with_old_times(bench: &Bench, stream: Stream, content: &str) {
    let path = bench.path(stream, PAIR);
    let modified: SystemTime = fs::metadata(&path).unwrap().modified().unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file.set_len(content.len() as u64).unwrap();
    file.set_modified(modified).unwrap();
}

/// Replaces both day-files; `kept` of the runs a..d remain, and `new` ones are added. The export has the rows of both
/// versions, each once.
fn check_rewritten(rewrite: Rewrite, what: &str, after: &[&str]) {
    for running in [true, false] {
        let bench = Bench::new();
        let runs = ["a", "b", "c", "d"];
        runs.iter().for_each(|run| bench.append_run(PAIR, run));
        bench.once();
        let before = bench.export_bytes();
        let mut daemon = running.then(|| bench.start_caught_up());
        let lines = |of: fn(&str) -> String| after.iter().map(|run| of(run)).collect::<String>();
        rewrite(&bench, Stream::Evidence, &lines(evidence));
        rewrite(&bench, Stream::Scored, &lines(scored));
        let mut expected = runs.to_vec();
        expected.extend(after.iter().filter(|run| !runs.contains(run)));
        match &mut daemon {
            Some(daemon) => expected.iter().for_each(|run| bench.wait_run(daemon, run)),
            None => _ = bench.once(),
        }
        bench.append_run(PAIR, "more");
        expected.push("more");
        match daemon {
            Some(mut daemon) => {
                bench.wait_run(&mut daemon, "more");
                bench.stop(daemon);
            }
            None => _ = bench.once(),
        }
        assert!(bench.export_bytes().starts_with(&before), "{what}");
        let mut found = bench.runs();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{what}, running {running}");
        bench.once();
        assert_eq!(bench.row_count(), expected.len(), "{what}");
    }
}

#[test]
fn a_rewritten_day_file_adds_only_its_new_rows() {
    let rewrites: [(Rewrite, &str); 3] = [
        (by_rename, "renamed"),
        (in_place, "rewritten"),
        (over_with_old_times, "old times"),
    ];
    for (rewrite, what) in rewrites {
        check_rewritten(rewrite, what, &["a", "b", "c", "d"]);
        check_rewritten(rewrite, what, &["a", "b"]);
        check_rewritten(rewrite, what, &["w", "x", "y", "z"]);
        check_rewritten(rewrite, what, &["z", "d", "c", "b", "a", "y"]);
    }
}

const DELETED: &str = "deleted, the exported rows stay";

/// While half of a pair cannot be read, the result of reading the other half is not stored.
#[test]
fn a_deleted_day_file_is_reported_once_while_its_partner_is_unreadable() {
    for gone in Stream::BOTH {
        let bench = Bench::new();
        bench.append_run(PAIR, "a");
        let (mut daemon, address) = start_scanning(&bench);
        bench.wait_rows(&mut daemon, 1);
        fs::remove_file(bench.path(gone.other(), PAIR)).unwrap();
        fs::create_dir(bench.path(gone.other(), PAIR)).unwrap();
        fs::remove_file(bench.path(gone, PAIR)).unwrap();
        bench.probe(&mut daemon);
        wait_scans(&bench, &mut daemon, address);
        bench.stop(daemon);
        assert_eq!(
            count_reports(&bench.log_text(), DELETED, &bench.path(gone, PAIR)),
            1
        );
    }
}

#[test]
fn a_deleted_day_file_leaves_its_rows() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    bench.append_run("2026/01/01/z.jsonl", "other");
    let (mut daemon, address) = start_scanning(&bench);
    bench.wait_rows(&mut daemon, 2);
    let before = bench.export_bytes();
    for stream in Stream::BOTH {
        fs::remove_file(bench.path(stream, PAIR)).unwrap();
    }
    bench.probe(&mut daemon);
    wait_scans(&bench, &mut daemon, address);
    bench.stop(daemon);
    for stream in Stream::BOTH {
        assert_eq!(
            count_reports(&bench.log_text(), DELETED, &bench.path(stream, PAIR)),
            1
        );
    }
    bench.once();
    assert!(bench.export_bytes().starts_with(&before));
    // The day-file returns with one more run.
    bench.append_run(PAIR, "a");
    bench.append_run(PAIR, "b");
    bench.once();
    let of_pair = bench.runs().iter().filter(|run| run.len() == 1).count();
    assert_eq!(of_pair, 2, "{:?}", bench.runs());
}

/// Creates a lake of `runs` waiting runs in 20 day-files.
fn waiting_lake(runs: usize) -> Bench {
    let bench = Bench::new();
    for file in 0..20 {
        let lines: String = (0..runs / 20)
            .map(|number| scored(&format!("w-{file}-{number}")))
            .collect();
        bench.append(
            Stream::Scored,
            &format!("2026/01/{:02}/w.jsonl", file + 1),
            lines,
        );
    }
    bench
}

#[test]
fn waiting_runs_cost_no_memory() {
    const MANY: usize = 1_000_000;
    let few = waiting_lake(10_000).once().memory_kib;
    let bench = waiting_lake(MANY);
    let first = bench.once();
    assert_totals(&first.stderr, &[&format!("waiting={MANY}")]);
    eprintln!("{few} KiB with few, {} KiB with many", first.memory_kib);
    assert!(first.memory_kib < MEMORY_KIB_MAX, "{}", first.memory_kib);
    // A backfill of many lines needs the memory of its batches; the memory of waiting runs shows when the daemon
    // starts again.
    let mut daemon = bench.start_caught_up();
    for number in 0..1_000 {
        let (file, number) = (number % 20, number * 10);
        bench.append(
            Stream::Evidence,
            &format!("2026/01/{:02}/w.jsonl", file + 1),
            evidence_with(&format!("w-{file}-{number}"), "late"),
        );
    }
    bench.wait_rows(&mut daemon, 1_000);
    let again = memory_kib_max(daemon.pid());
    eprintln!("{again} KiB when evidence came");
    assert!(again < few + (16 << 10), "{again} KiB, {few} with few");
    bench.stop(daemon);
    bench.assert_distinct(1_000);
    assert_totals(&bench.once().stderr, &["waiting=999000"]);
}

#[test]
fn a_run_rejected_later_keeps_its_only_row() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    let mut daemon = bench.start_caught_up();
    bench.wait_rows(&mut daemon, 1);
    bench.append(Stream::Scored, PAIR, scored_as("a", "needs_human_review"));
    bench.append(Stream::Evidence, PAIR, evidence_with("a", "another text"));
    bench.probe(&mut daemon);
    bench.stop(daemon);
    bench.once();
    assert_eq!(bench.runs().iter().filter(|run| *run == "a").count(), 1);
}

/// Of texts of the maximum length, one is processed at a time and few rows are queued: the memory does not grow with
/// them.
#[test]
fn memory_is_bounded_with_texts_of_the_maximum_line_length() {
    let bench = Bench::new();
    let text = "x".repeat(15 * MIB);
    for file in 0..8 {
        let (pair, run) = (format!("2026/01/01/f{file}.jsonl"), format!("run-{file}"));
        bench.append(Stream::Evidence, &pair, evidence_with(&run, &text));
        bench.append(Stream::Scored, &pair, scored(&run));
    }
    let ended = bench.once();
    bench.assert_distinct(8);
    assert!(ended.memory_kib < 128 << 10, "{}", ended.memory_kib);
}
