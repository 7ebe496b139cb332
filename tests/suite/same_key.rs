//! Day-files of several days have lines with one row key, and the rows of one of these day-files are released: each line
//! has its own row afterwards, with its own text, in any order of lines, evidence and day-files arrive.

use std::fs;
use std::path::{Path, PathBuf};

use distilld::lake::path::PairPath;

use crate::support::bench::{Bench, EXPORT, ROOT, STATE_DIR};
use crate::support::lake_gen::Stream;
use crate::support::naive::compare::multiset_difference;
use crate::support::naive::{naive_batch, read_pairs};
use crate::support::process::{Bench as ProcessBench, evidence_with, scored};
use crate::support::sim_disk::SimDisk;

/// The pair whose rows are released.
const RELEASED: &str = "2026/01/03/a.jsonl";
/// A free place for its day-files.
const FREE: &str = "2026/01/05/a.jsonl";
/// Pairs that are read before and after it.
const OTHERS: [&str; 2] = ["2026/01/01/a.jsonl", "2026/01/07/a.jsonl"];

/// Why rows are released.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Release {
    Replaced,
    Restored,
    HeadChanged,
    Shortened,
    Moved,
    MovedAndReplaced,
}

const RELEASES: [Release; 6] = [
    Release::Replaced,
    Release::Restored,
    Release::HeadChanged,
    Release::Shortened,
    Release::Moved,
    Release::MovedAndReplaced,
];

/// When the line of the other pair, or its evidence, arrives.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Arrival {
    Before,
    /// Between the release and the pass that notices it.
    With,
    After,
}

const ARRIVALS: [Arrival; 3] = [Arrival::Before, Arrival::With, Arrival::After];

#[derive(Debug, Clone, Copy)]
struct Case {
    release: Release,
    other: &'static str,
    line: Arrival,
    evidence: Arrival,
    /// Whether the other pair's evidence has the same text.
    same_text: bool,
    /// Whether the other pair's line has the same index.
    same_index: bool,
    threads: bool,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for release in RELEASES {
        for (line, evidence) in ARRIVALS
            .iter()
            .flat_map(|line| ARRIVALS.map(|evidence| (*line, evidence)))
        {
            for bits in 0..16_u8 {
                let is = |bit: u8| bits >> bit & 1 == 1;
                cases.push(Case {
                    release,
                    other: OTHERS[usize::from(is(0))],
                    line,
                    evidence,
                    same_text: is(1),
                    same_index: is(2),
                    threads: is(3),
                });
            }
        }
    }
    cases
}

fn place(stream: Stream, pair: &str) -> PathBuf {
    stream.path(Path::new(ROOT), pair)
}

fn enqueue(bench: &mut Bench, pair: &str) {
    let path = PairPath::from_relative(Path::new(pair)).unwrap();
    bench.engine.as_mut().unwrap().enqueue(path);
}

fn append(bench: &mut Bench, stream: Stream, pair: &str, bytes: &str) {
    bench
        .disk
        .append_durable(place(stream, pair), bytes.as_bytes());
    enqueue(bench, pair);
}

fn move_to_free_place(bench: &mut Bench) {
    for stream in Stream::BOTH {
        bench
            .disk
            .move_file(place(stream, RELEASED), place(stream, FREE));
    }
    enqueue(bench, FREE);
}

fn release(bench: &mut Bench, how: Release) {
    let path = place(Stream::Scored, RELEASED);
    let bytes = bench.disk.read(&path).unwrap();
    match how {
        Release::Replaced => {
            let temporary = path.with_extension("tmp");
            bench.disk.append_durable(&temporary, &bytes);
            bench.disk.move_file(&temporary, &path);
        }
        Release::Restored => {
            bench.disk.remove(&path);
            enqueue(bench, RELEASED);
            bench.catch_up().unwrap();
            bench.disk.append_durable(&path, &bytes);
        }
        Release::HeadChanged => bench.disk.write_file(&path, &[b"\n", &*bytes].concat()),
        Release::Shortened => bench.disk.truncate(&path, bytes.len() as u64 / 2),
        Release::Moved => move_to_free_place(bench),
        Release::MovedAndReplaced => {
            move_to_free_place(bench);
            append(bench, Stream::Scored, RELEASED, &scored("another run"));
        }
    }
    enqueue(bench, RELEASED);
}

/// What remains to be done after the release was noticed.
fn finish_release(bench: &mut Bench, how: Release) {
    if how == Release::Shortened {
        bench
            .disk
            .write_file(place(Stream::Scored, RELEASED), scored("r").as_bytes());
        enqueue(bench, RELEASED);
    }
}

fn arrive(bench: &mut Bench, case: &Case, now: Arrival) {
    if case.line == now {
        if !case.same_index {
            append(bench, Stream::Scored, case.other, &scored("waits"));
        }
        append(bench, Stream::Scored, case.other, &scored("r"));
    }
    if case.evidence == now {
        let text = if case.same_text { "one" } else { "two" };
        append(
            bench,
            Stream::Evidence,
            case.other,
            &evidence_with("r", text),
        );
    }
}

