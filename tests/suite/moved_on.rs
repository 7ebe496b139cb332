//! A day that is renamed again, on to a third day or back, at any moment after the first time: each line keeps its one row,
//! also if later evidence has replaced what the row was made of, and if the process ends at that moment.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use distilld::lake::path::{PairPath, ledger_path};
use distilld::record::row::view;

use crate::support::bench::{Bench, EXPORT, ROOT};
use crate::support::earned::rows_of;
use crate::support::lake_gen::Stream;
use crate::support::ledger::{effective_rows, read_ledger};
use crate::support::process::{evidence_with, scored};
use crate::support::sim_disk::{Fate, SimDisk};

const LINES: usize = 3;
const DAYS: [u32; 3] = [1, 2, 3];

fn pair(day: u32) -> String {
    format!("2026/01/{day:02}/a.jsonl")
}

fn rename(disk: &SimDisk, streams: &[Stream], from: u32, to: u32) {
    for stream in streams {
        let [from, to] = [from, to].map(|day| stream.path(Path::new(ROOT), &pair(day)));
        disk.move_file(&from, &to);
        for changed in [&from, &to] {
            disk.settle_names(changed.parent().unwrap());
        }
        disk.settle(&to);
    }
}

/// Hints at each day, and reads until nothing is left.
fn read_all(bench: &mut Bench) {
    for day in DAYS {
        let path = PairPath::from_relative(Path::new(&pair(day))).unwrap();
        bench.engine.as_mut().unwrap().enqueue(path);
    }
    // The crash that a case asks for ends it.
    _ = bench.quiet();
}

/// Returns the runs of the effective rows.
fn effective_runs(disk: &SimDisk) -> Vec<String> {
    let export = disk.read(EXPORT).unwrap_or_default();
    let ledger = disk
        .read(ledger_path(Path::new(EXPORT)))
        .unwrap_or_default();
    let effective = effective_rows(&export, &read_ledger(&export, &ledger).unwrap());
    let rows = effective.split_inclusive(|byte| *byte == b'\n');
    rows.map(|row| view(row).unwrap().source_run_id.into_owned())
        .collect()
}

/// A variant of the history.
#[derive(Debug, Clone, Copy)]
struct Case {
    /// The day of the second move.
    on_to: u32,
    /// Whether later evidence replaced that of the rows.
    superseded: bool,
    /// Whether the evidence moves too.
    with_evidence: bool,
    /// Whether the process ends at the second move.
    crashes: bool,
    /// Whether the day-file of another day is replaced by the first move.
    replaces: bool,
    /// Whether an operator took the first run out of the day-file.
    ordered: bool,
}

fn write(disk: &SimDisk, stream: Stream, day: u32, text: &str) {
    disk.append_durable(stream.path(Path::new(ROOT), &pair(day)), text.as_bytes());
}

fn lake(case: Case) -> Bench {
    let mut bench = Bench::new(SimDisk::new());
    bench.open().unwrap();
    let others = if case.replaces { LINES } else { 0 };
    let runs = (0..LINES).map(|n| (1, n));
    for (day, n) in runs.chain((0..others).map(|n| (2, LINES + n))) {
        let run = format!("run {n}");
        write(
            &bench.disk,
            Stream::Evidence,
            day,
            &evidence_with(&run, "first"),
        );
        write(&bench.disk, Stream::Scored, day, &scored(&run));
    }
    read_all(&mut bench);
    if case.superseded {
        for n in 0..LINES {
            let text = evidence_with(&format!("run {n}"), "second");
            write(&bench.disk, Stream::Evidence, 1, &text);
        }
        read_all(&mut bench);
    }
    if case.ordered {
        bench.order_in(Some(&pair(1)), &["run 0"], false).unwrap();
    }
    bench.engine.as_mut().unwrap().checkpoint().unwrap();
    bench
}

