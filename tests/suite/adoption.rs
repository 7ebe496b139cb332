//! The real daemon with an export that it did not write, and with a state that is lost, damaged or too old. Accesses
//! the state only to damage it.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use distilld::platform::root_lock::RootLock;
use fastrand::Rng;
use rustix::fs::{CWD, FileType, Mode};

use crate::support::lake_gen::{Shape, Step, Stream, pairs_of, script};
use crate::support::naive::naive_batch;
use crate::support::process::{Bench, Ended, evidence, evidence_with, scored, scored_as};

const PAIR: &str = "2026/01/01/audits.jsonl";

/// A lake of every verdict, of which a part is not written yet.
struct Growing {
    bench: Bench,
    to_come: Vec<Step>,
}

impl Growing {
    /// Creates the lake of `seed`, or of the next seed whose first third earns rows.
    fn new(seed: u64, lines: usize) -> Self {
        let mut scripts = (seed..).map(|seed| script(seed, &Shape::steady(lines)));
        let earns_rows = |steps: &Vec<Step>| {
            let third = pairs_of(&steps[..steps.len() / 3]);
            naive_batch(&third, false).counts.exported > 5
        };
        let mut to_come = scripts
            .find(earns_rows)
            .expect("most scripts earn rows early");
        to_come.reverse();
        Self {
            bench: Bench::new(),
            to_come,
        }
    }

    /// Appends a third of the initial content; the last time, all that is left.
    fn grow(&mut self, parts_left: usize) {
        let keep = self.to_come.len() - self.to_come.len() / parts_left;
        while self.to_come.len() > keep {
            if let Some(Step::Append {
                stream,
                pair,
                bytes,
            }) = self.to_come.pop()
            {
                self.bench.append(stream, &pair, bytes);
            }
        }
    }
}

/// Runs once, and again if the first run ends with an error: damage may be detected in the middle of the work, and the
/// service manager restarts the daemon.
fn once_or_twice(bench: &Bench, what: &str) -> Ended {
    let first = bench.run(&mut bench.command(&["run", "--once"]));
    let ended = match first.status.code() {
        Some(0) => return first,
        Some(1) => bench.run(&mut bench.command(&["run", "--once"])),
        _ => first,
    };
    assert_eq!(ended.status.code(), Some(0), "{what}: {}", ended.stderr);
    ended
}

/// Exports two thirds of a lake, damages the state, then appends the rest. Rows that were visible remain.
fn grow_through(seed: u64, what: &str, harm: impl FnOnce(&Bench)) -> (Bench, Ended) {
    let mut lake = Growing::new(seed, 300);
    lake.grow(3);
    lake.bench.once();
    lake.grow(2);
    lake.bench.once();
    let before = lake.bench.export_bytes();
    harm(&lake.bench);
    lake.grow(1);
    let ended = once_or_twice(&lake.bench, what);
    let after = lake.bench.export_bytes();
    assert!(after.starts_with(&before), "{what}: what was seen is gone");
    (lake.bench, ended)
}

/// As [`grow_through`]; the export must equal that of the batch.
fn check(seed: u64, what: &str, harm: impl FnOnce(&Bench)) -> Ended {
    let (bench, ended) = grow_through(seed, what, harm);
    assert_eq!(bench.difference(), None, "{what}: {}", ended.stderr);
    let after = bench.export_bytes();
    bench.once();
    assert!(bench.export_bytes() == after, "{what}");
    ended
}

fn state(bench: &Bench, name: &str) -> std::path::PathBuf {
    bench.state_dir().join(name)
}

fn set_len(path: &Path, len: impl Fn(u64) -> u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(len(file.metadata().unwrap().len())).unwrap();
}

#[test]
fn an_export_of_the_batch_is_adopted() {
    let mut lake = Growing::new(1, 300);
    lake.grow(2);
    let batch = lake.bench.run(&mut lake.bench.command(&["export"]));
    batch.check(0, &[]);
    let written = lake.bench.export_bytes();
    let first = lake.bench.once();
    first.check(0, &["adopted the export"]);
    assert!(lake.bench.export_bytes() == written, "{}", first.stderr);
    lake.grow(1);
    let mut daemon = lake.bench.start();
    lake.bench
        .wait_for(&mut daemon, "the export is that of the batch", || {
            lake.bench.difference().is_none()
        });
    lake.bench.stop(daemon);
    assert!(lake.bench.export_bytes().starts_with(&written));
}

