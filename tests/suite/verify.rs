//! `verify`: every kind of difference, every documented exception, and no false alarm with a running daemon.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output as Ended};
use std::time::Duration;

use distilld::batch::export::{BatchOptions, Output, batch_export};
use distilld::batch::pair::{LakeReader, MAX_LINE_BYTES, NO_ORDERS, PairReading, RowSelection};
use distilld::batch::verify::{
    ROWS_HELD_MAX, VerifyOptions, VerifyReport, VerifyResult, VerifyWork, verify,
};
use distilld::lake::path::export_path;
use distilld::platform::clock::{Clock as _, HostClock};
use distilld::platform::root_lock::RootLock;
use distilld::platform::storage::OsStorage;
use distilld::record::json::escape::Dialect;
use distilld::record::synthesize::Synthesis;
use distilld::record::timestamp::stamp;

use crate::support::kill_harness::{Daemon, Scorer, append_step, daemon_command, wait_until};
use crate::support::lake_gen::{EvidenceMode, Shape, Step, Stream, pairs_of, script};
use crate::support::naive::{multiset_difference, naive_batch};
use crate::support::process::Bench;
use crate::support::process::wait_for_later;

/// For a lake without writers: a difference now is permanent.
const QUIET: VerifyOptions = VerifyOptions {
    max_line_bytes: MAX_LINE_BYTES,
    settle: Duration::from_millis(50),
    patience: Duration::ZERO,
    rows_held_max: ROWS_HELD_MAX,
};
const DEADLINE: Duration = Duration::from_secs(30);
const PAIR: &str = "y/m/d/n.jsonl";
const OTHER: &str = "y/m/e/n.jsonl";

fn scored(run: &str, category: &str) -> String {
    format!(
        "{{\"evidence_run_id\":\"{run}\",\"category\":\"{category}\",\"provenance\":{{\"source_file\":\"s\",\"sig_hash\":\"{run}\"}}}}\n"
    )
}

fn evidence(run: &str, role: &str, text: &str) -> String {
    format!("{{\"run_id\":\"{run}\",\"model_role\":\"{role}\",\"text\":\"{text}\"}}\n")
}

fn append(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    file.write_all(content.as_bytes()).unwrap();
}

fn edit(path: &Path, change: impl FnOnce(String) -> String) {
    let content = fs::read_to_string(path).unwrap();
    fs::write(path, change(content)).unwrap();
}

/// Writes a lake of three rows, a firewalled run, one of a refused role, and one without evidence.
fn write_lake(root: &Path) {
    for (run, category) in [
        ("a", "accepted"),
        ("rejected", "rejected"),
        ("b", "partially_accepted"),
        ("role", "accepted"),
        ("waiting", "accepted"),
    ] {
        append(&Stream::Scored.path(root, PAIR), &scored(run, category));
    }
    for (run, role) in [
        ("a", "executor"),
        ("rejected", "executor"),
        ("b", "reviewer"),
        ("role", "extractor"),
    ] {
        let line = evidence(run, role, &format!("{run} said <this>"));
        append(&Stream::Evidence.path(root, PAIR), &line);
    }
    append(&Stream::Scored.path(root, OTHER), &scored("c", "accepted"));
    append(
        &Stream::Evidence.path(root, OTHER),
        &evidence("c", "applier", "c"),
    );
    wait_for_later(&Stream::Evidence.path(root, OTHER));
}

fn distilld(root: &Path, arguments: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distilld"));
    command.arg("--root").arg(root).args(arguments);
    command.env("DISTILLD_SETTLE_MS", "50").output().unwrap()
}

fn catch_up(root: &Path) {
    let ended = distilld(root, &["run", "--once"]);
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{stderr}");
}

fn verify_with(root: &Path, options: &VerifyOptions) -> VerifyReport {
    let lake = LakeReader::new(&OsStorage, root).unwrap();
    verify(&lake, options, &mut |_, _, _| {}).unwrap()
}

