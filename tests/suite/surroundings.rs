//! Owns what surrounds the real daemon and is no disk: readers of its log that hang, limits of threads, a root that is a
//! link.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::managed::{in_the_journal, journal_fields, namespaces_work};
use crate::support::kill_harness::wait_until;
use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, LONG, STOP};
use crate::support::pty::terminal;

/// Rounds after which the log has far more bytes than any queue holds.
const ROUNDS: usize = 700;

/// A day-file whose path makes each warning that names it long.
fn long_pair() -> String {
    let day = ["\u{1}"; 3].map(|c| c.repeat(240)).join("/");
    format!("{day}/{}.jsonl", "x".repeat(200))
}

/// A row for each run, each with a warning that has no reader.
fn rows_without_a_reader(bench: &Bench) {
    let pair = long_pair();
    for n in 0..ROUNDS {
        let run = format!("run {n}");
        bench.append(Stream::Scored, &pair, "{malformed\n");
        bench.append_run(&pair, &run);
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
fn check_unread(stderr: OwnedFd, reader: impl Read) {
    let bench = Bench::new();
    let mut command = bench.command(&["run"]);
    command.stderr(stderr);
    let daemon = command.spawn().unwrap();
    drop(command);
    rows_without_a_reader(&bench);
    let mut lines = BufReader::new(reader).lines();
    let lost = reported(|| lines.next().unwrap().unwrap());
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
    assert_eq!(bench.status()["state"], "fresh");
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