#[test]
fn a_batch_of_a_growing_lake_is_adopted_by_a_daemon_that_reads_the_evidence_later() {
    let bench = Bench::new();
    bench.append(Stream::Scored, PAIR, scored("a") + &scored("late"));
    bench.append(Stream::Evidence, PAIR, evidence("a"));
    bench.run(&mut bench.command(&["export"])).check(0, &[]);
    let mut daemon = bench.start_caught_up();
    bench.wait_rows(&mut daemon, 1);
    bench.append(Stream::Evidence, PAIR, evidence("late"));
    bench.wait_rows(&mut daemon, 2);
    bench.stop(daemon);
    bench.assert_batch();
}

#[test]
fn a_lost_state_is_rebuilt() {
    for seed in 0..4 {
        let ended = check(seed, "state directory removed", |bench| {
            fs::remove_dir_all(bench.state_dir()).unwrap();
        });
        ended.check(0, &["adopted the export"]);
    }
}

#[test]
fn a_damaged_state_is_rebuilt() {
    let message = "cannot be used";
    check(2, "empty state", |bench| {
        set_len(&state(bench, "state.redb"), |_| 0);
    })
    .check(0, &[message]);
    check(3, "half a state", |bench| {
        set_len(&state(bench, "state.redb"), |len| len / 2);
    })
    .check(0, &[message]);
    check(4, "no journal", |bench| {
        fs::remove_file(state(bench, "journal")).unwrap();
    })
    .check(0, &[message]);
    check(5, "no state, a journal", |bench| {
        fs::remove_file(state(bench, "state.redb")).unwrap();
    })
    .check(0, &["adopted the export"]);
    check(6, "garbage for a journal", |bench| {
        fs::write(state(bench, "journal"), [0x5a; 9_000]).unwrap();
    });
}

#[test]
fn a_state_of_other_bytes_is_rebuilt() {
    // Some file systems leave NULs in a file whose bytes a power cut lost.
    for byte in [0xa5, 0] {
        for len in [1, 4_096, 70_000] {
            let what = format!("{len} bytes {byte:#x}");
            check(1, &what, |bench| {
                fs::write(state(bench, "state.redb"), vec![byte; len]).unwrap();
            })
            .check(0, &["cannot be used"]);
        }
        check(1, &format!("journal of bytes {byte:#x}"), |bench| {
            fs::write(state(bench, "journal"), vec![byte; 70_000]).unwrap();
        });
    }
}

/// Flips a bit anywhere in the state; the export equals that of the batch.
#[test]
fn a_flipped_bit_never_leads_to_a_wrong_export() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    for round in 0..FLIPS {
        let name = if round % 6 == 5 {
            "journal"
        } else {
            "state.redb"
        };
        let (at, bit) = (rng.f64(), rng.u8(0..8));
        let what = format!("seed {seed}, round {round}: bit {bit} of {name} at {at} of its length");
        check(rng.u64(0..50), &what, |bench| {
            flip(&state(bench, name), at, bit)
        });
    }
}

fn flip(path: &Path, at: f64, bit: u8) {
    let mut bytes = fs::read(path).unwrap();
    let index = (at * used_len(&bytes) as f64) as usize;
    if let Some(byte) = bytes.get_mut(index) {
        *byte ^= 1 << bit;
    }
    fs::write(path, bytes).unwrap();
}

const FLIPS: u32 = 24;

/// Returns the offset after the last byte that is not 0: a flipped bit after it would rarely matter.
fn used_len(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1)
}

#[test]
fn an_older_copy_of_the_state_is_detected() {
    for seed in 10..13 {
        let mut lake = Growing::new(seed, 300);
        let copy = lake.bench.sibling("copy");
        lake.grow(3);
        lake.bench.once();
        fs::create_dir(&copy).unwrap();
        copy_files(&lake.bench.state_dir(), &copy);
        lake.grow(2);
        lake.bench.once();
        let before = lake.bench.export_bytes();
        copy_files(&copy, &lake.bench.state_dir());
        lake.grow(1);
        lake.bench.once();
        assert!(lake.bench.export_bytes().starts_with(&before));
        assert_eq!(lake.bench.difference(), None, "seed {seed}");
    }
}

