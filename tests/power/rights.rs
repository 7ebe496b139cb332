//! Files that a daemon without root's rights cannot read: reported once, skipped, and read once permitted.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host::{self, must};
use crate::support::kill_harness::Daemon;
use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, MEMORY_KIB_MAX, evidence, memory_kib_max, scored};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn scanning(bench: &Bench) -> Command {
    let mut command = bench.as_unprivileged(&["run"]);
    command.env("DISTILLD_RECENT_SCAN_MS", "50");
    command
}

/// Asserts that each fault has one warning, also after many scans.
fn assert_reported_once(bench: &Bench, daemon: &mut Daemon, paths: &[PathBuf]) {
    for round in 0..20 {
        bench.append_run("2026/01/03/open.jsonl", &format!("round {round}"));
        bench.wait_run(daemon, &format!("round {round}"));
    }
    for path in paths {
        // A warning names a path and its reason in parentheses: the path of a directory is not that of a file in it.
        let path = format!("{} (", path.display());
        let log = bench.log_text();
        let warnings: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("level=warn") && line.contains(&path))
            .collect();
        assert_eq!(warnings.len(), 1, "{path}: {log}");
    }
}

#[test]
fn unreadable_files_are_reported_once_and_read_once_permitted() {
    if !host::has(&[]) {
        return;
    }
    let bench = Bench::new();
    let forbidden = ["2026/01/01/closed.jsonl", "2026/01/02/in-closed.jsonl"];
    for pair in forbidden {
        bench.append_run(pair, pair);
    }
    bench.append_run("2026/01/01/open.jsonl", "open");
    let closed = [
        bench.path(Stream::Scored, forbidden[0]),
        bench.path(Stream::Scored, "2026/01/02"),
    ];
    closed.iter().for_each(|path| set_mode(path, 0o000));
    let mut daemon = bench.start_command(&mut scanning(&bench));
    bench.wait_run(&mut daemon, "open");
    assert_reported_once(&bench, &mut daemon, &closed);
    set_mode(&closed[0], 0o644);
    set_mode(&closed[1], 0o755);
    for run in forbidden {
        bench.wait_run(&mut daemon, run);
    }
    bench.stop(daemon);
    bench.assert_batch();
}

/// A closed directory hides everything below it from scans and watches.
#[test]
fn a_closed_directory_is_reported_once_and_nothing_below_it_twice() {
    if !host::has(&[]) {
        return;
    }
    let bench = Bench::new();
    let pairs = [1, 2, 3].map(|day| format!("2025/02/{day:02}/below.jsonl"));
    for pair in &pairs {
        bench.append_run(pair, pair);
    }
    bench.append_run("2026/01/03/open.jsonl", "open");
    let mut command = scanning(&bench);
    command.env("DISTILLD_FULL_SCAN_MS", "100");
    let mut daemon = bench.catch_up(&mut command);
    let closed = bench.path(Stream::Evidence, "2025");
    set_mode(&closed, 0o000);
    bench.wait_for(&mut daemon, "it logs the closed directory", || {
        bench.log_text().contains("cannot read directory")
    });
    assert_reported_once(&bench, &mut daemon, &[]);
    let log = bench.log_text();
    let mut warned: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("level=warn"))
        .filter_map(|line| line.split_once("msg=").map(|(_time, what)| what))
        .collect();
    let all = warned.len();
    warned.sort_unstable();
    warned.dedup();
    assert_eq!(warned.len(), all, "{log}");
    let directories = warned
        .iter()
        .filter(|what| what.contains("cannot read directory"));
    // The closed directory and its content, which cannot be inspected; no day.
    assert!(directories.count() <= 2, "{log}");
    set_mode(&closed, 0o755);
    for pair in &pairs {
        let run = format!("later {pair}");
        bench.append_run(pair, &run);
        bench.wait_run(&mut daemon, &run);
    }
    bench.stop(daemon);
    bench.assert_batch();
}

/// Creates a device of endless zeros, like /dev/zero, readable by everyone.
fn make_device(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    must(
        "mknod",
        &["-m", "444", path.to_str().unwrap(), "c", "1", "5"],
    );
}

#[test]
fn devices_and_unreadable_evidence_do_not_block_other_day_files() {
    if !host::has(&["mknod"]) {
        return;
    }
    let bench = Bench::new();
    let device = "2026/01/01/device.jsonl";
    let hidden = ["2026/01/02/hidden.jsonl", "2026/01/02/hidden too.jsonl"];
    bench.append_run("2026/01/01/open.jsonl", "open");
    for pair in hidden {
        bench.append_run(pair, pair);
    }
    // Also as evidence: the run waits for a record that a device never provides.
    bench.append(Stream::Scored, "2026/01/03/unsaid.jsonl", scored("unsaid"));
    let unreadable = [
        bench.path(Stream::Scored, device),
        bench.path(Stream::Evidence, "2026/01/03/unsaid.jsonl"),
        bench.path(Stream::Evidence, "2026/01/02"),
    ];
    unreadable[..2].iter().for_each(|path| make_device(path));
    set_mode(&unreadable[2], 0o000);
    let mut daemon = bench.start_command(&mut scanning(&bench));
    bench.wait_run(&mut daemon, "open");
    assert_reported_once(&bench, &mut daemon, &unreadable);
    assert!(memory_kib_max(daemon.pid()) < MEMORY_KIB_MAX);
    // What becomes readable then has its rows, as does what becomes a day-file then.
    set_mode(&unreadable[2], 0o755);
    fs::remove_file(&unreadable[0]).unwrap();
    bench.append_run(device, "no device");
    for run in [hidden[0], hidden[1], "no device"] {
        bench.wait_run(&mut daemon, run);
    }
    fs::remove_file(&unreadable[1]).unwrap();
    bench.append(
        Stream::Evidence,
        "2026/01/03/unsaid.jsonl",
        evidence("unsaid"),
    );
    bench.wait_run(&mut daemon, "unsaid");
    bench.stop(daemon);
    bench.assert_batch();
}

/// A person runs it as root, with permissions that the daemon does not have.
#[test]
fn a_rebuild_by_root_preserves_the_daemons_ownership() {
    if !host::has(&[]) {
        return;
    }
    let bench = Bench::new();
    bench.append_run("2026/01/01/n.jsonl", "a");
    let once = || bench.run(&mut bench.as_unprivileged(&["run", "--once"]));
    once().check(0, &[]);
    set_mode(&bench.export(), 0o640);
    bench.run(&mut bench.command(&["rebuild"])).check(0, &[]);
    let rights = |path: &Path| {
        let found = fs::metadata(path).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o7777)
    };
    let daemon_rights = rights(&bench.export());
    assert_ne!(daemon_rights.0, 0);
    assert_eq!(daemon_rights.2, 0o640);
    for name in ["state.redb", "journal"] {
        assert_eq!(
            rights(&bench.state_dir().join(name)).0,
            daemon_rights.0,
            "{name}"
        );
    }
    bench.append_run("2026/01/01/n.jsonl", "b");
    once().check(0, &[]);
    bench
        .run(&mut bench.as_unprivileged(&["rebuild"]))
        .check(0, &[]);
    bench.assert_batch();
    // The first query leaves no files of its user either.
    let locks = [bench.root().join("data/distilled"), bench.state_dir()];
    for dir in &locks {
        fs::remove_file(dir.join(".distilld.lock")).unwrap();
    }
    bench.run(&mut bench.command(&["status"])).check(0, &[]);
    once().check(0, &[]);
}
