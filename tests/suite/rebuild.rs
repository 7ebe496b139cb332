//! `rebuild`: batch order, dropped rows, a crash at each of its calls.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use distilld::engine::{BATCH_BYTES, CLAIMS_HELD_MAX, Engine, EngineError, Setup};
use distilld::lake::chunk::LineLimits;
use distilld::lake::path::Stream;
use distilld::lake::walk::walk;
use distilld::platform::clock::Clock;
use distilld::platform::storage::Storage as _;
use distilld::recovery::rebuild::{RebuildError, RebuildOptions, Rebuilt, rebuild, rebuild_state};
use fastrand::Rng;

use crate::support::lake_gen::{EvidenceMode, Shape, pairs_of, script};
use crate::support::naive::compare::blank_stamps;
use crate::support::naive::{Pairs, naive_batch};
use crate::support::sim_disk::fault::Partly;
use crate::support::sim_disk::{EIO, Fate, Fault, NameOrder, SimDisk};

pub(crate) const ROOT: &str = "/lake";
pub(crate) const EXPORT: &str = "/lake/data/distilled/sft/sft_export.jsonl";
pub(crate) const LEDGER: &str = "/lake/data/distilled/sft/sft_retractions.jsonl";
const KEPT: &str = "/lake/data/distilled/sft/sft_export.jsonl.before-rebuild";
const STATE_DIR: &str = "/lake/data/distilled/.distilld";

/// A clock that never advances, so that the same rows have the same bytes.
#[derive(Debug)]
struct Frozen;

impl Clock for Frozen {
    fn monotonic_ms(&self) -> u64 {
        0
    }

    fn wall_ms(&self) -> u64 {
        1_777_690_985_678
    }
}

pub(crate) fn setup(disk: &SimDisk) -> Setup {
    Setup {
        storage: Arc::new(disk.clone()),
        clock: Arc::new(Frozen),
        root: PathBuf::from(ROOT),
        state_dir: PathBuf::from(STATE_DIR),
        export_path: PathBuf::from(EXPORT),
        ledger_path: PathBuf::from(LEDGER),
        ledger_origin: Default::default(),
        limits: LineLimits {
            line_bytes_max: 1 << 20,
        },
        settle_ms: 5_000,
        checkpoint_bytes: 1 << 20,
        batch_bytes: BATCH_BYTES,
        segment_bytes: 700,
        claims_held_max: CLAIMS_HELD_MAX,
        long_lines: Arc::default(),
        exclude: Default::default(),
        threads: 1,
    }
}

/// Starts an engine, reads every pair, and stops it.
pub(crate) fn run(disk: &SimDisk) -> Result<(), EngineError> {
    let (mut engine, _) = Engine::open(setup(disk))?;
    for stream in Stream::ALL {
        let found = walk(disk, Path::new(ROOT), stream).unwrap();
        found
            .day_files
            .into_iter()
            .for_each(|path| engine.enqueue(path));
    }
    while engine.is_dirty() {
        engine.pass()?;
    }
    assert!(engine.totals().balanced());
    engine.checkpoint()
}

/// A rebuild that may drop rows whose source is gone.
const DROP_MISSING: RebuildOptions = RebuildOptions {
    dry_run: false,
    drop_missing: true,
    effective: false,
};

pub(crate) fn try_rebuild(
    disk: &SimDisk,
    options: RebuildOptions,
) -> Result<Rebuilt, RebuildError> {
    rebuild(
        &setup(disk),
        options,
        &AtomicBool::new(false),
        &mut |_, _, _| {},
    )
}

pub(crate) fn rebuild_on(disk: &SimDisk) -> Rebuilt {
    try_rebuild(disk, DROP_MISSING).unwrap()
}

pub(crate) fn rows(disk: &SimDisk) -> Vec<String> {
    let export = String::from_utf8(disk.read(EXPORT).unwrap_or_default()).unwrap();
    export.split_terminator('\n').map(blank_stamps).collect()
}

pub(crate) fn scored(run_id: &str, category: &str) -> String {
    format!("{{\"evidence_run_id\":\"{run_id}\",\"category\":\"{category}\"}}\n")
}

pub(crate) fn evidence(run_id: &str, text: &str) -> String {
    format!("{{\"run_id\":\"{run_id}\",\"model_role\":\"executor\",\"text\":\"{text}\"}}\n")
}