#[test]
fn a_state_copied_from_a_running_daemon_is_safe() {
    let mut lake = Growing::new(20, 400);
    let copy = lake.bench.sibling("copy");
    fs::create_dir(&copy).unwrap();
    lake.grow(3);
    let mut daemon = lake.bench.start_caught_up();
    // Without a checkpoint: the journal has rows that the state does not have.
    lake.bench.probe(&mut daemon);
    copy_files(&lake.bench.state_dir(), &copy);
    lake.grow(2);
    lake.bench.probe(&mut daemon);
    daemon.kill_9().unwrap();
    let before = lake.bench.export_bytes();
    copy_files(&copy, &lake.bench.state_dir());
    lake.grow(1);
    once_or_twice(&lake.bench, "copied while it ran");
    assert!(lake.bench.export_bytes().starts_with(&before));
    lake.bench.assert_batch();
}

fn copy_files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        // The directory also has the control socket of a running daemon.
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn a_torn_last_row_without_a_state_is_truncated_and_rewritten() {
    for cut in [1, 30] {
        let bench = Bench::new();
        for run in ["a", "b", "c"] {
            bench.append_run(PAIR, run);
        }
        bench.once();
        let whole = bench.export_bytes();
        fs::remove_dir_all(bench.state_dir()).unwrap();
        set_len(&bench.export(), |len| len - cut);
        bench.once().check(0, &["adopted the export"]);
        bench.assert_runs(&["a", "b", "c"]);
        bench.assert_batch();
        let complete = memchr::memrchr(b'\n', &whole[..whole.len() - 1]).unwrap() + 1;
        assert!(bench.export_bytes().starts_with(&whole[..complete]));
    }
}

#[test]
fn a_line_that_occurs_twice_is_adopted_twice() {
    let bench = Bench::new();
    bench.append(Stream::Evidence, PAIR, evidence("a"));
    bench.append(Stream::Scored, PAIR, scored("a").repeat(3));
    bench.once();
    assert_eq!(bench.row_count(), 3);
    fs::remove_dir_all(bench.state_dir()).unwrap();
    bench.append(Stream::Scored, PAIR, scored("a").repeat(2));
    // The same name on another day has rows with the same key.
    let other_day = "2026/01/02/audits.jsonl";
    bench.append(Stream::Evidence, other_day, evidence("a"));
    bench.append(Stream::Scored, other_day, scored("a"));
    bench.once();
    assert_eq!(bench.row_count(), 6);
    fs::remove_dir_all(bench.state_dir()).unwrap();
    bench.once();
    assert_eq!(bench.row_count(), 6);
}

/// A power cut leaves this if the second copy was not on the disk yet.
#[test]
fn a_duplicate_line_that_lost_a_copy_is_reported_as_such() {
    let bench = Bench::new();
    bench.append(Stream::Evidence, PAIR, evidence("a"));
    bench.append(Stream::Scored, PAIR, scored("a").repeat(2));
    bench.once();
    fs::write(bench.path(Stream::Scored, PAIR), scored("a")).unwrap();
    let gone = [
        "is one of 2 rows for 1 line",
        "its own line was removed, or lost in a power cut",
    ];
    bench.run(&mut bench.command(&["verify"])).check(1, &gone);
    bench.once();
    assert_eq!(bench.row_count(), 2, "what was seen stays");
    assert_eq!(bench.effective_runs(), ["a"], "and is not effective");
    bench.run(&mut bench.command(&["verify"])).check(0, &[]);
    // A single row that was written twice is not reported in that way.
    let bytes = bench.export_bytes();
    fs::write(
        bench.export(),
        [&bytes[..], &bytes[bytes.len() / 2..]].concat(),
    )
    .unwrap();
    let ended = bench.run(&mut bench.command(&["verify"]));
    ended.check(1, &["duplicate"]);
    assert!(
        !ended.stderr.contains("its own line was removed"),
        "{}",
        ended.stderr
    );
}

