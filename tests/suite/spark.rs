//! The Spark job of the examples, on a real local cluster of two executor processes: its rows are those of `export`, also
//! when an executor is killed and when day-files grow, and an operator that fails half-way fails the job.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};

use serde_json::Value;

use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, Ended, evidence_with, scored, scored_as};
use crate::support::tools::{python_of, tool};

const STAMP: &str = "2026-05-02T03:04:05.678Z";
const PAIRS: usize = 24;

/// A session has three Java processes.
static ONE_SESSION: Mutex<()> = Mutex::new(());

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/spark")
}

/// Returns the Python of the virtual environment, if that and a Java are there.
fn python() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        tool("java")?;
        let install = "{}/bin/pip install -r examples/spark/requirements.txt";
        python_of("spark-venv", &["examples/spark/requirements.txt"], install)
    };
    FOUND.get_or_init(find).as_deref()
}

/// Creates a lake of three days, with pairs of every kind.
fn lake() -> Bench {
    let bench = Bench::new();
    for number in 0..PAIRS {
        let pair = format!("2026/01/0{}/n{number}.jsonl", 1 + number % 3);
        for run in 0..20 {
            let run = format!("run {number}-{run}");
            let text = format!("a \\u2028\u{2028}\u{85}\u{e9} answer {run}");
            bench.append(Stream::Evidence, &pair, evidence_with(&run, &text));
            bench.append(Stream::Scored, &pair, scored(&run));
        }
        bench.append(Stream::Scored, &pair, scored_as("run 1", "rejected"));
        bench.append(Stream::Scored, &pair, scored("waits"));
        bench.append(Stream::Scored, &pair, "no record\n");
        bench.append(Stream::Evidence, &pair, "no record\n");
    }
    bench.append(Stream::Scored, "2026/01/01/empty.jsonl", "");
    bench.append(Stream::Scored, "2026/01/01/no evidence.jsonl", scored("a"));
    let torn = scored("b");
    bench.append(Stream::Scored, "2026/01/02/\u{e9}.jsonl", torn.trim_end());
    bench
}

