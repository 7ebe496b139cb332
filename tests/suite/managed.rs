//! The real daemon under a service manager: its messages on a real notify socket and a real journal socket, its
//! reload, and the watchdog, which only real progress feeds.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use distilld::pair::verdict::VerdictKind;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::kill_harness::{Daemon, wait_until};
use crate::support::lake_gen::Stream;
use crate::support::manager::{Freezable, Manager, StoppedThread};
use crate::support::process::{
    Bench, LONG, STOP, evidence, evidence_with, scored, scored_as, without_flags,
};

const PAIR: &str = "2026/01/01/audits.jsonl";
/// The watchdog time-out: four of the daemon's check intervals.
const PATIENCE: Duration = Duration::from_secs(2);

fn signal(daemon: &Daemon, signal: Signal) {
    let pid = Pid::from_raw(daemon.pid().cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Returns a daemon's command with a configuration file, which is written first.
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
    bench.sibling("distilld.toml")
}

fn configure(bench: &Bench, toml: &str) {
    let root = bench.root();
    let text = format!("root = {:?}\n{toml}\n", root.to_str().unwrap());
    fs::write(configuration(bench), text).unwrap();
}

/// Triggers a reload, and returns the status after it.
fn reload(daemon: &Daemon, manager: &Manager) -> String {
    signal(daemon, Signal::HUP);
    manager.wait_for("RELOADING=1");
    let messages = manager.messages();
    let began = messages.last().map(String::as_str).unwrap_or_default();
    let monotonic = began.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
    let monotonic = monotonic.unwrap_or_else(|| panic!("not in one message: {began}"));
    assert!(monotonic.trim_end().parse::<u64>().unwrap() > 0);
    manager.wait_for("READY=1");
    // The lines of one message belong together.
    let messages = manager.drain();
    let status = messages.lines().rfind(|line| line.starts_with("STATUS="));
    status.unwrap_or_default().to_owned()
}

#[test]
fn the_status_shows_recovery_backlog_waiting_runs_and_the_last_row() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    bench.append(Stream::Scored, PAIR, scored("waits"));
    let manager = Manager::new();
    let daemon = bench.start_command(manager.manage(&mut bench.command(&["run"])));
    manager.wait_for("READY=1");
    assert!(
        manager
            .lines_so_far()
            .concat()
            .contains("STATUS=recovering\n")
    );
    manager.wait_for("STATUS=catching up: ");
    manager.wait_for("STATUS=fresh, 1 rows, 1 waiting for evidence, last row just now\n");
    bench.append(Stream::Evidence, PAIR, evidence("waits"));
    manager.wait_for("STATUS=fresh, 2 rows, 0 waiting for evidence, last row just now\n");
    bench.stop(daemon);
    let messages = manager.drain();
    assert!(messages.contains("STOPPING=1\n"), "{messages}");
    assert!(messages.contains("STATUS=stopping, 2 rows"), "{messages}");
}

#[test]
fn an_idle_daemon_sends_nothing_and_polling_is_reported_with_its_reason() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    let manager = Manager::new();
    let mut command = bench.command(&["run"]);
    command
        .env("DISTILLD_WATCH", "poll")
        .env("DISTILLD_POLL_MS", "20");
    let daemon = bench.start_command(manager.manage(&mut command));
    let status = manager.wait_for("STATUS=fresh, 1 rows");
    assert!(status.contains("; polling, configured"), "{status}");
    // It wakes fifty times per second, without a change to report.
    assert_eq!(manager.next(Duration::from_secs(3)), None);
    bench.stop(daemon);
}

