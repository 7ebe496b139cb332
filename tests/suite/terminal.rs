//! The output at a terminal and elsewhere: colors, bars, errors with their remedy, Ctrl-C.

use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::support::kill_harness::wait_until;
use crate::support::process::{Bench, LONG, without_flags};
use crate::support::pty::{Left, Session, Shown};

const PAIR: &str = "2026/01/01/n.jsonl";
const OTHER: &str = "2026/01/02/n.jsonl";

fn bench() -> Bench {
    let bench = Bench::new();
    for (pair, run) in [(PAIR, "a"), (PAIR, "b"), (OTHER, "c")] {
        bench.append_run(pair, run);
    }
    bench
}

/// Runs a command at a terminal of 80 columns, with additional variables.
fn at_terminal(
    bench: &Bench,
    arguments: &[&str],
    variables: &[(&str, &str)],
    shown: Shown,
) -> Left {
    let mut command = bench.command(arguments);
    command
        .env("TERM", "xterm-256color")
        .envs(variables.iter().copied());
    Session::start(command, 80, shown).end()
}

/// Returns whether the output has colors or weights: control sequences that end in `m`.
fn is_colored(shown: &str) -> bool {
    shown.split("\x1b[").skip(1).any(|rest| {
        rest.find(|c: char| !c.is_ascii_digit() && c != ';')
            .is_some_and(|end| rest[end..].starts_with('m'))
    })
}

#[test]
fn help_log_and_errors_are_colored_at_a_terminal_unless_disabled() {
    let bench = bench();
    let refusals: [&[(&str, &str)]; 3] = [
        &[("NO_COLOR", "1")],
        &[("CLICOLOR", "0")],
        &[("TERM", "dumb")],
    ];
    for arguments in [
        &["--help"][..],
        &["run", "--once"],
        &["rebuild", "--state-dir", "/nowhere"],
        &["wlak"],
    ] {
        let shown = at_terminal(&bench, arguments, &[], Shown::Both).shown;
        assert!(is_colored(&shown), "{arguments:?}: {shown:?}");
        for refusal in refusals {
            let shown = at_terminal(&bench, arguments, refusal, Shown::Both).shown;
            assert!(!is_colored(&shown), "{arguments:?} {refusal:?}: {shown:?}");
        }
        let piped = bench.run(&mut bench.command(arguments));
        assert!(
            !is_colored(&(piped.stdout + &piped.stderr)),
            "{arguments:?}"
        );
    }
}

/// Asserts that the command shows a bar with its activity and the remaining time, at a terminal only.
fn check_bar(bench: &Bench, arguments: &[&str], labels: &[&str]) {
    let left = at_terminal(bench, arguments, &[("NO_COLOR", "1")], Shown::Stderr);
    for label in labels {
        assert!(
            left.shown.contains(label),
            "no {label:?} in {:?}",
            left.shown
        );
    }
    // Before the first read the duration is unknown.
    let is_started = left.shown.contains(" 0 B of ") && left.shown.contains(", ? left");
    assert!(is_started, "{:?}", left.shown);
    assert!(left.status.success(), "{:?}", left.shown);
    assert!(!left.stdout.contains('\x1b'), "{:?}", left.stdout);
    for (variable, value) in [("TERM", "dumb"), ("TERM", "")] {
        let dumb = at_terminal(bench, arguments, &[(variable, value)], Shown::Stderr);
        assert!(
            !dumb.shown.contains('\x1b') && !dumb.shown.contains(" left"),
            "{:?}",
            dumb.shown
        );
    }
    let piped = bench.run(&mut bench.command(arguments));
    assert!(
        !piped.stderr.contains('\x1b') && !piped.stderr.contains(" left"),
        "{}",
        piped.stderr
    );
}

#[test]
fn long_work_shows_a_bar_at_a_terminal_and_is_silent_elsewhere() {
    let bench = bench();
    bench.once();
    check_bar(&bench, &["export", "--dry-run"], &["exporting"]);
    check_bar(&bench, &["verify"], &["verifying"]);
    check_bar(
        &bench,
        &["rebuild"],
        &["reading the old export", "rebuilding"],
    );
}

#[test]
fn catching_up_and_adoption_show_a_bar_below_the_log() {
    let bench = Bench::new();
    let rows = 3_000;
    for run in 0..rows {
        bench.append_run(PAIR, &run.to_string());
    }
    let left = at_terminal(&bench, &["run", "--once"], &[], Shown::Stderr);
    assert!(
        left.shown.contains("catching up") && left.shown.contains(" left"),
        "{:?}",
        left.shown
    );
    fs::remove_dir_all(bench.state_dir()).unwrap();
    let left = at_terminal(
        &bench,
        &["run", "--once"],
        &[("NO_COLOR", "1")],
        Shown::Stderr,
    );
    assert!(
        left.shown.contains("reading back the export"),
        "{:?}",
        left.shown
    );
    // A log line starts in the first column: the bar was erased before it.
    for line in ["started", "caught up"] {
        let at = left.shown.find(line).unwrap();
        let before = left.shown[..at].rsplit(['\n', '\r']).next().unwrap();
        assert!(!before.contains(" left"), "{before:?}");
    }
    bench.assert_distinct(rows);
    bench.assert_batch();
}

