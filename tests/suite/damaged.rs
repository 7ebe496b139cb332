//! A flipped bit anywhere in the state, met by any thread: it is reported as damage, never as a failed disk, and the
//! second start at the latest makes the state again. An error of the disk is never reported as damage.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use distilld::engine::EngineError;
use distilld::store::state::error::StateError;
use fastrand::Rng;

use crate::support::bench::{self, EXPORT, STATE_DIR};
use crate::support::lake_gen::{Step, Stream, pairs_of};
use crate::support::naive::{multiset_difference, naive_batch};
use crate::support::process::{Bench, evidence, scored};
use crate::support::sim_disk::{EIO, Fault, SimDisk};

/// Day-files, so that several threads read the state at the same time.
const PAIRS: u32 = 16;
/// Runs of each day-file in the state, in a block of the index of their own.
const RUNS: u32 = 120;
/// New runs of each day-file that are looked up in a damaged state.
const NEW_RUNS: u32 = 4;
const BLOCK_BYTES: usize = 4_096;
/// Flipped bits under the real process.
const PROCESS_FLIPS: usize = 10;

fn pair(number: u32) -> String {
    format!("2026/01/01/n{number}.jsonl")
}

/// Returns the lines of some runs of a day-file, scored and evidence.
fn lines(number: u32, runs: std::ops::Range<u32>) -> [(Stream, String); 2] {
    let names = || runs.clone().map(|run| format!("run {number} {run}"));
    [
        (
            Stream::Evidence,
            names().map(|run| evidence(&run)).collect(),
        ),
        (Stream::Scored, names().map(|run| scored(&run)).collect()),
    ]
}

fn state_path() -> PathBuf {
    Path::new(STATE_DIR).join("state.redb")
}

/// Appends runs to all day-files of a simulated lake.
fn append(disk: &SimDisk, runs: std::ops::Range<u32>) {
    for number in 0..PAIRS {
        for (stream, bytes) in lines(number, runs.clone()) {
            let path = stream.path(Path::new(bench::ROOT), &pair(number));
            disk.append_durable(path, bytes.as_bytes());
        }
    }
}

/// Returns a simulated lake with a state that has its first runs, and the batch of it with the new runs.
fn simulated_lake() -> (SimDisk, Vec<String>) {
    let mut bench = bench::Bench::new(SimDisk::new());
    append(&bench.disk, 0..RUNS);
    bench.open().unwrap();
    bench.quiet().unwrap();
    bench.engine.as_mut().unwrap().checkpoint().unwrap();
    bench.engine = None;
    append(&bench.disk, RUNS..RUNS + NEW_RUNS);
    let steps: Vec<Step> = (0..PAIRS)
        .flat_map(|number| {
            lines(number, 0..RUNS + NEW_RUNS).map(|(stream, bytes)| Step::Append {
                stream,
                pair: pair(number),
                bytes: bytes.into_bytes(),
            })
        })
        .collect();
    let naive = naive_batch(&pairs_of(&steps), false);
    (bench.disk, naive.rows)
}

/// Starts an engine with many threads, and lets it read everything.
fn start(disk: &SimDisk) -> Result<(), EngineError> {
    let mut bench = bench::Bench::new(disk.clone());
    bench.threads = 8;
    bench.open()?;
    bench.quiet()
}

#[test]
fn a_flipped_bit_in_any_block_is_damage_for_every_thread_and_healed_by_the_second_start() {
    let (lake, rows) = simulated_lake();
    let sound = lake.read(state_path()).unwrap();
    let mut rng = Rng::with_seed(7);
    let mut met = 0;
    for block in 0..sound.len() / BLOCK_BYTES {
        let disk = lake.fork();
        let at = block * BLOCK_BYTES + rng.usize(..BLOCK_BYTES);
        let mut flipped = sound.clone();
        flipped[at] ^= 1 << rng.u8(..8);
        disk.write_file(state_path(), &flipped);
        if let Err(error) = start(&disk) {
            let is_damage = matches!(error, EngineError::State(StateError::Damaged(_)));
            assert!(is_damage, "byte {at}: {error}");
            met += 1;
            // As the process does before it ends.
            disk.write_file(Path::new(STATE_DIR).join("distrusted"), b"");
            start(&disk).unwrap_or_else(|error| panic!("byte {at}, second start: {error}"));
        }
        let export = disk.read(EXPORT).unwrap();
        assert_eq!(multiset_difference(&export, &rows), None, "byte {at}");
    }
    assert!(met > 10, "only {met} flipped bits were met after the start");
}

