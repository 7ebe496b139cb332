//! The blocks of the page, run as they are, and the trainers that it names.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{effective, examples, lake, lines, python, run_in, sorted};
use crate::support::process::{Bench, Ended};

/// Returns the blocks of a language.
fn blocks(language: &str) -> Vec<String> {
    let page = fs::read_to_string(examples().join("README.md")).unwrap();
    let parts = page.split("\n```").skip(1).step_by(2);
    let of_language = parts.filter_map(|part| part.strip_prefix(&format!("{language}\n")));
    of_language.map(str::to_owned).collect()
}

/// Returns the one block of a language whose first line names a program.
fn block(language: &str, first: &str) -> String {
    let found: Vec<String> = blocks(language)
        .into_iter()
        .filter(|block| {
            block
                .lines()
                .next()
                .is_some_and(|line| line.contains(first))
        })
        .collect();
    assert_eq!(found.len(), 1, "{language} {first}");
    found[0].clone()
}

/// A directory with the scripts, the export and its ledger, in which the blocks run.
fn workplace(bench: &Bench) -> PathBuf {
    let dir = bench.sibling("workplace");
    fs::create_dir(&dir).unwrap();
    let from_export = bench.export();
    let from_export = from_export.parent().unwrap();
    for from in [&*examples(), from_export] {
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            symlink(&path, dir.join(path.file_name().unwrap())).unwrap();
        }
    }
    dir
}

fn python_in(bench: &Bench, dir: &Path, code: &str, arguments: &[&str]) -> Ended {
    let arguments = [&["-c", code], arguments].concat();
    run_in(bench, dir, python().unwrap(), &arguments)
}

/// Runs the shell blocks.
fn shell(bench: &Bench, dir: &Path) {
    for block in blocks("sh") {
        let arguments = ["-euc", &block];
        run_in(bench, dir, Path::new("/bin/sh"), &arguments).check(0, &[]);
    }
}

const PRINT: &str = "\nimport json\nfor row in effective";

#[test]
fn the_queries_of_the_page_give_the_effective_rows() {
    if python().is_none() {
        return;
    }
    let bench = lake();
    let dir = workplace(&bench);
    let rows: Vec<Value> = effective(&bench, &[]);
    let bytes = bench.export_bytes();
    let line_of = |row: &Value| {
        let rest = &bytes[usize::try_from(row["_offset"].as_u64().unwrap()).unwrap()..];
        let end = memchr::memchr(b'\n', rest).unwrap();
        json!([row["_offset"], String::from_utf8_lossy(&rest[..end])])
    };
    let wanted: Vec<Value> = rows.iter().map(line_of).collect();

    let sql = block("sql", "DuckDB");
    let duckdb = "import sys, json, duckdb\n\
                  connection = duckdb.connect()\n\
                  connection.execute(sys.argv[1])\n\
                  for row in connection.execute('SELECT * FROM effective ORDER BY _offset').fetchall(): print(json.dumps(row))";
    let polars = block("python", "polars")
        + PRINT
        + ".select('_offset', 'line').rows(): print(json.dumps(row))";
    let datasets = block("python", "datasets") + PRINT + ": print(json.dumps(row))";
    assert_eq!(lines(&python_in(&bench, &dir, duckdb, &[&sql])), wanted);
    assert_eq!(lines(&python_in(&bench, &dir, &polars, &[])), wanted);
    assert_eq!(lines(&python_in(&bench, &dir, &datasets, &[])), rows);
    let parts = block("python", "stream")
        + "\nimport json\nfor part in parts:\n  for row in part: print(json.dumps(row))";
    let parts = lines(&python_in(&bench, &dir, &parts, &[]));
    assert_eq!(sorted(super::offsets(&parts)), super::offsets(&rows));

    // While the daemon writes a row.
    let torn = [&bytes[..], &bytes[..200]].concat();
    fs::remove_file(dir.join("sft_export.jsonl")).unwrap();
    fs::write(dir.join("sft_export.jsonl"), torn).unwrap();
    assert_eq!(lines(&python_in(&bench, &dir, duckdb, &[&sql])), wanted);
    assert_eq!(lines(&python_in(&bench, &dir, &polars, &[])), wanted);
    assert_eq!(lines(&python_in(&bench, &dir, &datasets, &[])), rows);

    // A gap, and no ledger.
    let ledger = fs::read_to_string(dir.join("sft_retractions.jsonl")).unwrap();
    fs::remove_file(dir.join("sft_retractions.jsonl")).unwrap();
    for damage in [
        None,
        Some(ledger.lines().take(2).chain(ledger.lines().skip(3))),
    ] {
        if let Some(lines) = damage {
            let gap: String = lines.map(|line| format!("{line}\n")).collect();
            fs::write(dir.join("sft_retractions.jsonl"), gap).unwrap();
        }
        for ended in [
            python_in(&bench, &dir, duckdb, &[&sql]),
            python_in(&bench, &dir, &polars, &[]),
            python_in(&bench, &dir, &datasets, &[]),
        ] {
            assert!(!ended.status.success());
            assert_eq!(ended.stdout, "");
        }
    }
}

#[test]
fn the_trainers_take_the_sets_of_the_page() {
    if python().is_none() {
        return;
    }
    let bench = lake();
    let dir = workplace(&bench);
    shell(&bench, &dir);
    assert!(dir.join("parquet/croissant.json").exists());
    let trl = block("python", "TRL") + "\nprint(len(sets['train']) + len(sets['validation']))";
    let loaded = python_in(&bench, &dir, &trl, &[]);
    loaded.check(0, &[]);
    assert_eq!(loaded.stdout.trim(), "40");
    let trainers = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/train/trainers.py");
    let (axolotl, llama_factory) = (block("yaml", "Axolotl"), blocks("json").concat());
    let arguments = [trainers.to_str().unwrap(), &axolotl, &llama_factory];
    let checked = run_in(&bench, &dir, python().unwrap(), &arguments);
    checked.check(0, &[]);
    assert!(checked.stdout.starts_with("ok "), "{}", checked.stdout);
}
