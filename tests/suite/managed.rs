//! Owns the real daemon under a service manager: what it says of itself over a real notify socket and into a real
//! journal socket, how it reloads, and that only real progress feeds the watchdog.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::kill_harness::Daemon;
use crate::support::lake_gen::Stream;
use crate::support::manager::{Freezable, Manager, StoppedThread};
use crate::support::process::{Bench, LONG, STOP, evidence, evidence_with, scored};

const PAIR: &str = "2026/01/01/audits.jsonl";
/// The patience of a manager with a watchdog: four looks of the daemon at itself.
const PATIENCE: Duration = Duration::from_secs(2);

fn signal(daemon: &Daemon, signal: Signal) {
    let pid = Pid::from_raw(daemon.pid().cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// A daemon whose configuration is a file, which is written before it starts.
fn configured(bench: &Bench, manager: &Manager, toml: &str) -> Daemon {
    configure(bench, toml);
    let mut command = Command::new(env!("CARGO_BIN_EXE_distilld"));
    command
        .env_clear()
        .arg("--config")
        .arg(configuration(bench))
        .arg("run");
    let daemon = bench.start_command(manager.manage(&mut command));
    manager.wait_for("READY=1");
    daemon
}

fn configuration(bench: &Bench) -> PathBuf {
    bench.beside("distilld.toml")
}

fn configure(bench: &Bench, toml: &str) {
    let root = bench.root();
    let text = format!("root = {:?}\n{toml}\n", root.to_str().unwrap());
    fs::write(configuration(bench), text).unwrap();
}

/// Has it read its configuration again, and gives the status it ends with.
fn reload(daemon: &Daemon, manager: &Manager) -> String {
    signal(daemon, Signal::HUP);
    manager.wait_for("RELOADING=1");
    let messages = manager.messages();
    let began = messages.last().map(String::as_str).unwrap_or_default();
    let monotonic = began.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
    let monotonic = monotonic.unwrap_or_else(|| panic!("not in one message: {began}"));
    assert!(monotonic.trim_end().parse::<u64>().unwrap() > 0);
    manager.wait_for("READY=1");
    // What stands in the same message belongs to it.
    let heard = manager.drain();
    let status = heard.lines().rfind(|line| line.starts_with("STATUS="));
    status.unwrap_or_default().to_owned()
}

#[test]
fn the_status_tells_of_recovery_backlog_waiting_runs_and_the_last_row() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    bench.append(Stream::Scored, PAIR, scored("waits"));
    let manager = Manager::new();
    let daemon = bench.start_command(manager.manage(&mut bench.command(&["run"])));
    manager.wait_for("READY=1");
    assert!(manager.heard().concat().contains("STATUS=recovering\n"));
    manager.wait_for("STATUS=catching up, ");
    manager.wait_for("STATUS=fresh, 0 behind, 1 rows, 1 waiting for evidence, last row just now\n");
    bench.append(Stream::Evidence, PAIR, evidence("waits"));
    manager.wait_for("STATUS=fresh, 0 behind, 2 rows, 0 waiting for evidence, last row just now\n");
    bench.stop(daemon);
    let heard = manager.drain();
    assert!(heard.contains("STOPPING=1\n"), "{heard}");
    assert!(heard.contains("STATUS=stopping, 2 rows"), "{heard}");
}

#[test]
fn an_idle_daemon_says_nothing_and_polling_is_said_with_its_reason() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    let manager = Manager::new();
    let mut command = bench.command(&["run"]);
    command
        .env("DISTILLD_WATCH", "poll")
        .env("DISTILLD_POLL_MS", "20");
    let daemon = bench.start_command(manager.manage(&mut command));
    let status = manager.wait_for("STATUS=fresh, 0 behind, 1 rows");
    assert!(status.contains("; polling, configured"), "{status}");
    // It wakes fifty times a second, and has nothing to tell.
    assert_eq!(manager.next(Duration::from_secs(3)), None);
    bench.stop(daemon);
}