/// A crash may leave the state's files empty; an empty file has no content to inspect.
#[test]
fn an_empty_file_of_the_state_is_not_set_aside() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    bench.once();
    for (emptied, aside) in [
        ("state.redb", ["journal.unreadable"].as_slice()),
        ("journal", &["state.redb.unreadable"]),
    ] {
        for old in ["state.redb.unreadable", "journal.unreadable"] {
            _ = fs::remove_file(state(&bench, old));
        }
        fs::write(state(&bench, emptied), "").unwrap();
        fs::write(state(&bench, "distrusted"), "").unwrap();
        bench.append_run(PAIR, emptied);
        bench.once();
        let mut left: Vec<_> = fs::read_dir(bench.state_dir())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".unreadable"))
            .collect();
        left.sort();
        assert_eq!(left, aside, "{emptied}");
        bench.assert_batch();
    }
}

#[test]
fn an_export_with_a_forbidden_row_is_not_adopted() {
    for category in ["rejected", "needs_human_review"] {
        let bench = Bench::new();
        bench.append_run(PAIR, "a");
        bench.run(&mut bench.command(&["export"])).check(0, &[]);
        let row = String::from_utf8(bench.export_bytes()).unwrap();
        let tainted = row.replace("\"accepted\"", &format!("\"{category}\""));
        assert_ne!(row, tainted);
        OpenOptions::new()
            .append(true)
            .open(bench.export())
            .unwrap()
            .write_all(tainted.as_bytes())
            .unwrap();
        let before = bench.export_bytes();
        let at = format!("at byte {}", row.len());
        for _ in 0..2 {
            let ended = bench.run(&mut bench.command(&["run", "--once"]));
            ended.check(1, &[category, &at, "distilld rebuild"]);
            assert_eq!(bench.export_bytes(), before);
        }
    }
}

#[test]
fn a_row_of_a_run_rejected_meanwhile_remains_and_is_not_written_again() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    bench.once();
    let before = bench.export_bytes();
    bench.append(Stream::Scored, PAIR, scored_as("a", "rejected"));
    fs::remove_dir_all(bench.state_dir()).unwrap();
    bench.once();
    assert_eq!(bench.export_bytes(), before);
}

/// Returns the number of superseded rows in `status`.
fn superseded(bench: &Bench) -> u64 {
    let status = bench.status();
    status["export"]["superseded"].as_u64().unwrap()
}

/// Returns evidence of which the two dialects make different rows.
fn contractor_evidence(run: &str, text: &str) -> String {
    evidence_with(run, text)
        .replace("audits.jsonl", "contract_analyses.jsonl")
        .replacen(
            '{',
            "{\"metadata\":{\"contractor\":\"O'Neil & <Sons>\"},",
            1,
        )
}

#[test]
fn replaced_evidence_is_counted_for_adopted_and_own_rows() {
    let writers: [&[&str]; 3] = [
        &["run", "--once"],
        &["export"],
        &["export", "--dialect", "go"],
    ];
    for writer in writers {
        let bench = Bench::new();
        for run in ["a", "b", "c"] {
            bench.append(Stream::Evidence, PAIR, contractor_evidence(run, "<one>"));
            bench.append(Stream::Scored, PAIR, scored(run));
        }
        bench.run(&mut bench.command(writer)).check(0, &[]);
        _ = fs::remove_dir_all(bench.state_dir());
        bench.once().check(0, &["adopted the export"]);
        assert_eq!(superseded(&bench), 0, "{writer:?}");
        // Equal evidence supersedes nothing.
        bench.append(Stream::Evidence, PAIR, contractor_evidence("c", "<one>"));
        bench.append(Stream::Evidence, PAIR, contractor_evidence("a", "<other>"));
        bench.once();
        assert_eq!(superseded(&bench), 1, "{writer:?}");
        // The count is restored from the rows, and later lines are compared with them.
        fs::remove_dir_all(bench.state_dir()).unwrap();
        bench.once();
        assert_eq!(superseded(&bench), 1, "{writer:?}");
        bench.append(Stream::Evidence, PAIR, contractor_evidence("b", "<other>"));
        bench.once();
        assert_eq!(superseded(&bench), 2, "{writer:?}");
        assert_eq!(bench.row_count(), 3);
    }
}

#[test]
fn a_long_text_replaced_after_the_adoption_of_its_row_is_counted() {
    let bench = Bench::new();
    let long = "long ".repeat(300_000);
    bench.append(Stream::Evidence, PAIR, evidence_with("a", &long));
    bench.append(Stream::Scored, PAIR, scored("a"));
    bench.run(&mut bench.command(&["export"])).check(0, &[]);
    bench.once();
    assert_eq!(superseded(&bench), 0);
    bench.append(Stream::Evidence, PAIR, evidence("a"));
    bench.once();
    assert_eq!(superseded(&bench), 1);
}

