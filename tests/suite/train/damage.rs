//! A reader that cannot be certain which rows are retracted writes none, and names the way out.

use std::fs;
use std::path::{Path, PathBuf};

use super::{effective, grow, lake, lines, offsets, python, run, version};
use crate::support::lake_gen::{Shape, Step, Stream, script};
use crate::support::process::{Bench, Ended, evidence, scored, scored_as};

const SCRIPTS: [&str; 5] = [
    "to_messages.py",
    "follow.py",
    "split.py",
    "to_parquet.py",
    "stream.py",
];

/// A copy of a dataset, to damage.
struct Copy<'b> {
    bench: &'b Bench,
    export: PathBuf,
    ledger: PathBuf,
}

impl<'b> Copy<'b> {
    fn of(bench: &'b Bench) -> Copy<'b> {
        let dir = bench.sibling("copy");
        fs::create_dir_all(&dir).unwrap();
        let copy = Copy {
            bench,
            export: dir.join("sft_export.jsonl"),
            ledger: dir.join("sft_retractions.jsonl"),
        };
        copy.restore();
        copy
    }

    fn restore(&self) {
        fs::copy(self.bench.export(), &self.export).unwrap();
        let ledger = self.bench.export().with_file_name("sft_retractions.jsonl");
        fs::copy(ledger, &self.ledger).unwrap();
    }

    fn run(&self, script: &str, more: &[&str]) -> Ended {
        let out = self.bench.sibling("out");
        let resume = self.bench.sibling("new.json");
        let mut arguments = vec![script, self.export.to_str().unwrap()];
        match script {
            "split.py" | "to_parquet.py" => arguments.extend(["--out", out.to_str().unwrap()]),
            "follow.py" if !more.contains(&"--resume") => {
                arguments.extend(["--resume", resume.to_str().unwrap()]);
            }
            _ => {}
        }
        run(self.bench, &[&arguments, more].concat())
    }

    /// Asserts that a script refuses the copy and has written nothing.
    fn refused(&self, script: &str, more: &[&str], words: &[&str]) {
        let ended = self.run(script, more);
        ended.check(1, words);
        ended.check(1, &["fix: "]);
        assert!(!ended.stderr.contains("Traceback"), "{}", ended.stderr);
        assert_eq!(ended.stdout, "", "{script}");
        assert!(!self.bench.sibling("out").exists(), "{script}");
    }

    /// Asserts that `rows` refuses the copy too.
    fn refused_by_rows(&self) {
        let export = self.export.to_str().unwrap();
        let mut rows = self.bench.command(&["rows", "--export", export]);
        let ended = self.bench.run(&mut rows);
        ended.check(1, &["fix: "]);
        assert_eq!(ended.stdout, "");
    }
}

/// A damage to the lines of a ledger, and what the refusal contains.
type Damage = (fn(&mut Vec<String>), &'static str);

const DAMAGES: [Damage; 11] = [
    (
        |lines| drop(lines.remove(2)),
        "lines are missing or repeated",
    ),
    (
        |lines| drop(lines.remove(0)),
        "lines are missing or repeated",
    ),
    (
        |lines| lines.push(lines[1].clone()),
        "lines are missing or repeated",
    ),
    (
        |lines| lines[2] = "\u{0}\u{fe}".into(),
        "is damaged: line 3",
    ),
    (|lines| lines[2] = "[".repeat(200_000), "is damaged: line 3"),
    (|lines| lines[2] = "{}".into(), "not an event of a ledger"),
    (
        |lines| lines[2] = lines[2].replace("\"schema_version\":1", "\"schema_version\":2"),
        "schema_version is 2",
    ),
    (
        |lines| lines[2] = lines[2].replace("\"op\":\"retract\"", "\"op\":\"withdraw\""),
        "op has a value that it never has",
    ),
    (
        |lines| lines[2] = lines[2].replace("\"op\":\"retract\"", "\"op\":\"restore\""),
        "does not alternate",
    ),
    (
        |lines| lines[2] = lines[2].replace("\"export\":\"", "\"export\":\"0"),
        "the line belongs to the export 0",
    ),
    (
        |lines| lines[2] = lines[2].replace("\"row_offset\":", "\"row_offset\":1"),
        "does not fit its export",
    ),
];

#[test]
fn a_damaged_ledger_is_refused_and_no_row_is_written() {
    if python().is_none() {
        return;
    }
    let bench = lake();
    let copy = Copy::of(&bench);
    let text = fs::read_to_string(&copy.ledger).unwrap();
    for (damage, words) in DAMAGES {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        damage(&mut lines);
        fs::write(&copy.ledger, lines.join("\n") + "\n").unwrap();
        for script in ["to_messages.py", "follow.py"] {
            copy.refused(script, &[], &[words, "sft_retractions.jsonl"]);
        }
        copy.refused_by_rows();
    }
    let gap = text.lines().take(2).chain(text.lines().skip(3));
    let gap: String = gap.map(|line| format!("{line}\n")).collect();
    for script in SCRIPTS {
        fs::write(&copy.ledger, &gap).unwrap();
        copy.refused(
            script,
            &[],
            &["seq is 3, and 2 follows", "rebuild --state-only"],
        );
        fs::remove_file(&copy.ledger).unwrap();
        copy.refused(script, &[], &["has no ledger", "distilld run"]);
        fs::write(&copy.ledger, &text[..text.len() - 20]).unwrap();
        copy.refused(script, &[], &["ends within a line"]);
    }
    copy.refused_by_rows();
    fs::remove_file(&copy.ledger).unwrap();
    copy.refused_by_rows();
    for script in ["to_messages.py", "follow.py"] {
        fs::write(&copy.ledger, "").unwrap();
        copy.refused(script, &[], &["is empty", "distilld run"]);
        copy.refused_by_rows();
        copy.restore();
        let rows = bench.export_bytes();
        fs::write(&copy.export, &rows[..rows.len() - 900]).unwrap();
        copy.refused(script, &[], &["its ledger was written when it had"]);
        copy.refused_by_rows();
        copy.restore();
    }
}

#[test]
fn no_change_of_a_byte_or_a_line_gives_a_retracted_row() {
    if python().is_none() {
        return;
    }
    let bench = lake();
    let out = bench.sibling("mutated");
    fs::create_dir(&out).unwrap();
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/train/mutations.py");
    let (program, export) = (program.to_str().unwrap(), bench.export());
    let arguments = [program, export.to_str().unwrap(), out.to_str().unwrap()];
    let ended = run(&bench, &arguments);
    ended.check(0, &[]);
    let counts = ended.stdout.split_whitespace();
    let counts: Vec<u64> = counts.map(|count| count.parse().unwrap()).collect();
    assert!(counts[0] > 3_000 && counts[1] > 300, "{counts:?}");
}

#[test]
fn the_ledger_of_another_export_is_refused() {
    if python().is_none() {
        return;
    }
    let (bench, other) = (lake(), Bench::new());
    // As long as the first one, with other bytes.
    for number in 0..200 {
        let run = format!("run {number}");
        other.append(Stream::Evidence, "2026/01/01/n.jsonl", evidence(&run));
        other.append(Stream::Scored, "2026/01/01/n.jsonl", scored(&run));
    }
    other.once();
    other.append(
        Stream::Scored,
        "2026/01/01/n.jsonl",
        scored_as("run 3", "rejected"),
    );
    other.once();
    let copy = Copy::of(&bench);
    fs::copy(other.export(), &copy.export).unwrap();
    for script in SCRIPTS {
        copy.refused(script, &[], &["does not fit its export"]);
    }
    copy.refused_by_rows();
}

#[test]
fn a_version_and_a_resume_file_find_a_cut_and_a_rebuild() {
    if python().is_none() {
        return;
    }
    let bench = lake();
    let copy = Copy::of(&bench);
    let version = version(&bench);
    let (seen, state) = (bench.sibling("seen.json"), bench.sibling("state.json"));
    let (seen, state) = (seen.to_str().unwrap(), state.to_str().unwrap());
    copy.run("follow.py", &["--resume", seen, "--lines", "40"])
        .check(0, &[]);
    copy.run("stream.py", &["--resume", state, "--rows", "3"])
        .check(0, &[]);
    let all: [(&str, [&str; 2]); 6] = [
        ("to_messages.py", ["--at", &version]),
        ("split.py", ["--at", &version]),
        ("to_parquet.py", ["--at", &version]),
        ("stream.py", ["--at", &version]),
        ("follow.py", ["--resume", seen]),
        ("stream.py", ["--resume", state]),
    ];
    // A cut between two lines has no trace in the two files themselves.
    let text = fs::read_to_string(&copy.ledger).unwrap();
    let last = text.trim_end().rfind('\n').unwrap() + 1;
    fs::write(&copy.ledger, &text[..last]).unwrap();
    for (script, more) in all {
        copy.refused(
            script,
            &more,
            &["sft_retractions.jsonl has", "were read of it before"],
        );
    }
    copy.restore();
    let rows = bench.export_bytes();
    fs::write(&copy.export, &rows[..rows.len() - 900]).unwrap();
    for (script, more) in all {
        copy.refused(
            script,
            &more,
            &["sft_export.jsonl has", "were read of it before"],
        );
    }
    // A digest finds a change that no length shows; a resume file has none.
    copy.restore();
    fs::write(
        &copy.export,
        String::from_utf8(rows)
            .unwrap()
            .replace("answer 30", "answer 3x"),
    )
    .unwrap();
    for (script, more) in &all[..4] {
        copy.refused(
            script,
            more,
            &["are not those of distilld:1:", "fix: restore both files"],
        );
    }
    // The rows that are ordered out are not earned any more.
    bench
        .run(&mut bench.command(&["rebuild", "--drop-missing"]))
        .check(0, &[]);
    copy.restore();
    for (script, more) in all {
        copy.refused(script, &more, &["a rebuild came between", "the first row"]);
    }
    // Without them the new export is read as it is.
    let made = offsets(&lines(&copy.run("to_messages.py", &[])));
    assert_eq!(made, offsets(&effective(&bench, &[])));

    // A resume file of an offset alone has no identity.
    let old = bench.sibling("old.offset");
    fs::write(&old, "1000\n").unwrap();
    for script in ["follow.py", "stream.py"] {
        let more = ["--resume", old.to_str().unwrap()];
        copy.refused(script, &more, &["is not a resume file with the identity"]);
    }
    copy.refused("to_messages.py", &["--at", "17"], &["is not a version"]);
}

#[test]
fn python_and_rust_have_the_same_rows_and_names_on_random_lakes() {
    if python().is_none() {
        return;
    }
    let code = "import sys; from export_reader import Dataset\n\
                data = Dataset(sys.argv[1]); print(data.version())\n\
                rows = [(row.offset, len(row.line)) for row in data.rows()]\n\
                for count in (1, 2, 7, 1000):\n\
                \x20   parts = [data.rows(*part) for part in data.shards(count)]\n\
                \x20   assert [(row.offset, len(row.line)) for part in parts for row in part] == rows, count\n\
                sys.stdout.buffer.write(b''.join(row.line for row in data.rows()))";
    let mut retracted = 0;
    for seed in 0..6 {
        let bench = Bench::new();
        let mut steps = script(seed, &Shape::steady(300)).into_iter().peekable();
        let mut runs = Vec::new();
        while steps.peek().is_some() {
            for step in steps.by_ref().take(60) {
                if let Step::Append {
                    stream,
                    pair,
                    bytes,
                } = step
                {
                    bench.append(stream, &pair, bytes);
                }
            }
            bench.once();
            runs.extend(bench.runs().into_iter().step_by(9).take(3));
        }
        if bench.row_count() == 0 {
            continue;
        }
        for run in &runs {
            let mut retract = bench.command(&["retract", "--reason", "r", "--", run]);
            bench.run(&mut retract).check(0, &[]);
        }
        let rows = bench.run(&mut bench.command(&["rows"]));
        retracted += bench.row_count() - rows.stdout.matches('\n').count();
        let export = bench.export();
        let read = run(&bench, &["-c", code, export.to_str().unwrap()]);
        read.check(0, &[]);
        let (name, read) = read.stdout.split_once('\n').unwrap();
        assert_eq!(
            (name, read),
            (&*version(&bench), &*rows.stdout),
            "seed {seed}"
        );
    }
    assert!(retracted > 20, "{retracted}");
}

#[test]
fn python_reads_a_version_as_rust_does() {
    if python().is_none() {
        return;
    }
    let bench = lake();
    let before = version(&bench);
    let wanted = offsets(&effective(&bench, &[]));
    grow(&bench);
    assert_ne!(offsets(&effective(&bench, &[])), wanted);
    assert_eq!(offsets(&effective(&bench, &["--at", &before])), wanted);
    let export = bench.export();
    let arguments = ["to_messages.py", export.to_str().unwrap(), "--at", &before];
    assert_eq!(offsets(&lines(&run(&bench, &arguments))), wanted);
    // An export that a rebuild replaced has the ledger that was replaced with it.
    let rebuilt = bench.run(&mut bench.command(&["rebuild", "--effective"]));
    rebuilt.check(0, &[]);
    let kept = export.with_file_name("sft_export.jsonl.before-rebuild");
    let arguments = ["to_messages.py", kept.to_str().unwrap(), "--at", &before];
    assert_eq!(offsets(&lines(&run(&bench, &arguments))), wanted);
}
