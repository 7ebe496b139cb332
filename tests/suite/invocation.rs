//! How a command finds its lake: the commands in hints work as typed, `distilld` alone prints the verdict, and `config`
//! shows the source of each value.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use distilld::cli::instances::list;

use crate::support::process::Bench;
use serde_json::Value;

const PAIR: &str = "2026/01/01/a.jsonl";

/// A bench whose lake is named by a configuration file alone, at a path that a shell has to quote.
struct Configured {
    bench: Bench,
    file: PathBuf,
}

impl Configured {
    fn new() -> Self {
        let bench = Bench::new();
        let dir = bench.sibling("a lake");
        fs::create_dir(&dir).unwrap();
        let file = dir.join("lake.toml");
        let text = format!("root = {:?}\nsettle_ms = 50\n", bench.root());
        fs::write(&file, text).unwrap();
        Self { bench, file }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_distilld"));
        command.env_clear().arg("--config").arg(&self.file);
        command.args(arguments);
        command
    }

    /// Runs the commands of distilld in a text in a shell, without any variable. None may fail to find the lake.
    fn run_typed(&self, text: &str) -> BTreeSet<String> {
        // A table wraps its lines.
        let text: Vec<&str> = text.split_whitespace().collect();
        let typed: BTreeSet<String> = text
            .join(" ")
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|quoted| quoted.starts_with("distilld "))
            .map(str::to_owned)
            .collect();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_distilld"));
        for line in &typed {
            // What it does is not of interest here.
            let harmless = format!("{line} --help >/dev/null && {line}");
            let script = match line.ends_with(" run") {
                true => line.replace(" run", " config"),
                false => harmless,
            };
            let mut shell = Command::new("/bin/sh");
            shell.env_clear().args(["-c", &script]);
            shell.env("PATH", program.parent().unwrap());
            let ended = self.bench.run(&mut shell);
            let code = ended.status.code();
            assert!(
                code.is_some_and(|code| code < 2),
                "{line}: {code:?} {}",
                ended.stderr
            );
        }
        typed
    }
}

#[test]
fn every_command_in_a_hint_works_as_typed() {
    let lake = Configured::new();
    let bench = &lake.bench;
    let mut hints = lake.bench.run(&mut lake.command(&["status"])).stderr;
    bench.append_run(PAIR, "a");
    bench.append(
        crate::support::lake_gen::Stream::Scored,
        PAIR,
        "not a record\n",
    );
    let mut run = lake.command(&["run"]);
    let daemon = bench.catch_up(&mut run);
    bench.stop(daemon);
    hints += &fs::read_to_string(bench.log()).unwrap();
    let stopped = bench.run(&mut lake.command(&[]));
    stopped.check(1, &["fix: "]);
    hints += &stopped.stderr;
    hints += &bench.run(&mut lake.command(&["status"])).stdout;
    fs::write(bench.export(), "x\n").unwrap();
    hints += &bench.run(&mut lake.command(&["run", "--once"])).stderr;
    hints += &bench.run(&mut lake.command(&["verify"])).stderr;
    hints += &bench.run(&mut lake.command(&["check"])).stdout;
    let typed = lake.run_typed(&hints);
    for command in ["run", "dead-letters", "rebuild --state-only", "rebuild"] {
        assert!(
            typed.iter().any(|line| line.ends_with(command)),
            "no {command} in {typed:?}"
        );
    }
}

#[test]
fn a_hint_of_a_daemon_has_the_flags_that_the_daemon_was_started_with() {
    let lake = Configured::new();
    let bench = &lake.bench;
    bench.append_run(PAIR, "a");
    let mut run = lake.command(&["run"]);
    let mut daemon = bench.catch_up(&mut run);
    fs::write(bench.export(), "x\n").unwrap();
    bench.append_run(PAIR, "b");
    let mut by_root = bench.command(&["status", "--json"]);
    let mut status = Value::Null;
    bench.wait_for(&mut daemon, "it stops", || {
        let answered = bench.run(&mut by_root);
        status = serde_json::from_str(&answered.stdout).unwrap_or_default();
        status["health"]["verdict"] == "stopped" && status["health"]["fix"].is_string()
    });
    let fix = status["health"]["fix"].as_str().unwrap();
    assert!(fix.contains("`distilld --config "), "{fix}");
    assert!(fix.contains("lake.toml' rebuild --state-only`"), "{fix}");
    bench.stop(daemon);
}

#[test]
fn without_a_command_the_verdict_is_one_line_with_its_exit_code() {
    let lake = Configured::new();
    let bench = &lake.bench;
    bench.append_run(PAIR, "a");
    let daemon = bench.catch_up(&mut lake.command(&["run"]));
    let mut bare = Command::new(env!("CARGO_BIN_EXE_distilld"));
    bare.env_clear().env("DISTILLD_CONFIG", &lake.file);
    let fresh = bench.run(&mut bare);
    fresh.check(0, &[]);
    assert_eq!(fresh.stdout, "fresh: everything is read\n");
    assert_eq!(fresh.stderr, "");
    bench.stop(daemon);
    let stopped = bench.run(&mut bare);
    let checked = bench.run(bare.args(["status", "--check"]));
    assert_eq!(stopped.status, checked.status);
    assert!(
        stopped.stdout.starts_with("not running: ") && stopped.stdout.lines().count() == 1,
        "{}",
        stopped.stdout
    );
    assert!(
        stopped.stderr.contains("fix: `systemctl start distilld`"),
        "{}",
        stopped.stderr
    );
}

