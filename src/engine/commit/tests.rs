//! What must never be committed is put before it here: only a fault above the commit could.

use std::fs;
use std::path::Path;

use crate::engine::commit::*;
use crate::engine::read_task::ReadRequest;
use crate::engine::{BATCH_BYTES, Setup};
use crate::lake::chunk::LineLimits;
use crate::lake::path::PairPath;
use crate::pair::JoinOutcome;
use crate::pair::verdict::VerdictKind;
use crate::platform::clock::HostClock;
use crate::platform::storage::OsStorage;

fn engine(root: &Path) -> Engine {
    let root = root.canonicalize().unwrap();
    let distilled = root.join("data/distilled");
    let setup = Setup {
        storage: Arc::new(OsStorage),
        clock: Arc::new(HostClock::new()),
        state_dir: distilled.join(".distilld"),
        export_path: distilled.join("sft/sft_export.jsonl"),
        limits: LineLimits {
            line_bytes_max: 1 << 20,
        },
        settle_ms: 0,
        checkpoint_bytes: 1 << 20,
        batch_bytes: BATCH_BYTES,
        segment_bytes: 1 << 20,
        long_lines: Arc::default(),
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

/// What a look found is spoilt by `mistake`, as if something above the commit were wrong.
fn refused(mistake: impl Fn(&mut Engine, &mut JoinOutcome), how: impl Fn(&mut Engine)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let mut engine = engine(root);
    let export = engine.setup.export_path.clone();
    engine.enqueue(add_runs(root, "first.jsonl"));
    engine.pass().unwrap();
    let shown = fs::read(&export).unwrap();
    assert_eq!(memchr::memchr_iter(b'\n', &shown).count(), 1);

    let job = ReadRequest {
        path: add_runs(root, "second.jsonl"),
        settled: false,
        hinted: true,
    };
    let mut look = engine.prepare(&job).unwrap().look().unwrap();
    mistake(&mut engine, look.outcome.as_mut().unwrap());
    engine.merge(&job, look).unwrap();
    how(&mut engine);
    let error = engine.commit().unwrap_err();
    assert!(!error.is_transient(), "{error}");
    assert_eq!(fs::read(&export).unwrap(), shown);
    drop(engine);

    // Nothing of it counts: the next process makes the same row as it should be.
    let mut engine = self::engine(root);
    assert_eq!(fs::read(&export).unwrap(), shown);
    engine.enqueue(job.path);
    engine.pass().unwrap();
    let shown = fs::read(&export).unwrap();
    assert_eq!(memchr::memchr_iter(b'\n', &shown).count(), 2);
    assert_eq!(crate::record::final_check::forbidden_in(&shown), None);
    error.to_string()
}

#[test]
fn a_row_that_must_not_be_shown_stops_the_engine_before_it_is() {
    let reject = |_: &mut Engine, outcome: &mut JoinOutcome| {
        let rows = String::from_utf8(std::mem::take(&mut outcome.rows)).unwrap();
        outcome.rows = rows.replace("\"accepted\"", "\"rejected\"").into_bytes();
    };
    let begin = |engine: &mut Engine| engine.begin_commit().unwrap();
    for how in [|_: &mut Engine| {}, begin] {
        let error = refused(reject, how);
        assert!(
            error.contains("quality_score is \"rejected\"")
                && error.contains("the export is untouched"),
            "{error}"
        );
    }
}

#[test]
fn a_verdict_that_is_counted_nowhere_stops_the_engine_before_its_row_is_shown() {
    let of_pair = |_: &mut Engine, outcome: &mut JoinOutcome| {
        outcome.checkpoint.counts[VerdictKind::Exported] -= 1;
    };
    let of_all = |engine: &mut Engine, _: &mut JoinOutcome| {
        engine.account.totals.counts[VerdictKind::Exported] += 1;
    };
    for mistake in [of_pair, of_all] {
        let error = refused(mistake, |_| {});
        assert!(error.contains("balance"), "{error}");
    }
}