#[test]
fn a_reload_takes_up_what_can_change_and_names_what_cannot() {
    let bench = Bench::new();
    let manager = Manager::new();
    let mut daemon = configured(&bench, &manager, "settle_ms = 3600000");
    bench.append(Stream::Evidence, PAIR, evidence("a"));
    bench.append(Stream::Scored, PAIR, scored("a").trim_end());
    bench.probe(&mut daemon);
    assert!(!bench.has("a") && !bench.said().contains("msg=pass"));

    let elsewhere = bench.beside("state");
    configure(
        &bench,
        &format!(
            "settle_ms = 50\nmax_line_bytes = 1024\nlog = \"debug\"\nlog_format = \"json\"\nstate_dir = {:?}",
            elsewhere.to_str().unwrap()
        ),
    );
    reload(&daemon, &manager);
    // The line that had been waiting for an hour's silence is still for long enough now.
    bench.wait_run(&mut daemon, "a");
    bench.append(
        Stream::Evidence,
        PAIR,
        evidence_with("long", &"x".repeat(2_000)),
    );
    bench.append(Stream::Scored, PAIR, format!("\n{}", scored("long")));
    bench.probe(&mut daemon);
    assert!(
        !bench.has("long"),
        "its evidence is longer than a line may be now"
    );
    let said = bench.said();
    for words in [
        "changed=settle_ms,max_line_bytes,log ",
        "msg=\"some changed keys require a restart: state_dir,log_format\" needs_restart=state_dir,log_format ",
        "msg=pass",
    ] {
        assert!(said.contains(words), "no {words} in {said}");
    }
    assert!(!elsewhere.exists());
    bench.stop(daemon);
}

#[test]
fn a_reload_may_turn_from_events_to_polling_and_back() {
    let bench = Bench::new();
    let manager = Manager::new();
    let mut daemon = configured(&bench, &manager, "");
    for (number, watch) in ["poll", "auto", "poll", "events"].iter().enumerate() {
        configure(&bench, &format!("watch = {watch:?}\npoll_ms = 20"));
        let status = reload(&daemon, &manager);
        assert_eq!(status.contains("; polling, "), *watch == "poll", "{status}");
        for day in ["01", "02"] {
            bench.append_run(
                &format!("2026/01/{day}/{watch}.jsonl"),
                &format!("{number}-{day}"),
            );
            bench.wait_run(&mut daemon, &format!("{number}-{day}"));
        }
    }
    bench.stop(daemon);
    bench.assert_batch();
}

#[test]
fn a_broken_configuration_leaves_the_running_one_in_force_and_says_why() {
    let bench = Bench::new();
    let manager = Manager::new();
    let mut daemon = configured(&bench, &manager, "settle_ms = 50");
    configure(&bench, "settle = 3600000");
    let status = reload(&daemon, &manager);
    let why = "distilld.toml:2: unknown key `settle`";
    assert!(
        status.contains("; reload refused, the old settings stay: ") && status.contains(why),
        "{status}"
    );
    assert!(bench.said().contains("configuration reload rejected") && bench.said().contains(why));
    bench.append(Stream::Evidence, PAIR, evidence("a"));
    bench.append(Stream::Scored, PAIR, scored("a").trim_end());
    bench.wait_run(&mut daemon, "a");

    fs::remove_file(configuration(&bench)).unwrap();
    assert!(reload(&daemon, &manager).contains("cannot read the configuration file"));
    configure(&bench, "settle_ms = 50");
    let status = reload(&daemon, &manager);
    assert!(!status.contains("reload"), "{status}");
    bench.stop(daemon);
}

#[test]
fn a_report_is_one_event_with_all_figures() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    bench.append(Stream::Scored, PAIR, scored("waits"));
    bench.append(Stream::Evidence, PAIR, "{\"to");
    let mut daemon = bench.start_caught_up();
    signal(&daemon, Signal::USR1);
    bench.wait_for(&mut daemon, "the report", || {
        bench.said().contains("msg=status")
    });
    let said = bench.said();
    let line = said
        .lines()
        .find(|line| line.contains("msg=status"))
        .unwrap();
    for field in [
        " status=\"fresh, 0 behind, 1 rows, 1 waiting for evidence, last row just now\" ",
        " scored_lines=2 ",
        " exported=1 ",
        " waiting=1 ",
        " balanced=true ",
        " unterminated_lines=1 unterminated_bytes=4 ",
        " watch=events ",
        " last_row_at=",
    ] {
        assert!(line.contains(field), "no {field} in {line}");
    }
    bench.stop(daemon);
}

/// Waits until it has said three times that it lives.
fn expect_fed(manager: &Manager) {
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
}

#[test]
fn an_idle_daemon_feeds_the_watchdog_and_a_hung_event_source_starves_it() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    let manager = Manager::new();
    let mut daemon = bench.start_command(manager.watch(&mut bench.command(&["run"]), PATIENCE));
    expect_fed(&manager);
    let hung = StoppedThread::stop(daemon.pid(), "notify-rs");
    manager.lose_patience(PATIENCE);
    bench.wait_for(&mut daemon, "it is said", || {
        bench.said().contains("level=error") && bench.said().contains("part=watcher")
    });
    drop(hung);
    expect_fed(&manager);
    bench.stop(daemon);
}

