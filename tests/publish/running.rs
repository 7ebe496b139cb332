//! `run`, and the other commands: `status`, `verify` and `replace`.

use std::fs;
use std::path::Path;
use std::process::Command;

use distilld::publish::settings::Settings;
use serde_json::Value;

use crate::publisher::{Publisher, python};
use crate::support::http::{get_unix, metric};
use crate::support::kill_harness::{Daemon, wait_until};
use crate::support::manager::Manager;
use crate::support::process::{Bench, LONG};

/// The shortest interval, and a socket for metrics.
fn often(socket: &Path) -> String {
    format!(
        "commit_interval_s = 1\nlisten = {:?}\n",
        format!("unix:{}", socket.display())
    )
}

pub fn log(publisher: &Publisher) -> String {
    fs::read_to_string(publisher.bench.sibling("publish.log")).unwrap_or_default()
}

fn start(publisher: &Publisher, manager: &Manager) -> Daemon {
    let mut command = publisher.command(&["run"]);
    Daemon::start(
        manager.manage(&mut command),
        &publisher.bench.sibling("publish.log"),
    )
    .unwrap()
}

pub fn wait_for(publisher: &Publisher, daemon: &mut Daemon, mut holds: impl FnMut() -> bool) {
    let outcome = wait_until(LONG, || daemon.check_running().map(|()| holds()));
    assert_eq!(outcome, Ok(true), "{}", log(publisher));
}

/// Returns the answer of a command that succeeds.
pub fn ask(publisher: &Publisher, arguments: &[&str]) -> Value {
    let ended = publisher.run(arguments);
    ended.check(0, &[]);
    serde_json::from_str(&ended.stdout).unwrap()
}

pub fn is_published(publisher: &Publisher) -> bool {
    let status = ask(publisher, &["status"]);
    status["export_len"] != 0 && status["lag_bytes"] == 0 && status["ledger_lag_bytes"] == 0
}

/// Runs Python on the table.
fn change_table(publisher: &Publisher, program: &str) {
    let mut command = Command::new(python().unwrap());
    // Arrow's threads may still call Python when the interpreter ends, which aborts it.
    let program = format!(
        "import os, sys, deltalake\nt = deltalake.DeltaTable(sys.argv[1])\n{program}\nos._exit(0)"
    );
    let command = command.args(["-c", &program, &publisher.table]);
    publisher.bench.run(command).check(0, &[]);
}

#[test]
fn run_follows_the_export_and_serves_metrics() {
    if python().is_none() {
        return;
    }
    let (publisher, manager) = (Publisher::new(), Manager::new());
    let socket = publisher.bench.sibling("metrics.sock");
    publisher.configure(&often(&socket));
    publisher.export_runs(&["a", "b"]);
    let mut daemon = start(&publisher, &manager);
    wait_for(&publisher, &mut daemon, || is_published(&publisher));
    publisher.judge("a", "rejected");
    publisher.export_runs(&["c"]);
    wait_for(&publisher, &mut daemon, || is_published(&publisher));
    publisher.assert_published();
    let wanted = [
        ("distilld_publish_rows_total", 3.0),
        ("distilld_publish_retracted_total", 1.0),
        ("distilld_publish_lag_bytes", 0.0),
        ("distilld_publish_failing", 0.0),
    ];
    wait_for(&publisher, &mut daemon, || {
        let text = get_unix(&socket, "/metrics", "localhost").body;
        wanted
            .iter()
            .all(|(name, value)| metric(&text, name) == Some(*value))
    });
    assert_eq!(
        daemon.terminate(LONG).unwrap().code(),
        Some(0),
        "{}",
        log(&publisher)
    );
    let messages = std::iter::from_fn(|| manager.next(LONG));
    let life: Vec<String> = messages
        .take_while(|line| !line.starts_with("STOPPING"))
        .filter(|line| line.starts_with("READY"))
        .collect();
    assert_eq!(life.len(), 1);
}

#[test]
fn rows_that_arrive_during_a_commit_wait_for_the_next_one() {
    let publisher = Publisher::new();
    publisher.export_runs(&["a"]);
    let settings = Settings::load(&publisher.config()).unwrap();
    let mut opened = distilld::publish::publisher::Publisher::open(&settings).unwrap();
    let mut commits = 0;
    let mut each = |_step| {
        commits += 1;
        publisher.export_runs(&[&format!("later-{commits}")]);
        commits < 5
    };
    opened.catch_up(&mut each).unwrap();
    assert_eq!(commits, 1);
    assert_ne!(ask(&publisher, &["status"])["lag_bytes"], 0);
    publisher.once();
    ask(&publisher, &["verify"]);
    assert!(is_published(&publisher));
}

#[test]
fn run_waits_for_a_table_that_is_away() {
    if python().is_none() {
        return;
    }
    let bench = Bench::new();
    let mount = bench.sibling("mount");
    let table = mount.join("sft").display().to_string();
    let publisher = Publisher::with(bench, &table, "lake-07", "commit_interval_s = 1\n");
    publisher.export_runs(&["a"]);
    let manager = Manager::new();
    let mut daemon = start(&publisher, &manager);
    wait_for(&publisher, &mut daemon, || {
        log(&publisher).contains("not published")
    });
    fs::create_dir(&mount).unwrap();
    wait_for(&publisher, &mut daemon, || {
        log(&publisher).contains("publishing again")
    });
    publisher.assert_published();
    assert_eq!(daemon.terminate(LONG).unwrap().code(), Some(0));
}