/// Runs a command that fails; it must report the problem, and the remedy in a line of its own.
fn check_error(bench: &Bench, command: &mut Command, code: i32, what: &str, fix: &str) {
    let ended = bench.run(command);
    let stderr = &without_flags(&ended.stderr);
    assert_eq!(ended.status.code(), Some(code), "{command:?}: {stderr}");
    let error = stderr.lines().find(|line| line.starts_with("distilld: "));
    assert!(
        error.is_some_and(|line| line.contains(what)),
        "{command:?}: no {what:?} in {stderr}"
    );
    let fixes: Vec<&str> = stderr
        .lines()
        .filter(|line| line.starts_with("fix: "))
        .collect();
    assert!(
        fixes.len() == 1 && fixes[0].contains(fix),
        "{command:?}: no {fix:?} in {stderr}"
    );
}

#[test]
fn every_configuration_error_names_its_remedy() {
    let bench = bench();
    let no_root = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_distilld"));
        command.env_clear().args(arguments);
        command
    };
    let check = |mut command: Command, what: &str, fix: &str| {
        check_error(&bench, &mut command, 78, what, fix);
    };
    check(no_root(&["run"]), "no root", "--root DIR");
    check(
        no_root(&["--root", "", "run"]),
        "root is empty",
        "name a directory",
    );
    // A file system that is not mounted yet may be mounted later: worth a restart.
    check_error(
        &bench,
        &mut no_root(&["--root", "/no/such", "run"]),
        1,
        "cannot use the root",
        "mount it",
    );
    check(
        no_root(&["--config", "/no/such", "run"]),
        "/no/such",
        "name an existing file",
    );
    check(
        no_root(&["--config", "/", "run"]),
        "/: cannot read",
        "name a file that can be read",
    );
    for (text, what, fix) in [
        ("root = ", "toml:1: not valid TOML", "correct that line"),
        (
            "setle_ms = 1",
            "unknown key `setle_ms`; did you mean `settle_ms`?",
            "correct or remove the key",
        ),
        ("settle_ms = 0", "`settle_ms` must be", "change `settle_ms`"),
        (
            "watch = \"often\"",
            "`watch` must be one of",
            "change `watch`",
        ),
    ] {
        let file = bench.sibling("distilld.toml");
        fs::write(&file, text).unwrap();
        check(
            no_root(&["--config", file.to_str().unwrap(), "run"]),
            what,
            fix,
        );
    }
    let mut variable = bench.command(&["run"]);
    variable.env("DISTILLD_POLL_MS", "soon");
    check(
        variable,
        "DISTILLD_POLL_MS: `poll_ms` must be",
        "change `poll_ms`",
    );
}

#[test]
fn every_error_caused_by_a_running_daemon_names_its_remedy() {
    let bench = bench();
    check_error(
        &bench,
        &mut bench.command(&["status"]),
        1,
        "no state",
        "start `distilld run`",
    );
    let daemon = bench.start_caught_up();
    check_error(
        &bench,
        &mut bench.command(&["run"]),
        1,
        "another distilld",
        "systemctl stop distilld",
    );
    check_error(
        &bench,
        &mut bench.command(&["rebuild"]),
        1,
        "another distilld",
        "stop process",
    );
    check_error(
        &bench,
        &mut bench.command(&["export"]),
        1,
        "belongs to a daemon",
        "--output FILE",
    );
    bench.stop(daemon);
    let elsewhere = bench.sibling("elsewhere");
    let rebuild = ["rebuild", "--state-dir", elsewhere.to_str().unwrap()];
    check_error(
        &bench,
        &mut bench.command(&rebuild),
        1,
        "state is in",
        "use `--state-dir",
    );
}

#[test]
fn every_disk_error_names_its_remedy() {
    let bench = bench();
    let plain = bench.sibling("plain");
    fs::write(&plain, "").unwrap();
    let below = plain.join("out.jsonl");
    let output = ["export", "--output", below.to_str().unwrap()];
    check_error(
        &bench,
        &mut bench.command(&output),
        1,
        "plain/out.jsonl",
        "use another path",
    );
    let run = ["run", "--once", "--state-dir", plain.to_str().unwrap()];
    check_error(
        &bench,
        &mut bench.command(&run),
        1,
        "cannot be used",
        "distilld check",
    );
    bench.once();
    let export = bench.export_bytes();
    let changed = [&export[..export.len() - 2], b"x\n"].concat();
    for (bytes, what, fix) in [
        (
            None,
            "is missing",
            "restore the export; as a last resort `distilld rebuild`",
        ),
        (
            Some(&export[..10]),
            "is 10 bytes long",
            "restore the lost bytes, or run `distilld rebuild --state-only`",
        ),
        (
            Some(&changed[..]),
            "changed by someone else",
            "restore the file that distilld wrote",
        ),
    ] {
        match bytes {
            None => fs::remove_file(bench.export()).unwrap(),
            Some(bytes) => fs::write(bench.export(), bytes).unwrap(),
        }
        check_error(&bench, &mut bench.command(&["run", "--once"]), 1, what, fix);
    }
    fs::remove_dir_all(bench.root().join("data/scored-runs")).unwrap();
    fs::write(bench.root().join("data/scored-runs"), "").unwrap();
    for command in ["verify", "rebuild"] {
        check_error(
            &bench,
            &mut bench.command(&[command]),
            1,
            "scored-runs",
            "distilld check",
        );
    }
}

