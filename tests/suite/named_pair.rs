//! `export --pair` and `verify --pair`: the rows of a lake, pair by pair, without the lake; and what is no result.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use distilld::lake::path::Stream as Side;
use distilld::lake::walk::walk;
use distilld::platform::storage::OsStorage;
use fastrand::Rng;
use rustix::fs::{FileType, Mode, mknodat};
use serde_json::Value;

use crate::support::lake_gen::{EvidenceMode, Shape, Stream, pairs_of, script};
use crate::support::process::{
    Bench, Ended, evidence_with, is_root, output_with_stdin, scored, scored_as,
};

const PAIR: &str = "2026/01/01/n.jsonl";
const STAMP: &str = "2026-05-02T03:04:05.678Z";

/// Returns `distilld COMMAND --pair SCORED EVIDENCE` without a root, in an environment that no other command accepts.
fn command(name: &str, scored: &Path, evidence: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distilld"));
    command
        .env_clear()
        .env("DISTILLD_CONFIG", "/no/such/file.toml")
        .env("LH_DISTILL_ROOT", "")
        .env("DISTILLD_SETTLE_MS", "never")
        .stdin(Stdio::null())
        .arg(name)
        .arg("--pair")
        .args([scored, evidence]);
    if name == "export" {
        command.args(["--recorded-at", STAMP]);
    }
    command
}

/// The two day-files of [`PAIR`] in a lake.
fn day_files(bench: &Bench) -> [PathBuf; 2] {
    Stream::BOTH.map(|stream| bench.path(stream, PAIR))
}

fn export(bench: &Bench, arguments: &[&str]) -> Ended {
    let [scored, evidence] = day_files(bench);
    bench.run(command("export", &scored, &evidence).args(arguments))
}

/// Returns the result in the first line of stderr.
fn result_of(ended: &Ended) -> Value {
    let line = ended.stderr.lines().next().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|_| panic!("{}", ended.stderr))
}

/// Asserts that a command failed with this error and this remedy, and that its result has the error.
fn check_failed(ended: &Ended, error: &str, fix: &str) {
    ended.check(1, &[error, "fix: ", fix]);
    let result = result_of(ended);
    assert_eq!(result["complete"], false);
    let reason = result["error"].as_str().unwrap();
    assert!(reason.contains(error), "{reason}");
}

/// A pair with a row, a refused line, a waiting one and a malformed one.
fn small_pair() -> Bench {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    bench.append(Stream::Scored, PAIR, scored_as("a", "rejected"));
    bench.append(Stream::Scored, PAIR, scored("b"));
    bench.append(Stream::Scored, PAIR, "no record\n");
    bench
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    files: u64,
    records: u64,
    exported: u64,
    firewalled: u64,
    not_instructable: u64,
}

impl Sums {
    fn of_lake(result: &Value) -> Sums {
        let count = |key: &str| result[key].as_u64().unwrap();
        let summary = result["quarantine_summary"].as_str().unwrap();
        let not_instructable = summary.split_once("not-instructable=").unwrap().1;
        Sums {
            files: count("scored_files_read"),
            records: count("records_read"),
            exported: count("records_exported"),
            firewalled: count("records_quarantined"),
            not_instructable: not_instructable.parse().unwrap(),
        }
    }

    /// Adds the account of a pair, which must balance.
    fn add(&mut self, account: &Value) {
        let verdicts = account["verdicts"].as_object().unwrap();
        let count = |verdict: &str| verdicts[verdict].as_u64().unwrap();
        let lines: u64 = verdicts.values().map(|lines| lines.as_u64().unwrap()).sum();
        assert_eq!(account["lines"], lines);
        assert_eq!(account["rows"], count("exported"));
        assert_eq!(account["complete"], true);
        self.files += 1;
        self.records += lines - count("malformed");
        self.exported += count("exported");
        self.firewalled += count("firewalled");
        let refused = ["unknown_category", "wrong_role", "blank_text", "waiting"];
        self.not_instructable += refused.map(count).iter().sum::<u64>();
    }
}