fn assert_exact(bench: &mut Bench, what: &str) {
    bench.read_export().unwrap();
    let naive = naive_batch(&read_pairs(&bench.disk, Path::new(ROOT)).unwrap(), false);
    let export = bench.disk.read(EXPORT).unwrap_or_default();
    let difference = multiset_difference(&export, &naive.rows);
    let fault = difference.or_else(|| bench.count_fault(&naive.counts));
    assert_eq!(fault, None, "{what}");
    let totals = bench.engine.as_ref().unwrap().totals();
    assert_eq!(totals.counts.superseded, 0, "{what}");
}

#[test]
fn each_line_of_a_key_has_its_own_row_after_rows_of_the_key_are_released() {
    for case in cases() {
        let mut bench = Bench::new(SimDisk::new());
        if case.threads {
            bench.commit_in_background();
        }
        bench.open().unwrap();
        append(
            &mut bench,
            Stream::Evidence,
            RELEASED,
            &evidence_with("r", "one"),
        );
        append(&mut bench, Stream::Scored, RELEASED, &scored("r"));
        arrive(&mut bench, &case, Arrival::Before);
        bench.quiet().unwrap();
        release(&mut bench, case.release);
        arrive(&mut bench, &case, Arrival::With);
        bench.quiet().unwrap();
        arrive(&mut bench, &case, Arrival::After);
        bench.quiet().unwrap();
        finish_release(&mut bench, case.release);
        bench.quiet().unwrap();
        assert_exact(&mut bench, &format!("{case:?}"));
        bench.open().unwrap();
        bench.quiet().unwrap();
        assert_exact(&mut bench, &format!("{case:?}, after a restart"));
        lose_state(&mut bench);
        bench.open().unwrap();
        bench.quiet().unwrap();
        assert_exact(
            &mut bench,
            &format!("{case:?}, after the loss of the state"),
        );
    }
}

fn lose_state(bench: &mut Bench) {
    bench.engine = None;
    for file in ["state.redb", "journal"] {
        bench.disk.remove(format!("{STATE_DIR}/{file}"));
    }
}

/// A bench with this many pairs, whose lines have one row key and different texts.
fn many_pairs(pairs: u32, threads: usize) -> Bench {
    let mut bench = Bench::new(SimDisk::new());
    bench.threads = threads;
    bench.open().unwrap();
    for n in 0..pairs {
        let pair = nth_pair(n);
        append(
            &mut bench,
            Stream::Evidence,
            &pair,
            &evidence_with("r", &format!("text {n}")),
        );
        append(&mut bench, Stream::Scored, &pair, &scored("r"));
    }
    bench.quiet().unwrap();
    bench
}

fn nth_pair(n: u32) -> String {
    format!("2026/{:02}/{:02}/a.jsonl", 1 + n / 28, 1 + n % 28)
}

#[test]
fn rows_of_one_key_are_claimed_by_their_own_lines_after_the_loss_of_the_state() {
    for threads in [1, 2, 4] {
        let mut bench = many_pairs(60, threads);
        lose_state(&mut bench);
        bench.open().unwrap();
        bench.quiet().unwrap();
        assert_exact(&mut bench, &format!("{threads} threads"));
    }
}

/// Returns the number of syncs after all day-files were put into other inodes, as when the lake is copied to another disk.
fn syncs_after_a_copy(pairs: u32, threads: usize) -> usize {
    let mut bench = many_pairs(pairs, threads);
    for n in 0..pairs {
        for stream in Stream::BOTH {
            let path = place(stream, &nth_pair(n));
            let copy = path.with_extension("copy");
            bench
                .disk
                .append_durable(&copy, &bench.disk.read(&path).unwrap());
            bench.disk.move_file(&copy, &path);
        }
    }
    let calls = bench.disk.calls();
    bench.scan().unwrap();
    bench.quiet().unwrap();
    assert_exact(&mut bench, &format!("{pairs} pairs, {threads} threads"));
    let log = bench.disk.call_log(calls);
    log.iter().filter(|call| call.starts_with("sync")).count()
}

#[test]
fn a_lake_on_another_disk_costs_no_sync_for_each_pair() {
    for threads in [1, 2, 4] {
        let (few, many) = (
            syncs_after_a_copy(4, threads),
            syncs_after_a_copy(100, threads),
        );
        assert!(
            few > 0 && many < few + 10,
            "{few} syncs for 4 pairs, {many} for 100, {threads} threads"
        );
    }
}

#[test]
fn a_lake_on_another_disk_is_one_log_message() {
    let bench = ProcessBench::new();
    let pairs: Vec<String> = (0..100).map(nth_pair).collect();
    for pair in &pairs {
        bench.append_run(pair, &format!("run of {pair}"));
    }
    bench.once();
    let export = bench.export_bytes();
    for pair in &pairs {
        for stream in Stream::BOTH {
            let path = bench.path(stream, pair);
            let copy = path.with_extension("copy");
            fs::copy(&path, &copy).unwrap();
            fs::rename(&copy, &path).unwrap();
        }
    }
    let mut daemon = bench.start_caught_up();
    bench.probe(&mut daemon);
    bench.stop(daemon);
    let log = bench.log_text();
    let resets = log
        .lines()
        .filter(|line| line.contains("re-reading from the start"));
    let resets: Vec<&str> = resets.collect();
    assert_eq!(resets.len(), 1, "{log}");
    assert!(resets[0].contains(" day_files=200 "), "{}", resets[0]);
    assert_eq!(bench.row_count(), 101);
    assert!(bench.export_bytes().starts_with(&export));
    bench.assert_batch();
}