#[test]
fn a_reload_applies_changeable_keys_and_names_the_others() {
    let bench = Bench::new();
    let manager = Manager::new();
    let mut daemon = configured(&bench, &manager, "settle_ms = 3600000");
    bench.append(Stream::Evidence, PAIR, evidence("a"));
    bench.append(Stream::Scored, PAIR, scored("a").trim_end());
    bench.probe(&mut daemon);
    assert!(!bench.has("a") && !bench.log_text().contains("msg=pass"));

    let elsewhere = bench.sibling("state");
    configure(
        &bench,
        &format!(
            "settle_ms = 50\nmax_line_bytes = 1024\nlog = \"debug\"\nlog_format = \"json\"\nstate_dir = {:?}",
            elsewhere.to_str().unwrap()
        ),
    );
    reload(&daemon, &manager);
    reload(&daemon, &manager);
    // The line that waited for an hour's silence has now been unchanged for long enough.
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
    let log = bench.log_text();
    for words in [
        "changed=settle_ms,max_line_bytes,log ",
        "msg=\"configuration reloaded, changed keys: none\"",
        "msg=\"some changed keys require a restart: state_dir,log_format\" needs_restart=state_dir,log_format ",
        "msg=pass",
    ] {
        assert!(log.contains(words), "no {words} in {log}");
    }
    assert!(!elsewhere.exists());
    bench.stop(daemon);
}

#[test]
fn a_raised_limit_names_the_lines_that_it_would_accept() {
    let bench = Bench::new();
    let manager = Manager::new();
    let mut daemon = configured(&bench, &manager, "max_line_bytes = 1024");
    bench.append(Stream::Scored, PAIR, scored("a"));
    bench.append(
        Stream::Evidence,
        PAIR,
        evidence_with("a", &"x".repeat(2_000)),
    );
    bench.wait_for(&mut daemon, "the line is too long", || {
        bench.log_text().contains("(too-long)")
    });
    configure(&bench, "max_line_bytes = 1025");
    reload(&daemon, &manager);
    assert!(!bench.log_text().contains("within max_line_bytes now"));
    configure(&bench, "max_line_bytes = 4096");
    reload(&daemon, &manager);
    let named = "1 malformed line of 1 day-file was too long and is within max_line_bytes now; `distilld dead-letters \
                 retry --evidence 2026/01/01/audits.jsonl` reads";
    bench.wait_for(&mut daemon, "the lines are named", || {
        bench.log_text().contains(named)
    });
    // The command of the message.
    let retry = ["dead-letters", "retry", "--evidence", PAIR];
    bench.run(&mut bench.command(&retry)).check(0, &[]);
    bench.wait_run(&mut daemon, "a");
    bench.wait_for(&mut daemon, "nothing is left to read again", || {
        bench.status()["within_limit"]["lines"] == 0
    });
    bench.stop(daemon);
    bench.assert_batch();
}

#[test]
fn a_start_with_a_raised_limit_names_the_lines_that_it_would_accept() {
    let bench = Bench::new();
    bench.append(
        Stream::Scored,
        PAIR,
        scored("a") + &scored(&"b".repeat(3_000)),
    );
    let once = |limit: &str| {
        let mut command = bench.command(&["run", "--once"]);
        let ended = bench.run(command.env("DISTILLD_MAX_LINE_BYTES", limit));
        ended.check(0, &[]);
        without_flags(&ended.stderr)
    };
    let named = "1 malformed line of 1 day-file was too long and is within max_line_bytes now; `distilld dead-letters \
                 retry 2026/01/01/audits.jsonl` reads";
    for (limit, is_named) in [
        ("1024", false),
        ("1024", false),
        ("2048", false),
        ("8192", true),
    ] {
        let log = once(limit);
        assert_eq!(log.contains(named), is_named, "{limit}: {log}");
    }
    // Without a daemon, with the limit of this command.
    let status = bench.status();
    assert_eq!(status["within_limit"]["lines"], 1);
    let text = without_flags(&bench.run(&mut bench.command(&["status"])).stdout);
    assert!(text.contains(&format!("too long  {named}")[..60]), "{text}");
    let mut daemon = bench.start_caught_up();
    assert!(bench.log_text().contains(named), "{}", bench.log_text());
    assert_eq!(bench.status()["within_limit"], status["within_limit"]);
    let retry = ["dead-letters", "retry", PAIR];
    bench.run(&mut bench.command(&retry)).check(0, &[]);
    bench.wait_for(&mut daemon, "nothing is left to read again", || {
        bench.status()["within_limit"]["lines"] == 0
    });
    bench.stop(daemon);
}