/// Asserts that the rows of the pairs of a lake, one after the other, are the rows of its export.
fn check_lake(bench: &Bench, options: &[&str]) -> Sums {
    let mut command_of_lake = bench.command(&["export", "--output", "-", "--recorded-at", STAMP]);
    let whole = bench.run(command_of_lake.args(options));
    whole.check(0, &[]);
    let (mut rows, mut sums) = (String::new(), Sums::default());
    for pair in walk(&OsStorage, &bench.root(), Side::Scored)
        .unwrap()
        .day_files
    {
        let [scored, evidence] = Side::ALL.map(|side| pair.path(&bench.root(), side));
        let evidence = match evidence.exists() {
            true => evidence,
            false => "-".into(),
        };
        let name = pair.file_name().into_owned();
        let mut command = command("export", &scored, &evidence);
        let made = bench.run(command.args(options).args(["--name", &name]));
        made.check(0, &[]);
        let account = result_of(&made);
        sums.add(&account);
        let len = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
        assert_eq!(account["name"], name);
        assert_eq!(account["scored_bytes"], len(&scored));
        assert_eq!(account["evidence_bytes"], len(&evidence));
        assert_eq!(account["rows_bytes"], made.stdout.len());
        rows += &made.stdout;
    }
    assert_eq!(rows, whole.stdout);
    sums
}

#[test]
fn the_rows_and_accounts_of_all_pairs_are_those_of_the_lake() {
    let mut rows = 0;
    for seed in 0..12 {
        let mut rng = Rng::with_seed(seed);
        let bench = Bench::new();
        let shape = Shape::small(&mut rng, EvidenceMode::Free);
        for (pair, day_files) in pairs_of(&script(seed, &shape)) {
            for (stream, bytes) in Stream::BOTH.into_iter().zip([day_files.0, day_files.1]) {
                if let Some(bytes) = bytes {
                    bench.append(stream, &pair, bytes);
                }
            }
        }
        for options in [
            &[][..],
            &["--effective"],
            &["--include-partial", "--dialect", "go"],
        ] {
            let sums = check_lake(&bench, options);
            let mut command = bench.command(&["export", "--dry-run"]);
            let counted = bench.run(command.args(options));
            let counted = Sums::of_lake(&serde_json::from_str(&counted.stdout).unwrap());
            assert_eq!(sums, counted, "seed {seed}, {options:?}");
            rows += sums.exported;
        }
    }
    assert!(rows > 100, "only {rows} rows");
}

#[test]
fn a_name_that_is_not_utf_8_has_to_be_given() {
    let bench = Bench::new();
    let dir = bench
        .path(Stream::Scored, PAIR)
        .parent()
        .unwrap()
        .to_owned();
    fs::create_dir_all(&dir).unwrap();
    let odd = dir.join(OsStr::from_bytes(b"odd\xff.jsonl"));
    fs::write(&odd, scored("a")).unwrap();
    let nameless = bench.sibling("part-0000");
    fs::write(&nameless, scored("a")).unwrap();
    for path in [&odd, &nameless] {
        let ended = bench.run(&mut command("export", path, Path::new("-")));
        check_failed(&ended, "does not end in the name", "`--name NAME.jsonl`");
        let mut named = command("export", path, Path::new("-"));
        let ended = bench.run(named.args(["--name", "n.jsonl"]));
        ended.check(0, &["\"name\":\"n.jsonl\"", "\"waiting\":1"]);
    }
    // A result is JSON also with characters that act on a terminal.
    let hostile = "\u{202e}\u{9b}\u{7f}\u{85}\n\".jsonl";
    let mut named = command("export", &odd, Path::new("-"));
    let ended = bench.run(named.args(["--name", hostile]));
    assert_eq!(result_of(&ended)["name"], hostile);
    // With the name that its rows have in a lake.
    check_lake(&bench, &[]);
}