/// Returns the counts as `kind=number`, except for the rows themselves.
fn counted(result: &VerifyResult) -> String {
    // What the ledger has and what other pairs concern is no difference.
    const INFORMATION: [&str; 8] = [
        "rows",
        "earned",
        "left_out",
        // Of the rows that are counted by their kind.
        "undetermined",
        "retracted",
        "ordered",
        "rejected_elsewhere",
        "accepted_elsewhere",
    ];
    let of_lines = VerifyResult {
        contradicted: result.contradicted - result.overruled,
        ..result.clone()
    };
    let fields = serde_json::to_value(of_lines).unwrap();
    let counted = fields.as_object().unwrap().iter().filter(|(name, value)| {
        value.as_u64().is_some_and(|count| count > 0) && !INFORMATION.contains(&name.as_str())
    });
    let mut counted: Vec<String> = counted
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    counted.sort();
    counted.join(" ")
}

/// Returns the result without the descriptions, which name an example.
fn counts_by_day(result: &VerifyResult) -> VerifyResult {
    let mut counts = result.clone();
    counts.days.iter_mut().for_each(|day| day.first = None);
    counts
}

/// Verifies a lake that was exported and then changed. `first`: the beginning of the first difference.
fn check(change: impl FnOnce(&Path), wanted: &str, first: Option<&str>) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write_lake(root);
    catch_up(root);
    // Later changes happen after the row was written.
    wait_for_later(&export_path(root));
    change(root);
    let report = verify_with(root, &QUIET);
    let difference = report.first_difference;
    assert_eq!(counted(&report.result), wanted, "{difference:?}");
    assert_eq!(report.result.equal, first.is_none());
    for rows_held_max in [1, 2] {
        let sliced = VerifyOptions {
            rows_held_max,
            ..QUIET
        };
        let sliced = verify_with(root, &sliced).result;
        assert_eq!(counts_by_day(&sliced), counts_by_day(&report.result));
    }
    match (first, &difference) {
        (None, None) => {}
        (Some(first), Some(difference)) => assert!(difference.starts_with(first), "{difference}"),
        _ => panic!("{first:?} {difference:?}"),
    }
}

fn edit_export(change: impl FnOnce(Vec<String>) -> Vec<String>) -> impl FnOnce(&Path) {
    move |root| {
        edit(&export_path(root), |rows| {
            let rows = rows.split_inclusive('\n').map(str::to_owned).collect();
            change(rows).concat()
        });
    }
}

/// Replaces the root's export with that of a batch with these options, after the last change of the sources.
fn export_as(dialect: Dialect, include_partial: bool) -> impl FnOnce(&Path) {
    move |root| {
        wait_for_later(tempfile::NamedTempFile::new().unwrap().path());
        let options = BatchOptions {
            dry_run: false,
            reading: PairReading {
                orders: &NO_ORDERS,
                selection: RowSelection::All,
                other_dialect: None,
                synthesis: Synthesis {
                    dialect,
                    include_partial,
                    stamp: &stamp(HostClock::new().wall_ms()),
                },
                max_line_bytes: MAX_LINE_BYTES,
            },
        };
        let lake = LakeReader::new(&OsStorage, root).unwrap();
        let target = Output::File(export_path(root));
        batch_export(&lake, &options, target, &mut |_| {}).unwrap();
    }
}

#[test]
fn rows_of_the_daemon_are_equal_in_any_order_and_with_any_timestamps() {
    check(|_| {}, "", None);
    check(
        edit_export(|mut rows| {
            rows.reverse();
            rows
        }),
        "",
        None,
    );
    check(export_as(Dialect::Native, false), "", None);
}