#[test]
fn the_file_that_tests_the_event_source_may_be_removed() {
    let bench = Bench::new();
    let manager = Manager::new();
    let daemon = bench.start_command(manager.watch(&mut bench.command(&["run"]), PATIENCE));
    expect_fed(&manager);
    fs::remove_file(bench.state_dir().join("watcher-test")).unwrap();
    for _ in 0..3 {
        expect_fed(&manager);
    }
    bench.stop(daemon);
}

#[test]
fn a_hung_engine_starves_the_watchdog() {
    let bench = Bench::new();
    let manager = Manager::new();
    let mut command = bench.command(&["run"]);
    command.env("DISTILLD_RECENT_SCAN_MS", "100");
    let mut daemon = bench.start_command(manager.watch(&mut command, PATIENCE));
    expect_fed(&manager);
    let hung = StoppedThread::stop(daemon.pid(), "engine");
    manager.lose_patience(PATIENCE);
    bench.wait_for(&mut daemon, "it is said", || {
        bench.said().contains("part=engine")
    });
    drop(hung);
    expect_fed(&manager);
    bench.stop(daemon);
}

#[test]
fn a_commit_that_hangs_in_the_disk_starves_the_watchdog() {
    let bench = Bench::new();
    let state = bench.beside("state");
    let manager = Manager::new();
    let mut command = bench.command(&["--state-dir", state.to_str().unwrap(), "run"]);
    let distilled = bench.root().join("data/distilled");
    // The export's disk alone hangs: sources, state and the watcher's test lie elsewhere.
    let Some(mut disk) = Freezable::mount(&bench.beside("image"), &distilled) else {
        return;
    };
    let mut daemon = bench.start_command(manager.watch(&mut command, PATIENCE));
    expect_fed(&manager);
    disk.freeze();
    bench.append_run(PAIR, "a");
    manager.lose_patience(PATIENCE);
    disk.thaw();
    expect_fed(&manager);
    bench.wait_rows(&mut daemon, 1);
    bench.stop(daemon);
    bench.assert_batch();
}

#[test]
fn a_full_disk_is_said_with_its_reason_until_it_is_over() {
    let bench = Bench::new();
    let state = bench.beside("state");
    let distilled = bench.root().join("data/distilled");
    let Some(_disk) = Freezable::mount(&bench.beside("image"), &distilled) else {
        return;
    };
    let manager = Manager::new();
    let mut command = bench.command(&["--state-dir", state.to_str().unwrap(), "run"]);
    let mut daemon = bench.start_command(manager.watch(&mut command, PATIENCE));
    manager.wait_for("STATUS=fresh");
    let filler = distilled.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    for chunk_len in [1 << 20, 4_096] {
        while file.write_all(&vec![b'x'; chunk_len]).is_ok() {}
    }
    file.sync_all().unwrap();
    drop(file);
    let text = "a long answer. ".repeat(4_000);
    bench.append(Stream::Evidence, PAIR, evidence_with("a", &text));
    bench.append(Stream::Scored, PAIR, scored("a"));
    let status = manager.wait_for("STATUS=reading stopped at ");
    assert!(status.contains("No space left on device"), "{status}");
    // It waits for room, which is no hang.
    expect_fed(&manager);
    fs::remove_file(&filler).unwrap();
    manager.wait_for("STATUS=fresh, 0 behind, 1 rows");
    bench.wait_rows(&mut daemon, 1);
    assert!(bench.said().contains("msg=\"resumed after: "));
    bench.stop(daemon);
    bench.assert_batch();
}

#[test]
fn a_long_backfill_feeds_the_watchdog_and_a_stop_in_it_is_told() {
    let bench = Bench::new();
    let text = "what a model said, at length. ".repeat(160);
    for pair in 0..100 {
        let (mut runs, mut given) = (String::new(), String::new());
        for number in 0..250 {
            let run = format!("run-{pair}-{number}");
            runs.push_str(&scored(&run));
            given.push_str(&evidence_with(&run, &text));
        }
        let name = format!("2026/01/{:02}/f{}.jsonl", 1 + pair % 20, pair / 20);
        bench.append(Stream::Evidence, &name, given);
        bench.append(Stream::Scored, &name, runs);
    }
    let manager = Manager::new();
    // A quarter of it is far less than the backfill takes.
    let patience = Duration::from_secs(1);
    let daemon = bench.start_command(manager.watch(&mut bench.command(&["run"]), patience));
    manager.wait_for("READY=1");
    manager.wait_for("STATUS=catching up, ");
    expect_fed(&manager);
    let began = Instant::now();
    bench.stop(daemon);
    assert!(began.elapsed() < STOP);
    manager.wait_for("STOPPING=1");
    assert!(!bench.said().contains("no progress"), "{}", bench.said());
}

