//! The training examples, run by a real Python with the real libraries on the export of a real daemon, with rows that
//! later lines and orders retract.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::support::lake_gen::Stream;
use crate::support::process::{Bench, Ended, scored, scored_as};
use crate::support::tools::python_of;

/// Ledgers that are missing, cut, foreign or damaged, and versions and resume files that do not fit.
mod damage;
/// The follower, while a daemon writes.
mod follow;
/// The blocks of the page, and the trainers.
mod page;

const PAIR: &str = "2026/01/01/n.jsonl";

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/train")
}

/// Returns the Python of the virtual environment that has the pinned packages.
fn python() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let lists = [
            "examples/train/requirements.txt",
            "tests/suite/train/trainers.txt",
        ];
        let install = "{}/bin/pip install -r examples/train/requirements.txt && {}/bin/pip install --no-deps -r \
                       tests/suite/train/trainers.txt";
        python_of("train-venv", &lists, install)
    };
    FOUND.get_or_init(find).as_deref()
}

/// Runs a program of Python in a directory, without a network, with caches that are removed with the bench.
fn run_in(bench: &Bench, dir: &Path, program: &Path, arguments: &[&str]) -> Ended {
    let built = Path::new(env!("CARGO_BIN_EXE_distilld")).parent().unwrap();
    let path = [
        built.to_owned(),
        python().unwrap().parent().unwrap().to_owned(),
    ];
    let path = path
        .into_iter()
        .chain(std::env::split_paths("/usr/bin:/bin"));
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(dir)
        .env("PATH", std::env::join_paths(path).unwrap())
        .env("PYTHONPATH", examples())
        .env("EXPORT", bench.export())
        .env("HF_HOME", bench.sibling("hf"))
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_DATASETS_OFFLINE", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    bench.run(&mut command)
}

/// Runs Python in the directory of the examples.
fn run(bench: &Bench, arguments: &[&str]) -> Ended {
    run_in(bench, &examples(), python().unwrap(), arguments)
}