#[test]
fn config_shows_each_value_with_its_source() {
    let lake = Configured::new();
    let bench = &lake.bench;
    let mut command = lake.command(&["config", "--log", "warn"]);
    let shown = bench.run(command.env("DISTILLD_POLL_MS", "20"));
    shown.check(0, &[]);
    let at_file = |line: usize| format!("file {}:{line}", lake.file.display());
    for (key, value, source) in [
        ("root", bench.root().display().to_string(), at_file(1)),
        ("settle_ms", "50".to_owned(), at_file(2)),
        (
            "poll_ms",
            "20".to_owned(),
            "env DISTILLD_POLL_MS".to_owned(),
        ),
        ("log", "warn".to_owned(), "flag --log".to_owned()),
        ("watch", "auto".to_owned(), "default".to_owned()),
    ] {
        let line = shown.stdout.lines().find(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(key) && line.contains(&value) && line.ends_with(&source)
        });
        assert!(line.is_some(), "{key} {value} {source}: {}", shown.stdout);
    }
    let json = bench.run(&mut lake.command(&["config", "--json"])).stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["file"], lake.file.to_str().unwrap());
    let settings = json["settings"].as_array().unwrap();
    let settle = settings
        .iter()
        .find(|setting| setting["key"] == "settle_ms");
    assert_eq!(settle.unwrap()["value"], 50);
    assert_eq!(settle.unwrap()["source"], "file");
}

#[test]
fn config_shows_the_values_of_a_root_that_cannot_be_used_and_fails() {
    let lake = Configured::new();
    fs::remove_dir(lake.bench.root()).unwrap();
    let shown = lake.bench.run(&mut lake.command(&["config"]));
    shown.check(1, &["cannot use the root", "mount it"]);
    assert!(shown.stdout.contains("settle_ms"), "{}", shown.stdout);
    let mut nothing = Command::new(env!("CARGO_BIN_EXE_distilld"));
    nothing.env_clear().arg("config").env("DISTILLD_CONFIG", "");
    if !std::path::Path::new("/etc/distilld/distilld.toml").exists() {
        let ended = lake.bench.run(&mut nothing);
        ended.check(78, &["no root"]);
        assert!(ended.stdout.contains("no file is read"), "{}", ended.stdout);
    }
}

#[test]
fn config_check_prints_nothing_and_fails_where_a_reload_is_rejected() {
    let lake = Configured::new();
    let mut check = lake.command(&["config", "--check"]);
    let valid = lake.bench.run(&mut check);
    valid.check(0, &[]);
    assert_eq!((valid.stdout.as_str(), valid.stderr.as_str()), ("", ""));
    fs::write(&lake.file, "setle_ms = 1\n").unwrap();
    let invalid = lake.bench.run(&mut check);
    invalid.check(78, &["did you mean `settle_ms`", "fix: "]);
    assert_eq!(invalid.stdout, "");
}

#[test]
fn a_missing_instance_is_named_with_its_file() {
    let bench = Bench::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_distilld"));
    command
        .env_clear()
        .args(["--instance", "no-such-lake", "status"]);
    let ended = bench.run(&mut command);
    ended.check(78, &["/etc/distilld/no-such-lake.toml", "ls /etc/distilld"]);
}

#[test]
fn all_configurations_of_a_directory_are_listed_with_their_verdicts() {
    let (first, second) = (Bench::new(), Bench::new());
    let dir = tempfile::tempdir().unwrap();
    for (name, bench) in [("distilld", &first), ("second", &second)] {
        let text = format!("root = {:?}\n", bench.root());
        fs::write(dir.path().join(format!("{name}.toml")), text).unwrap();
        bench.append_run(PAIR, "a");
    }
    fs::write(dir.path().join("broken.toml"), "rot = 1\n").unwrap();
    fs::write(dir.path().join("second.toml.old"), "").unwrap();
    let daemon = first.start_caught_up();
    second.once();
    let states = [
        ("distilld.service".to_owned(), "active".to_owned()),
        ("distilld@gone.service".to_owned(), "failed".to_owned()),
    ];
    let listed = list(dir.path(), &states.into());
    let shown: Vec<_> = listed
        .iter()
        .map(|instance| {
            let verdict = instance.health.as_ref().map(|health| health.verdict.code());
            (
                instance.name.as_str(),
                verdict,
                instance.unit_state.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("broken", None, None),
            ("distilld", Some("fresh"), Some("active")),
            ("gone", None, Some("failed")),
            ("second", Some("not_running"), None),
        ]
    );
    assert!(
        listed[0]
            .error
            .as_ref()
            .unwrap()
            .contains("did you mean `root`")
    );
    assert!(listed[2].error.as_ref().unwrap().contains("gone.toml"));
    assert_eq!(listed[3].root, Some(second.root()));
    first.stop(daemon);
}