/// A scorer chooses the names of day-files, and the operator runs the command that the status shows.
#[test]
fn the_command_for_a_day_file_of_any_name_reads_that_day_file_alone() {
    for name in [
        "a b",
        "it's",
        "$(touch made)",
        "x;touch made;",
        "`touch made`",
        "-x",
        "a\\\t'\u{202e}",
    ] {
        let bench = Bench::new();
        bench.append(
            Stream::Scored,
            &format!("2026/01/01/{name}.jsonl"),
            scored(&"b".repeat(3_000)),
        );
        let mut once = bench.command(&["run", "--once"]);
        bench
            .run(once.env("DISTILLD_MAX_LINE_BYTES", "1024"))
            .check(0, &[]);
        let status = bench.status();
        assert_eq!(status["within_limit"]["lines"], 1, "{name}");
        let fix = status["within_limit"]["fix"].as_str().unwrap();
        let flags = fix.strip_prefix("distilld ").unwrap();
        let script = format!("exec \"$0\" {flags}");
        let mut shell = std::process::Command::new("bash");
        let program = bench.command(&[]).get_program().to_owned();
        shell
            .args(["-c", &script])
            .arg(program)
            .current_dir(bench.root());
        bench.run(&mut shell).check(0, &[]);
        assert_eq!(bench.status()["within_limit"]["lines"], 0, "{name}: {fix}");
        assert!(!bench.root().join("made").exists(), "{name}: {fix}");
    }
}