pub(crate) fn source(stream: &str, pair: &str) -> String {
    format!("{ROOT}/data/{stream}/{pair}")
}

pub(crate) fn put(disk: &SimDisk, pairs: &Pairs) {
    for (pair, (scored, evidence)) in pairs {
        for (stream, bytes) in [("scored-runs", scored), ("evidence", evidence)] {
            if let Some(bytes) = bytes {
                disk.append_durable(source(stream, pair), bytes);
            }
        }
    }
}

/// Creates two pairs that were exported out of order; then a run rejected, evidence replaced and a day-file rewritten.
pub(crate) fn lake_with_history() -> SimDisk {
    let disk = SimDisk::new();
    disk.set_name_order(NameOrder::Any);
    let (early, late) = ("2026/05/01/a.jsonl", "2026/05/02/b.jsonl");
    disk.append_durable(
        source("scored-runs", late),
        scored("b1", "accepted").as_bytes(),
    );
    disk.append_durable(source("evidence", late), evidence("b1", "one").as_bytes());
    run(&disk).unwrap();
    let two = scored("a1", "accepted") + &scored("a2", "accepted");
    disk.append_durable(source("scored-runs", early), two.as_bytes());
    let two = evidence("a1", "one") + &evidence("a2", "two");
    disk.append_durable(source("evidence", early), two.as_bytes());
    run(&disk).unwrap();
    disk.append_durable(
        source("scored-runs", late),
        scored("b1", "rejected").as_bytes(),
    );
    disk.append_durable(source("evidence", late), evidence("b1", "other").as_bytes());
    disk.write_file(
        source("scored-runs", early),
        scored("a2", "accepted").as_bytes(),
    );
    disk.settle(source("scored-runs", early));
    run(&disk).unwrap();
    disk
}

#[test]
fn a_rebuild_drops_rewritten_rows_and_leaves_nothing_to_do() {
    let disk = lake_with_history();
    let before = rows(&disk);
    let rebuilt = rebuild_on(&disk);
    let after = rows(&disk);
    // The line of a1 is gone; a2 has another index; b1 has other evidence and, still accepted by one line, a row.
    assert_eq!((before.len(), after.len()), (3, 2), "{before:#?}");
    assert_eq!(
        (
            rebuilt.rows_before,
            rebuilt.rows_after,
            rebuilt.rows_replaced,
            rebuilt.rows_dropped
        ),
        (3, 2, 2, 1)
    );
    assert_eq!((rebuilt.rows_kept, rebuilt.rows_added), (0, 0));
    assert!(after[0].contains("\"response\":\"two\""), "{after:#?}");
    assert!(after[1].contains("\"response\":\"other\""), "{after:#?}");
    run(&disk).unwrap();
    assert_eq!(rows(&disk), after);
}

#[test]
fn a_rebuild_without_state_or_export_creates_both() {
    let disk = SimDisk::new();
    disk.append_durable(
        source("scored-runs", "y/m/d/n.jsonl"),
        scored("r", "accepted").as_bytes(),
    );
    disk.append_durable(
        source("evidence", "y/m/d/n.jsonl"),
        evidence("r", "t").as_bytes(),
    );
    assert_eq!(rebuild_on(&disk).rows_after, 1);
    run(&disk).unwrap();
    assert_eq!(rows(&disk).len(), 1);
}

#[test]
fn evidence_in_an_unterminated_last_line_counts_before_its_run_is_evaluated() {
    let check = |evidence: &str, expected: &[&str]| {
        let disk = SimDisk::new();
        let two = scored("a", "accepted") + &scored("b", "accepted");
        disk.append_durable(
            source("scored-runs", "y/m/d/n.jsonl"),
            two.trim_end().as_bytes(),
        );
        disk.append_durable(source("evidence", "y/m/d/n.jsonl"), evidence.as_bytes());
        rebuild_on(&disk);
        let rows = rows(&disk);
        assert_eq!(rows.len(), expected.len(), "{rows:#?}");
        for (row, text) in rows.iter().zip(expected) {
            assert!(
                row.contains(&format!("\"response\":\"{text}\"")),
                "{rows:#?}"
            );
        }
    };
    let (a, b, again) = (evidence("a", "1"), evidence("b", "2"), evidence("a", "3"));
    check(&format!("{b}{a}"), &["1", "2"]);
    check(format!("{b}{a}").trim_end(), &["1", "2"]);
    check(format!("{a}{b}{again}").trim_end(), &["3", "2"]);
    check(b.trim_end(), &["2"]);
    // Lines for two reads, then the line that counts.
    let long = evidence("z", &"x".repeat(900 << 10)).repeat(6);
    check(format!("{a}{b}{long}{again}").trim_end(), &["3", "2"]);
    check(&format!("{a}{b}{{\"run_id\":\"a\",\"te"), &["1", "2"]);
}