/// Runs the job with this program in place of distilld.
fn job(bench: &Bench, distilld: &Path) -> Ended {
    let _one = ONE_SESSION.lock().unwrap_or_else(PoisonError::into_inner);
    let java = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC";
    let submit = format!(
        "--master local-cluster[2,1,1024] --conf spark.ui.enabled=false --conf spark.sql.shuffle.partitions=2 \
         --conf 'spark.driver.extraJavaOptions={java}' --conf 'spark.executor.extraJavaOptions={java}' pyspark-shell"
    );
    // The first run of a kill may take a while on a loaded host; a session that hangs ends.
    let mut command = Command::new("timeout");
    command
        .args(["--kill-after=10", "600"])
        .arg(python().unwrap())
        .arg(examples().join("distill.py"))
        .args(["--recorded-at", STAMP, "--partitions", "6", "--lake"])
        .arg(bench.root())
        .arg("--out")
        .arg(bench.sibling("table"))
        .arg("--distilld")
        .arg(distilld)
        .env("PYSPARK_SUBMIT_ARGS", submit)
        .env("SPARK_LOCAL_IP", "127.0.0.1")
        .env("SPARK_LOCAL_DIRS", bench.sibling("spark"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let ended = command.output().unwrap();
    Ended {
        status: ended.status,
        stdout: String::from_utf8(ended.stdout).unwrap(),
        stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
        memory_kib: 0,
        read_bytes: 0,
    }
}

/// Returns the rows of the table in the order of the export.
fn rows(bench: &Bench) -> String {
    let code = "import sys, pyarrow.parquet as pq\n\
                table = pq.read_table(sys.argv[1]).sort_by([('number', 'ascending'), ('row', 'ascending')])\n\
                for line in table['line'].to_pylist():\n\
                \x20   if line is not None: sys.stdout.buffer.write(line.encode() + b'\\n')";
    let mut command = Command::new(python().unwrap());
    let ended = bench.run(command.args(["-c", code]).arg(bench.sibling("table")));
    ended.check(0, &[]);
    ended.stdout
}

/// Returns the rows and the counts of `distilld export`.
fn export(bench: &Bench) -> (String, Value) {
    let mut command = bench.command(&["export", "--output", "-", "--recorded-at", STAMP]);
    let ended = bench.run(&mut command);
    ended.check(0, &[]);
    let result = serde_json::from_str(ended.stderr.lines().last().unwrap());
    (ended.stdout, result.unwrap())
}

/// Asserts that the job gave the rows of the export, and an account with its counts.
fn check_job(bench: &Bench, ended: &Ended, (wanted, result): &(String, Value)) {
    ended.check(0, &[]);
    let sums: Value = serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(sums["pairs"], result["scored_files_read"]);
    assert_eq!(sums["rows"], result["records_exported"]);
    assert_eq!(sums["rows_bytes"], wanted.len());
    let verdicts = &sums["verdicts"];
    assert_eq!(verdicts["firewalled"], result["records_quarantined"]);
    let malformed = verdicts["malformed"].as_u64().unwrap();
    let records = result["records_read"].as_u64().unwrap();
    assert_eq!(sums["lines"], records + malformed);
    assert_eq!(&rows(bench), wanted);
}

/// Writes a program that takes the place of distilld. `DISTILLD` in it is the real one, `RUNS` a directory.
fn operator(bench: &Bench, script: &str) -> PathBuf {
    let (path, runs) = (bench.sibling("operator"), bench.sibling("runs"));
    fs::create_dir(&runs).unwrap();
    let script = script
        .replace("DISTILLD", env!("CARGO_BIN_EXE_distilld"))
        .replace("RUNS", runs.to_str().unwrap());
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_job_gives_the_rows_and_the_counts_of_the_export() {
    if python().is_none() {
        return;
    }
    let bench = lake();
    let ended = job(&bench, Path::new(env!("CARGO_BIN_EXE_distilld")));
    check_job(&bench, &ended, &export(&bench));
}

#[test]
fn an_executor_that_is_killed_and_day_files_that_grow_change_no_row() {
    if python().is_none() {
        return;
    }
    let bench = lake();
    let wanted = export(&bench);
    // Each attempt appends a line that would earn a row, and two of them kill the Java process of their executor after
    // half of the rows.
    let script = r#"#!/bin/bash
head -n 1 "$3" >> "$3"
mktemp RUNS/run.XXXXXX > /dev/null
for after in 3 12; do
    if [ "$(ls RUNS | grep -c run)" -ge $after ] && mkdir RUNS/killed.$after 2> /dev/null; then
        DISTILLD "$@" 2> /dev/null | head -c 5000
        pid=$PPID
        until grep -qa CoarseGrainedExecutorBackend /proc/$pid/cmdline; do
            pid=$(awk '/^PPid/ { print $2 }' /proc/$pid/status)
        done
        kill -9 "$pid"
    fi
done
exec DISTILLD "$@"
"#;
    let ended = job(&bench, &operator(&bench, script));
    check_job(&bench, &ended, &wanted);
    let names = fs::read_dir(bench.sibling("runs")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let (killed, runs): (Vec<String>, Vec<String>) = names.partition(|it| it.contains("killed"));
    assert_eq!(killed.len(), 2, "{}", ended.stderr);
    assert!(runs.len() > PAIRS + 3, "{} runs", runs.len());
    assert_ne!(export(&bench).0, wanted.0);
}

#[test]
fn an_operator_that_fails_half_way_fails_the_job() {
    if python().is_none() {
        return;
    }
    let bench = lake();
    let script = r#"#!/bin/bash
case "$3" in
    *n7.jsonl) DISTILLD "$@" | head -c 3000; exit 3 ;;
    *) exec DISTILLD "$@" ;;
esac
"#;
    let ended = job(&bench, &operator(&bench, script));
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    let message = "2026/01/02/n7.jsonl: distilld exited with 3";
    assert!(ended.stderr.contains(message), "{}", ended.stderr);
    let table = fs::read_dir(bench.sibling("table"));
    let files = table.map(|entries| {
        entries
            .map(|it| it.unwrap().file_name())
            .collect::<Vec<_>>()
    });
    assert_eq!(files.unwrap_or_default(), [""; 0], "no part is visible");
}

#[test]
fn the_page_runs_gnu_parallel_with_the_same_rows_and_notices_a_pair_that_fails() {
    if tool("parallel").is_none() {
        return;
    }
    let bench = lake();
    let page = fs::read_to_string(examples().join("README.md")).unwrap();
    let block = page.split("```sh\n").nth(1).unwrap();
    let (root, out) = (bench.root(), bench.sibling("out"));
    let block = block.split("```").next().unwrap();
    let block = block
        .replace("/mnt/lake", root.to_str().unwrap())
        .replace("/mnt/out", out.to_str().unwrap())
        .replace("2026-05-02T00:00:00Z", STAMP);
    let run = || {
        let built = Path::new(env!("CARGO_BIN_EXE_distilld")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new("bash");
        command
            .args(["-ec", &block])
            .env("PATH", format!("{}:{path}", built.display()))
            .env("PARALLEL_HOME", bench.sibling("parallel"))
            .env("SHELL", "/bin/sh");
        bench.run(&mut command)
    };
    run().check(0, &[]);
    let mut rows = String::new();
    for pair in fs::read_to_string(out.join("pairs")).unwrap().lines() {
        rows += &fs::read_to_string(out.join("rows").join(pair)).unwrap();
    }
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&rows), sorted(&export(&bench).0));
    let unreadable = bench.path(Stream::Scored, "2026/01/03/directory.jsonl");
    fs::create_dir(unreadable).unwrap();
    run().check(1, &["is a directory"]);
}

/// Runs Python code with the module of the pairs, which needs no Spark.
fn run_python(bench: &Bench, code: &str, arguments: &[&Path]) -> Option<Ended> {
    let mut command = Command::new(tool("python3")?);
    command
        .args(["-c", code])
        .args(arguments)
        .env("PYTHONPATH", examples())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Some(bench.run(&mut command))
}

#[test]
fn an_account_that_does_not_balance_is_found() {
    let code = r#"
import copy
from pairs import faults, totals
pairs = [{"number": n, "pair": f"y/m/d/{n}.jsonl", "scored_bytes": 90, "evidence_bytes": None} for n in range(2)]
def account(n):
    verdicts = {"exported": 2, "waiting": 1, "malformed": 1}
    return {"complete": True, "name": f"{n}.jsonl", "scored_bytes": 90, "evidence_bytes": 0, "lines": 4, "rows": 2,
            "rows_bytes": 50, "malformed_evidence": 0, "verdicts": verdicts}
good = {n: ([account(n)], 2, 50) for n in range(2)}
assert faults(pairs, copy.deepcopy(good)) == []
assert totals(accounts[0] for accounts, *_ in good.values())["lines"] == 8
def change(**values):
    return {**good, 1: ([{**account(1), **values}], 2, 50)}
for bad in [
    {0: good[0]},
    {**good, 2: good[0]},
    {**good, 1: ([account(1)], 1, 50)},
    {**good, 1: ([account(1)], 2, 49)},
    {**good, 1: ([account(1)] * 2, 4, 100)},
    {**good, 1: ([], 2, 50)},
    {0: good[1], 1: good[0]},
    change(complete=False), change(lines=5), change(rows=1), change(scored_bytes=89), change(evidence_bytes=1),
    change(verdicts={"exported": 3, "waiting": 1}),
]:
    assert faults(pairs, copy.deepcopy(bad)), bad
"#;
    if let Some(ended) = run_python(&Bench::new(), code, &[]) {
        ended.check(0, &[]);
    }
}

#[test]
fn every_pair_of_a_lake_is_listed_in_the_order_of_the_export_or_the_listing_fails() {
    let code = r#"
import sys
from pairs import list_pairs, rows_of
for pair in list_pairs(sys.argv[1]):
    parts = rows_of(pair, sys.argv[1], sys.argv[2], "2026-05-02T03:04:05.678Z")
    for part in parts:
        for row in part: sys.stdout.buffer.write(row + b"\n")
"#;
    let bench = lake();
    for pair in [
        "2026/01/01-/a.jsonl",
        "2026/01-/0/a.jsonl",
        "2026/01/01/a-.jsonl",
    ] {
        bench.append_run(pair, "odd");
    }
    let deeper = "2026/01/01/deeper/n.jsonl";
    bench.append_run(deeper, "too deep");
    let days = bench.path(Stream::Scored, "2026/01");
    symlink(days.join("01"), days.join("linked")).unwrap();
    // Evidence below a linked directory is none, a link to a day-file of the lake is followed.
    let answers = bench.path(Stream::Evidence, "2026/01/03");
    fs::rename(&answers, bench.sibling("answers")).unwrap();
    symlink(bench.sibling("answers"), answers).unwrap();
    let first = days.join("01");
    symlink(first.join("n0.jsonl"), first.join("link.jsonl")).unwrap();
    let distilld = Path::new(env!("CARGO_BIN_EXE_distilld"));
    let list = || run_python(&bench, code, &[&bench.root(), distilld]);
    let Some(listed) = list() else { return };
    listed.check(0, &[]);
    assert_eq!(listed.stdout, export(&bench).0);

    let outside = first.join("outside.jsonl");
    symlink("/etc/hostname", &outside).unwrap();
    list().unwrap().check(1, &["link that leaves the lake"]);
    fs::remove_file(outside).unwrap();
    fs::write(first.join(OsStr::from_bytes(b"\xff.jsonl")), "").unwrap();
    list().unwrap().check(1, &["is not UTF-8"]);
    fs::remove_dir_all(bench.root().join("data/scored-runs")).unwrap();
    list().unwrap().check(1, &["scored-runs"]);
}
