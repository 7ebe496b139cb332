//! Faulty batches must not be committed. Only a defect above the commit could make one, so these tests spoil a read.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::engine::commit::*;
use crate::engine::read::Settled;
use crate::engine::read_task::ReadRequest;
use crate::engine::{BATCH_BYTES, CLAIMS_HELD_MAX, Setup};
use crate::lake::chunk::LineLimits;
use crate::lake::path::PairPath;
use crate::pair::JoinOutcome;
use crate::pair::verdict::VerdictKind;
use crate::platform::clock::HostClock;
use crate::platform::storage::OsStorage;

fn engine(root: &Path) -> Engine {
    engine_with(root, 1 << 20)
}

fn engine_with(root: &Path, checkpoint_bytes: u64) -> Engine {
    let root = root.canonicalize().unwrap();
    let distilled = root.join("data/distilled");
    let setup = Setup {
        storage: Arc::new(OsStorage),
        clock: Arc::new(HostClock::new()),
        state_dir: distilled.join(".distilld"),
        export_path: distilled.join("sft/sft_export.jsonl"),
        ledger_path: distilled.join("sft/sft_retractions.jsonl"),
        ledger_origin: Default::default(),
        limits: LineLimits {
            line_bytes_max: 1 << 20,
        },
        settle_ms: 0,
        checkpoint_bytes,
        batch_bytes: BATCH_BYTES,
        segment_bytes: 1 << 20,
        claims_held_max: CLAIMS_HELD_MAX,
        long_lines: Arc::default(),
        exclude: Default::default(),
        threads: 2,
        root,
    };
    Engine::open(setup).unwrap().0
}

fn add_runs(root: &Path, name: &str) -> PairPath {
    let path = PairPath::from_relative(&Path::new("2026/01/01").join(name)).unwrap();
    for (stream, line) in [
        (
            "evidence",
            r#"{"run_id":"r","model_role":"executor","text":"said"}"#,
        ),
        (
            "scored-runs",
            r#"{"evidence_run_id":"r","category":"accepted","provenance":{"sig_hash":"s"}}"#,
        ),
    ] {
        let day = root.join("data").join(stream).join("2026/01/01");
        fs::create_dir_all(&day).unwrap();
        fs::write(day.join(name), format!("{line}\n")).unwrap();
    }
    path
}

/// Spoils the outcome of a read, verifies that its commit fails and changes nothing, and returns the error.
fn commit_error(
    spoil: impl Fn(&mut Engine, &mut JoinOutcome),
    before_commit: impl Fn(&mut Engine),
) -> String {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let mut engine = engine(root);
    let export = engine.ctx.export_path.clone();
    engine.enqueue(add_runs(root, "first.jsonl"));
    engine.pass().unwrap();
    let exported = fs::read(&export).unwrap();
    assert_eq!(memchr::memchr_iter(b'\n', &exported).count(), 1);

    let request = ReadRequest {
        path: add_runs(root, "second.jsonl"),
        settled: Settled::default(),
        hinted: true,
    };
    let mut read = engine
        .prepare(&Arc::new(engine.ctx.clone()), &request)
        .unwrap()
        .run()
        .unwrap();
    spoil(&mut engine, read.outcome.as_mut().unwrap());
    engine.merge(&request, read).unwrap();
    before_commit(&mut engine);
    let error = engine.commit().unwrap_err();
    assert!(!error.is_transient(), "{error}");
    assert_eq!(fs::read(&export).unwrap(), exported);
    drop(engine);

    // The next process makes the correct row.
    let mut engine = self::engine(root);
    assert_eq!(fs::read(&export).unwrap(), exported);
    engine.enqueue(request.path);
    engine.pass().unwrap();
    let exported = fs::read(&export).unwrap();
    assert_eq!(memchr::memchr_iter(b'\n', &exported).count(), 2);
    assert_eq!(crate::record::final_check::forbidden_in(&exported), None);
    error.to_string()
}

#[test]
fn a_forbidden_row_stops_the_engine_before_it_is_appended() {
    let reject = |_: &mut Engine, outcome: &mut JoinOutcome| {
        let rows = String::from_utf8(std::mem::take(&mut outcome.rows)).unwrap();
        outcome.rows = rows.replace("\"accepted\"", "\"rejected\"").into_bytes();
    };
    let begin = |engine: &mut Engine| {
        let Engine {
            ctx,
            commits,
            books,
            ..
        } = engine;
        commits.begin_commit(ctx, books).unwrap();
    };
    for before_commit in [|_: &mut Engine| {}, begin] {
        let error = commit_error(reject, before_commit);
        assert!(
            error.contains("quality_score is \"rejected\"")
                && error.contains("the export is unchanged"),
            "{error}"
        );
    }
}

#[test]
fn an_uncounted_verdict_stops_the_engine_before_its_row_is_appended() {
    let of_pair = |_: &mut Engine, outcome: &mut JoinOutcome| {
        outcome.checkpoint.counts[VerdictKind::Exported] -= 1;
    };
    let of_all = |engine: &mut Engine, _: &mut JoinOutcome| {
        engine.books.account.totals.counts[VerdictKind::Exported] += 1;
    };
    for spoil in [of_pair, of_all] {
        let error = commit_error(spoil, |_| {});
        assert!(error.contains("balance"), "{error}");
    }
}

fn rows_in(export: &Path) -> usize {
    memchr::memchr_iter(b'\n', &fs::read(export).unwrap()).count()
}

#[test]
fn rows_of_growing_day_files_do_not_wait_for_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = engine_with(dir.path(), 1);
    let export = engine.ctx.export_path.clone();
    engine.enqueue(add_runs(dir.path(), "a.jsonl"));
    engine.pass().unwrap();
    assert!(engine.commits.is_checkpointing(), "it was waited for");
    engine.enqueue(add_runs(dir.path(), "b.jsonl"));
    engine.pass().unwrap();
    assert_eq!(rows_in(&export), 2);
    engine.end_checkpoint().unwrap();
    assert_eq!(engine.pairs.overlay_entries(), 0, "the state has them");
    engine.checkpoint().unwrap();
    assert!(!engine.has_uncheckpointed());

    // A history is read with less memory.
    engine.enqueue_backlog(add_runs(dir.path(), "c.jsonl"));
    engine.pass().unwrap();
    assert!(!engine.commits.is_checkpointing() && !engine.has_uncheckpointed());
    assert_eq!(rows_in(&export), 3);
}

#[test]
fn an_idle_engine_takes_over_a_checkpoint_that_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = engine_with(dir.path(), 1);
    engine.enqueue(add_runs(dir.path(), "a.jsonl"));
    engine.pass().unwrap();
    while engine.commits.is_checkpointing() {
        let due_ms = engine.due_ms().expect("a checkpoint is written");
        assert!(due_ms <= engine.ctx.clock.monotonic_ms() + 1_000);
        engine.tick().unwrap();
    }
    assert!(!engine.has_uncheckpointed());
}

#[test]
fn a_process_that_ends_during_a_checkpoint_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for (n, name) in ["a.jsonl", "b.jsonl", "c.jsonl"].into_iter().enumerate() {
        let mut engine = engine_with(dir.path(), 1);
        let export = engine.ctx.export_path.clone();
        engine.enqueue(add_runs(dir.path(), name));
        engine.pass().unwrap();
        assert!(engine.commits.is_checkpointing());
        assert_eq!(rows_in(&export), n + 1);
    }
    let engine = engine(dir.path());
    assert_eq!(rows_in(&engine.ctx.export_path), 3);
    assert_eq!(engine.totals().counts[VerdictKind::Exported], 3);
}