/// Errors of reads in any thread: the disk is reported, the state stays, and a retry continues.
#[test]
fn an_error_of_the_disk_is_never_damage() {
    let (lake, rows) = simulated_lake();
    let calls = lake.fork();
    start(&calls).unwrap();
    let calls = calls.read_calls() - lake.read_calls();
    let mut failed = 0;
    for n in (0..calls).step_by(7) {
        let disk = lake.fork();
        let fault = match n % 2 {
            0 => Fault::once(EIO),
            _ => Fault::until_healed(EIO),
        };
        disk.fail_read_call_at(n, fault);
        if let Err(error) = start(&disk) {
            let is_damage = matches!(error, EngineError::State(StateError::Damaged(_)));
            assert!(!is_damage, "call {n}: {error}");
            failed += 1;
        }
        disk.heal();
        start(&disk).unwrap_or_else(|error| panic!("call {n}, healed disk: {error}"));
        let export = disk.read(EXPORT).unwrap();
        assert_eq!(multiset_difference(&export, &rows), None, "call {n}");
    }
    assert!(failed > 10, "only {failed} errors reached a caller");
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn a_process_that_meets_a_flipped_bit_says_so_and_the_second_one_heals_it() {
    let bench = Bench::new();
    let append = |runs: std::ops::Range<u32>| {
        for number in 0..PAIRS {
            for (stream, bytes) in lines(number, runs.clone()) {
                bench.append(stream, &pair(number), bytes);
            }
        }
    };
    append(0..RUNS);
    bench.once();
    let [state, export] = [
        bench.state_dir(),
        bench.export().parent().unwrap().to_owned(),
    ];
    copy_dir(&state, &bench.sibling("state"));
    copy_dir(&export, &bench.sibling("export"));
    append(RUNS..RUNS + NEW_RUNS);
    let sound = fs::read(state.join("state.redb")).unwrap();
    let mut rng = Rng::new();
    for _ in 0..PROCESS_FLIPS {
        copy_dir(&bench.sibling("state"), &state);
        copy_dir(&bench.sibling("export"), &export);
        _ = fs::remove_file(state.join("distrusted"));
        let at = rng.usize(..sound.len());
        let mut flipped = sound.clone();
        flipped[at] ^= 1;
        fs::write(state.join("state.redb"), flipped).unwrap();
        let first = bench.run(&mut bench.command(&["run", "--once"]));
        if !first.status.success() {
            first.check(1, &["the state is unreadable", "start `distilld run`"]);
            bench.once().check(0, &["set aside, rebuilding it"]);
        }
        bench.assert_batch();
    }
}

/// Returns a lake with a state of many blocks and a run that waits for its evidence, on which no daemon runs.
fn exported_lake() -> Bench {
    let bench = Bench::new();
    for number in 0..PAIRS {
        for (stream, bytes) in lines(number, 0..RUNS) {
            bench.append(stream, &pair(number), bytes);
        }
    }
    bench.append(Stream::Scored, &pair(0), scored("waiting"));
    bench.once();
    bench
}

/// A query reads the state on a thread of its own, and parts of it that the engine does not need while nothing grows.
#[test]
fn damage_that_a_query_meets_ends_the_daemon_and_the_next_start_heals_it() {
    for (query, answer) in [
        (&["explain", "run 3 7"][..], Some("the state is unreadable")),
        // It is answered without the runs that have waited longest.
        (&["status"], None),
    ] {
        let bench = exported_lake();
        let daemon = bench.start_caught_up();
        let state = bench.state_dir().join("state.redb");
        let bytes = fs::read(&state).unwrap();
        let file = fs::File::options().write(true).open(&state).unwrap();
        for at in (2 * BLOCK_BYTES..bytes.len()).step_by(BLOCK_BYTES) {
            file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
        }
        let asked = bench.run(&mut bench.command(query));
        asked.check(i32::from(answer.is_some()), answer.as_slice());
        bench.wait_end_or_stopped(daemon);
        let log = bench.log_text();
        assert!(log.contains("is not what was written there"), "{log}");
        assert!(!log.contains("disk failed"), "{log}");
        bench.once().check(0, &["set aside, rebuilding it"]);
        bench.run(&mut bench.command(query)).check(0, &[]);
        bench.assert_batch();
    }
}

/// A start reads little of the state, so that it may not meet what a query met. The command that the query names does.
#[test]
fn damage_that_a_query_meets_without_a_daemon_is_mended_by_the_command_that_it_names() {
    const QUERY: [&str; 2] = ["explain", "run 3 7"];
    let bench = exported_lake();
    let state = bench.state_dir();
    copy_dir(&state, &bench.sibling("state"));
    let sound = fs::read(state.join("state.redb")).unwrap();
    let mut met = 0;
    for at in (2 * BLOCK_BYTES..sound.len()).step_by(BLOCK_BYTES) {
        let mut flipped = sound.clone();
        flipped[at] ^= 1;
        fs::write(state.join("state.redb"), flipped).unwrap();
        let started = bench.run(&mut bench.command(&["run", "--once"]));
        let asked = bench.run(&mut bench.command(&QUERY));
        if started.status.success() && !asked.status.success() {
            asked.check(
                1,
                &["the state is unreadable", "`distilld rebuild --state-only`"],
            );
            bench
                .run(&mut bench.command(&["rebuild", "--state-only"]))
                .check(0, &[]);
            bench.once().check(0, &[]);
            bench.run(&mut bench.command(&QUERY)).check(0, &[]);
            bench.assert_batch();
            met += 1;
        }
        copy_dir(&bench.sibling("state"), &state);
        _ = fs::remove_file(state.join("distrusted"));
    }
    assert!(met > 0, "each flipped bit was met at the start");
}
