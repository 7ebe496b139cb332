//! The stateless batch: order, memory, unreadable input, unwritable output.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::symlink;
use std::path::Path;

use distilld::batch::export::{BatchError, BatchOptions, BatchReport, Output, batch_export};
use distilld::batch::pair::{
    BatchVerdict, HELD_BYTES_MAX, LakeReader, MAX_LINE_BYTES, NO_ORDERS, PairReading, RowSelection,
    read_pair,
};
use distilld::batch::parts::for_each_pair;
use distilld::lake::path::export_path;
use distilld::lake::path::{PairPath, Stream};
use distilld::lake::walk::walk;
use distilld::pair::verdict::VerdictKind;
use distilld::platform::storage::OsStorage;
use distilld::record::json::escape::Dialect;
use distilld::record::row::view;
use distilld::record::synthesize::Synthesis;

const READING: PairReading<'static> = PairReading {
    orders: &NO_ORDERS,
    selection: RowSelection::All,
    other_dialect: None,
    synthesis: Synthesis {
        dialect: Dialect::Native,
        include_partial: false,
        stamp: "2026-05-02T03:04:05.678Z",
    },
    max_line_bytes: MAX_LINE_BYTES,
};

fn write(root: &Path, stream: Stream, pair: &str, content: impl AsRef<[u8]>) {
    let path = pair_path(pair).path(root, stream);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn pair_path(pair: &str) -> PairPath {
    PairPath::from_relative(Path::new(pair)).unwrap()
}

fn scored(run_id: &str) -> String {
    format!("{{\"evidence_run_id\":\"{run_id}\",\"category\":\"accepted\"}}\n")
}

fn evidence(run_id: &str, text: &str) -> String {
    format!("{{\"run_id\":\"{run_id}\",\"model_role\":\"executor\",\"text\":\"{text}\"}}\n")
}

fn export_into(
    root: &Path,
    reading: PairReading<'_>,
    output: Output<'_>,
) -> Result<BatchReport, BatchError> {
    let options = BatchOptions {
        dry_run: false,
        reading,
    };
    batch_export(
        &LakeReader::new(&OsStorage, root).unwrap(),
        &options,
        output,
        &mut |_| {},
    )
}

fn export(root: &Path, reading: PairReading<'_>) -> (BatchReport, Vec<String>) {
    let mut rows = Vec::new();
    let report = export_into(root, reading, Output::Writer(&mut rows)).unwrap();
    let ids = rows
        .split_inclusive(|byte| *byte == b'\n')
        .map(|row| view(row).unwrap().id.into_owned());
    (report, ids.collect())
}

/// Asserts the verdicts of a pair with the scored lines `lines` and evidence for run `a` alone.
fn check(lines: &[u8], max_line_bytes: usize, wanted: &[(u64, Option<u64>, &str)]) {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), Stream::Scored, "y/m/d/n.jsonl", lines);
    write(
        root.path(),
        Stream::Evidence,
        "y/m/d/n.jsonl",
        evidence("a", "t"),
    );
    let lake = LakeReader::new(&OsStorage, root.path()).unwrap();
    let reading = PairReading {
        orders: &NO_ORDERS,
        selection: RowSelection::All,
        other_dialect: None,
        max_line_bytes,
        ..READING
    };
    let mut seen = Vec::new();
    let totals = read_pair(&lake, &pair_path("y/m/d/n.jsonl"), &reading, &mut |line| {
        seen.push((line.span.offset, line.index, line.verdict.kind().code()));
        assert_eq!(line.row.is_empty(), line.verdict != BatchVerdict::Exported);
        ControlFlow::Continue(())
    });
    assert_eq!(seen, wanted, "{}", String::from_utf8_lossy(lines));
    let counts = totals.unwrap().counts;
    assert_eq!(
        counts.records_read() + counts.verdicts[VerdictKind::Malformed],
        wanted.len() as u64
    );
}