#[test]
fn an_empty_lake_is_equal() {
    let dir = tempfile::tempdir().unwrap();
    let report = verify_with(dir.path(), &QUIET);
    assert!(report.result.equal && report.result.complete);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn missing_duplicate_and_changed_rows_are_differences() {
    check(
        edit_export(|rows| rows[1..].to_vec()),
        "missing=1",
        Some("missing: the line of run \"a\" at byte 0 of "),
    );
    check(
        |root| fs::remove_file(export_path(root)).unwrap(),
        "missing=3",
        Some("missing: "),
    );
    check(
        edit_export(|rows| [&rows[..], &rows[..1]].concat()),
        "duplicate=1",
        Some("duplicate: the row \"n.jsonl:"),
    );
    check(
        edit_export(|rows| {
            rows.iter()
                .map(|row| row.replace("a said", "A said"))
                .collect()
        }),
        "altered=1",
        Some("altered: the row \"n.jsonl:0\" of run \"a\" at byte "),
    );
    check(
        edit_export(|rows| {
            rows.iter()
                .map(|row| row.replace("jsonl:2", "jsonl:3"))
                .collect()
        }),
        "altered=1",
        Some("altered: the row \"n.jsonl:3\" of run \"b\""),
    );
    check(
        edit_export(|rows| {
            let other_run =
                |row: &String| row.replace("\"source_run_id\":\"a\"", "\"source_run_id\":\"x\"");
            rows.iter().map(other_run).collect()
        }),
        "missing=1 orphaned=1",
        Some("missing: "),
    );
}

#[test]
fn forbidden_rows_are_differences() {
    let smuggled = |rows: Vec<String>| {
        let row = rows[0].replace("accepted", "rejected");
        [&rows[..], &[row]].concat()
    };
    check(
        edit_export(smuggled),
        "forbidden=1",
        Some("forbidden: the row at byte "),
    );
    check(
        edit_export(|mut rows| {
            rows.insert(1, "{\"id\":\"n.js\n".to_owned());
            rows
        }),
        "unreadable=1",
        Some("unreadable: the line at byte "),
    );
    check(
        export_as(Dialect::Native, true),
        "unexpected=1",
        Some("unexpected: the row \"n.jsonl:3\" of run \"role\""),
    );
}

#[test]
fn a_torn_last_line_is_not_a_row_yet() {
    check(
        |root| append(&export_path(root), "{\"schema_ver"),
        "torn_bytes=12",
        None,
    );
}

#[test]
fn history_changed_after_its_row_was_written_is_counted_and_not_a_difference() {
    let evidence_of = |root: &Path| Stream::Evidence.path(root, PAIR);
    let scored_of = |root: &Path| Stream::Scored.path(root, PAIR);
    check(
        |root| append(&evidence_of(root), &evidence("a", "executor", "better")),
        "superseded=1",
        None,
    );
    check(
        |root| append(&evidence_of(root), &evidence("a", "executor", " ")),
        "refused_now=1",
        None,
    );
    check(
        |root| {
            edit(&evidence_of(root), |lines| {
                lines.replace("a said", "a thought")
            })
        },
        "rewritten=1",
        None,
    );
    check(
        |root| fs::remove_file(evidence_of(root)).unwrap(),
        "refused_now=2",
        None,
    );
    check(
        |root| {
            edit(&scored_of(root), |lines| {
                lines.replacen("\"accepted", "\"rejected", 1)
            })
        },
        "contradicted=1",
        None,
    );
    check(
        |root| append(&scored_of(root), &scored("a", "rejected")),
        "unretracted=1",
        Some("unretracted"),
    );
    check(
        |root| edit(&scored_of(root), |lines| scored("new", "accepted") + &lines),
        "rewritten=2",
        None,
    );
    check(
        |root| fs::remove_file(Stream::Scored.path(root, OTHER)).unwrap(),
        "orphaned=1",
        None,
    );
}

#[test]
fn an_export_of_the_previous_exporter_is_identified() {
    check(export_as(Dialect::Go, false), "other_dialect=2", None);
}

#[test]
fn an_unsettled_line_is_not_missing() {
    let settle = VerifyOptions {
        settle: Duration::from_secs(3_600),
        ..QUIET
    };
    for unterminated in [Stream::Scored, Stream::Evidence] {
        let dir = tempfile::tempdir().unwrap();
        for stream in [Stream::Scored, Stream::Evidence] {
            let line = match stream {
                Stream::Scored => scored("a", "accepted"),
                Stream::Evidence => evidence("a", "executor", "t"),
            };
            let newline = if stream == unterminated { "" } else { "\n" };
            append(
                &stream.path(dir.path(), PAIR),
                &(line.trim_end().to_owned() + newline),
            );
        }
        let result = verify_with(dir.path(), &settle).result;
        assert_eq!((counted(&result), result.equal), ("pending=1".into(), true));
        catch_up(dir.path());
        assert_eq!(counted(&verify_with(dir.path(), &settle).result), "");
    }
}

#[test]
fn the_command_prints_one_object_and_reports_the_first_difference() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write_lake(root);
    let ended = distilld(root, &["verify"]);
    let (out, stderr) = (
        String::from_utf8(ended.stdout).unwrap(),
        String::from_utf8(ended.stderr).unwrap(),
    );
    assert_eq!(ended.status.code(), Some(1), "{stderr}");
    assert!(
        out.starts_with("{\"equal\":false,\"rows\":0,\"earned\":3,\"missing\":3,"),
        "{out}"
    );
    assert!(
        stderr.contains("missing: the line of run \"a\" at byte 0 of "),
        "{stderr}"
    );
    let distilled: PathBuf = root.join("data/distilled");
    assert!(!distilled.exists(), "it writes nothing");
    catch_up(root);
    let ended = distilld(root, &["verify"]);
    assert_eq!(ended.status.code(), Some(0));
    assert!(
        ended
            .stdout
            .starts_with(b"{\"equal\":true,\"rows\":3,\"earned\":3,\"missing\":0,")
    );
    assert_eq!(
        ended.stdout.iter().filter(|byte| **byte == b'\n').count(),
        1
    );
}