#[test]
fn a_rebuild_of_any_lake_equals_the_batch_row_by_row() {
    for seed in 0..12 {
        let mut rng = Rng::with_seed(seed);
        let mode = [EvidenceMode::Unique, EvidenceMode::Free][seed as usize % 2];
        let pairs = pairs_of(&script(seed, &Shape::small(&mut rng, mode)));
        let expected = naive_batch(&pairs, false);
        for threads in [1, 4] {
            let disk = SimDisk::new();
            put(&disk, &pairs);
            let rebuilt = rebuild_with(&disk, threads);
            assert_eq!(rows(&disk), expected.rows, "seed {seed}");
            assert_eq!(rebuilt.rows_after, expected.counts.exported, "seed {seed}");
            run(&disk).unwrap();
            assert_eq!(rows(&disk), expected.rows, "seed {seed}");
        }
    }
}

fn rebuild_with(disk: &SimDisk, threads: usize) -> Rebuilt {
    let setup = Setup {
        threads,
        ..setup(disk)
    };
    rebuild(
        &setup,
        DROP_MISSING,
        &AtomicBool::new(false),
        &mut |_, _, _| {},
    )
    .unwrap()
}

/// Day-files of one read and of several, with and without a newline at the end, next to each other.
#[test]
fn the_rows_of_a_pair_follow_each_other_on_any_number_of_threads() {
    let disk = SimDisk::new();
    let mut expected = Vec::new();
    for number in 0..40_u32 {
        let (pair, run) = (format!("y/m/{number:02}/n.jsonl"), |line| {
            format!("{number}-{line}")
        });
        let lines = 1 + number % 3;
        let text = match number % 4 {
            0 => "x".repeat(900 << 10),
            _ => "x".to_owned(),
        };
        let repeats = if number % 4 == 0 { 8 } else { 1 };
        let scored: String = (0..lines)
            .map(|line| scored(&run(line), "accepted"))
            .collect();
        let evidence: String = (0..lines)
            .map(|line| evidence(&run(line), &text).repeat(repeats))
            .collect();
        let end = if number % 5 == 0 { "" } else { "\n" };
        for (stream, lines) in [("scored-runs", scored), ("evidence", evidence)] {
            let lines = format!("{}{end}", lines.trim_end());
            disk.append_durable(source(stream, &pair), lines.as_bytes());
        }
        expected.extend((0..lines).map(run));
    }
    let mut exports = Vec::new();
    for threads in [1, 2, 4] {
        rebuild_with(&disk, threads);
        let rows = rows(&disk);
        let runs = rows.iter().map(|row| run_of(row));
        assert_eq!(runs.collect::<Vec<_>>(), expected, "{threads} threads");
        exports.push(disk.read(EXPORT).unwrap());
    }
    exports.dedup();
    assert_eq!(exports.len(), 1);
}

