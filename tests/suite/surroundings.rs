//! Owns what surrounds the real daemon and is no disk: readers of its log that hang, limits of threads, a root that is a
//! link.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;

use rustix::process::{Pid, Signal, kill_process};

use crate::managed::{in_the_journal, journal_fields, namespaces_work};
use crate::support::kill_harness::wait_until;
use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, LONG, STOP, evidence, scored};
use crate::support::pty::terminal;

/// Rounds after which the log has far more bytes than any queue holds.
const ROUNDS: usize = 700;

/// A day-file whose path makes each line of the log that names it long.
fn long_pair() -> String {
    let day = ["\u{1}"; 3].map(|c| c.repeat(240)).join("/");
    format!("{day}/{}.jsonl", "x".repeat(200))
}

/// A row for each run, each with a rewritten day-file, whose line in the log has no reader.
fn rows_without_a_reader(bench: &Bench) {
    let rewritten = long_pair();
    bench.append(Stream::Scored, &rewritten, "{malformed\n");
    let rewritten = bench.path(Stream::Scored, &rewritten);
    for n in 0..ROUNDS {
        let run = format!("run {n}");
        fs::write(&rewritten, format!("{{malformed for the {n:04}th time\n")).unwrap();
        bench.append_run("2026/01/01/n.jsonl", &run);
        let there = wait_until(LONG, || Ok(bench.has(&run)));
        assert!(there.is_ok_and(|there| there), "{run} has no row");
    }
}

fn terminate(mut daemon: Child) {
    kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();
    let ended = wait_until(STOP, || {
        Ok(daemon.try_wait().unwrap().map(|status| status.success()) == Some(true))
    });
    let _ = daemon.kill();
    assert_eq!(ended, Ok(true), "SIGTERM does not end it");
}

/// Reads lines up to the report of dropped ones, and returns their number. The report comes once.
fn reported(mut next: impl FnMut() -> String) -> u64 {
    loop {
        let line = next();
        if let Some((_, rest)) = line.split_once("dropped ") {
            return rest.split_once(' ').unwrap().0.parse().unwrap();
        }
    }
}

/// A daemon whose stderr is never read until there are rows, then read until it reports the loss, then never again.
fn check_unread(stderr: OwnedFd, reader: impl Read + Send + 'static) {
    let bench = Bench::new();
    let mut command = bench.command(&["run"]);
    command.stderr(stderr);
    let daemon = command.spawn().unwrap();
    drop(command);
    rows_without_a_reader(&bench);
    let (sender, report) = channel();
    // Nothing ends a read from a pipe in which nothing comes.
    std::thread::spawn(move || {
        let mut lines = BufReader::new(reader).lines();
        let lost = reported(|| lines.next().unwrap().unwrap());
        sender.send((lost, lines))
    });
    let (lost, _lines) = report.recv_timeout(LONG).expect("no line was dropped");
    assert!(lost > 10, "{lost}");
    assert!(lost < ROUNDS as u64 * 3, "{lost}");
    terminate(daemon);
    bench.assert_batch();
}

#[test]
fn a_pipe_that_is_not_read_keeps_no_row_from_being_written() {
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    check_unread(writer.into(), reader);
}

#[test]
fn a_socket_that_is_not_read_keeps_no_row_from_being_written() {
    let (reader, writer) = UnixStream::pair().unwrap();
    check_unread(writer.into(), reader);
}

#[test]
fn a_terminal_that_is_not_read_keeps_no_row_from_being_written() {
    let (ours, theirs) = terminal(80);
    check_unread(theirs.into(), ours);
}

#[test]
fn a_log_that_is_never_read_keeps_the_daemon_from_nothing() {
    let bench = Bench::new();
    let (_reader, writer) = UnixStream::pair().unwrap();
    let mut command = bench.command(&["run"]);
    let daemon = command.stderr(OwnedFd::from(writer)).spawn().unwrap();
    rows_without_a_reader(&bench);
    assert_eq!(bench.status()["running"], true);
    terminate(daemon);
    bench.assert_batch();
}

