//! The training examples, run by a real Python with the real library on the export of a real daemon.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, Ended, evidence_with, scored, scored_as};
use crate::support::tools::skip;

const PAIR: &str = "2026/01/01/n.jsonl";

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/train")
}

/// Returns the Python of the virtual environment that has the packages of `requirements.txt`.
fn python() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_BIN_EXE_distilld"))
        .ancestors()
        .nth(2)
        .unwrap();
    let venv = target.join("train-venv");
    let python = venv.join("bin/python");
    let wanted = fs::read_to_string(examples().join("requirements.txt")).unwrap();
    let has = Command::new(&python)
        .args([
            "-c",
            "import datasets; print('datasets==' + datasets.__version__)",
        ])
        .output()
        .is_ok_and(|ended| String::from_utf8_lossy(&ended.stdout).trim() == wanted.trim());
    if has {
        return Some(python);
    }
    skip(&format!(
        "no {} in {}; python3 -m venv {1} && {1}/bin/pip install -r examples/train/requirements.txt",
        wanted.trim(),
        venv.display()
    ))
}

/// Runs Python in the directory of the examples, without a network, with caches that are removed with the bench.
fn run(bench: &Bench, python: &Path, arguments: &[&str]) -> Ended {
    let mut command = Command::new(python);
    command
        .args(arguments)
        .current_dir(examples())
        .env("HF_HOME", bench.sibling("hf"))
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_DATASETS_OFFLINE", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    bench.run(&mut command)
}

fn lines(ended: &Ended) -> Vec<serde_json::Value> {
    ended.check(0, &[]);
    let lines = ended.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn rows(bytes: &[u8]) -> Vec<serde_json::Value> {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    lines
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// Creates an export, written by a daemon, with texts that often break readers.
fn exported() -> Bench {
    let bench = Bench::new();
    for (run, text) in [
        ("plain", "an answer"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("half a pair", "cut: \\ud83d"),
        ("odd", "\\u2028\\u0085\\u0000<&> \\\"quoted\\\"\\n\\tnext"),
        ("number", "1"),
    ] {
        bench.append(Stream::Evidence, PAIR, evidence_with(run, text));
        bench.append(Stream::Scored, PAIR, scored(run));
    }
    bench.append(Stream::Scored, PAIR, scored_as("never", "rejected"));
    bench.once();
    bench
}

#[test]
fn datasets_streams_every_row_from_any_offset_up_to_a_torn_line() {
    let Some(python) = python() else { return };
    let bench = exported();
    let whole = bench.export_bytes();
    let wanted = rows(&whole);
    assert_eq!(wanted.len(), 5);
    // The content that a reader sees while the daemon is writing a row.
    let torn = bench.sibling("torn.jsonl");
    fs::write(&torn, [&whole, &whole[..whole.len() / 9]].concat()).unwrap();
    let torn = torn.to_str().unwrap();

    let streamed = lines(&run(&bench, &python, &["stream.py", torn]));
    let ids = |rows: &[serde_json::Value]| -> Vec<String> {
        rows.iter().map(|row| row["id"].to_string()).collect()
    };
    assert_eq!(ids(&streamed), ids(&wanted));
    assert_eq!(streamed[4]["next_offset"], whole.len());

    let second = streamed[1]["next_offset"].to_string();
    let rest = lines(&run(
        &bench,
        &python,
        &["stream.py", torn, "--offset", &second],
    ));
    assert_eq!(ids(&rest), ids(&wanted[2..]));
    let shuffled = lines(&run(
        &bench,
        &python,
        &["stream.py", torn, "--shuffle", "1"],
    ));
    let mut shuffled = ids(&shuffled);
    shuffled.sort();
    assert_eq!(shuffled, ids(&wanted));

    // The failure that the example avoids; if it no longer fails, the example's text about it is wrong.
    let naive = "import sys; from datasets import load_dataset\n\
                 load_dataset('json', data_files=sys.argv[1], split='train')";
    let ended = run(&bench, &python, &["-c", naive, torn]);
    assert!(!ended.status.success(), "{}", ended.stdout);
}

#[test]
fn rows_become_messages_that_datasets_can_load() {
    let Some(python) = python() else { return };
    let bench = exported();
    let export = bench.export();
    let made = run(
        &bench,
        &python,
        &["to_messages.py", export.to_str().unwrap()],
    );
    let messages = lines(&made);
    for (row, made) in rows(&bench.export_bytes()).iter().zip(&messages) {
        let (question, answer) = (&made["messages"][0], &made["messages"][1]);
        assert_eq!(
            (&question["role"], &answer["role"]),
            (&"user".into(), &"assistant".into())
        );
        assert!(
            question["content"]
                .as_str()
                .unwrap()
                .ends_with(row["instruction"].as_str().unwrap())
        );
        assert_eq!(
            (&answer["content"], &made["id"]),
            (&row["response"], &row["id"])
        );
    }
    assert_eq!(messages.len(), 5);

    let file = bench.sibling("messages.jsonl");
    fs::write(&file, &made.stdout).unwrap();
    let load = "import sys; from datasets import load_dataset\n\
                print(len(load_dataset('json', data_files=sys.argv[1], split='train')))";
    let loaded = run(&bench, &python, &["-c", load, file.to_str().unwrap()]);
    loaded.check(0, &[]);
    assert_eq!(loaded.stdout.trim(), "5");
}

#[test]
fn a_follower_resumes_at_its_offset_while_the_daemon_appends() {
    // The standard library is enough for this one.
    let Some(python) = crate::support::tools::tool("python3") else {
        return;
    };
    let bench = Bench::new();
    let mut daemon = bench.start_caught_up();
    let offset_file = bench.sibling("seen.offset");
    let export = bench.export();
    let follow = |rows: usize, before: &mut dyn FnMut()| -> Vec<String> {
        before();
        let rows = rows.to_string();
        let arguments = [
            "follow.py",
            export.to_str().unwrap(),
            "--rows",
            &rows,
            "--offset-file",
        ];
        let arguments = [&arguments[..], &[offset_file.to_str().unwrap()]].concat();
        let ended = run(&bench, &python, &arguments);
        ended.check(0, &[]);
        ended
            .stdout
            .lines()
            .map(|line| line.split(' ').nth(1).unwrap().to_owned())
            .collect()
    };
    let append = |runs: &[&str]| runs.iter().for_each(|run| bench.append_run(PAIR, run));
    let first = follow(2, &mut || append(&["a", "b", "c"]));
    let second = follow(3, &mut || append(&["d", "e"]));
    assert_eq!([first, second].concat(), bench.runs());
    bench.wait_rows(&mut daemon, 5);
    bench.stop(daemon);

    // After a rebuild offsets start at zero, and an offset beyond the end is reported.
    fs::write(bench.sibling("seen.offset"), "1000000").unwrap();
    let arguments = ["follow.py", export.to_str().unwrap(), "--offset-file"];
    let arguments = [&arguments[..], &[offset_file.to_str().unwrap()]].concat();
    run(&bench, &python, &arguments).check(1, &["it was rebuilt"]);
}