#[test]
fn verify_names_each_day_that_differs_with_its_first_difference() {
    let bench = bench();
    // Rows are judged by whether their sources changed since: the sources must clearly be older.
    let later = SystemTime::now() + Duration::from_millis(100);
    assert_eq!(wait_until(LONG, || Ok(SystemTime::now() > later)), Ok(true));
    bench.once();
    let rows = String::from_utf8(bench.export_bytes()).unwrap();
    let of_a = "\"source_run_id\":\"a\"";
    let kept = rows.split_inclusive('\n').filter(|row| !row.contains(of_a));
    let kept = kept
        .collect::<String>()
        .replace("what c said", "what c never said");
    assert_ne!(kept, rows);
    fs::write(bench.export(), kept).unwrap();
    let ended = bench.run(&mut bench.command(&["verify"]));
    ended.check(
        1,
        &[
            "distilld: export and sources differ: missing: ",
            "\n  2026/01/01: 1 missing; missing: the line of run \"a\"",
            "\n  2026/01/02: 1 differing; altered: the row",
            "\nfix: find out why they differ; `distilld rebuild --state-only`",
        ],
    );
    let result: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let days = result["days"].as_array().unwrap();
    assert_eq!(days.len(), 2, "{result}");
    assert_eq!(
        (&days[0]["day"], &days[0]["missing"]),
        (&"2026/01/01".into(), &1.into())
    );
    assert_eq!(
        (&days[1]["day"], &days[1]["differing"]),
        (&"2026/01/02".into(), &1.into())
    );
    assert!(
        days[1]["first"].as_str().unwrap().contains("run \"c\""),
        "{result}"
    );
}

/// A rebuild that is stopped by the signal of the terminal's Ctrl-C leaves everything unchanged and reports it.
#[test]
fn ctrl_c_ends_a_rebuild_without_changes() {
    use rustix::process::{Signal, kill_process};
    let bench = Bench::new();
    for pair in 0..2_000 {
        bench.append_run(&format!("2026/01/01/{pair:04}.jsonl"), &pair.to_string());
    }
    bench.once();
    let before = bench.export_bytes();
    let staged = bench.state_dir().join("rebuilding/journal");
    let mut command = bench.command(&["rebuild"]);
    command.env("TERM", "xterm").env("NO_COLOR", "1");
    let session = Session::start(command, 80, Shown::Stderr);
    let waited = wait_until(LONG, || Ok(staged.try_exists().unwrap_or(false)));
    assert_eq!(waited, Ok(true), "{}", session.shown());
    kill_process(session.pid(), Signal::INT).unwrap();
    let left = session.end();
    assert_eq!(left.status.code(), Some(1), "{:?}", left.shown);
    for words in ["stopped before the swap", "as they were", "fix: "] {
        assert!(left.shown.contains(words), "{:?}", left.shown);
    }
    assert_eq!((left.stdout.as_str(), bench.export_bytes()), ("", before));
    let staged = fs::read_dir(bench.state_dir().join("rebuilding")).unwrap();
    assert_eq!(staged.count(), 0);
    bench.once();
    bench.assert_batch();
}

#[test]
fn a_status_longer_than_the_screen_ends_with_the_verdict() {
    let bench = bench();
    let last = |shown: &str| {
        let mut lines = shown.lines().map(str::trim_end);
        lines.rfind(|line| !line.is_empty()).unwrap().to_owned()
    };
    let short = at_terminal(&bench, &["status"], &[("NO_COLOR", "1")], Shown::Both);
    assert!(!last(&short.shown).contains("health"), "{:?}", short.shown);
    for class in 0..40 {
        bench.append_run(
            &format!("2026/01/03/class{class}.jsonl"),
            &format!("c{class}"),
        );
    }
    let daemon = bench.start_caught_up();
    let long = at_terminal(&bench, &["status"], &[("NO_COLOR", "1")], Shown::Both);
    let end = last(&long.shown);
    assert!(
        end.starts_with("health") && end.contains("fresh"),
        "{:?}",
        long.shown
    );
    bench.stop(daemon);
}