/// Runs `run` to its end and gives the last status the manager heard.
fn failing_start(bench: &Bench, command: &mut Command, code: i32) -> (String, String) {
    let manager = Manager::new();
    let ended = bench.run(manager.manage(command));
    ended.check(code, &[]);
    let heard = manager.drain();
    assert!(!heard.contains("READY=1"), "{heard}");
    (ended.stderr, heard)
}

fn check_failing_start(bench: &Bench, command: &mut Command, code: i32, words: &[&str]) {
    let (stderr, heard) = failing_start(bench, command, code);
    // What happened, and what to do.
    let last: Vec<&str> = stderr.lines().rev().take(2).collect();
    let last = last.join("\n");
    let status = heard.lines().rfind(|line| line.starts_with("STATUS="));
    let status = status.unwrap_or_default();
    assert!(status.starts_with("STATUS=failed: "), "{heard}");
    for word in words {
        assert!(last.contains(word), "no {word} in {stderr}");
        let errno = word.starts_with("ERRNO");
        assert!(status.contains(word) || errno, "no {word} in {status}");
    }
}

#[test]
fn a_start_without_configuration_or_root_says_what_to_do_and_whether_it_is_worth_a_restart() {
    let bench = Bench::new();
    let run = |arguments: &[&Path]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_distilld"));
        command.env_clear().args(arguments).arg("run");
        command
    };
    let (root_flag, config_flag) = (Path::new("--root"), Path::new("--config"));
    check_failing_start(&bench, &mut run(&[]), 78, &["no root", "--root DIR"]);
    let file = configuration(&bench);
    check_failing_start(
        &bench,
        &mut run(&[config_flag, &file]),
        78,
        &["cannot read"],
    );
    fs::write(&file, "settle = 1\n").unwrap();
    check_failing_start(&bench, &mut run(&[config_flag, &file]), 78, &["settle_ms"]);
    fs::write(bench.beside("plain"), "").unwrap();
    let plain = bench.beside("plain");
    check_failing_start(
        &bench,
        &mut run(&[root_flag, &plain]),
        78,
        &["not a directory"],
    );
    // It comes back by itself when the root is mounted.
    let unmounted = bench.beside("unmounted");
    let words = ["unmounted", "mount it"];
    check_failing_start(&bench, &mut run(&[root_flag, &unmounted]), 1, &words);
    let (_, heard) = failing_start(&bench, &mut run(&[root_flag, &unmounted]), 1);
    assert!(heard.contains("ERRNO=2\n"), "{heard}");
}

#[test]
fn a_start_without_rights_names_the_directory_and_who_needs_them() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "needs root");
        eprintln!("skipped: only root can make what another user cannot enter");
        return;
    }
    let bench = Bench::new();
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    open(bench.root().parent().unwrap());
    let program = bench.beside("distilld");
    fs::copy(env!("CARGO_BIN_EXE_distilld"), &program).unwrap();
    let as_nobody = |arguments: &[&str]| {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new(&program);
        command
            .env_clear()
            .arg("--root")
            .arg(bench.root())
            .args(arguments);
        command.arg("run").uid(65_534).gid(65_534);
        command
    };
    let speak = |words: &[&str], arguments: &[&str]| {
        let ended = bench.run(&mut as_nobody(arguments));
        ended.check(1, words);
        assert_eq!(
            ended
                .stderr
                .lines()
                .filter(|line| line.starts_with("distilld: "))
                .count(),
            1
        );
    };
    // data/distilled cannot be made.
    speak(&["data/distilled", "Permission denied", "user 65534"], &[]);
    // It is there and belongs to somebody else.
    fs::create_dir_all(bench.root().join("data/distilled")).unwrap();
    speak(&["data/distilled", "Permission denied", "user 65534"], &[]);
    // It is ours, and the state directory is not.
    let distilled = bench.root().join("data/distilled");
    std::os::unix::fs::chown(&distilled, Some(65_534), Some(65_534)).unwrap();
    let state = bench.beside("state");
    fs::create_dir(&state).unwrap();
    let state_words = [state.to_str().unwrap(), "Permission denied", "user 65534"];
    speak(&state_words, &["--state-dir", state.to_str().unwrap()]);
    // The root cannot be entered.
    fs::set_permissions(bench.root(), fs::Permissions::from_mode(0o700)).unwrap();
    speak(&["Permission denied", "data"], &[]);
}