#[test]
fn a_log_without_a_reader_keeps_no_row_from_being_written() {
    let bench = Bench::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = bench.command(&["run"]);
    let daemon = command.stderr(writer).spawn().unwrap();
    rows_without_a_reader(&bench);
    terminate(daemon);
    let mut closed = Command::new("sh");
    closed.args(["-c", "exec \"$0\" --root \"$1\" run 2>&-"]);
    closed
        .arg(env!("CARGO_BIN_EXE_distilld"))
        .arg(bench.root())
        .stdin(Stdio::null());
    let daemon = closed.spawn().unwrap();
    let pair = "2026/01/01/a.jsonl";
    bench.append(Stream::Scored, pair, "{malformed\n");
    bench.append_run(pair, "closed");
    let there = wait_until(LONG, || Ok(bench.has("closed")));
    assert_eq!(there, Ok(true));
    terminate(daemon);
    bench.assert_batch();
}

#[test]
fn a_journal_that_hangs_keeps_no_row_from_being_written() {
    if !namespaces_work() {
        return;
    }
    let bench = Bench::new();
    let journal = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(journal.path().join("socket")).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let mut command = in_the_journal(&bench, journal.path());
    command.stderr(File::create(bench.log()).unwrap());
    let daemon = command.spawn().unwrap();
    rows_without_a_reader(&bench);
    let mut bytes = vec![0; 1 << 20];
    let lost = reported(|| {
        let len = socket.recv(&mut bytes).unwrap();
        let fields = journal_fields(&bytes[..len]);
        let message = fields.into_iter().find(|(name, _)| name == "MESSAGE");
        message.unwrap_or_default().1
    });
    assert!(lost > 10, "{lost}");
    terminate(daemon);
    bench.assert_batch();
}

/// A user of whom no other process runs: the limit counts all threads of a user.
fn lonely_user() -> u32 {
    60_000 + std::process::id() % 4_000
}

#[test]
fn a_start_with_too_few_threads_names_the_limit_and_one_with_enough_works() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "needs root");
        eprintln!("skipped: only root can start a process of another user");
        return;
    }
    let mut refused = Vec::new();
    for threads in 1..20 {
        let bench = Bench::new();
        bench.append_run("2026/01/01/a.jsonl", "a");
        let own = bench.as_user(lonely_user(), &["run"]);
        let mut command = Command::new("prlimit");
        command
            .arg(format!("--nproc={threads}"))
            .arg(own.get_program())
            .args(own.get_args())
            .stderr(File::create(bench.log()).unwrap())
            .uid(lonely_user())
            .gid(lonely_user());
        let mut daemon = command.spawn().unwrap();
        let mut ended = None;
        let done = wait_until(LONG, || {
            ended = daemon.try_wait().unwrap();
            Ok(ended.is_some() || bench.has("a"))
        });
        assert_eq!(done, Ok(true), "{threads} threads: {}", bench.log_text());
        let said = bench.log_text();
        assert!(!said.contains("panicked"), "{threads} threads: {said}");
        let Some(status) = ended else {
            // Enough to work with; a thread that is refused later only slows it.
            let answer = bench.run(&mut bench.command(&["status"]));
            answer.check(0, &[]);
            terminate(daemon);
            bench.assert_batch();
            assert!(refused.len() > 3, "{refused:?}");
            return;
        };
        // A start that was refused late may have written the row.
        assert_eq!(status.code(), Some(1), "{threads} threads: {said}");
        assert!(
            said.contains("refused the thread `") && said.contains("TasksMax="),
            "{threads} threads: {said}"
        );
        refused.push(threads);
    }
    panic!("no start works");
}

/// Content and times of every file below a directory.
fn files_below(dir: &Path, found: &mut BTreeMap<PathBuf, (Vec<u8>, u64, i64, i64)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_dir() {
            files_below(&path, found);
        } else {
            let content = fs::read(&path).unwrap_or_default();
            let changed = (metadata.ctime(), metadata.ctime_nsec());
            found.insert(path, (content, metadata.ino(), changed.0, changed.1));
        }
    }
}