fn write_steps(root: &Path, steps: &[Step]) {
    for step in steps {
        append_step(root, step).unwrap();
    }
}

#[test]
fn random_lakes_are_equal_by_both_implementations() {
    for seed in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let shape = Shape::small(&mut fastrand::Rng::with_seed(seed), EvidenceMode::Unique);
        let steps = script(
            seed,
            &Shape {
                marks: false,
                ..shape
            },
        );
        write_steps(dir.path(), &steps);
        catch_up(dir.path());
        let report = verify_with(dir.path(), &QUIET);
        assert_eq!(counted(&report.result), "", "seed {seed}: {report:?}");
        let export = fs::read(export_path(dir.path())).unwrap_or_default();
        let naive = naive_batch(&pairs_of(&steps), false).rows;
        assert_eq!(multiset_difference(&export, &naive), None, "seed {seed}");
        assert_eq!(report.result.rows, naive.len() as u64, "seed {seed}");
    }
}

#[test]
fn changing_evidence_in_random_histories_is_no_difference() {
    for seed in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let shape = Shape {
            lines: 40,
            mode: EvidenceMode::Free,
            marks: false,
            plain_tails: true,
        };
        let steps = script(seed, &shape);
        let (first, rest) = steps.split_at(steps.len() / 2);
        for part in [first, rest] {
            write_steps(dir.path(), part);
            catch_up(dir.path());
        }
        let report = verify_with(dir.path(), &QUIET);
        assert!(report.result.equal, "seed {seed}: {report:?}");
    }
}

#[test]
fn a_running_daemon_causes_no_false_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("lake");
    fs::create_dir_all(&root).unwrap();
    let steps = script(11, &Shape::steady(600));
    let pause = Duration::from_secs(3) / u32::try_from(steps.len()).unwrap();
    let naive = naive_batch(&pairs_of(&steps), false).rows;
    let mut daemon = Daemon::start(&mut daemon_command(&root), &dir.path().join("log")).unwrap();
    let scorer = Scorer::start(&root, pause, steps);
    let live = VerifyOptions {
        settle: Duration::from_secs(5),
        patience: Duration::from_secs(3),
        ..QUIET
    };
    let verify = |daemon: &mut Daemon| {
        daemon.check_running()?;
        let report = verify_with(&root, &live);
        match report.first_difference {
            Some(difference) => Err(format!("{difference} {:?}", report.result)),
            None => Ok(report.result),
        }
    };
    let mut verifications = 0;
    let scored = scorer.finish(|| {
        verifications += 1;
        verify(&mut daemon).map(|_| ())
    });
    scored.unwrap();
    assert!(verifications > 1, "{verifications}");
    let all = wait_until(DEADLINE, || {
        verify(&mut daemon).map(|result| result.rows == naive.len() as u64)
    });
    assert!(all.unwrap());
    let status = daemon.terminate(DEADLINE).unwrap();
    assert!(status.success());
}