/// Moves the day at its first place, and again before call `call` of the daemon. Returns whether there was such a call.
fn moves_again(case: Case, call: u64) -> bool {
    let mut bench = lake(case);
    let streams = match case.with_evidence {
        true => &Stream::BOTH[..],
        false => &[Stream::Scored],
    };
    rename(&bench.disk, streams, 1, 2);
    let (disk, calls) = (bench.disk.clone(), Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&calls);
    bench.disk.before_each_call(Arc::new(move || {
        if counted.fetch_add(1, Ordering::SeqCst) == call {
            rename(&disk, streams, 2, case.on_to);
            if case.crashes {
                disk.crash_at(0);
            }
        }
    }));
    read_all(&mut bench);
    // It holds the disk, which holds it.
    bench.disk.before_each_call(Arc::new(|| ()));
    if calls.load(Ordering::SeqCst) <= call {
        return false;
    }
    if case.crashes {
        bench = Bench::new(bench.disk.power_cut(call, Fate::Kept));
        bench.open().unwrap();
    }
    for _ in 0..2 {
        read_all(&mut bench);
    }
    let rows = rows_of(&bench.disk.read(EXPORT).unwrap_or_default());
    let doubled = rows.iter().find(|(_, count)| **count > 1);
    assert_eq!(doubled, None, "{case:?}, call {call}");
    let due = LINES + if case.replaces { LINES } else { 0 };
    assert_eq!(rows.len(), due, "{case:?}, call {call}");
    let effective = effective_runs(&bench.disk);
    let is_effective = effective.contains(&"run 0".to_owned());
    assert_eq!(is_effective, !case.ordered, "{case:?}, call {call}");
    let out = usize::from(case.ordered);
    assert_eq!(effective.len(), due - out, "{case:?}, call {call}");
    true
}

#[test]
fn a_day_file_that_moves_on_at_any_moment_keeps_its_rows() {
    // An order is tried with the simplest history, because each case repeats it for every call.
    for bits in (0..32).chain((32..64).filter(|bits| bits & 18 == 0)) {
        let case = Case {
            on_to: if bits & 1 == 0 { 1 } else { 3 },
            superseded: bits & 2 != 0,
            with_evidence: bits & 4 != 0,
            crashes: bits & 8 != 0,
            replaces: bits & 16 != 0,
            ordered: bits & 32 != 0,
        };
        let calls = (0..).take_while(|call| moves_again(case, *call)).count();
        assert!(calls > 20, "{case:?}: only {calls} calls");
    }
}

/// Hints at one day, and reads until nothing is left.
fn read_day(bench: &mut Bench, day: u32) {
    let path = PairPath::from_relative(Path::new(&pair(day))).unwrap();
    bench.engine.as_mut().unwrap().enqueue(path);
    bench.quiet().unwrap();
}

/// A day-file is renamed to another day, and a new one begins at its old path, which is read first.
#[test]
fn the_rows_and_orders_of_a_day_file_follow_it_after_another_one_took_its_place() {
    for bits in 0..16 {
        let with_evidence = bits & 4 != 0;
        let case = Case {
            on_to: 3,
            superseded: bits & 2 != 0,
            with_evidence,
            crashes: false,
            replaces: false,
            ordered: bits & 1 != 0,
        };
        let mut bench = lake(case);
        let streams = match with_evidence {
            true => &Stream::BOTH[..],
            false => &[Stream::Scored],
        };
        rename(&bench.disk, streams, 1, 2);
        write(&bench.disk, Stream::Evidence, 1, &evidence_with("new", "t"));
        write(&bench.disk, Stream::Scored, 1, &scored("new"));
        read_day(&mut bench, 1);
        // A later move too, and a line of a run that is out.
        let is_moved_on = bits & 8 != 0;
        let last = if is_moved_on { 3 } else { 2 };
        if is_moved_on {
            rename(&bench.disk, streams, 2, 3);
        }
        if !with_evidence {
            for n in 0..LINES {
                let text = evidence_with(&format!("run {n}"), "first");
                write(&bench.disk, Stream::Evidence, last, &text);
            }
        }
        read_day(&mut bench, last);
        let again = scored("run 0").replace(":7,", ":8,");
        write(&bench.disk, Stream::Scored, last, &again);
        read_day(&mut bench, last);
        for _ in 0..2 {
            read_all(&mut bench);
        }
        let rows = rows_of(&bench.disk.read(EXPORT).unwrap_or_default());
        let rescored = usize::from(!case.ordered);
        let count: usize = rows.values().sum();
        assert_eq!(
            count,
            LINES + 1 + rescored,
            "{case:?}, {is_moved_on}: {rows:?}"
        );
        let mut effective = effective_runs(&bench.disk);
        effective.sort();
        let expected = ["new", "run 0", "run 1", "run 2"];
        let expected = expected
            .iter()
            .filter(|run| !case.ordered || **run != "run 0");
        assert_eq!(
            effective,
            expected.copied().collect::<Vec<_>>(),
            "{case:?}, {is_moved_on}"
        );
    }
}