/// The fields of one datagram in the journal's native form.
pub fn journal_fields(bytes: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let name = String::from_utf8(rest[..end].to_vec()).unwrap();
        rest = &rest[end + 1..];
        if let Some((name, value)) = name.split_once('=') {
            fields.push((name.to_owned(), value.to_owned()));
            continue;
        }
        let (len, behind) = rest.split_at(8);
        let len = u64::from_le_bytes(len.try_into().unwrap()) as usize;
        let value = String::from_utf8(behind[..len].to_vec()).unwrap();
        fields.push((name, value));
        rest = &behind[len + 1..];
    }
    fields
}

/// A command that sees `dir` as `/run/systemd/journal`, and whose stderr it is told to be the journal.
pub fn in_the_journal(bench: &Bench, dir: &Path) -> Command {
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && \
                  mount --bind \"$1\" /run/systemd/journal && shift && exec \"$@\"";
    fs::write(bench.log(), "").unwrap();
    let log = fs::metadata(bench.log()).unwrap();
    command
        .args(["--mount", "--map-root-user", "sh", "-ec", script, "sh"])
        .arg(dir)
        .arg(env!("CARGO_BIN_EXE_distilld"))
        .arg("--root")
        .arg(bench.root())
        .arg("run")
        .env("JOURNAL_STREAM", format!("{}:{}", log.dev(), log.ino()));
    command
}

pub fn namespaces_work() -> bool {
    let tried = Command::new("unshare")
        .args([
            "--mount",
            "--map-root-user",
            "mount",
            "-t",
            "tmpfs",
            "none",
            "/run",
        ])
        .output();
    let works = tried.is_ok_and(|output| output.status.success());
    if !works {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "needs mount namespaces"
        );
        eprintln!("skipped: needs mount namespaces");
    }
    works
}

#[test]
fn in_the_journal_every_field_has_its_name_and_every_level_its_priority() {
    if !namespaces_work() {
        return;
    }
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    let gone = bench.path(Stream::Scored, "2026/01/01/dir.jsonl");
    fs::create_dir_all(&gone).unwrap();
    let journal = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(journal.path().join("socket")).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let mut command = in_the_journal(&bench, journal.path());
    command.env("RUST_LOG", "debug");
    let daemon = bench.start_command(&mut command);
    let mut bytes = vec![0; 1 << 20];
    let mut event = |message: &str| loop {
        let len = socket.recv(&mut bytes).unwrap();
        let fields = journal_fields(&bytes[..len]);
        let of = |name: &str| {
            let field = fields.iter().find(|(found, _)| found == name);
            field.map(|(_, value)| value.clone())
        };
        if of("MESSAGE").is_some_and(|text| text.starts_with(message)) {
            return [
                "PRIORITY",
                "SYSLOG_IDENTIFIER",
                "MESSAGE_ID",
                "DAY_FILE",
                "EXPORTED",
            ]
            .map(of);
        }
    };
    let [priority, name, id, _, _] = event("started");
    assert_eq!(priority.as_deref(), Some("6"));
    assert_eq!(name.as_deref(), Some("distilld"));
    assert_eq!(id.unwrap().len(), 32);
    let [priority, _, _, day_file, _] = event("1 unreadable day-file skipped");
    assert_eq!(priority.as_deref(), Some("4"));
    assert_eq!(day_file.as_deref(), gone.to_str());
    assert_eq!(event("pass")[0].as_deref(), Some("7"));
    assert_eq!(event("caught up")[4].as_deref(), Some("1"));
    assert_eq!(bench.said(), "", "nothing is said twice");
    bench.stop(daemon);
}

#[test]
fn without_the_journals_socket_its_stream_takes_lines_with_priorities() {
    if !namespaces_work() {
        return;
    }
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    let journal = tempfile::tempdir().unwrap();
    let daemon = bench.catch_up(&mut in_the_journal(&bench, journal.path()));
    bench.stop(daemon);
    for line in bench.said().lines() {
        assert!(line.starts_with("<6>level=info msg="), "{line}");
        assert!(
            !line.contains("time=") && !line.contains("message_id"),
            "{line}"
        );
    }
}