/// Writes a lake whose differences are `n` of one kind. Returns the counts.
type ManyDifferences = fn(&Path, usize) -> String;

const NATIVE: fn(&Path) = |root| export_as(Dialect::Native, false)(root);

fn scored_lines(root: &Path, pair: &str, lines: impl Iterator<Item = String>) {
    append(&Stream::Scored.path(root, pair), &lines.collect::<String>());
}

fn evidence_lines(root: &Path, pair: &str, lines: impl Iterator<Item = String>) {
    append(
        &Stream::Evidence.path(root, pair),
        &lines.collect::<String>(),
    );
}

/// Exports the lines of a run with one of `n` texts, and appends `n` other texts. Returns the expected count.
fn replace_evidence_of_one_run(root: &Path, n: usize) -> String {
    evidence_lines(
        root,
        PAIR,
        (0..n).map(|at| evidence("r", "executor", &format!("{at}"))),
    );
    NATIVE(root);
    evidence_lines(
        root,
        PAIR,
        (0..n).map(|at| evidence("r", "executor", &format!("new {at}"))),
    );
    format!("superseded={n}")
}

fn one_run_with_replaced_evidence(root: &Path, n: usize) -> String {
    scored_lines(root, PAIR, (0..n).map(|_| scored("r", "accepted")));
    replace_evidence_of_one_run(root, n)
}

fn empty_run_ids(root: &Path, n: usize) -> String {
    let line = "{\"category\":\"accepted\"}\n".to_owned();
    scored_lines(root, PAIR, (0..n).map(|_| line.clone()));
    let text = |text: usize| format!("{{\"model_role\":\"executor\",\"text\":\"{text}\"}}\n");
    evidence_lines(root, PAIR, (0..1).map(text));
    NATIVE(root);
    evidence_lines(root, PAIR, (1..n).map(text));
    format!("superseded={n}")
}

/// Each line has a key of its own.
fn one_run_with_many_signatures(root: &Path, n: usize) -> String {
    let line = |at| {
        scored("r", "accepted").replace("\"sig_hash\":\"r\"", &format!("\"sig_hash\":\"{at}\""))
    };
    scored_lines(root, PAIR, (0..n).map(line));
    replace_evidence_of_one_run(root, n)
}

fn many_runs_with_replaced_evidence(root: &Path, n: usize) -> String {
    scored_lines(
        root,
        PAIR,
        (0..n).map(|at| scored(&format!("{at}"), "accepted")),
    );
    evidence_lines(
        root,
        PAIR,
        (0..n).map(|at| evidence(&format!("{at}"), "executor", "old")),
    );
    NATIVE(root);
    evidence_lines(
        root,
        PAIR,
        (0..n).map(|at| evidence(&format!("{at}"), "executor", "new")),
    );
    format!("superseded={n}")
}

fn one_key_across_days(root: &Path, n: usize) -> String {
    for day in 0..n {
        let pair = format!("y/m/{day}/n.jsonl");
        scored_lines(root, &pair, (0..1).map(|_| scored("r", "accepted")));
        evidence_lines(
            root,
            &pair,
            (0..1).map(|_| evidence("r", "executor", &format!("{day} <"))),
        );
    }
    export_as(Dialect::Go, false)(root);
    format!("other_dialect={n}")
}