#[test]
fn a_day_file_that_cannot_be_read_whole_is_an_error() {
    let bench = small_pair();
    let [scored, evidence] = day_files(&bench);
    let fifo = bench.sibling("fifo.jsonl");
    mknodat(
        rustix::fs::CWD,
        &fifo,
        FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let (gone, dir) = (bench.sibling("gone.jsonl"), bench.root());
    let zero = Path::new("/dev/zero");
    let in_file = bench.sibling("fifo.jsonl").join("n.jsonl");
    for (path, error, fix) in [
        (&*gone, "does not exist", "`ls "),
        (&fifo, "is a FIFO", "`cat "),
        (&dir, "is a directory", "`ls -l "),
        (zero, "is a device or a socket", "`ls -l "),
        (&in_file, "cannot read", "not a directory"),
    ] {
        for (scored, evidence) in [(path, &*evidence), (&*scored, path)] {
            let mut command = command("export", scored, evidence);
            let ended = bench.run(command.args(["--name", "n.jsonl"]));
            check_failed(&ended, error, fix);
            assert_eq!(ended.stdout, "");
        }
    }
    for (lengths, error, fix) in [
        ("100000,0", "fewer than the 100000", "`stat "),
        ("10,100000", "fewer than the 100000", "`stat "),
    ] {
        check_failed(&export(&bench, &["--lengths", lengths]), error, fix);
    }
    let mut without_evidence = command("export", &scored, Path::new("-"));
    let ended = bench.run(without_evidence.args(["--lengths", "10,1"]));
    check_failed(&ended, "EVIDENCE is -", "`--lengths S,0`");
}

#[test]
fn a_day_file_without_the_right_to_read_it_is_an_error() {
    if !is_root() {
        return;
    }
    let bench = small_pair();
    let [scored, evidence] = day_files(&bench);
    for path in [&scored, &evidence] {
        fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
        let mut command = bench.as_unprivileged(&["export", "--recorded-at", STAMP, "--pair"]);
        let ended = bench.run(command.args([&scored, &evidence]));
        check_failed(&ended, "cannot read", "`namei -l ");
        fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
    }
}

#[test]
fn a_line_over_an_unknown_limit_is_an_error_and_over_a_given_one_malformed() {
    for stream in Stream::BOTH {
        let bench = small_pair();
        let before = bench.path(stream, PAIR).metadata().unwrap().len();
        let long = format!("{{\"x\":\"{}\"}}\n", "y".repeat(17 << 20));
        bench.append(stream, PAIR, long);
        bench.append_run(PAIR, "c");
        let place = format!("the line at byte {before} of");
        let ended = export(&bench, &[]);
        check_failed(&ended, &place, "`--max-line-bytes 16777216`");
        let limited = export(&bench, &["--max-line-bytes", "16777216"]);
        limited.check(0, &[]);
        let mut of_lake = bench.command(&["export", "--output", "-", "--recorded-at", STAMP]);
        assert_eq!(limited.stdout, bench.run(&mut of_lake).stdout);
        let account = result_of(&limited);
        let lines = if stream == Stream::Scored { 6 } else { 5 };
        assert_eq!([&account["rows"], &account["lines"]], [2, lines]);
    }
}

/// Starts an export whose stdout is not read, and waits until it writes rows.
fn start_export(bench: &Bench, arguments: &[&str]) -> (Child, ChildStdout, Vec<u8>) {
    let [scored, evidence] = day_files(bench);
    let mut child = command("export", &scored, &evidence)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(File::create(bench.sibling("stderr")).unwrap())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = vec![0; 1];
    stdout.read_exact(&mut first).unwrap();
    (child, stdout, first)
}

/// A pair with more rows than a pipe holds.
fn large_pair() -> Bench {
    let bench = Bench::new();
    let ids = 0..2_000;
    let text = "text ".repeat(100);
    let lines = ids.clone().map(|id| evidence_with(&id.to_string(), &text));
    bench.append(Stream::Evidence, PAIR, lines.collect::<String>());
    let lines = ids.map(|id| scored(&id.to_string()));
    bench.append(Stream::Scored, PAIR, lines.collect::<String>());
    bench
}

#[test]
fn a_growing_day_file_is_read_up_to_its_length_when_it_was_opened_or_to_a_given_one() {
    let bench = large_pair();
    let before = export(&bench, &[]);
    before.check(0, &[]);
    let lengths = day_files(&bench).map(|path| path.metadata().unwrap().len());
    let (mut child, mut stdout, mut rows) = start_export(&bench, &[]);
    bench.append_run(PAIR, "more");
    stdout.read_to_end(&mut rows).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(rows, before.stdout.as_bytes());
    let result = fs::read_to_string(bench.sibling("stderr")).unwrap();
    let result: Value = serde_json::from_str(&result).unwrap();
    assert_eq!(result["scored_bytes"], lengths[0]);
    assert_eq!(result["evidence_bytes"], lengths[1]);

    let pinned = format!("{},{}", lengths[0], lengths[1]);
    let again = export(&bench, &["--lengths", &pinned]);
    assert_eq!(again.stdout, before.stdout);
    assert_eq!(result_of(&again), result);
    assert_eq!(export(&bench, &[]).stdout.lines().count(), 2_001);
}

#[test]
fn a_day_file_that_is_cut_while_it_is_read_is_an_error() {
    for stream in Stream::BOTH {
        let bench = large_pair();
        let (mut child, mut stdout, mut rows) = start_export(&bench, &[]);
        let file = OpenOptions::new()
            .write(true)
            .open(bench.path(stream, PAIR));
        file.unwrap().set_len(1_000).unwrap();
        stdout.read_to_end(&mut rows).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1));
        let stderr = fs::read_to_string(bench.sibling("stderr")).unwrap();
        assert!(stderr.contains("was cut to 1000 of"), "{stderr}");
        assert!(stderr.contains("\"complete\":false"), "{stderr}");
    }
}

