//! The examples and the pages that describe them: the example lake, which the README's first command uses, with every
//! class and every verdict; the pair of lines and the row in the description of the input; the table of the files that
//! distilld creates.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::process::Bench;

#[test]
fn the_example_lake_has_every_class_and_every_verdict() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/lake");
    let ended = Command::new(env!("CARGO_BIN_EXE_distilld"))
        .args(["--root", root.to_str().unwrap(), "export", "--output", "-"])
        .output()
        .unwrap();
    let rows = String::from_utf8(ended.stdout).unwrap();
    let log = String::from_utf8(ended.stderr).unwrap();
    let result = log.lines().last().unwrap();
    assert!(
        result.contains(r#""records_read":42,"records_exported":26,"records_quarantined":11"#),
        "{log}"
    );
    assert!(result.contains("firewall=11, not-instructable=5"), "{log}");
    for beginning in [
        "Review the file",
        "Run task_class=",
        "Auto-apply:",
        "Audit phase",
        "Observer-review",
        "Analyze permit",
        "Analyze contractor",
        "Run scenario;",
        "Source 'llm_team_runs' run;",
    ] {
        let instruction = format!(r#""instruction":"{beginning}"#);
        assert!(rows.contains(&instruction), "no row of {beginning}");
    }
}

/// Returns the fenced records of a page, each with the last path that the text before it names.
fn records(page: &str) -> Vec<(&str, &str)> {
    let mut records = Vec::new();
    let mut rest = page;
    while let Some((before, fenced)) = rest.split_once("```json\n") {
        let (record, after) = fenced.split_once("```").unwrap();
        let path = before.rsplit('`').nth(1).unwrap();
        records.push((path, record));
        rest = after;
    }
    records
}

#[test]
fn the_example_pair_of_the_input_page_earns_the_row_shown_there() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/lake/README.md");
    let page = fs::read_to_string(page).unwrap();
    let records = records(&page);
    let [scored, evidence, (export, row)] = records.as_slice() else {
        panic!("not a scored line, an evidence line and a row: {records:?}");
    };
    let bench = Bench::new();
    for (path, line) in [scored, evidence] {
        assert_eq!(line.lines().count(), 1, "{path}: {line}");
        let path = bench.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, line).unwrap();
    }
    let fields: serde_json::Value = serde_json::from_str(row).unwrap();
    let ended = Command::new(env!("CARGO_BIN_EXE_distilld"))
        .arg("--root")
        .arg(bench.root())
        .args(["export", "--recorded-at"])
        .arg(fields["created_at"].as_str().unwrap())
        .output()
        .unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let rows = fs::read_to_string(bench.root().join(export)).unwrap();
    assert_eq!(rows, *row);
}

/// Collects the names of all files below a directory. A file that vanishes meanwhile is skipped.
fn names_below(dir: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names_below(&entry.path(), names);
        } else {
            names.push(entry.file_name().into_string().unwrap());
        }
    }
}

#[test]
fn the_operators_page_describes_every_file_that_a_daemon_creates() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/README.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, table) = page.split_once("\n## Files\n").unwrap();
    let (table, _) = table.split_once("\n#").unwrap();
    let bench = Bench::new();
    bench.append_run("2026/01/01/a.jsonl", "a");
    let mut daemon = bench.start_caught_up();
    bench.wait_rows(&mut daemon, 1);
    let status = bench.state_dir().join("status.json");
    bench.wait_for(&mut daemon, "a status is left", || status.exists());
    let mut names = Vec::new();
    names_below(&bench.root().join("data/distilled"), &mut names);
    bench.stop(daemon);
    names_below(&bench.root().join("data/distilled"), &mut names);
    assert!(names.len() > 10, "{names:?}");
    for name in &names {
        // The temporary name of a file while it is written.
        let name = name.strip_suffix(".new").unwrap_or(name);
        let ends = [format!("/{name}`"), format!("`{name}`")];
        assert!(
            ends.iter().any(|end| table.contains(end)),
            "systemd/README.md does not describe {name}"
        );
    }
}