fn an_export_in_the_other_dialect(root: &Path, n: usize) -> String {
    scored_lines(
        root,
        PAIR,
        (0..n).map(|at| scored(&format!("<{at}>"), "accepted")),
    );
    evidence_lines(
        root,
        PAIR,
        (0..n).map(|at| evidence(&format!("<{at}>"), "executor", "<b>")),
    );
    export_as(Dialect::Go, false)(root);
    format!("other_dialect={n}")
}

fn all_rows_altered(root: &Path, n: usize) -> String {
    scored_lines(root, PAIR, (0..n).map(|_| scored("r", "accepted")));
    evidence_lines(
        root,
        PAIR,
        (0..1).map(|_| evidence("r", "executor", "text")),
    );
    NATIVE(root);
    edit(&export_path(root), |rows| {
        rows.replace("\"text\"", "\"tent\"")
    });
    format!("altered={n}")
}

/// Rows of one key and one index, each with another text.
fn one_row_in_many_alterations(root: &Path, n: usize) -> String {
    scored_lines(root, PAIR, (0..1).map(|_| scored("r", "accepted")));
    evidence_lines(
        root,
        PAIR,
        (0..n).map(|at| evidence("r", "executor", &format!("text {at}"))),
    );
    NATIVE(root);
    let last = format!("\"text {}\"", n - 1);
    edit(&export_path(root), |row| {
        (0..=n)
            .map(|at| row.replace(&last, &format!("\"tent {at}\"")))
            .collect()
    });
    format!("altered=1 duplicate={n}")
}

fn one_row_repeated(root: &Path, n: usize) -> String {
    scored_lines(root, PAIR, (0..1).map(|_| scored("r", "accepted")));
    evidence_lines(
        root,
        PAIR,
        (0..1).map(|_| evidence("r", "executor", "text")),
    );
    NATIVE(root);
    edit(&export_path(root), |row| row.repeat(n + 1));
    format!("duplicate={n}")
}

fn unreadable_lines(root: &Path, n: usize) -> String {
    append(&export_path(root), &"{}\n".repeat(n));
    format!("unreadable={n}")
}

fn no_export(root: &Path, n: usize) -> String {
    scored_lines(root, PAIR, (0..n).map(|_| scored("r", "accepted")));
    evidence_lines(
        root,
        PAIR,
        (0..1).map(|_| evidence("r", "executor", "text")),
    );
    format!("missing={n}")
}

#[test]
fn the_other_dialect_is_recognized_before_rows_are_compared() {
    const N: usize = 600;
    let sliced = VerifyOptions {
        rows_held_max: 100,
        ..QUIET
    };
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let wanted = an_export_in_the_other_dialect(root, N);
    let whole = verify_with(root, &QUIET);
    let recognized = verify_with(root, &sliced);
    assert_eq!(counted(&recognized.result), wanted);
    assert_eq!(recognized.work.slices, 0, "{:?}", recognized.work);
    assert_eq!(
        counts_by_day(&recognized.result),
        counts_by_day(&whole.result)
    );
    // A row of neither dialect is found, and only its bucket is compared.
    edit(&export_path(root), |rows| {
        rows.replacen("003cb", "003ci", 1)
    });
    let report = verify_with(root, &sliced);
    let wanted = format!("altered=1 other_dialect={}", N - 1);
    assert_eq!(counted(&report.result), wanted);
    assert_eq!(report.work.slices, 1, "{:?}", report.work);
    assert!(report.work.facts_held < 100, "{:?}", report.work);
    let whole = verify_with(root, &QUIET);
    assert_eq!(counts_by_day(&report.result), counts_by_day(&whole.result));
}

const MANY_DIFFERENCES: [ManyDifferences; 11] = [
    one_run_with_replaced_evidence,
    empty_run_ids,
    one_run_with_many_signatures,
    many_runs_with_replaced_evidence,
    one_key_across_days,
    an_export_in_the_other_dialect,
    all_rows_altered,
    one_row_in_many_alterations,
    one_row_repeated,
    unreadable_lines,
    no_export,
];