/// Changes every tree leaf of the store that names `PAIR` so that its entries end far beyond the page.
fn break_leaves(state: &Path) -> usize {
    const PAGE_LEN: usize = 4_096;
    let mut bytes = fs::read(state).unwrap();
    let mut broken = 0;
    for page in bytes.chunks_mut(PAGE_LEN).skip(1) {
        if page[0] == 1 && memchr::memmem::find(page, PAIR.as_bytes()).is_some() {
            page[4..12].fill(0x7f);
            broken += 1;
        }
    }
    fs::write(state, bytes).unwrap();
    broken
}

/// The store would panic on such a leaf; its checksum fails before the store reads it.
#[test]
fn a_leaf_that_would_make_the_store_panic_is_detected_before_its_use() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    bench.once();
    assert!(break_leaves(&state(&bench, "state.redb")) > 0);
    bench.append_run(PAIR, "b");
    bench
        .run(&mut bench.command(&["run", "--once"]))
        .check(1, &["unreadable", "is not what was written there"]);
    bench.once().check(0, &["cannot be used"]);
    bench.assert_batch();
    assert_eq!(bench.row_count(), 2);
}

#[test]
fn no_batch_replaces_a_daemons_export_under_any_form_of_its_path() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    let batch = |output: &Path| {
        let mut command = bench.command(&["export"]);
        bench.run(command.arg("--output").arg(output))
    };
    // Before a daemon ran, the batch may write it.
    batch(&bench.export()).check(0, &[]);
    bench.once();
    let before = bench.export_bytes();
    let sft = bench.export().parent().unwrap().to_owned();
    std::os::unix::fs::symlink(&sft, bench.sibling("link")).unwrap();
    for output in [
        bench.export(),
        sft.join("../sft/sft_export.jsonl"),
        bench.sibling("link").join("sft_export.jsonl"),
    ] {
        batch(&output).check(
            1,
            &["belongs to a daemon with the state in", "--output FILE"],
        );
    }
    assert_eq!(bench.export_bytes(), before);
    batch(&bench.sibling("elsewhere")).check(0, &[]);
    // A daemon that has not created its state yet protects it too.
    bench.remove_state();
    let root = bench.root().canonicalize().unwrap();
    let lock = RootLock::take(&root, &bench.state_dir()).unwrap();
    batch(&bench.export()).check(1, &["already works on"]);
    drop(lock);
    assert_eq!(bench.export_bytes(), before);
}

#[test]
fn a_batch_writes_to_a_fifo_without_replacing_it() {
    let bench = Bench::new();
    bench.append_run(PAIR, "a");
    let fifo = bench.sibling("fifo");
    let all = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, all, 0).unwrap();
    let reading = fifo.clone();
    let reader = std::thread::spawn(move || fs::read(reading).unwrap());
    let mut command = bench.command(&["export"]);
    let ended = bench.run(command.arg("--output").arg(&fifo));
    ended.check(0, &[]);
    let result: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(result["output_path"], fifo.to_str().unwrap());
    assert!(fs::metadata(&fifo).unwrap().file_type().is_fifo());
    assert_eq!(
        reader
            .join()
            .unwrap()
            .iter()
            .filter(|byte| **byte == b'\n')
            .count(),
        1
    );
}

#[test]
fn rows_of_an_unknown_category_by_another_exporter_are_reported() {
    let bench = Bench::new();
    for (run, category) in [("a", "accepted"), ("odd", "almost"), ("odder", "")] {
        bench.append(Stream::Evidence, PAIR, evidence(run));
        bench.append(Stream::Scored, PAIR, scored_as(run, category));
    }
    let go = ["export", "--dialect", "go"];
    bench.run(&mut bench.command(&go)).check(0, &[]);
    let before = bench.export_bytes();
    let ended = bench.once();
    ended.check(
        0,
        &["rows of categories that are no longer accepted", "rows=2 "],
    );
    assert_eq!(bench.export_bytes(), before);
    let again = bench.once();
    assert!(!again.stderr.contains("refused now"), "{}", again.stderr);
}