fn lines(ended: &Ended) -> Vec<Value> {
    ended.check(0, &[]);
    let lines = ended.stdout.split_terminator('\n');
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn offsets(rows: &[Value]) -> Vec<u64> {
    rows.iter()
        .map(|row| row["_offset"].as_u64().unwrap())
        .collect()
}

fn sorted(mut offsets: Vec<u64>) -> Vec<u64> {
    offsets.sort_unstable();
    offsets
}

/// A run's evidence with a model's name, which becomes the `context` of its row.
fn evidence_of(run: &str, text: &str) -> String {
    format!(
        "{{\"run_id\":\"{run}\",\"model_role\":\"executor\",\"model_name\":\"qwen3-0\",\"text\":\"{text}\",\
         \"source_files\":[\"{run}.rs\"],\"provenance\":{{\"source_file\":\"data/_kb/audits.jsonl\"}}}}\n"
    )
}

/// Creates an export with texts that often break readers, 40 plain runs, and a ledger with every kind of event.
fn lake() -> Bench {
    let bench = Bench::new();
    let add = |run: &str, text: &str| {
        let category = if run.ends_with('3') {
            "partially_accepted"
        } else {
            "accepted"
        };
        bench.append(Stream::Evidence, PAIR, evidence_of(run, text));
        bench.append(Stream::Scored, PAIR, scored_as(run, category));
    };
    add("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z");
    add("half a pair", "cut: \\ud83d");
    add("odd", "\\u2028\\u0085\\u0000<&> \\\"quoted\\\"\\n\\tnext");
    add("number", "1");
    for number in 0..40 {
        add(&format!("run {number}"), &format!("answer {number}"));
    }
    bench.append(Stream::Scored, PAIR, scored_as("never", "rejected"));
    bench.once();
    // Rejected; rescored twice with equal lines, so that rows of equal bytes are in and out; rejected and accepted.
    for (run, category) in [
        ("odd", "accepted"),
        ("run 1", "rejected"),
        ("run 2", "accepted"),
        ("run 2", "accepted"),
        ("run 4", "needs_human_review"),
        ("run 5", "rejected"),
        ("run 5", "accepted"),
    ] {
        bench.append(Stream::Scored, PAIR, scored_as(run, category));
    }
    bench.once();
    let retract = |arguments: &[&str]| {
        let mut command = bench.command(&["retract", "--reason", "licence"]);
        bench.run(command.args(arguments)).check(0, &[]);
    };
    retract(&["run 7", "run 8", "run 9"]);
    retract(&["run 8", "--revoke"]);
    retract(&["run 8"]);
    retract(&["run 7", "--revoke"]);
    bench
}

/// Appends runs to a lake, of which some are rejected at once.
fn grow(bench: &Bench) {
    for number in 100..160 {
        let run = format!("run {number}");
        bench.append(Stream::Evidence, PAIR, evidence_of(&run, "more"));
        bench.append(Stream::Scored, PAIR, scored(&run));
        if number % 7 == 0 {
            bench.append(Stream::Scored, PAIR, scored_as(&run, "rejected"));
        }
    }
    bench.append(Stream::Scored, PAIR, scored_as("run 20", "rejected"));
    bench.once();
}

/// Returns the rows that `distilld rows` prints, each with its offset.
fn effective(bench: &Bench, arguments: &[&str]) -> Vec<Value> {
    let mut command = bench.command(&["rows", "--offsets"]);
    lines(&bench.run(command.args(arguments)))
}

fn version(bench: &Bench) -> String {
    let cited = bench.ask(&["cite", "--json"]);
    cited["version"].as_str().unwrap().to_owned()
}

#[test]
fn messages_are_the_effective_rows_without_the_name_of_the_teacher() {
    if python().is_none() {
        return;
    }
    let bench = lake();
    let wanted = effective(&bench, &[]);
    assert_eq!((wanted.len(), bench.row_count()), (40, 48));
    assert!(wanted[0]["context"].as_str().unwrap().contains("qwen3-0"));
    let export = bench.export();
    let made = |more: &[&str]| {
        let arguments = [&["to_messages.py", export.to_str().unwrap()], more].concat();
        let ended = run(&bench, &arguments);
        assert!(!ended.stdout.contains("qwen3-0"), "{}", ended.stdout);
        lines(&ended)
    };
    let (messages, pairs) = (made(&[]), made(&["--form", "prompt-completion"]));
    let instructions = made(&["--form", "instruction"]);
    for (at, row) in wanted.iter().enumerate() {
        let user = serde_json::json!({"role": "user", "content": row["instruction"]});
        let assistant = serde_json::json!({"role": "assistant", "content": row["response"]});
        let (offset, run) = (&row["_offset"], &row["source_run_id"]);
        for (made, form) in [
            (
                &messages[at],
                serde_json::json!({"messages": [user, assistant]}),
            ),
            (
                &pairs[at],
                serde_json::json!({"prompt": [user], "completion": [assistant]}),
            ),
            (
                &instructions[at],
                serde_json::json!({"instruction": row["instruction"], "response": row["response"]}),
            ),
        ] {
            let mut form = form;
            form["_offset"] = offset.clone();
            form["source_run_id"] = run.clone();
            assert_eq!(made, &form);
        }
    }
    assert_eq!([messages.len(), pairs.len(), instructions.len()], [40; 3]);

    let partial = made(&["--quality", "partially_accepted"]);
    let is_partial = |row: &&Value| row["quality_score"] == "partially_accepted";
    let wanted_partial: Vec<Value> = wanted.iter().filter(is_partial).cloned().collect();
    assert!(!partial.is_empty());
    assert_eq!(offsets(&partial), offsets(&wanted_partial));
    let bare = made(&["--bare"]);
    assert_eq!(bare[0].as_object().unwrap().len(), 1);
}

#[test]
fn a_split_has_each_effective_row_on_one_side_and_moves_none_when_the_export_grows() {
    if python().is_none() {
        return;
    }
    let sides = |bench: &Bench, by: &str| {
        let (export, out) = (bench.export(), bench.sibling("sets"));
        let out = out.to_str().unwrap();
        let mut arguments = vec!["split.py", export.to_str().unwrap(), "--out", out];
        arguments.extend(["--validation", "0.3", "--by", by]);
        run(bench, &arguments).check(0, &[]);
        ["train", "validation"].map(|side| {
            let text = fs::read_to_string(format!("{out}/{side}.jsonl")).unwrap();
            let lines = text.split_terminator('\n');
            let rows: Vec<Value> = lines
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            rows
        })
    };
    for by in ["source_run_id", "response"] {
        let bench = lake();
        let before = sides(&bench, by);
        let all = sorted([offsets(&before[0]), offsets(&before[1])].concat());
        assert_eq!(all, offsets(&effective(&bench, &[])), "{by}");
        assert!(before.iter().all(|side| side.len() > 5), "{by}: {before:?}");
        grow(&bench);
        let after = sides(&bench, by);
        for (old, new) in before.iter().zip([&after[1], &after[0]]) {
            let (old, new) = (offsets(old), offsets(new));
            assert!(!old.iter().any(|row| new.contains(row)), "{by}");
        }
        let grown = sorted([offsets(&after[0]), offsets(&after[1])].concat());
        assert_eq!(grown, offsets(&effective(&bench, &[])), "{by}");
        // The rows of one key are on one side: `grow` gives all of its runs one answer.
        let has_more = |side: &Vec<Value>| {
            side.iter()
                .any(|row| row["messages"][1]["content"] == "more")
        };
        let sides_with_more = after.iter().filter(|side| has_more(side)).count();
        assert_eq!(sides_with_more, if by == "response" { 1 } else { 2 });
    }
}

#[test]
fn a_stream_has_one_version_in_every_shard_and_continues_where_it_stopped() {
    if python().is_none() {
        return;
    }
    let bench = lake();
    let wanted = offsets(&effective(&bench, &[]));
    let export = bench.export();
    let stream = |more: &[&str]| {
        let arguments = [&["stream.py", export.to_str().unwrap()], more].concat();
        offsets(&lines(&run(&bench, &arguments)))
    };
    assert_eq!(stream(&[]), wanted);
    let mut parts = Vec::new();
    for shard in ["0", "1", "2"] {
        let part = stream(&["--shards", "3", "--shard", shard]);
        assert!(part.len() > wanted.len() / 6, "{part:?}");
        parts.extend(part);
    }
    assert_eq!(parts, wanted);
    let shuffled = stream(&["--shards", "3", "--shuffle", "1"]);
    assert_ne!(shuffled, wanted);
    assert_eq!(sorted(shuffled), wanted);

    let resume = bench.sibling("stream.json");
    let resume = ["--shards", "2", "--resume", resume.to_str().unwrap()];
    let first = stream(&[&resume[..], &["--rows", "30"]].concat());
    let version = version(&bench);
    grow(&bench);
    // The stream has the version that it began with, without the rows and retractions since.
    assert_eq!([first, stream(&resume)].concat(), wanted);
    assert_eq!(stream(&["--at", &version]), wanted);
    assert_eq!(stream(&[]), offsets(&effective(&bench, &[])));
}

#[test]
fn a_torn_line_is_no_row_yet() {
    if python().is_none() {
        return;
    }
    let bench = lake();
    let wanted = offsets(&effective(&bench, &[]));
    // The content that a reader sees while the daemon is writing a row.
    let whole = bench.export_bytes();
    let copy = bench.sibling("copy");
    fs::create_dir(&copy).unwrap();
    let ledger = bench.export().with_file_name("sft_retractions.jsonl");
    fs::copy(ledger, copy.join("sft_retractions.jsonl")).unwrap();
    let torn = copy.join("sft_export.jsonl");
    fs::write(&torn, [&whole, &whole[..whole.len() / 90]].concat()).unwrap();
    let torn = torn.to_str().unwrap();
    for script in ["to_messages.py", "stream.py"] {
        assert_eq!(offsets(&lines(&run(&bench, &[script, torn]))), wanted);
    }
    // The failure that the page warns of; if it no longer occurs, the text about it is wrong.
    let naive = "import sys; from datasets import load_dataset\n\
                 load_dataset('json', data_files=sys.argv[1], split='train')";
    let ended = run(&bench, &["-c", naive, torn]);
    assert!(!ended.status.success(), "{}", ended.stdout);
}

#[test]
fn parquet_files_are_versions_and_croissant_describes_them() {
    if python().is_none() {
        return;
    }
    let bench = lake();
    let (export, out) = (bench.export(), bench.sibling("parquet"));
    let write = |more: &[&str]| {
        let (export, out) = (export.to_str().unwrap(), out.to_str().unwrap());
        let arguments = [&["to_parquet.py", export, "--out", out], more].concat();
        let ended = run(&bench, &arguments);
        ended.check(0, &[]);
        PathBuf::from(ended.stdout.trim_end())
    };
    let read = |file: &Path| {
        let code = "import sys, json, pyarrow.parquet as pq\n\
                    for row in pq.read_table(sys.argv[1]).to_pylist(): print(json.dumps(row))";
        lines(&run(&bench, &["-c", code, file.to_str().unwrap()]))
    };
    let (first, wanted) = (version(&bench), effective(&bench, &[]));
    let file = write(&[]);
    assert_eq!(
        file.file_stem().unwrap().to_str(),
        Some(&*first.replace(':', "-"))
    );
    assert_eq!(read(&file), wanted);
    let cite = bench.sibling("cite.json");
    fs::write(&cite, bench.ask(&["cite", "--json"]).to_string()).unwrap();
    grow(&bench);
    let later = write(&[]);
    assert_eq!(read(&later), effective(&bench, &[]));
    // A version that exists is not written again, and one that was removed has the same rows.
    let modified = || fs::metadata(&file).unwrap().modified().unwrap();
    let before = modified();
    assert_eq!(write(&["--at", &first]), file);
    assert_eq!(modified(), before);
    fs::remove_file(&file).unwrap();
    assert_eq!(write(&["--at", &first]), file);
    assert_eq!(read(&file), wanted);

    let describe = |file: &Path| {
        let (cite, file) = (cite.to_str().unwrap(), file.to_str().unwrap());
        let licence = "https://example.org/licence";
        run(
            &bench,
            &[
                "croissant.py",
                cite,
                file,
                "--name",
                "a-set",
                "--license",
                licence,
            ],
        )
    };
    let described = describe(&file);
    described.check(0, &[]);
    fs::write(out.join("croissant.json"), &described.stdout).unwrap();
    let code = "import sys, json, mlcroissant as mlc\n\
                dataset = mlc.Dataset(jsonld=sys.argv[1])\n\
                assert not dataset.metadata.issues.errors, dataset.metadata.issues.report()\n\
                assert not dataset.metadata.issues.warnings, dataset.metadata.issues.report()\n\
                assert dataset.metadata.cite_as == sys.argv[2]\n\
                for row in dataset.records('rows'):\n\
                \x20   sig = row['rows/provenance']['rows/provenance/sig_hash'].decode()\n\
                \x20   print(json.dumps({'_offset': row['rows/_offset'], 'response': row['rows/response'].decode(), 'sig': sig}))";
    let described = out.join("croissant.json");
    let records = lines(&run(
        &bench,
        &["-c", code, described.to_str().unwrap(), &first],
    ));
    assert_eq!(records.len(), wanted.len());
    for (record, row) in records.iter().zip(&wanted) {
        let sig = &row["provenance"]["sig_hash"];
        assert_eq!(
            [&record["_offset"], &record["response"], &record["sig"]],
            [&row["_offset"], &row["response"], sig]
        );
    }
    describe(&later).check(
        1,
        &["and the citation", "fix: write it with `to_parquet.py --at"],
    );
}
