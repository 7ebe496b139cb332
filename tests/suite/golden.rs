//! The batch over the golden lake, byte for byte, in each dialect.

use std::fs;
use std::path::{Path, PathBuf};

use distilld::batch::export::{BatchOptions, BatchReport, Output, batch_export};
use distilld::batch::pair::{LakeReader, MAX_LINE_BYTES, NO_ORDERS, PairReading, RowSelection};
use distilld::lake::path::export_path;
use distilld::pair::verdict::VerdictKind;
use distilld::platform::storage::OsStorage;
use distilld::record::final_check::{forbidden_in, forbidden_in_dialect};
use distilld::record::json::escape::Dialect;
use distilld::record::keys::RowKey;
use distilld::record::row::{digest_without_stamps, view};
use distilld::record::synthesize::Synthesis;

const STAMP: &str = "2026-05-02T03:04:05.678Z";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/suite/golden")
        .join(name)
}

fn options(dialect: Dialect, include_partial: bool) -> BatchOptions<'static> {
    BatchOptions {
        dry_run: false,
        reading: PairReading {
            orders: &NO_ORDERS,
            selection: RowSelection::All,
            other_dialect: None,
            synthesis: Synthesis {
                dialect,
                include_partial,
                stamp: STAMP,
            },
            max_line_bytes: MAX_LINE_BYTES,
        },
    }
}

fn export(options: &BatchOptions<'_>, output: Output<'_>) -> BatchReport {
    let lake = LakeReader::new(&OsStorage, &golden("lake")).unwrap();
    batch_export(&lake, options, output, &mut |_| {}).unwrap()
}

fn first_difference(rows: &[u8], expected: &[u8]) -> String {
    let lines = |bytes| {
        String::from_utf8_lossy(bytes)
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (rows, expected) = (lines(rows), lines(expected));
    let at = (0..rows.len().max(expected.len())).find(|at| rows.get(*at) != expected.get(*at));
    let at = at.unwrap_or_default();
    format!(
        "row {at}:\n  made     {:?}\n  expected {:?}",
        rows.get(at),
        expected.get(at)
    )
}

fn check(name: &str, dialect: Dialect, include_partial: bool) {
    let mut rows = Vec::new();
    let report = export(
        &options(dialect, include_partial),
        Output::Writer(&mut rows),
    );
    let expected = fs::read(golden(&format!("expected.{name}.jsonl"))).unwrap();
    assert!(
        rows == expected,
        "{name}: {}",
        first_difference(&rows, &expected)
    );

    let mut result = report.result;
    result.output_path = "lake/data/distilled/sft/sft_export.jsonl".to_owned();
    let expected = fs::read_to_string(golden(&format!("expected.{name}.result.json"))).unwrap();
    assert_eq!(
        serde_json::to_string(&result).unwrap(),
        expected.trim_end(),
        "{name}"
    );

    // A directory named like a day-file is listed and skipped.
    let unreadable: Vec<_> = report.unreadable.iter().map(|(path, _)| path).collect();
    assert_eq!(
        unreadable,
        [&golden("lake/data/scored-runs/2026/05/01/dir.jsonl")]
    );
    let verdicts = report.counts.verdicts;
    assert_eq!(
        report.counts.records_read(),
        verdicts[VerdictKind::Exported]
            + verdicts[VerdictKind::Firewalled]
            + report.counts.not_instructable()
    );
}

#[test]
fn the_batch_writes_the_golden_bytes() {
    check("native", Dialect::Native, false);
    check("native.include-partial", Dialect::Native, true);
}

#[test]
fn the_go_dialect_equals_the_go_exporter() {
    check("go", Dialect::Go, false);
}

#[test]
fn a_dry_run_counts_the_same_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let target = export_path(dir.path());
    let options = BatchOptions {
        dry_run: true,
        ..options(Dialect::Native, false)
    };
    let report = export(&options, Output::File(target));
    assert_eq!(report.result.records_exported, 178);
    assert_eq!(report.written_bytes, 0);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_file_is_replaced_atomically_and_no_temporary_file_remains() {
    let dir = tempfile::tempdir().unwrap();
    let target = export_path(dir.path());
    for _ in 0..2 {
        let report = export(
            &options(Dialect::Native, false),
            Output::File(target.clone()),
        );
        let rows = fs::read(&target).unwrap();
        assert_eq!(rows, fs::read(golden("expected.native.jsonl")).unwrap());
        assert_eq!(report.written_bytes, rows.len() as u64);
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1);
    }
}

#[test]
fn every_golden_row_is_permitted_and_parsed() {
    for name in ["native", "native.include-partial", "go"] {
        let rows = fs::read(golden(&format!("expected.{name}.jsonl"))).unwrap();
        match name {
            "go" => assert_eq!(forbidden_in_dialect(&rows, Dialect::Go), None),
            _ => assert_eq!(forbidden_in(&rows), None),
        }
        for row in rows.split_inclusive(|byte| *byte == b'\n') {
            let value: serde_json::Value = serde_json::from_slice(row).unwrap();
            let seen = view(row).unwrap();
            assert_eq!(value["id"], *seen.id);
            assert_eq!(value["source_run_id"], *seen.source_run_id);
            assert_eq!(value["quality_score"], *seen.quality_score);
            assert!(RowKey::from_row(row).is_ok());
            let later = String::from_utf8(row.to_vec())
                .unwrap()
                .replace(STAMP, "2027");
            assert_eq!(
                digest_without_stamps(row),
                digest_without_stamps(later.as_bytes())
            );
        }
    }
}

#[test]
fn a_row_and_its_scored_line_have_the_same_key() {
    use distilld::batch::pair::read_pair;
    use distilld::batch::parts::for_each_pair;
    use distilld::lake::path::Stream;
    use distilld::lake::walk::walk;
    use std::ops::ControlFlow;

    let lake = LakeReader::new(&OsStorage, &golden("lake")).unwrap();
    let reading = options(Dialect::Native, true).reading;
    let pairs = walk(&OsStorage, &lake.root, Stream::Scored)
        .unwrap()
        .day_files;
    let (mut one_by_one, mut keys) = (Vec::new(), std::collections::HashSet::new());
    for pair in &pairs {
        let _unreadable = read_pair(&lake, pair, &reading, &mut |line| {
            if let Some(run) = line.run.filter(|_| !line.row.is_empty()) {
                let key = RowKey::from_scored(&pair.file_name(), run);
                assert_eq!(RowKey::from_row(line.row), Ok(key));
                keys.insert(key);
            }
            one_by_one.extend_from_slice(line.row);
            ControlFlow::Continue(())
        });
    }
    assert!(keys.len() > 100);
    let mut in_parallel = Vec::new();
    for_each_pair::<()>(&lake, &pairs, &reading, &mut |part| {
        in_parallel.extend_from_slice(&part.rows);
        Ok(())
    })
    .unwrap();
    assert_eq!(one_by_one, in_parallel);
}