#[test]
fn work_is_proportional_to_the_lines_and_memory_is_bounded_for_differences_of_each_kind() {
    const N: usize = 600;
    const HELD: u64 = 100;
    for (kind, write) in MANY_DIFFERENCES.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let wanted = write(root, N);
        let VerifyReport { result, work, .. } = verify_with(root, &QUIET);
        assert_eq!(counted(&result), wanted, "kind {kind}");
        assert!(result.complete, "kind {kind}");
        // Two frames a line, three samples an evidence record; at most 2 N records.
        assert!(work.rows_made <= 8 * N as u64, "kind {kind}: {work:?}");
        assert!(work.slices <= 1, "kind {kind}: {work:?}");

        let sliced = VerifyOptions {
            rows_held_max: HELD,
            ..QUIET
        };
        let report = verify_with(root, &sliced);
        let VerifyWork {
            slices, facts_held, ..
        } = report.work;
        assert_eq!(
            counts_by_day(&report.result),
            counts_by_day(&result),
            "kind {kind}"
        );
        assert_eq!(report.first_difference.is_some(), !result.equal);
        // Rows are divided by their digests, so parts differ by chance.
        assert!(facts_held <= HELD * 3 / 2, "kind {kind}: {facts_held}");
        let differing = result.rows + result.earned;
        assert!(slices <= 2 * differing / HELD + 1, "kind {kind}: {slices}");
    }
}

#[test]
fn the_lake_is_read_a_fixed_number_of_times() {
    for (kind, write) in MANY_DIFFERENCES.iter().enumerate() {
        let bench = Bench::new();
        let root = bench.root();
        write(&root, 2_000);
        let files = ["data/scored-runs", "data/evidence", "data/distilled"];
        let bytes: u64 = files.iter().map(|dir| bytes_below(&root.join(dir))).sum();
        let ended = bench.run(&mut bench.command(&["verify"]));
        assert!(ended.status.code() <= Some(1), "{}", ended.stderr);
        // The program's own files take less than 1 MB.
        assert!(
            ended.read_bytes < 4 * bytes + 1_000_000,
            "kind {kind}: {} of {bytes}",
            ended.read_bytes
        );
    }
}

fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let sizes = entries.map(|entry| {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => bytes_below(&entry.path()),
            false => entry.metadata().unwrap().len(),
        }
    });
    sizes.sum()
}

/// An hour: a wait would exceed the time limit of any test.
const PATIENT: VerifyOptions = VerifyOptions {
    patience: Duration::from_secs(3_600),
    ..QUIET
};

#[test]
fn without_a_daemon_there_is_nothing_to_wait_for() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write_lake(root);
    assert_eq!(counted(&verify_with(root, &PATIENT).result), "missing=3");
    catch_up(root);
    edit(&export_path(root), |rows| rows.replace("a said", "A said"));
    assert_eq!(counted(&verify_with(root, &PATIENT).result), "altered=1");
}

#[test]
fn rows_are_waited_for_while_a_daemon_holds_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write_lake(root);
    let lock = RootLock::take(root, &root.join("state")).unwrap();
    let lake = LakeReader::new(&OsStorage, root).unwrap();
    let mut is_written = false;
    let report = verify(&lake, &PATIENT, &mut |step, _, _| {
        // The export has been read, and the rows are missing.
        if step == "rechecking" && !std::mem::replace(&mut is_written, true) {
            NATIVE(root);
        }
    });
    drop(lock);
    assert!(is_written);
    assert_eq!(counted(&report.unwrap().result), "");
}