#[test]
fn an_output_file_appears_only_when_it_is_whole() {
    let bench = small_pair();
    let (out, result) = (bench.sibling("out.jsonl"), bench.sibling("result.json"));
    let files = [
        "--output",
        out.to_str().unwrap(),
        "--result",
        result.to_str().unwrap(),
    ];
    let read_result = || -> Value { serde_json::from_slice(&fs::read(&result).unwrap()).unwrap() };
    let rows = export(&bench, &[]).stdout;
    let ended = export(&bench, &files);
    ended.check(0, &[]);
    assert_eq!((ended.stdout, ended.stderr), Default::default());
    assert_eq!(fs::read_to_string(&out).unwrap(), rows);
    assert_eq!(read_result()["rows"], 1);

    // The next one fails after it has made rows.
    let long = format!("{}\n", "x".repeat(17 << 20));
    bench.append(Stream::Scored, PAIR, long);
    export(&bench, &files).check(1, &["is longer than"]);
    assert_eq!(fs::read_to_string(&out).unwrap(), rows);
    assert_eq!(read_result()["complete"], false);
    fs::remove_file(&out).unwrap();
    export(&bench, &files).check(1, &["is longer than"]);
    assert!(!out.exists());

    // A pair without rows replaces those of another one.
    fs::write(&out, &rows).unwrap();
    fs::write(bench.path(Stream::Scored, PAIR), "").unwrap();
    export(&bench, &files).check(0, &[]);
    assert_eq!(fs::read(&out).unwrap(), b"");
    let left: Vec<_> = fs::read_dir(out.parent().unwrap()).unwrap().collect();
    assert!(!left.iter().any(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().contains("partial")
    }));
}

#[test]
fn no_file_of_a_lake_is_replaced() {
    let bench = small_pair();
    bench.once();
    let [scored, evidence] = day_files(&bench);
    let linked = bench.sibling("link");
    std::os::unix::fs::symlink(&evidence, &linked).unwrap();
    let own = bench.export();
    for (flag, path) in [
        ("--output", &scored),
        ("--output", &linked),
        ("--result", &scored),
        ("--output", &own),
    ] {
        let before = fs::read(path).unwrap();
        let ended = export(&bench, &[flag, path.to_str().unwrap()]);
        ended.check(1, &[path.to_str().unwrap(), "fix: "]);
        assert_eq!(fs::read(path).unwrap(), before);
    }
}