fn run_of(row: &str) -> String {
    let (_, rest) = row.split_once("\"source_run_id\":\"").unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

/// Returns the violation for a day-file of `stream` whose second line has `long_bytes` bytes, more than the limit,
/// with valid lines around it.
fn fault_after_an_overlong_line(stream: Stream, long_bytes: usize, tail: &str) -> Option<String> {
    let name = "2026/05/01/a.jsonl";
    let runs = ["a", "b", "c", "d"];
    let mut files = Stream::ALL.map(|of| {
        let lines = runs.map(|run| match of {
            Stream::Scored => scored(run, "accepted"),
            Stream::Evidence => evidence(run, run),
        });
        (of, lines.concat() + tail)
    });
    let files_of = |files: &[(Stream, String); 2]| {
        let [scored, evidence] = files.clone().map(|(_, text)| Some(text.into_bytes()));
        Pairs::from([(name.to_owned(), (scored, evidence))])
    };
    let expected = naive_batch(&files_of(&files), false).rows;
    for (of, text) in &mut files {
        if *of == stream {
            let second = text.find('\n').unwrap() + 1;
            text.insert_str(second, &format!("\"{}\"\n", "x".repeat(long_bytes - 2)));
        }
    }
    let disk = SimDisk::new();
    put(&disk, &files_of(&files));
    let setup = Setup {
        limits: LineLimits {
            line_bytes_max: 512,
        },
        ..setup(&disk)
    };
    let rebuilt = match rebuild(
        &setup,
        DROP_MISSING,
        &AtomicBool::new(false),
        &mut |_, _, _| {},
    ) {
        Ok(rebuilt) => rebuilt,
        Err(error) => return Some(error.to_string()),
    };
    let rows = rows(&disk);
    (rows != expected || rebuilt.passed_over > 0).then(|| {
        format!(
            "{} rows of {}, {} skipped",
            rows.len(),
            expected.len(),
            rebuilt.passed_over
        )
    })
}

#[test]
fn lines_after_an_overlong_one_are_rebuilt_as_if_it_did_not_exist() {
    let mut wrong = Vec::new();
    for stream in Stream::ALL {
        // Within a window of bytes, within a chunk, across two chunks and across more.
        for long_bytes in [600, 300 << 10, 5 << 20, 9 << 20] {
            for tail in ["", "{\"torn\":"] {
                if let Some(fault) = fault_after_an_overlong_line(stream, long_bytes, tail) {
                    wrong.push(format!("{stream:?} {long_bytes} bytes, {tail:?}: {fault}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong: {wrong:#?}", wrong.len());
}

/// Asserts that the export is the old or the new one, and that an engine has nothing to add to it.
fn check_after_crash(disk: &SimDisk, old: &[u8], fresh: &[u8], when: &str) -> bool {
    run(disk).unwrap_or_else(|error| panic!("{when}: {error}"));
    let export = disk.read(EXPORT).unwrap_or_default();
    let is_fresh = export == fresh;
    assert!(
        is_fresh || export == old,
        "{when}: {}",
        String::from_utf8_lossy(&export)
    );
    for left in [
        "/lake/data/distilled/sft/.sft_export.jsonl.rebuilding".to_owned(),
        format!("{STATE_DIR}/swap-rebuilt"),
        format!("{STATE_DIR}/rebuilding/state.redb"),
        format!("{STATE_DIR}/rebuilding/journal"),
    ] {
        assert!(disk.read(&left).is_none(), "{when}: {left} is left");
    }
    // The replaced export is kept, and an export that was not replaced has no second name to which rows are appended.
    match disk.read(KEPT) {
        Some(kept) => assert!(is_fresh || !shares_file(disk), "{when}: {kept:?}"),
        None => assert!(!is_fresh, "{when}: the old export is lost"),
    }
    if is_fresh {
        assert_eq!(disk.read(KEPT).as_deref(), Some(old), "{when}");
    }
    is_fresh
}

fn shares_file(disk: &SimDisk) -> bool {
    let inode = |path: &str| disk.stat(Path::new(path)).unwrap().inode;
    inode(KEPT) == inode(EXPORT)
}

#[test]
fn a_crash_at_any_call_leaves_the_old_export_or_the_new_one() {
    crash_at_any_call(&lake_with_history());
}

#[test]
fn without_second_names_a_crash_leaves_the_old_export_or_the_new_one() {
    let base = lake_with_history();
    base.refuse_links();
    crash_at_any_call(&base);
}

fn crash_at_any_call(base: &SimDisk) {
    let old = base.read(EXPORT).unwrap();
    let whole = base.fork();
    let first = whole.calls();
    rebuild_on(&whole);
    let fresh = whole.read(EXPORT).unwrap();
    let calls = whole.calls() - first;
    let swap = whole
        .call_log(first)
        .iter()
        .position(|call| call.contains("swap-rebuilt"))
        .unwrap() as u64;
    assert!((10..calls).contains(&swap), "{swap} of {calls}");
    let mut fresh_found = 0;
    for call in 0..calls {
        let disk = base.fork();
        disk.crash_at(call);
        try_rebuild(&disk, DROP_MISSING).unwrap_err();
        for fate in Fate::ALL {
            // The swap has few steps: each is torn in more ways.
            let seeds = if fate == Fate::Torn && call >= swap {
                16
            } else {
                1
            };
            for seed in 0..seeds {
                let when = format!("call {call} of {calls}, {fate:?}, seed {seed}");
                let after = disk.power_cut(seed, fate);
                let is_fresh = check_after_crash(&after, &old, &fresh, &when);
                assert!(
                    call >= swap || !is_fresh,
                    "{when}: swapped before the marker"
                );
                fresh_found += u64::from(is_fresh);
            }
        }
    }
    assert!(fresh_found > 0);
}

#[test]
fn a_swap_interrupted_by_a_crash_is_finished_by_the_next_start() {
    let base = lake_with_history();
    let old = base.read(EXPORT).unwrap();
    let whole = base.fork();
    let first = whole.calls();
    rebuild_on(&whole);
    let fresh = whole.read(EXPORT).unwrap();
    let log = whole.call_log(first);
    let marked = log
        .iter()
        .position(|call| call.contains("swap-rebuilt"))
        .unwrap() as u64
        + 2;
    for call in marked..log.len() as u64 {
        let disk = base.fork();
        disk.crash_at(call);
        try_rebuild(&disk, DROP_MISSING).unwrap_err();
        let once = disk.power_cut(call, Fate::Torn);
        let counted = once.fork();
        let before = counted.calls();
        drop(Engine::open(setup(&counted)).unwrap());
        for second in 0..counted.calls() - before {
            for seed in 0..4 {
                let twice = once.fork();
                twice.crash_at(second);
                let _died = Engine::open(setup(&twice)).map(drop);
                let after = twice.power_cut(seed, Fate::Torn);
                let when = format!("call {call}, then {second}, seed {seed}");
                assert!(check_after_crash(&after, &old, &fresh, &when), "{when}");
            }
        }
    }
}

/// An error that occurs once must not look like a source that is gone.
#[test]
fn an_error_of_any_read_drops_no_row() {
    let base = lake_with_history();
    let old = base.read(EXPORT).unwrap();
    let whole = base.fork();
    let first = whole.read_calls();
    rebuild_on(&whole);
    let fresh = whole.read(EXPORT).unwrap();
    let mut refused = 0;
    for call in 0..whole.read_calls() - first {
        let disk = base.fork();
        disk.fail_read_call_at(
            call,
            Fault {
                errno: EIO,
                persistent: false,
                partly: Partly::Nothing,
            },
        );
        let result = try_rebuild(&disk, DROP_MISSING);
        let failed = disk.failed_read_call().unwrap_or_default();
        let expected = match &result {
            Ok(_) => &fresh,
            Err(_) => &old,
        };
        refused += u64::from(matches!(result, Err(RebuildError::WouldDrop(..))));
        let export = disk.read(EXPORT).unwrap();
        // After the swap only its end can fail; the next start completes it.
        let is_complete = &export == expected || result.is_err() && export == fresh;
        assert!(is_complete, "call {call}, {failed}: {result:?}");
        disk.heal();
        run(&disk).unwrap();
    }
    assert!(refused > 0);
}

#[test]
fn a_crash_while_a_state_is_renewed_leaves_every_row_at_its_offset() {
    let base = lake_with_history();
    let old = base.read(EXPORT).unwrap();
    let whole = base.fork();
    let first = whole.calls();
    rebuild_state(&setup(&whole), &mut |_, _, _| {}).unwrap();
    assert_eq!(whole.read(EXPORT).as_ref(), Some(&old));
    let calls = whole.calls() - first;
    run(&whole).unwrap();
    let caught_up = whole.read(EXPORT).unwrap();
    assert!(caught_up.starts_with(&old));
    for call in 0..calls {
        let disk = base.fork();
        disk.crash_at(call);
        // The last calls close the state, which reports no error.
        let _died = rebuild_state(&setup(&disk), &mut |_, _, _| {});
        assert!(disk.is_dead(), "call {call}");
        for fate in Fate::ALL {
            let when = format!("call {call} of {calls}, {fate:?}");
            let after = disk.power_cut(call, fate);
            assert_eq!(after.read(EXPORT).as_ref(), Some(&old), "{when}");
            run(&after).unwrap_or_else(|error| panic!("{when}: {error}"));
            let rows = after.read(EXPORT).unwrap();
            assert!(rows == caught_up || rows == old, "{when}");
        }
    }
}

#[test]
fn a_rebuild_stopped_at_any_step_changes_nothing() {
    let base = lake_with_history();
    let old = base.read(EXPORT).unwrap();
    let whole = base.fork();
    let mut steps = 0;
    let mut count = |_, _, _| steps += 1;
    rebuild(
        &setup(&whole),
        DROP_MISSING,
        &AtomicBool::new(false),
        &mut count,
    )
    .unwrap();
    assert!(steps >= 3, "{steps}");
    for stop in 0..steps {
        let disk = base.fork();
        let mut step = 0;
        let stop_flag = AtomicBool::new(false);
        let stopped = rebuild(&setup(&disk), DROP_MISSING, &stop_flag, &mut |_, _, _| {
            stop_flag.store(step == stop, Ordering::SeqCst);
            step += 1;
        });
        assert!(matches!(stopped, Err(RebuildError::Stopped)), "{stopped:?}");
        for gone in [
            "/lake/data/distilled/sft/.sft_export.jsonl.rebuilding",
            "/lake/data/distilled/.distilld/rebuilding/journal",
            "/lake/data/distilled/.distilld/rebuilding/state.redb",
        ] {
            assert_eq!(disk.read(gone), None, "step {stop}");
        }
        run(&disk).unwrap();
        assert_eq!(disk.read(EXPORT).as_ref(), Some(&old), "step {stop}");
        rebuild_on(&disk);
        assert_eq!(disk.read(EXPORT), whole.read(EXPORT), "step {stop}");
    }
}

#[test]
fn a_rebuild_syncs_its_journal_per_batch_and_not_per_pair() {
    let disk = SimDisk::new();
    for pair in 0..50 {
        let path = format!("2026/05/01/{pair:02}.jsonl");
        disk.append_durable(
            source("scored-runs", &path),
            scored("r", "accepted").as_bytes(),
        );
        disk.append_durable(source("evidence", &path), evidence("r", "text").as_bytes());
    }
    let first = disk.calls();
    assert_eq!(rebuild_on(&disk).rows_after, 50);
    let log = disk.call_log(first);
    let syncs = log
        .iter()
        .filter(|call| call.contains("sync") && call.contains("rebuilding/journal"));
    assert!((1..5).contains(&syncs.count()), "{log:#?}");
}

fn distilld(root: &Path, command: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_distilld"))
        .arg("--root")
        .arg(root)
        .args(command)
        .output()
        .unwrap()
}

#[test]
fn the_command_prints_the_changes_and_the_daemon_continues() {
    let root = tempfile::tempdir().unwrap();
    let day = |stream: &str| root.path().join("data").join(stream).join("2026/05/01");
    for stream in ["scored-runs", "evidence"] {
        fs::create_dir_all(day(stream)).unwrap();
    }
    let export = root.path().join("data/distilled/sft/sft_export.jsonl");
    fs::write(day("evidence").join("n.jsonl"), evidence("r", "t")).unwrap();
    fs::write(day("scored-runs").join("n.jsonl"), scored("r", "accepted")).unwrap();
    assert!(distilld(root.path(), &["run", "--once"]).status.success());
    fs::write(day("scored-runs").join("n.jsonl"), scored("r", "rejected")).unwrap();

    let refused = distilld(root.path(), &["rebuild"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let printed = distilld(root.path(), &["rebuild", "--drop-missing"]);
    assert!(printed.status.success(), "{printed:?}");
    let result: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(
        (
            &result["rows_before"],
            &result["rows_after"],
            &result["rows_dropped"]
        ),
        (&1.into(), &0.into(), &1.into())
    );
    assert!(distilld(root.path(), &["run", "--once"]).status.success());
    assert_eq!(fs::read(&export).unwrap(), b"");

    let elsewhere = root.path().join("other-state");
    let refused = distilld(
        root.path(),
        &["rebuild", "--state-dir", elsewhere.to_str().unwrap()],
    );
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("use `--state-dir"));
}