/// A daemon whose path leads from lake `a` to lake `b` by the link `link`, which is pointed elsewhere while it runs.
fn check_repointed(link: &Path, root: &Path, [a, b]: [&Path; 2], ends: bool) {
    let bench = Bench::new();
    let dir = bench.sibling("lakes");
    let root = dir.join(root);
    let link = dir.join(link);
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    let point_to = |target: &Path| {
        let new = dir.join("new");
        symlink(dir.join(target), &new).unwrap();
        fs::rename(&new, &link).unwrap();
    };
    let command = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_distilld"));
        command
            .env_clear()
            .env("DISTILLD_RECENT_SCAN_MS", "100")
            .arg("--root")
            .arg(&root)
            .args(arguments);
        command
    };
    for lake in [b, a] {
        fs::create_dir_all(dir.join(lake)).unwrap();
        point_to(lake);
        append_run(&root, &format!("of {}", lake.display()));
        bench.run(&mut command(&["run", "--once"])).check(0, &[]);
    }
    let mut daemon = bench.start_command(&mut command(&["run"]));
    bench.wait_for(&mut daemon, "caught up", || {
        bench.log_text().contains("caught up")
    });
    let files = || {
        let mut found = BTreeMap::new();
        files_below(&dir.join(b), &mut found);
        found
    };
    let before = files();
    point_to(b);
    if ends {
        bench.wait_stopped(daemon);
    } else {
        bench.wait_for(&mut daemon, "the link is reported", || {
            bench.log_text().contains("now leads to")
        });
        append_run(&dir.join(a), "late");
        let export = dir.join(a).join("data/distilled/sft/sft_export.jsonl");
        bench.wait_for(&mut daemon, "a row in the lake of its start", || {
            fs::read_to_string(&export).unwrap().contains("late")
        });
        bench.stop(daemon);
    }
    let after = files();
    for path in before.keys().chain(after.keys()) {
        assert!(
            before.get(path) == after.get(path),
            "{} changed",
            path.display()
        );
    }
    bench
        .run(&mut command(&["run", "--once"]))
        .check(0, &["case=continued"]);
}

fn append_run(root: &Path, run: &str) {
    use std::io::Write as _;
    for (stream, line) in [
        (Stream::Evidence, evidence(run)),
        (Stream::Scored, scored(run)),
    ] {
        let path = stream.path(root, "2026/01/01/a.jsonl");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut options = fs::OpenOptions::new();
        let mut file = options.create(true).append(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

#[test]
fn a_link_that_is_pointed_to_another_lake_leads_the_daemon_into_nothing_of_it() {
    let path = Path::new;
    let lakes = [path("a"), path("b")];
    check_repointed(path("current"), path("current"), lakes, false);
    // The export that was replaced ends it, as without a link.
    let data = [path("a/data"), path("b/data")];
    check_repointed(path("root/data"), path("root"), data, true);
}

#[test]
fn a_daemon_that_is_stopped_keeps_no_question_waiting() {
    let bench = Bench::new();
    bench.append_run("2026/01/01/a.jsonl", "a");
    let daemon = bench.start_caught_up();
    let process = Pid::from_raw(daemon.pid().cast_signed()).unwrap();
    kill_process(process, Signal::STOP).unwrap();
    let questions: [&[&str]; 3] = [&["explain", "a"], &["plan"], &["dead-letters"]];
    let asked = questions.map(|arguments| {
        let mut command = bench.command(arguments);
        command.stderr(Stdio::piped()).spawn().unwrap()
    });
    for question in asked {
        let answer = question.wait_with_output().unwrap();
        let said = String::from_utf8(answer.stderr).unwrap();
        assert_eq!(answer.status.code(), Some(1), "{said}");
        let pid = format!("process {}", daemon.pid());
        for word in [&pid, "did not answer within", "kill -CONT"] {
            assert!(said.contains(word), "{said}");
        }
    }
    kill_process(process, Signal::CONT).unwrap();
    bench.stop(daemon);
}