#[test]
fn a_reload_may_switch_between_events_and_polling() {
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
fn an_invalid_configuration_is_rejected_with_the_reason() {
    let bench = Bench::new();
    let manager = Manager::new();
    let mut daemon = configured(&bench, &manager, "settle_ms = 50");
    configure(&bench, "settle = 3600000");
    let status = reload(&daemon, &manager);
    let why = "distilld.toml:2: unknown key `settle`";
    assert!(
        status.contains("; reload rejected, keeping the old settings: ") && status.contains(why),
        "{status}"
    );
    assert!(
        bench.log_text().contains("configuration reload rejected")
            && bench.log_text().contains(why)
    );
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
fn a_status_report_is_one_event_with_all_figures() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    bench.append(Stream::Scored, PAIR, scored("waits"));
    bench.append(Stream::Evidence, PAIR, "{\"to");
    let mut daemon = bench.start_caught_up();
    signal(&daemon, Signal::USR1);
    bench.wait_for(&mut daemon, "the report", || {
        bench.log_text().contains("msg=status")
    });
    let log = bench.log_text();
    let line = log
        .lines()
        .find(|line| line.contains("msg=status"))
        .unwrap();
    for field in [
        " status=\"fresh, 1 rows, 1 waiting for evidence, last row just now\" ",
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
    for kind in VerdictKind::ALL {
        let field = format!(" {}=", kind.code());
        assert!(line.contains(&field), "no {field} in {line}");
    }
    bench.stop(daemon);
}

/// A pass logs its retractions in one line, an order in two, and a start names the ledger.
#[test]
fn the_log_has_a_line_for_the_events_of_the_ledger() {
    let bench = Bench::new();
    let runs: Vec<String> = (0..20).map(|n| format!("run{n:02}")).collect();
    let lines = |of: fn(&str) -> String| runs.iter().map(|run| of(run)).collect::<String>();
    bench.append(Stream::Evidence, PAIR, lines(evidence));
    bench.append(Stream::Scored, PAIR, lines(scored));
    let mut daemon = bench.start_caught_up();
    let wait_log = |daemon: &mut Daemon, words: &str| {
        bench.wait_for(daemon, words, || bench.log_text().contains(words));
    };
    wait_log(&mut daemon, "began the retraction ledger");
    assert!(bench.log_text().contains("cause=created"));
    bench.append(
        Stream::Scored,
        PAIR,
        lines(|run| scored_as(run, "rejected")),
    );
    let at = lines(scored).len();
    wait_log(
        &mut daemon,
        &format!(
            "20 rows retracted, the rows stay in the export; first run run00 (rejected, {PAIR}, line at byte {at})"
        ),
    );
    bench.append(Stream::Scored, PAIR, scored("run00"));
    bench.wait_for(&mut daemon, "the row", || bench.row_count() == 21);
    for (flags, words) in [
        (
            &["--reason", "a\nb"][..],
            ["1 row retracted", "1 standing order given; first run run00"],
        ),
        (
            &["--revoke"],
            ["1 row restored", "1 standing order ended; first run run00"],
        ),
    ] {
        let order = [&["retract", "run00"][..], flags].concat();
        bench.run(&mut bench.command(&order)).check(0, &[]);
        words.iter().for_each(|words| wait_log(&mut daemon, words));
    }
    bench.stop(daemon);
    assert_eq!(
        bench.log_text().matches("retracted, the rows stay").count(),
        2
    );
    bench.remove_state();
    let mut daemon = bench.start_caught_up();
    wait_log(
        &mut daemon,
        "sft_retractions.jsonl: 20 retracted rows, 0 standing orders",
    );
    bench.stop(daemon);
}

/// Waits for three keep-alive messages.
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
    bench.wait_for(&mut daemon, "it is logged", || {
        bench.log_text().contains("level=error") && bench.log_text().contains("part=watcher")
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
    bench.wait_for(&mut daemon, "it is logged", || {
        bench.log_text().contains("part=engine")
    });
    drop(hung);
    expect_fed(&manager);
    bench.stop(daemon);
}

#[test]
fn a_commit_that_hangs_in_the_disk_starves_the_watchdog() {
    let bench = Bench::new();
    let state = bench.sibling("state");
    let manager = Manager::new();
    let mut command = bench.command(&["--state-dir", state.to_str().unwrap(), "run"]);
    let distilled = bench.root().join("data/distilled");
    // Only the export's disk hangs: sources, state and the watcher's test are on other disks.
    let Some(mut disk) = Freezable::mount(&bench.sibling("image"), &distilled) else {
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
fn a_full_disk_is_reported_with_its_reason_until_it_ends() {
    let bench = Bench::new();
    let state = bench.sibling("state");
    let distilled = bench.root().join("data/distilled");
    let Some(_disk) = Freezable::mount(&bench.sibling("image"), &distilled) else {
        return;
    };
    let manager = Manager::new();
    let mut command = bench.command(&["--state-dir", state.to_str().unwrap(), "run"]);
    let mut daemon = bench.start_command(manager.watch(&mut command, PATIENCE));
    manager.wait_for("STATUS=no sources");
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
    let status = manager.wait_for("STATUS=stopped: reading stopped at ");
    assert!(status.contains("No space left on device"), "{status}");
    // The daemon waits for space, which is not a hang.
    expect_fed(&manager);
    fs::remove_file(&filler).unwrap();
    manager.wait_for("STATUS=fresh, 1 rows");
    bench.wait_rows(&mut daemon, 1);
    let resumed = || Ok(bench.log_text().contains("msg=\"resumed after: "));
    assert_eq!(wait_until(LONG, resumed), Ok(true));
    bench.stop(daemon);
    bench.assert_batch();
}

#[test]
fn a_long_backfill_feeds_the_watchdog_and_reports_a_stop() {
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
    // A quarter of the time-out is far less than the duration of the backfill.
    let patience = Duration::from_secs(1);
    let daemon = bench.start_command(manager.watch(&mut bench.command(&["run"]), patience));
    manager.wait_for("READY=1");
    manager.wait_for("STATUS=catching up: ");
    expect_fed(&manager);
    let began = Instant::now();
    bench.stop(daemon);
    assert!(began.elapsed() < STOP);
    manager.wait_for("STOPPING=1");
    assert!(
        !bench.log_text().contains("no progress"),
        "{}",
        bench.log_text()
    );
}

/// Runs `run` to its end and returns the last status that the manager received.
fn failing_start(bench: &Bench, command: &mut Command, code: i32) -> (String, String) {
    let manager = Manager::new();
    let ended = bench.run(manager.manage(command));
    ended.check(code, &[]);
    let messages = manager.drain();
    assert!(!messages.contains("READY=1"), "{messages}");
    (ended.stderr, messages)
}

fn check_failing_start(bench: &Bench, command: &mut Command, code: i32, words: &[&str]) {
    let (stderr, messages) = failing_start(bench, command, code);
    // The problem, and the remedy.
    let last: Vec<&str> = stderr.lines().rev().take(2).collect();
    let last = last.join("\n");
    let status = messages.lines().rfind(|line| line.starts_with("STATUS="));
    let status = status.unwrap_or_default();
    assert!(status.starts_with("STATUS=failed: "), "{messages}");
    for word in words {
        assert!(last.contains(word), "no {word} in {stderr}");
        let errno = word.starts_with("ERRNO");
        assert!(status.contains(word) || errno, "no {word} in {status}");
    }
}

#[test]
fn a_start_without_configuration_or_root_names_the_remedy_and_whether_to_restart() {
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
    fs::write(bench.sibling("plain"), "").unwrap();
    let plain = bench.sibling("plain");
    check_failing_start(
        &bench,
        &mut run(&[root_flag, &plain]),
        78,
        &["not a directory"],
    );
    // The daemon recovers without action when the root is mounted.
    let unmounted = bench.sibling("unmounted");
    let words = ["unmounted", "mount it"];
    check_failing_start(&bench, &mut run(&[root_flag, &unmounted]), 1, &words);
    let (_, messages) = failing_start(&bench, &mut run(&[root_flag, &unmounted]), 1);
    assert!(messages.contains("ERRNO=2\n"), "{messages}");
}

#[test]
fn a_start_without_permission_names_the_directory_and_the_user() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "needs root");
        eprintln!("skipped: only root can make what another user cannot enter");
        return;
    }
    let bench = Bench::new();
    let program = bench.reachable_program();
    let as_unprivileged = |arguments: &[&str]| {
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
        let ended = bench.run(&mut as_unprivileged(arguments));
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
    // data/distilled cannot be created.
    speak(&["data/distilled", "Permission denied", "user 65534"], &[]);
    // It exists and belongs to another user.
    fs::create_dir_all(bench.root().join("data/distilled")).unwrap();
    speak(&["data/distilled", "Permission denied", "user 65534"], &[]);
    // It belongs to the daemon, and the state directory does not.
    let distilled = bench.root().join("data/distilled");
    std::os::unix::fs::chown(&distilled, Some(65_534), Some(65_534)).unwrap();
    let state = bench.sibling("state");
    fs::create_dir(&state).unwrap();
    let state_words = [state.to_str().unwrap(), "Permission denied", "user 65534"];
    speak(&state_words, &["--state-dir", state.to_str().unwrap()]);
    // The root cannot be entered.
    fs::set_permissions(bench.root(), fs::Permissions::from_mode(0o700)).unwrap();
    speak(&["Permission denied", "data"], &[]);
}

/// Returns the fields of one datagram in the journal's native format.
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
        let (len, tail) = rest.split_at(8);
        let len = u64::from_le_bytes(len.try_into().unwrap()) as usize;
        let value = String::from_utf8(tail[..len].to_vec()).unwrap();
        fields.push((name, value));
        rest = &tail[len + 1..];
    }
    fields
}

/// Returns a command that sees `dir` as `/run/systemd/journal`, with an environment that declares stderr to be the
/// journal.
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
    assert_eq!(bench.log_text(), "", "nothing is logged twice");
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
    for line in bench.log_text().lines() {
        assert!(line.starts_with("<6>level=info msg="), "{line}");
        assert!(
            !line.contains("time=") && !line.contains("message_id"),
            "{line}"
        );
    }
}
