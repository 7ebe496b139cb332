//! Day-files that are moved to other days, one by one, by the day, in circles: each line keeps its one row, wherever
//! its day-file is, and gets one if it had none.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use distilld::lake::path::PairPath;
use distilld::platform::storage::{OsStorage, Storage as _};
use fastrand::Rng;

use crate::support::bench::{Bench, EXPORT, ROOT};
use crate::support::lake_gen::Stream;
use crate::support::naive::compare::multiset_difference;
use crate::support::naive::{naive_batch, read_pairs};
use crate::support::process::{Bench as ProcessBench, evidence_with, scored, scored_as};
use crate::support::sim_disk::{Fate, SimDisk};

const CASES: u64 = 300;
const NAMES: [&str; 2] = ["a.jsonl", "b.jsonl"];
/// The last day is initially free.
const DAYS: u32 = 6;

/// The new day of each day-file, by name and day.
type Moves = BTreeMap<(&'static str, u32), u32>;

fn pair(name: &str, day: u32) -> String {
    format!("2026/01/{day:02}/{name}")
}

fn enqueue(bench: &mut Bench, pair: &str) {
    let path = PairPath::from_relative(Path::new(pair)).unwrap();
    bench.engine.as_mut().unwrap().enqueue(path);
}

/// Appends a few lines to both day-files of a pair, some of which earn no row, or none yet. Some runs have the same
/// name on several days.
fn append_some(rng: &mut Rng, bench: &mut Bench, pair: &str, n: &mut u32) {
    for _ in 0..rng.u32(1..5) {
        *n += 1;
        let run = match rng.u8(..6) {
            0 => "again".to_owned(),
            _ => format!("run {n}"),
        };
        let line = match rng.u8(..8) {
            0 => scored_as(&run, "rejected"),
            1 => "{\n".to_owned(),
            _ => scored(&run),
        };
        let path = |stream: Stream| stream.path(Path::new(ROOT), pair);
        bench
            .disk
            .append_durable(path(Stream::Scored), line.as_bytes());
        if rng.u8(..8) > 0 && run != "again" {
            let text = evidence_with(&run, &format!("answer {n}"));
            bench
                .disk
                .append_durable(path(Stream::Evidence), text.as_bytes());
        }
    }
    enqueue(bench, pair);
}

/// Swaps some day-files of each name, or moves them to free days.
fn random_moves(rng: &mut Rng) -> Moves {
    let mut moves = Moves::new();
    for name in NAMES {
        let mut to: Vec<u32> = (1..=DAYS).collect();
        match rng.u8(..4) {
            0 => to.rotate_left(1),
            1 => to.rotate_right(1),
            2 => to.swap(0, 1),
            _ => rng.shuffle(&mut to),
        }
        moves.extend((1..=DAYS).map(|day| ((name, day), to[day as usize - 1])));
    }
    moves
}

fn place(stream: Stream, name: &str, day: u32) -> PathBuf {
    stream.path(Path::new(ROOT), &pair(name, day))
}

/// Returns the temporary path of a day-file outside the lake, until its new place is free.
fn aside(stream: Stream, name: &str, day: u32) -> PathBuf {
    let stream = if stream == Stream::Scored { "s" } else { "e" };
    Path::new(ROOT).join(format!("aside/{stream}/{day}/{name}"))
}

fn move_if_there(disk: &SimDisk, from: &Path, to: &Path) {
    if disk.read(from).is_some() {
        disk.move_file(from, to);
        for changed in [from, to] {
            disk.sync_dir(changed.parent().unwrap()).unwrap();
        }
        disk.settle(to);
    }
}

/// Carries out the moves; `between` is called after each one.
fn carry_out(bench: &mut Bench, moves: &Moves, mut between: impl FnMut(&mut Bench)) {
    for out in [true, false] {
        for (&(name, day), &to) in moves {
            for stream in Stream::BOTH {
                let (place, aside) = (|day| place(stream, name, day), aside(stream, name, day));
                if out {
                    move_if_there(&bench.disk, &place(day), &aside);
                } else {
                    move_if_there(&bench.disk, &aside, &place(to));
                }
                between(bench);
            }
        }
    }
}

fn touch_all(bench: &mut Bench) {
    for name in NAMES {
        for day in 1..=DAYS {
            enqueue(bench, &pair(name, day));
        }
    }
}

fn fault(bench: &Bench) -> Option<String> {
    let naive = naive_batch(&read_pairs(&bench.disk, Path::new(ROOT)).unwrap(), false);
    let export = bench.disk.read(EXPORT).unwrap_or_default();
    multiset_difference(&export, &naive.rows).or_else(|| bench.count_fault(&naive.counts))
}

fn lake(rng: &mut Rng, n: &mut u32) -> Bench {
    let mut bench = Bench::new(SimDisk::new());
    bench.disk.set_inode_reuse(rng.bool());
    if rng.bool() {
        bench.commit_in_background();
    }
    bench.open().unwrap();
    for name in NAMES {
        for day in 1..DAYS {
            append_some(rng, &mut bench, &pair(name, day), n);
        }
    }
    bench.quiet().unwrap();
    bench.read_export().unwrap();
    bench
}

#[test]
fn moved_day_files_leave_one_row_per_line() {
    for seed in 0..CASES {
        let (mut rng, mut n) = (Rng::with_seed(seed), 0);
        let mut bench = lake(&mut rng, &mut n);
        for round in 0..3 {
            if rng.bool() {
                bench.engine.as_mut().unwrap().checkpoint().unwrap();
            }
            let read_between = rng.u8(..4) == 0;
            let moves = random_moves(&mut rng);
            carry_out(&mut bench, &moves, |bench| {
                if read_between && rng.u8(..4) == 0 {
                    touch_all(bench);
                    bench.catch_up().unwrap();
                }
            });
            match rng.u8(..3) {
                0 => drop(bench.open().unwrap()),
                1 => bench.scan().unwrap(),
                _ => touch_all(&mut bench),
            }
            if rng.bool() {
                let target = pair(NAMES[0], rng.u32(1..=DAYS));
                append_some(&mut rng, &mut bench, &target, &mut n);
            }
            bench.quiet().unwrap();
            bench.read_export().unwrap();
            let what = format!("seed {seed}, round {round}, {moves:?}");
            assert_eq!(fault(&bench), None, "{what}");
        }
    }
}

/// Lets the work that `prepared` leaves crash at each of its calls, and each fate of what was not durable be found by another
/// process. `check` gets each result, and that of the work without a crash.
fn crash_at_each_call(seed: u64, prepared: impl Fn() -> Bench, check: impl Fn(&Bench, &str)) {
    for call in 0.. {
        let mut bench = prepared();
        touch_all(&mut bench);
        bench.disk.crash_at(call);
        _ = bench.quiet();
        _ = bench.read_export();
        if !bench.disk.is_dead() {
            check(&bench, &format!("seed {seed}, no crash"));
            assert!(call > 30, "seed {seed}: only {call} calls");
            return;
        }
        for fate in Fate::ALL {
            let mut found = Bench::new(bench.disk.power_cut(seed ^ call, fate));
            found.seen = bench.seen.clone();
            found.open().unwrap();
            touch_all(&mut found);
            found.quiet().unwrap();
            found.read_export().unwrap();
            check(
                &found,
                &format!("seed {seed}, crash at call {call}, {fate:?}"),
            );
        }
    }
}

#[test]
fn a_crash_at_any_call_after_a_move_duplicates_no_row() {
    for seed in 0..3 {
        let moved = || {
            let (mut rng, mut n) = (Rng::with_seed(seed), 0);
            let mut bench = lake(&mut rng, &mut n);
            bench.engine.as_mut().unwrap().checkpoint().unwrap();
            carry_out(&mut bench, &random_moves(&mut rng), |_| {});
            bench
        };
        crash_at_each_call(seed, moved, |found, what| {
            assert_eq!(fault(found), None, "{what}")
        });
    }
}

/// Takes the first line out of a day-file in place, so that the lines after it have other numbers than in their rows' ids.
fn cut_first_line(disk: &SimDisk, path: &Path) {
    let bytes = disk.read(path).unwrap_or_default();
    if let Some(at) = bytes.iter().position(|byte| *byte == b'\n') {
        disk.truncate(path, 0);
        disk.append_durable(path, &bytes[at + 1..]);
    }
}

/// A lake with one day-file, whose lines all have rows.
fn lake_with_rows(rng: &mut Rng) -> Bench {
    let mut bench = Bench::new(SimDisk::new());
    bench.open().unwrap();
    for n in 0..rng.u32(2..6) {
        let path = |stream: Stream| stream.path(Path::new(ROOT), &pair("a.jsonl", 1));
        let (line, text) = (
            scored(&format!("run {n}")),
            evidence_with(&format!("run {n}"), "answer"),
        );
        bench
            .disk
            .append_durable(path(Stream::Scored), line.as_bytes());
        bench
            .disk
            .append_durable(path(Stream::Evidence), text.as_bytes());
    }
    enqueue(&mut bench, &pair("a.jsonl", 1));
    bench.quiet().unwrap();
    bench
}

/// Shortens the day-file or moves it to another day, with its evidence or without it. Returns its day.
fn shorten_or_move(rng: &mut Rng, disk: &SimDisk, day: u32) -> u32 {
    if rng.u8(..3) == 0 {
        cut_first_line(disk, &place(Stream::Scored, "a.jsonl", day));
        return day;
    }
    let to = rng.u32(1..=3);
    move_if_there(
        disk,
        &place(Stream::Scored, "a.jsonl", day),
        &place(Stream::Scored, "a.jsonl", to),
    );
    if rng.bool() {
        let evidence_day = (1..=3).find(|day| {
            disk.read(place(Stream::Evidence, "a.jsonl", *day))
                .is_some()
        });
        let from = place(Stream::Evidence, "a.jsonl", evidence_day.unwrap());
        move_if_there(disk, &from, &place(Stream::Evidence, "a.jsonl", to));
    }
    to
}

fn run_with_two_rows(bench: &Bench) -> Option<String> {
    let export = bench.disk.read(EXPORT).unwrap_or_default();
    let mut seen = BTreeSet::new();
    let mut runs = export
        .split(|byte| *byte == b'\n')
        .filter(|row| !row.is_empty())
        .map(|row| {
            let row: serde_json::Value = serde_json::from_slice(row).unwrap();
            row["source_run_id"].as_str().unwrap().to_owned()
        });
    runs.find(|run| !seen.insert(run.clone()))
}

#[test]
fn a_shortened_day_file_keeps_its_rows_wherever_it_is_moved() {
    for seed in 0..CASES {
        let mut rng = Rng::with_seed(seed);
        let mut bench = lake_with_rows(&mut rng);
        let mut day = 1;
        for step in 0..8 {
            day = shorten_or_move(&mut rng, &bench.disk, day);
            match rng.u8(..4) {
                0 => drop(bench.open().unwrap()),
                1 => bench.engine.as_mut().unwrap().checkpoint().unwrap(),
                _ => {}
            }
            touch_all(&mut bench);
            bench.quiet().unwrap();
            assert_eq!(run_with_two_rows(&bench), None, "seed {seed}, step {step}");
        }
    }
}

/// Takes the first lines out of some day-files, and lets the daemon read them.
fn shorten_some(rng: &mut Rng, bench: &mut Bench) {
    for name in NAMES {
        for day in (1..=DAYS).filter(|_| rng.bool()) {
            cut_first_line(&bench.disk, &place(Stream::Scored, name, day));
        }
    }
    touch_all(bench);
    bench.quiet().unwrap();
}

#[test]
fn shortened_day_files_that_exchange_their_days_keep_their_rows() {
    for seed in 0..CASES {
        let (mut rng, mut n) = (Rng::with_seed(seed), 0);
        let mut bench = lake(&mut rng, &mut n);
        for round in 0..3 {
            shorten_some(&mut rng, &mut bench);
            let moves = random_moves(&mut rng);
            carry_out(&mut bench, &moves, |_| {});
            match rng.u8(..3) {
                0 => drop(bench.open().unwrap()),
                1 => bench.scan().unwrap(),
                _ => touch_all(&mut bench),
            }
            bench.quiet().unwrap();
            let what = format!("seed {seed}, round {round}, {moves:?}");
            assert_eq!(run_with_two_rows(&bench), None, "{what}");
        }
    }
}

#[test]
fn a_crash_at_any_call_after_shortened_day_files_exchange_their_days_duplicates_no_row() {
    for seed in 0..3 {
        let exchanged = || {
            let (mut rng, mut n) = (Rng::with_seed(seed), 0);
            let mut bench = lake(&mut rng, &mut n);
            shorten_some(&mut rng, &mut bench);
            carry_out(&mut bench, &random_moves(&mut rng), |_| {});
            bench
        };
        crash_at_each_call(seed, exchanged, |found, what| {
            assert_eq!(run_with_two_rows(found), None, "{what}");
        });
    }
}

#[test]
fn a_plan_of_shortened_days_that_were_exchanged_claims_their_rows() {
    let bench = ProcessBench::new();
    for day in 1..=3 {
        let day_file = pair("a.jsonl", day);
        for n in 0..3 {
            bench.append_run(&day_file, &format!("{n} of day {day}"));
        }
    }
    bench.once();
    let rows = bench.export_bytes();
    let place = |stream: Stream, day: u32| bench.path(stream, &pair("a.jsonl", day));
    for day in 1..=2 {
        let lines = [1, 2].map(|n| scored(&format!("{n} of day {day}")));
        std::fs::write(place(Stream::Scored, day), lines.concat()).unwrap();
    }
    bench.once();
    for stream in Stream::BOTH {
        let aside = bench.sibling("aside");
        std::fs::rename(place(stream, 1), &aside).unwrap();
        std::fs::rename(place(stream, 2), place(stream, 1)).unwrap();
        std::fs::rename(place(stream, 3), place(stream, 2)).unwrap();
        std::fs::rename(&aside, place(stream, 3)).unwrap();
    }
    let planned = bench.ask(&["plan", "--json"]);
    let total = &planned["total"];
    assert_eq!(
        (&total["rows"], &total["claimed"], &total["lines"]),
        (&0.into(), &7.into(), &0.into()),
        "{planned}"
    );
    bench.once();
    assert!(bench.export_bytes() == rows);
    bench.run(&mut bench.command(&["verify"])).check(0, &[]);
}

/// Its lines waited on the other day, without their evidence.
#[test]
fn a_crash_while_a_shortened_day_file_is_moved_back_duplicates_no_row() {
    let rows = lake_with_rows(&mut Rng::with_seed(0)).disk.read(EXPORT);
    let moved_back = || {
        let mut bench = lake_with_rows(&mut Rng::with_seed(0));
        let [here, there] = [1, 2].map(|day| place(Stream::Scored, "a.jsonl", day));
        cut_first_line(&bench.disk, &here);
        touch_all(&mut bench);
        bench.quiet().unwrap();
        move_if_there(&bench.disk, &here, &there);
        touch_all(&mut bench);
        bench.quiet().unwrap();
        move_if_there(&bench.disk, &there, &here);
        bench
    };
    crash_at_each_call(0, moved_back, |found, what| {
        assert!(found.disk.read(EXPORT) == rows, "{what}");
    });
}

#[test]
fn a_plan_of_a_day_file_that_is_moved_back_claims_its_rows() {
    let bench = ProcessBench::new();
    let [here, there] = [1, 2].map(|day| bench.path(Stream::Scored, &pair("a.jsonl", day)));
    bench.append_run(&pair("a.jsonl", 1), "first");
    bench.append_run(&pair("a.jsonl", 1), "second");
    bench.once();
    std::fs::write(&here, scored("second")).unwrap();
    bench.once();
    std::fs::create_dir_all(there.parent().unwrap()).unwrap();
    std::fs::rename(&here, &there).unwrap();
    bench.once();
    std::fs::rename(&there, &here).unwrap();
    let planned = bench.ask(&["plan", "--json"]);
    assert_eq!(
        (&planned["total"]["rows"], &planned["total"]["claimed"]),
        (&0.into(), &1.into())
    );
    bench.once();
    assert_eq!(bench.runs(), ["first", "second"]);
}

#[test]
fn a_second_name_of_a_day_file_is_a_second_day_file() {
    let bench = ProcessBench::new();
    let [first, second] = [pair("a.jsonl", 1), pair("a.jsonl", 2)];
    bench.append_run(&first, "a");
    bench.once();
    for stream in Stream::BOTH {
        let to = bench.path(stream, &second);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::hard_link(bench.path(stream, &first), to).unwrap();
    }
    bench.once();
    assert_eq!(bench.row_count(), 2);
    bench.assert_batch();
}

#[test]
fn what_is_counted_moves_with_a_day() {
    let bench = ProcessBench::new();
    bench.append_run(&pair("a.jsonl", 1), "a");
    for stream in Stream::BOTH {
        bench.append(stream, &pair("a.jsonl", 1), "{\n");
    }
    let counted = || {
        let letters = bench.run(&mut bench.command(&["dead-letters"])).stdout;
        let status = bench.ask(&["status", "--json"]);
        let of = |stream: &str| status[stream].clone();
        (of("scored"), of("evidence"), letters.lines().count())
    };
    bench.once();
    let before = counted();
    assert_eq!(before.1["lines"], 2);
    for stream in Stream::BOTH {
        let [from, to] = [1, 2].map(|day| bench.path(stream, &format!("2026/01/{day:02}")));
        std::fs::rename(from, to).unwrap();
    }
    bench.once();
    assert_eq!(counted(), before);
}

#[test]
fn a_renamed_day_keeps_its_rows_with_and_without_a_daemon() {
    let bench = ProcessBench::new();
    let day = |day: u32| format!("2026/01/{day:02}");
    let rename = |from: u32, to: u32| {
        for stream in Stream::BOTH {
            let (from, to) = (bench.path(stream, &day(from)), bench.path(stream, &day(to)));
            std::fs::rename(from, to).unwrap();
        }
    };
    for name in NAMES {
        bench.append_run(&pair(name, 1), &format!("first in {name}"));
        bench.append(
            Stream::Scored,
            &pair(name, 1),
            scored(&format!("waits in {name}")),
        );
    }
    let mut daemon = bench.start_caught_up();
    bench.wait_rows(&mut daemon, 2);
    rename(1, 2);
    bench.append_run(&pair("a.jsonl", 2), "second");
    bench.wait_run(&mut daemon, "second");
    bench.wait_for(&mut daemon, "the account follows", || {
        let status = bench.status();
        (
            status["scored"]["exported"].as_u64(),
            status["scored"]["waiting"].as_u64(),
        ) == (Some(3), Some(2))
    });
    let log = bench.log_text();
    let reports = log
        .lines()
        .filter(|line| line.contains("moved to another day"));
    let counts = reports.map(|line| {
        line.split_once(" day_files=").unwrap().1[..1]
            .parse::<u32>()
            .unwrap()
    });
    assert_eq!(counts.sum::<u32>(), 2, "{log}");
    bench.stop(daemon);
    rename(2, 3);
    let planned = bench.ask(&["plan", "--json"]);
    assert_eq!(
        (&planned["total"]["rows"], &planned["total"]["claimed"]),
        (&0.into(), &3.into())
    );
    assert_eq!(planned["total"]["lines"], 0);
    bench.once();
    assert_eq!(bench.row_count(), 3);
    bench.assert_batch();
    assert_eq!(read_pairs(&OsStorage, &bench.root()).unwrap().len(), 2);
}
