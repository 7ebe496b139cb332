//! The Python examples of the table, with the real libraries.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::publisher::{Publisher, python};
use crate::support::process::Bench;
use crate::support::tools::{python_of, tool};

/// Returns the environment of a reader that has the packages of another example too, in their virtual environment.
fn with_packages(publisher: &Publisher, of: &str) -> Option<Vec<(&'static str, String)>> {
    tool("java")?;
    let list = format!("examples/{of}/requirements.txt");
    let install = format!("{{}}/bin/pip install -r {list}");
    let python = python_of(&format!("{of}-venv"), &[&list], &install)?;
    let lib = python.ancestors().nth(2)?.join("lib");
    let lib = fs::read_dir(lib).unwrap().next()?.unwrap().path();
    let packages = lib.join("site-packages").display().to_string();
    let cache = publisher.bench.sibling("hub").display().to_string();
    Some(vec![
        ("PYTHONPATH", packages),
        ("HF_HUB_OFFLINE", "1".to_owned()),
        ("HF_HOME", cache),
    ])
}

fn run(publisher: &Publisher, script: &str, arguments: &[&str]) -> Vec<Value> {
    run_with(publisher, script, arguments, &[])
}

fn run_with(
    publisher: &Publisher,
    script: &str,
    arguments: &[&str],
    environment: &[(&str, String)],
) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples/lakehouse")
        .join(script);
    let mut command = Command::new(python().unwrap());
    command.envs(environment.iter().cloned());
    let command = command.arg(script).arg(&publisher.table).args(arguments);
    let ended = publisher.bench.run(command);
    ended.check(0, &[]);
    let lines = ended.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn the_examples_read_and_maintain_a_table_of_two_hosts() {
    if python().is_none() {
        return;
    }
    let publisher = Publisher::new();
    let other = Publisher::with(Bench::new(), &publisher.table, "lake-08", "");
    publisher.export_runs(&["a", "b"]);
    publisher.once();
    other.export_runs(&["x"]);
    let version = other.once()["version"].to_string();
    publisher.judge("a", "rejected");
    publisher.once();
    let counts = |of_host: u64| json!({"lake-07": of_host, "lake-08": 1});
    let expected = |of_host| move |name: &str| json!({name: counts(of_host)});
    let always = ["with_polars", "with_duckdb"];
    assert_eq!(run(&publisher, "read.py", &[]), always.map(expected(1)));
    for (of, library) in [("train", "with_datasets"), ("spark", "with_pyspark")] {
        if let Some(environment) = with_packages(&publisher, of) {
            let pinned = run_with(&publisher, "read.py", &[&version], &environment);
            let all = [&always[..], &[library]].concat();
            let all: Vec<Value> = all.into_iter().map(expected(2)).collect();
            assert_eq!(pinned, all);
        }
    }
    let out = publisher.bench.sibling("set.jsonl");
    let pinned = [out.to_str().unwrap(), &version];
    let before = run(&publisher, "snapshot.py", &pinned);
    assert_eq!(before[0]["rows"], 3);
    let maintained = run(&publisher, "maintain.py", &[]);
    assert_eq!(maintained[0]["files_merged"], 2, "{maintained:?}");
    assert_eq!(run(&publisher, "snapshot.py", &pinned), before);
    let newest = run(&publisher, "snapshot.py", &[out.to_str().unwrap()]);
    assert_eq!(newest[0]["rows"], 2);
    // The lines are those of the exports.
    let rows = |host: &Publisher| {
        let rows = host.bench.run(&mut host.bench.command(&["rows"]));
        rows.check(0, &[]);
        rows.stdout
    };
    assert_eq!(
        fs::read_to_string(&out).unwrap(),
        rows(&publisher) + &rows(&other)
    );
    publisher.judge("b", "rejected");
    assert_eq!(publisher.once()["retracted"], 1);
    publisher.assert_published();
    other.assert_published();
}