#[test]
fn run_waits_for_an_operator_and_logs_the_reason_once() {
    let (publisher, manager) = (Publisher::new(), Manager::new());
    let socket = publisher.bench.sibling("metrics.sock");
    publisher.configure(&often(&socket));
    publisher.export_runs(&["a"]);
    let mut daemon = start(&publisher, &manager);
    wait_for(&publisher, &mut daemon, || is_published(&publisher));
    let bench = &publisher.bench;
    bench.run(&mut bench.command(&["rebuild"])).check(0, &[]);
    let fix = "`distilld-publish replace`";
    wait_for(&publisher, &mut daemon, || log(&publisher).contains(fix));
    let statuses = std::iter::from_fn(|| manager.next(LONG));
    let mut statuses = statuses.filter(|line| line.starts_with("STATUS=waiting for an operator"));
    assert!(statuses.next().unwrap().contains(fix));
    // Later attempts fail without another line.
    wait_for(&publisher, &mut daemon, || {
        let text = get_unix(&socket, "/metrics", "localhost").body;
        let value = |name: &str| metric(&text, &format!("distilld_publish_{name}")).unwrap();
        assert_eq!((value("failing"), value("needs_operator")), (1.0, 1.0));
        value("failures_total") >= 3.0 && value("lag_seconds") > 1.0
    });
    assert_eq!(log(&publisher).matches(fix).count(), 1);
    publisher.run(&["replace"]).check(0, &[]);
    wait_for(&publisher, &mut daemon, || {
        log(&publisher).contains("publishing again")
    });
    publisher.export_runs(&["b"]);
    wait_for(&publisher, &mut daemon, || is_published(&publisher));
    let text = get_unix(&socket, "/metrics", "localhost").body;
    assert_eq!(metric(&text, "distilld_publish_needs_operator"), Some(0.0));
    assert_eq!(daemon.terminate(LONG).unwrap().code(), Some(0));
}

#[test]
fn verify_finds_what_other_programs_changed() {
    if python().is_none() {
        return;
    }
    let publisher = Publisher::new();
    publisher.run(&["verify"]).check(1, &["there is no export"]);
    publisher.export_runs(&["a", "b", "c"]);
    publisher
        .run(&["verify"])
        .check(1, &["has no rows", "`distilld-publish once`"]);
    publisher.once();
    publisher.judge("a", "rejected");
    // It compares what is published, which is not yet the retraction.
    assert_eq!(ask(&publisher, &["verify"])["published"], 3);
    publisher.once();
    let verified = ask(&publisher, &["verify"]);
    assert_eq!(
        (&verified["equal"], &verified["published"]),
        (&true.into(), &2.into())
    );
    change_table(&publisher, "t.delete(\"source_run_id = 'c'\")");
    let ended = publisher.run(&["verify"]);
    ended.check(
        1,
        &[
            "1 missing, 0 extra, 0 changed",
            "`distilld-publish replace`",
        ],
    );
    assert_eq!(ask(&publisher, &["replace"])["added"], 2);
    ask(&publisher, &["verify"]);
    publisher.assert_published();
    change_table(
        &publisher,
        "deltalake.write_deltalake(t, t.to_pyarrow_table(), mode='append')",
    );
    publisher
        .run(&["verify"])
        .check(1, &["0 missing, 2 extra, 0 changed"]);
}

#[test]
fn replace_exchanges_the_rows_of_one_host_and_no_others() {
    if python().is_none() {
        return;
    }
    let publisher = Publisher::new();
    let other = Publisher::with(Bench::new(), &publisher.table, "lake-08", "");
    publisher.export_runs(&["a", "b"]);
    publisher.once();
    other.export_runs(&["x", "y"]);
    other.once();
    // Both hosts have rows in one file then.
    change_table(&publisher, "t.optimize.compact()");
    publisher.judge("a", "rejected");
    assert_eq!(publisher.once()["retracted"], 1);
    publisher.assert_published();
    other.assert_published();
    let bench = &publisher.bench;
    bench
        .run(&mut bench.command(&["rebuild", "--effective"]))
        .check(0, &[]);
    publisher.export_runs(&["c"]);
    let counted = ask(&publisher, &["replace", "--dry-run"]);
    assert_eq!(
        (&counted["removed"], &counted["added"]),
        (&1.into(), &2.into())
    );
    publisher.run(&["once"]).check(1, &["are of the export"]);
    let replaced = ask(&publisher, &["replace"]);
    assert_eq!(
        (&replaced["removed"], &replaced["added"]),
        (&1.into(), &2.into())
    );
    publisher.assert_published();
    other.assert_published();
    assert_eq!(publisher.once()["commits"], 0);
    publisher.export_runs(&["d"]);
    publisher.once();
    for host in [&publisher, &other] {
        host.assert_published();
        ask(host, &["verify"]);
    }
}

#[test]
fn a_table_that_lost_a_file_is_named() {
    if python().is_none() {
        return;
    }
    let publisher = Publisher::new();
    publisher.export_runs(&["a", "b"]);
    publisher.once();
    for entry in fs::read_dir(&publisher.table).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "parquet")
        {
            fs::remove_file(path).unwrap();
        }
    }
    publisher.judge("a", "rejected");
    publisher
        .run(&["once"])
        .check(1, &["a file of the table", "is missing"]);
    publisher
        .run(&["verify"])
        .check(1, &["is missing", "restore"]);
}