#[test]
fn a_last_line_without_newline_counts_if_it_is_complete() {
    let one = scored("a");
    let whole = one.trim_end();
    check(whole.as_bytes(), 100, &[(0, Some(0), "exported")]);
    check(
        &whole.as_bytes()[..whole.len() - 1],
        100,
        &[(0, None, "malformed")],
    );
    check(
        format!("{one} \n\n{whole} \r").as_bytes(),
        100,
        &[(0, Some(0), "exported"), (49, Some(1), "exported")],
    );
}

#[test]
fn malformed_lines_have_no_index() {
    let lines = format!(
        "x\n{}{}{{}}\n7\nnull\n{}",
        scored("a"),
        scored("b"),
        scored("a")
    );
    let wanted = [
        (0, None, "malformed"),
        (2, Some(0), "exported"),
        (48, Some(1), "waiting"),
        (94, Some(2), "unknown_category"),
        (97, None, "malformed"),
        (99, Some(3), "unknown_category"),
        (104, Some(4), "exported"),
    ];
    check(lines.as_bytes(), 100, &wanted);
}

#[test]
fn an_overlong_line_is_malformed_and_the_next_is_read() {
    let long = format!(
        "{{\"evidence_run_id\":\"a\",\"category\":\"accepted\",\"x\":\"{}\"}}\n",
        "y".repeat(1_000_000)
    );
    let lines = format!("{long}{}", scored("a"));
    let next = long.len() as u64;
    check(
        lines.as_bytes(),
        100,
        &[(0, None, "malformed"), (next, Some(0), "exported")],
    );
    check(
        lines.as_bytes(),
        MAX_LINE_BYTES,
        &[(0, Some(0), "exported"), (next, Some(1), "exported")],
    );
}

#[test]
fn rows_are_in_walk_order_for_any_size_of_pairs() {
    let root = tempfile::tempdir().unwrap();
    let mut wanted = Vec::new();
    for (pair, runs) in [
        ("a", 1),
        ("b", 3_000),
        ("c", 0),
        ("d", 2),
        ("e", 2_000),
        ("f", 1),
        ("g", 1),
        ("h", 900),
    ] {
        let ids = (0..runs).map(|run| format!("{pair}{run}"));
        write(
            root.path(),
            Stream::Scored,
            &format!("y/m/{pair}/n.jsonl"),
            ids.clone().map(|id| scored(&id)).collect::<String>(),
        );
        let text = "long ".repeat(100);
        let lines: String = ids.rev().map(|id| evidence(&id, &text)).collect();
        write(
            root.path(),
            Stream::Evidence,
            &format!("y/m/{pair}/n.jsonl"),
            lines,
        );
        wanted.extend((0..runs).map(|run| format!("n.jsonl:{run}")));
    }
    let (report, ids) = export(root.path(), READING);
    assert_eq!(ids, wanted);
    assert_eq!(report.result.scored_files_read, 8);
    assert_eq!(report.counts.verdicts[VerdictKind::Exported], 5_905);
}

#[test]
fn evidence_too_large_for_memory_is_read_again_by_offset() {
    let root = tempfile::tempdir().unwrap();
    let text = "a long text ".repeat(20_000);
    let runs = HELD_BYTES_MAX as usize / text.len() + 2;
    let ids = (0..runs).map(|run| format!("r{run}"));
    write(
        root.path(),
        Stream::Scored,
        "y/m/d/n.jsonl",
        ids.clone().rev().map(|id| scored(&id)).collect::<String>(),
    );
    let first = evidence("r0", "replaced by a later one");
    let lines: String = std::iter::once(first)
        .chain(ids.map(|id| evidence(&id, &text)))
        .collect();
    assert!(lines.len() as u64 > HELD_BYTES_MAX);
    write(root.path(), Stream::Evidence, "y/m/d/n.jsonl", lines);
    let target = root.path().join("out.jsonl");
    let report = export_into(root.path(), READING, Output::File(target.clone())).unwrap();
    assert_eq!(report.counts.verdicts[VerdictKind::Exported], runs as u64);
    let rows = fs::read_to_string(target).unwrap();
    assert_eq!(
        rows.matches(&format!("\"response\":\"{text}\"")).count(),
        runs
    );
}