#[test]
fn rows_that_cannot_be_written_are_an_error() {
    let bench = large_pair();
    let ended = export(&bench, &["--output", "/dev/full"]);
    check_failed(&ended, "cannot write /dev/full", "free space");
    let (mut child, stdout, _) = start_export(&bench, &[]);
    drop(stdout);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let in_file = bench.path(Stream::Scored, PAIR).join("result.json");
    let in_file = in_file.to_str().unwrap();
    let ended = export(&bench, &["--result", in_file]);
    ended.check(1, &["cannot write ", in_file, "fix: "]);
}

/// Runs `verify --pair` with rows on stdin.
fn verify(bench: &Bench, rows: &str, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let [scored, evidence] = day_files(bench);
    let mut command = command("verify", &scored, &evidence);
    let ended = output_with_stdin(command.args(arguments), rows.as_bytes());
    let result = serde_json::from_slice(&ended.stdout).unwrap_or_default();
    (
        ended.status.code(),
        result,
        String::from_utf8(ended.stderr).unwrap(),
    )
}

#[test]
fn verify_finds_each_difference_and_ignores_order_and_timestamps() {
    let bench = large_pair();
    let rows = export(&bench, &[]).stdout;
    let mut reversed: Vec<&str> = rows.split_inclusive('\n').collect();
    reversed.reverse();
    let other = reversed.concat().replace(STAMP, "2020-01-01T00:00:00.000Z");
    let (code, result, _) = verify(&bench, &other, &[]);
    assert_eq!((code, &result["equal"]), (Some(0), &Value::Bool(true)));
    assert_eq!(
        (&result["given"], &result["rows"]),
        (&2_000.into(), &2_000.into())
    );
    let file = bench.sibling("rows.jsonl");
    fs::write(&file, &other).unwrap();
    let (code, ..) = verify(&bench, "", &["--rows", file.to_str().unwrap()]);
    assert_eq!(code, Some(0));

    let (first, rest) = rows.split_once('\n').unwrap();
    for (given, key) in [
        (rest.to_owned(), "missing"),
        (format!("{rows}{first}\n"), "duplicate"),
        (rows.replacen("text text", "text", 1), "unexpected"),
        (format!("{rows}{{}}x\n"), "unreadable"),
        (rows.trim_end().to_owned(), "unreadable"),
        (String::new(), "missing"),
    ] {
        let (code, result, stderr) = verify(&bench, &given, &[]);
        assert_eq!(
            (code, &result["equal"]),
            (Some(1), &Value::Bool(false)),
            "{key}"
        );
        assert!(result[key].as_u64().unwrap() > 0, "{key}: {result}");
        assert!(stderr.contains(&format!("{key}: ")), "{key}: {stderr}");
    }
    bench.append_run(PAIR, "more");
    let (code, result, _) = verify(&bench, &rows, &[]);
    assert_eq!((code, &result["missing"]), (Some(1), &1.into()));
}

#[test]
fn verify_fails_where_the_export_fails_and_knows_effective_rows() {
    let bench = small_pair();
    let all = export(&bench, &[]).stdout;
    let effective = export(&bench, &["--effective"]).stdout;
    assert_eq!((all.lines().count(), effective.lines().count()), (1, 0));
    assert_eq!(verify(&bench, &effective, &["--effective"]).0, Some(0));
    assert_eq!(verify(&bench, &all, &["--effective"]).0, Some(1));
    assert_eq!(verify(&bench, &effective, &[]).0, Some(1));
    let (code, result, stderr) = verify(&bench, &all, &["--lengths", "1000000,0"]);
    assert_eq!((code, &result["complete"]), (Some(1), &Value::Bool(false)));
    assert!(stderr.contains("fewer than"), "{stderr}");
    let missing = bench.sibling("no rows");
    let (code, _, stderr) = verify(&bench, "", &["--rows", missing.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("cannot read the rows"), "{stderr}");
}