/// The last line of the run is admitted; that its evidence was replaced since is no rejection in another file.
#[test]
fn a_run_that_is_accepted_again_is_not_rejected_elsewhere() {
    use crate::support::process::{evidence, scored, scored_as};
    let bench = Bench::new();
    bench.append(Stream::Evidence, PAIR, evidence("a"));
    bench.append(
        Stream::Scored,
        PAIR,
        scored_as("a", "rejected") + &scored("a"),
    );
    bench.once();
    bench.assert_runs(&["a"]);
    let other = evidence("a").replace("executor", "extractor");
    bench.append(Stream::Evidence, PAIR, other);
    bench.once();
    assert_eq!(bench.ask(&["verify"])["rejected_elsewhere"], 0);
    let listed = bench.run(&mut bench.command(&["verify", "--rejected-elsewhere"]));
    assert_eq!(listed.stdout, "");
}

/// The list is the input of `retract`, which passes over empty lines.
#[test]
fn a_run_whose_id_is_no_line_is_named_by_a_warning() {
    use crate::support::process::{evidence, scored_as};
    const OTHER: &str = "y/m/e/n.jsonl";
    let bench = Bench::new();
    for id in ["", r"two\nlines", "a"] {
        bench.append_run(PAIR, id);
        bench.append(Stream::Evidence, OTHER, evidence(id));
        let rejected = scored_as(id, "rejected").replace(":7,", ":8,");
        bench.append(Stream::Scored, OTHER, rejected);
    }
    bench.once();
    let listed = bench.run(&mut bench.command(&["verify", "--rejected-elsewhere"]));
    listed.check(
        0,
        &[r#"the run ID \"\" is"#, r#"the run ID \"two\\nlines\" is"#],
    );
    assert_eq!(listed.stdout, "a\n");
    let order = [
        "retract",
        "--reason",
        "rejected elsewhere",
        "--",
        "",
        "a",
        "two\nlines",
    ];
    bench.run(&mut bench.command(&order)).check(0, &[]);
    assert_eq!(bench.ask(&["verify"])["rejected_elsewhere"], 0);
}

/// A row whose own day-file refuses its run is not named while the daemon has yet to read that, and another day's file of
/// the same name makes no difference.
#[test]
fn a_run_that_its_own_day_file_rejects_is_not_rejected_elsewhere() {
    use crate::support::process::{evidence, scored, scored_as};
    const OTHER: &str = "y/m/e/n.jsonl";
    let named = |bench: &Bench| {
        let verified = bench.run(&mut bench.command(&["verify"])).stdout;
        let verified: serde_json::Value = serde_json::from_str(&verified).unwrap();
        let listed = bench.run(&mut bench.command(&["verify", "--rejected-elsewhere"]));
        let count = listed.stdout.lines().count();
        assert_eq!(verified["rejected_elsewhere"], count, "{verified}");
        listed.stdout
    };
    // The two day-files have the line of the same place, which gives their rows the same key, or of another one.
    for (rebuild, line_offset) in [(false, 7), (false, 8), (true, 8)] {
        let bench = Bench::new();
        let what = format!("rebuild {rebuild}, line offset {line_offset}");
        let score = |pair: &str, category: &str| {
            let line = scored_as("a", category);
            bench.append(Stream::Scored, pair, line);
        };
        bench.append_run(PAIR, "a");
        bench.once();
        score(PAIR, "rejected");
        assert_eq!(named(&bench), "", "{what}: the rejection is not read");
        bench.once();
        assert_eq!(named(&bench), "", "{what}");
        if rebuild {
            bench.ask(&["rebuild", "--effective"]);
        }

        // A line of another day has a row, and the first day refuses it.
        bench.append(Stream::Evidence, OTHER, evidence("a"));
        let line = scored("a").replace(":7,", &format!(":{line_offset},"));
        bench.append(Stream::Scored, OTHER, line);
        bench.once();
        assert_eq!(named(&bench), "a\n", "{what}");
        // The other day refuses it too.
        score(OTHER, "rejected");
        assert_eq!(named(&bench), "", "{what}: the rejection is not read");
        bench.once();
        assert_eq!(named(&bench), "", "{what}");
        score(PAIR, "accepted");
        bench.once();
        assert_eq!(named(&bench), "a\n", "{what}");
        score(PAIR, "rejected");
        assert_eq!(named(&bench), "", "{what}: the rejection is not read");
    }
}