#[test]
fn unreadable_day_files_are_skipped_and_reported() {
    let root = tempfile::tempdir().unwrap();
    for pair in [
        "a/m/d/dir.jsonl",
        "a/m/d/n.jsonl",
        "a/m/d/only-scored.jsonl",
        "b/m/d/n.jsonl",
    ] {
        write(root.path(), Stream::Scored, pair, scored("a"));
    }
    write(
        root.path(),
        Stream::Evidence,
        "a/m/d/n.jsonl",
        evidence("a", "t"),
    );
    fs::create_dir_all(pair_path("a/m/d/dir.jsonl").path(root.path(), Stream::Evidence)).unwrap();
    symlink(
        "/etc/hostname",
        pair_path("a/m/d/out.jsonl").path(root.path(), Stream::Scored),
    )
    .unwrap();
    symlink("a", root.path().join("data/evidence/b")).unwrap();
    let (report, ids) = export(root.path(), READING);
    assert_eq!(ids, ["n.jsonl:0"]);
    let unreadable: Vec<_> = report
        .unreadable
        .iter()
        .map(|(path, _)| path.clone())
        .collect();
    let wanted = [
        ("a/m/d/dir.jsonl", Stream::Evidence),
        ("a/m/d/out.jsonl", Stream::Scored),
    ];
    assert_eq!(
        unreadable,
        wanted.map(|(pair, stream)| pair_path(pair).path(root.path(), stream))
    );
    // The skipped pair has no records; a directory that is a link contains no evidence.
    assert_eq!(
        (
            report.counts.records_read(),
            report.counts.verdicts[VerdictKind::Waiting],
        ),
        (3, 2)
    );
    assert_eq!(report.result.scored_files_read, 5);
}

#[test]
fn an_empty_lake_is_no_error_and_keeps_the_old_export() {
    let root = tempfile::tempdir().unwrap();
    let target = export_path(root.path());
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    fs::write(&target, "old").unwrap();
    let report = export_into(root.path(), READING, Output::File(target.clone())).unwrap();
    assert_eq!(
        (report.written_bytes, report.result.scored_files_read),
        (0, 0)
    );
    assert_eq!(fs::read(&target).unwrap(), b"old");
    let gone = root.path().join("no-such-root");
    assert_eq!(export(&gone, READING).1.len(), 0);
    assert!(LakeReader::new(&OsStorage, Path::new("")).is_err());
}

#[test]
fn an_output_that_cannot_be_written_fails_the_batch() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let root = tempfile::tempdir().unwrap();
    write(root.path(), Stream::Scored, "y/m/d/n.jsonl", scored("a"));
    write(
        root.path(),
        Stream::Evidence,
        "y/m/d/n.jsonl",
        evidence("a", "t"),
    );
    let failed = export_into(root.path(), READING, Output::Writer(&mut Full)).unwrap_err();
    assert_eq!(failed.to_string(), "cannot write -: no storage space");

    let target = root.path().join("target");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("keeps it from being replaced"), "").unwrap();
    export_into(root.path(), READING, Output::File(target)).unwrap_err();
    let left = fs::read_dir(root.path()).unwrap().count();
    assert_eq!(left, 2, "data and the target, nothing half-written");
}

#[test]
fn a_visit_that_fails_stops_all_threads() {
    let root = tempfile::tempdir().unwrap();
    for pair in 0..12 {
        let ids = (0..400).map(|run| format!("r{run}"));
        write(
            root.path(),
            Stream::Scored,
            &format!("y/m/{pair}/n.jsonl"),
            ids.clone().map(|id| scored(&id)).collect::<String>(),
        );
        let text = "x".repeat(20_000);
        write(
            root.path(),
            Stream::Evidence,
            &format!("y/m/{pair}/n.jsonl"),
            ids.map(|id| evidence(&id, &text)).collect::<String>(),
        );
    }
    let lake = LakeReader::new(&OsStorage, root.path()).unwrap();
    let pairs = walk(&OsStorage, root.path(), Stream::Scored)
        .unwrap()
        .day_files;
    let mut parts = 0;
    let stopped = for_each_pair(&lake, &pairs, &READING, &mut |_| {
        parts += 1;
        if parts == 3 { Err("enough") } else { Ok(()) }
    });
    assert_eq!((stopped, parts), (Err("enough"), 3));
}
