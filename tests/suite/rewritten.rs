//! Day-files whose history is rewritten: truncated, replaced, shuffled, shortened, deleted and restored, with inodes
//! reused or not. No row is written twice, no current line lacks its row, the counts match the content.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use distilld::lake::path::{PairPath, ledger_path};
use distilld::pair::checkpoint::PairCheckpoint;
use distilld::pair::index::ScoredLine;
use distilld::pair::verdict::{Verdict, VerdictKind};
use distilld::platform::storage::OsStorage;
use distilld::query::explain::{Page, retracted_rows};
use distilld::store::snapshot::pair_path;
use fastrand::Rng;

use crate::support::bench::{Bench, EXPORT, ROOT};
use crate::support::lake_gen::{EvidenceMode, Shape, Step, Stream, pairs_of, script};
use crate::support::naive::{
    Pairs, naive_batch, parse_evidence, read_pairs, refused_keys, repaired, row_key,
};
use crate::support::process::{Bench as ProcessBench, evidence, scored, scored_as};
use crate::support::sim_disk::SimDisk;

/// Lakes of the ordinary run, twelve rewrites each.
const CASES: u64 = 400;

type Rows = BTreeMap<String, usize>;

fn keys_of<'r>(rows: impl IntoIterator<Item = &'r str>) -> Rows {
    let mut keys = Rows::new();
    for row in rows {
        *keys.entry(row_key(row)).or_default() += 1;
    }
    keys
}

/// Returns the rows that the current content of one pair earns.
fn earned(pairs: &Pairs, pair: &str) -> Rows {
    let alone: Pairs = pairs
        .iter()
        .filter(|(name, _)| *name == pair)
        .map(|(name, files)| (name.clone(), files.clone()))
        .collect();
    let batch = naive_batch(&alone, false);
    keys_of(batch.rows.iter().map(String::as_str))
}

fn lines_of(file: Option<&[u8]>) -> Vec<Vec<u8>> {
    file.unwrap_or_default()
        .split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect()
}

/// Returns a sort key for evidence by which runs change places, while the lines of a run keep their order.
fn run_order(line: &[u8], salt: u64) -> u64 {
    let run = parse_evidence(repaired(line).trim()).map(|evidence| evidence.run_id);
    let mut hash = DefaultHasher::new();
    (salt, run).hash(&mut hash);
    hash.finish()
}

struct Rewriting {
    bench: Bench,
    pairs: Pairs,
    /// By pair: for each key, the maximum number of rows that it ever earned at once.
    peaks: BTreeMap<String, Rows>,
}

impl Rewriting {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let shape = Shape {
            marks: false,
            plain_tails: true,
            ..Shape::small(&mut rng, EvidenceMode::Unique)
        };
        let steps = script(seed, &shape);
        let mut bench = Bench::new(SimDisk::new());
        bench.disk.set_inode_reuse(rng.bool());
        bench.open().unwrap();
        for step in &steps {
            bench.step(step, true).unwrap();
        }
        let mut rewriting = Self {
            bench,
            pairs: pairs_of(&steps),
            peaks: BTreeMap::new(),
        };
        rewriting.scan_and_check();
        rewriting
    }

    fn scan_and_check(&mut self) {
        self.bench.scan().unwrap();
        self.bench.quiet().unwrap();
        self.bench.read_export().unwrap();
        for pair in self.pairs.keys() {
            let peak = self.peaks.entry(pair.clone()).or_default();
            for (key, count) in earned(&self.pairs, pair) {
                let peak = peak.entry(key).or_default();
                *peak = (*peak).max(count);
            }
        }
    }

    /// Replaces the scored day-file of a pair with other bytes.
    fn rewrite_scored(&mut self, rng: &mut Rng, pair: &str) -> String {
        let mut lines = lines_of(self.pairs[pair].0.as_deref());
        let what = rng.u8(..6);
        match what {
            0 => rng.shuffle(&mut lines),
            1 => lines.truncate(rng.usize(..=lines.len())),
            2 => lines.extend(lines.clone()),
            3 => lines.reverse(),
            4 if !lines.is_empty() => drop(lines.remove(rng.usize(..lines.len()))),
            _ => {}
        }
        let way = self.put(rng, Stream::Scored, pair, lines.concat());
        self.pairs.get_mut(pair).unwrap().0 = Some(lines.concat());
        format!("scored content {what}, way {way}")
    }

    /// Replaces the evidence day-file of a pair with other bytes; each run's lines keep their order: the last one with
    /// its id is the one that counted. Other content is permitted by the contract but leaves rows that a batch does
    /// not have.
    fn rewrite_evidence(&mut self, rng: &mut Rng, pair: &str) -> String {
        let mut lines = lines_of(self.pairs[pair].1.as_deref());
        let what = rng.u8(..3);
        match what {
            0 => {
                let salt = rng.u64(..);
                lines.sort_by_cached_key(|line| run_order(line, salt));
            }
            1 => lines.extend(lines.clone()),
            _ => {}
        }
        let way = self.put(rng, Stream::Evidence, pair, lines.concat());
        self.pairs.get_mut(pair).unwrap().1 = Some(lines.concat());
        format!("evidence content {what}, way {way}")
    }

    /// Replaces a day-file in a random way.
    fn put(&mut self, rng: &mut Rng, stream: Stream, pair: &str, new: Vec<u8>) -> u8 {
        let path = stream.path(Path::new(ROOT), pair);
        let way = rng.u8(..3);
        match way {
            0 => self.bench.disk.write_file(&path, &new),
            1 => {
                self.bench.disk.remove(&path);
                self.bench.disk.append_durable(&path, &new);
            }
            _ => {
                let replacement = path.with_extension("tmp");
                self.bench.disk.append_durable(&replacement, &new);
                self.bench.disk.move_file(&replacement, &path);
            }
        }
        self.bench
            .engine
            .as_mut()
            .unwrap()
            .enqueue(PairPath::from_relative(Path::new(pair)).unwrap());
        way
    }

    /// Returns the number of rows without a line whose keys the firewall now refuses.
    fn contradicted_without_line(&self) -> u64 {
        let mut count = 0;
        for (pair, files) in &self.pairs {
            let now = earned(&self.pairs, pair);
            for key in refused_keys(pair, files.0.as_deref().unwrap_or_default()) {
                let rows = self.peaks[pair].get(&key).unwrap_or(&0);
                count += rows - now.get(&key).unwrap_or(&0);
            }
        }
        count as u64
    }

    fn check(&self, what: &str) {
        let export = String::from_utf8(self.bench.disk.read(EXPORT).unwrap_or_default()).unwrap();
        let rows = keys_of(export.lines());
        let mut now = Rows::new();
        let mut peak = Rows::new();
        for pair in self.pairs.keys() {
            earned(&self.pairs, pair)
                .into_iter()
                .for_each(|(key, count)| *now.entry(key).or_default() += count);
            self.peaks[pair]
                .iter()
                .for_each(|(key, count)| *peak.entry(key.clone()).or_default() += count);
        }
        for (key, count) in &now {
            assert!(
                rows.get(key).unwrap_or(&0) >= count,
                "{what}: {key} earns {count} rows and has fewer"
            );
        }
        for (key, count) in &rows {
            assert!(
                count <= peak.get(key).unwrap_or(&0),
                "{what}: {key} has {count} rows, more than it ever earned"
            );
        }
        let mut counts = naive_batch(&self.pairs, false).counts;
        counts.contradicted += self.contradicted_without_line();
        assert_eq!(self.bench.count_fault(&counts), None, "{what}");
        check_list(&self.bench, what);
    }
}

/// Asserts that every row that is counted as contradicted is listed once as retracted, a page at a time and at once, and of
/// the rows with a line no other one. A row that has lost its line stays out.
fn check_list(bench: &Bench, what: &str) {
    let list = |skip: usize, limit: usize| {
        let ledger = ledger_path(Path::new(EXPORT));
        retracted_rows(&bench.disk, &ledger, Page { skip, limit }).unwrap()
    };
    let all = list(0, usize::MAX);
    let rows: BTreeSet<u64> = all.rows.iter().map(|row| row.row.offset).collect();
    let counted = all.counted;
    let lens = (rows.len() as u64, all.rows.len() as u64);
    assert_eq!(lens, (counted, counted), "{what}: {all:#?}");
    let engine = bench.engine.as_ref().unwrap();
    let contradicted = engine.totals().counts.contradicted;
    assert!(contradicted <= counted, "{what}: {contradicted}, {all:#?}");
    let state = engine.state_snapshot();
    let mut paths = Vec::new();
    let note = |_, checkpoint: &PairCheckpoint| paths.extend(pair_path(checkpoint));
    state.for_each_pair(note).unwrap();
    for path in paths {
        let pair = state.pair(&path).unwrap().unwrap();
        let check = |line: ScoredLine| {
            if let Verdict::Exported {
                row_offset,
                contradicted,
                ..
            } = line.verdict
            {
                let is_listed = rows.contains(&row_offset);
                assert_eq!(is_listed, contradicted, "{what}: {line:?}, {all:#?}");
            }
        };
        state.for_each_scored(&pair, check).unwrap();
    }
    let mut paged = Vec::new();
    loop {
        let page = list(paged.len(), 3);
        assert_eq!(page.counted, counted, "{what}");
        paged.extend(page.rows);
        if !page.more {
            break;
        }
    }
    assert_eq!(paged, all.rows, "{what}");
}

#[test]
fn rewritten_day_files_leave_one_row_per_line() {
    for seed in 0..CASES {
        let mut rng = Rng::with_seed(seed ^ 0xabcd);
        let mut rewriting = Rewriting::new(seed);
        let with_runs = rewriting
            .pairs
            .iter()
            .filter(|(_, files)| files.0.is_some());
        let names: Vec<String> = with_runs.map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            continue;
        }
        for round in 0..rng.usize(1..12) {
            let pair = rng.choice(&names).unwrap().clone();
            let how = match rng.u8(..3) {
                0 if rewriting.pairs[&pair].1.is_some() => {
                    rewriting.rewrite_evidence(&mut rng, &pair)
                }
                _ => rewriting.rewrite_scored(&mut rng, &pair),
            };
            if rng.u8(..4) == 0 {
                rewriting.bench.step(&Step::Restart, false).unwrap();
            }
            rewriting.scan_and_check();
            rewriting.check(&format!("seed {seed}, round {round}, {pair}: {how}"));
        }
    }
}

/// The commit that detects the rewrite also stores it.
#[test]
fn a_rewritten_day_file_is_read_again_once() {
    let bench = ProcessBench::new();
    let pair = "2026/01/02/outcomes.jsonl";
    for run in ["a", "b", "c"] {
        bench.append_run(pair, run);
    }
    bench.once();
    let message = "re-reading from the start";
    for stream in Stream::BOTH {
        let path = bench.path(stream, pair);
        let old = fs::read_to_string(&path).unwrap();
        let (first, rest) = old.split_once('\n').unwrap();
        fs::write(&path, format!("{rest}{first}\n")).unwrap();
        bench.once().check(0, &[message]);
        let again = bench.once();
        assert!(
            !again.stderr.contains(message),
            "{stream:?}: {}",
            again.stderr
        );
    }
    bench.assert_runs(&["a", "b", "c"]);
}

#[test]
fn evidence_replaced_by_rename_is_read_again_and_its_rows_remain() {
    let mut bench = Bench::new(SimDisk::new());
    let pair = "2026/01/02/outcomes.jsonl";
    let scored = Stream::Scored.path(Path::new(ROOT), pair);
    let evidence = Stream::Evidence.path(Path::new(ROOT), pair);
    let line = |run: &str, role: &str, text: &str| {
        format!("{{\"run_id\":\"{run}\",\"model_role\":\"{role}\",\"text\":\"{text}\"}}\n")
    };
    bench.open().unwrap();
    for run in ["a", "b", "c"] {
        let run = format!("{{\"evidence_run_id\":\"{run}\",\"category\":\"accepted\"}}\n");
        bench.disk.append_durable(&scored, run.as_bytes());
    }
    let first = line("a", "executor", "one") + &line("b", "extractor", "two");
    bench.disk.append_durable(&evidence, first.as_bytes());
    bench.scan().unwrap();
    bench.quiet().unwrap();
    let counts = bench.engine.as_ref().unwrap().totals().counts;
    assert_eq!(
        (
            counts[VerdictKind::Exported],
            counts[VerdictKind::WrongRole],
            counts[VerdictKind::Waiting]
        ),
        (1, 1, 1)
    );

    let second = line("a", "executor", "one")
        + &line("b", "executor", "two")
        + &line("a", "executor", "other");
    let replacement = evidence.with_extension("tmp");
    bench.disk.append_durable(&replacement, second.as_bytes());
    bench.disk.move_file(&replacement, &evidence);
    bench.scan().unwrap();
    bench.quiet().unwrap();
    bench.read_export().unwrap();
    let counts = bench.engine.as_ref().unwrap().totals().counts;
    assert_eq!(
        (
            counts[VerdictKind::Exported],
            counts[VerdictKind::WrongRole],
            counts[VerdictKind::Waiting],
            counts.superseded
        ),
        (2, 0, 1, 1)
    );
    assert_eq!(bench.seen.iter().filter(|byte| **byte == b'\n').count(), 2);
}

#[test]
fn a_run_rejected_after_its_row_is_counted_as_contradicted() {
    let mut bench = Bench::new(SimDisk::new());
    let pair = "2026/01/02/outcomes.jsonl";
    let scored = Stream::Scored.path(Path::new(ROOT), pair);
    bench.open().unwrap();
    let evidence = b"{\"run_id\":\"a\",\"model_role\":\"executor\",\"text\":\"t\"}\n";
    bench
        .disk
        .append_durable(Stream::Evidence.path(Path::new(ROOT), pair), evidence);
    for category in ["accepted", "rejected", "needs_human_review"] {
        let line = format!("{{\"evidence_run_id\":\"a\",\"category\":\"{category}\"}}\n");
        bench.disk.append_durable(&scored, line.as_bytes());
        bench.scan().unwrap();
        bench.quiet().unwrap();
    }
    let counts = bench.engine.as_ref().unwrap().totals().counts;
    assert_eq!(
        (
            counts[VerdictKind::Exported],
            counts[VerdictKind::Firewalled],
            counts.contradicted
        ),
        (1, 2, 1)
    );
}

/// A run is rejected while the evidence of its accepted line is away, and that line gave its row before its day-file was
/// read again: the row is retracted at once, and stays so when the evidence is back.
#[test]
fn a_row_whose_line_lacks_its_evidence_now_is_retracted_when_its_run_is_rejected() {
    let pair = "2026/01/02/outcomes.jsonl";
    let bench = ProcessBench::new();
    for run in ["a", "kept"] {
        bench.append_run(pair, run);
    }
    bench.once();
    let replace_by = |lines: &[String]| {
        let new = bench.sibling("new");
        fs::write(&new, lines.concat()).unwrap();
        fs::rename(&new, bench.path(Stream::Scored, pair)).unwrap();
        bench.once();
    };
    let retracted = || {
        let listed = bench.ask(&["explain", "--retracted", "--json"]);
        let rows = listed["rows"].as_array().unwrap().clone();
        let runs = rows
            .iter()
            .map(|row| row["run_id"].as_str().unwrap().to_owned());
        runs.collect::<Vec<_>>()
    };
    let (evidence, aside) = (bench.path(Stream::Evidence, pair), bench.sibling("aside"));
    fs::rename(&evidence, &aside).unwrap();
    // With an origin of its own, as a scorer writes it.
    let rejected = scored_as("a", "rejected").replace("hash of a", "another hash");
    replace_by(&[scored("a"), scored("kept"), rejected]);
    assert_eq!(retracted(), ["a"]);
    bench.run(&mut bench.command(&["verify"])).check(0, &[]);
    fs::rename(&aside, &evidence).unwrap();
    bench.once();
    assert_eq!(retracted(), ["a"]);
    assert_eq!(bench.runs(), ["a", "kept"]);
    bench.run(&mut bench.command(&["verify"])).check(0, &[]);
    replace_by(&[scored("a"), scored("kept")]);
    assert_eq!(retracted(), [""; 0]);
    assert_eq!(bench.runs(), ["a", "kept"]);
}

/// The accepting line is rewritten: whether its row is contradicted depends on the new content, and a row that its
/// line claims again is not counted twice.
#[test]
fn a_row_whose_line_is_rewritten_is_counted_as_contradicted_once() {
    let pair = "2026/01/02/outcomes.jsonl";
    let path = Stream::Scored.path(Path::new(ROOT), pair);
    let mut bench = Bench::new(SimDisk::new());
    bench.open().unwrap();
    bench.disk.append_durable(
        Stream::Evidence.path(Path::new(ROOT), pair),
        evidence("a").as_bytes(),
    );
    let (accepted, rejected) = (scored("a"), scored_as("a", "rejected"));
    bench.disk.append_durable(&path, accepted.as_bytes());
    let mut accepted_max = 0;
    for (content, contradicted) in [
        (vec![&accepted], 0),
        (vec![&rejected], 1),
        (vec![&rejected, &rejected], 1),
        (vec![&rejected, &accepted], 0),
        (vec![&rejected, &accepted, &rejected], 1),
        (vec![&accepted, &rejected, &rejected], 1),
        (vec![], 0),
        (vec![&rejected, &rejected, &accepted], 0),
        // From here on there are two rows.
        (vec![&accepted, &accepted], 1),
        (vec![&accepted, &rejected], 2),
        (vec![&rejected, &accepted], 1),
        (vec![&accepted, &rejected, &accepted], 1),
    ] {
        let content: String = content.into_iter().map(String::as_str).collect();
        bench.disk.write_file(&path, content.as_bytes());
        bench.scan().unwrap();
        bench.quiet().unwrap();
        bench.read_export().unwrap();
        let counts = bench.engine.as_ref().unwrap().totals().counts;
        assert_eq!(counts.contradicted, contradicted, "{content}");
        check_list(&bench, &content);
        accepted_max = accepted_max.max(content.matches("accepted").count());
        let rows = bench.seen.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(rows, accepted_max, "{content}");
    }
}

#[test]
fn a_reclaimed_row_can_be_superseded_again() {
    let pair = "2026/01/02/outcomes.jsonl";
    let [path, given] =
        [Stream::Scored, Stream::Evidence].map(|stream| stream.path(Path::new(ROOT), pair));
    let line = |run: &str, text: &str| evidence(run).replace("what", text);
    let mut bench = Bench::new(SimDisk::new());
    bench.open().unwrap();
    let check_superseded = |bench: &mut Bench, superseded: u64, what: &str| {
        bench.scan().unwrap();
        bench.quiet().unwrap();
        let counts = bench.engine.as_ref().unwrap().totals().counts;
        assert_eq!(
            (counts[VerdictKind::Exported], counts.superseded),
            (2, superseded),
            "{what}"
        );
    };
    let (a, b) = (scored("a"), scored("b"));
    bench
        .disk
        .append_durable(&path, (a.clone() + &b).as_bytes());
    bench
        .disk
        .append_durable(&given, (line("a", "what") + &line("b", "what")).as_bytes());
    check_superseded(&mut bench, 0, "written");
    bench
        .disk
        .append_durable(&given, line("a", "other").as_bytes());
    check_superseded(&mut bench, 1, "replaced");
    // Another order, so that both lines have other numbers.
    bench.disk.write_file(&path, (b + &a).as_bytes());
    check_superseded(&mut bench, 1, "rewritten");
    bench
        .disk
        .append_durable(&given, line("b", "other").as_bytes());
    check_superseded(&mut bench, 2, "replaced after that");
    bench
        .disk
        .append_durable(&given, line("a", "third").as_bytes());
    check_superseded(&mut bench, 2, "replaced twice");
}

/// More runs than the head and the tail that identify a source cover.
const RUNS: usize = 40;
const LONG: &str = "2026/01/01/audits.jsonl";

type Change = fn(&ProcessBench, &Path, &str);

/// Overwrites a part of a file without changing its length.
fn overwrite(path: &Path, at: usize, old: &str, new: &str, text: &str) {
    assert_eq!((&text[at..][..old.len()], old.len()), (old, new.len()));
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(new.as_bytes(), at as u64).unwrap();
}

fn other_middle_by_rename(bench: &ProcessBench, path: &Path, text: &str) {
    let other = text.replace("run-20", "new-20");
    assert_ne!(other, text);
    let replacement = bench.sibling("new");
    fs::write(&replacement, other).unwrap();
    fs::rename(replacement, path).unwrap();
}

fn other_beginning(_: &ProcessBench, path: &Path, text: &str) {
    let at = text.find("run-00").unwrap();
    assert!(at < 100);
    overwrite(path, at, "run-00", "new-00", text);
}

fn other_end(_: &ProcessBench, path: &Path, text: &str) {
    let at = text.rfind("hash of run-39").unwrap();
    assert!(text.len() - at < 100);
    overwrite(path, at, "hash of run-39", "hash of new-39", text);
}

/// As a copy is restored over a damaged day-file.
fn other_middle_in_place(_: &ProcessBench, path: &Path, text: &str) {
    let at = text.find("run-20").unwrap();
    assert!(at > 1_024 && at + 1_024 < text.len());
    overwrite(path, at, "run-20", "new-20", text);
}

fn cut(_: &ProcessBench, path: &Path, text: &str) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(text.len() as u64 / 2).unwrap();
}

/// Each change is detected by exactly one part of a source's identity, so that no part can be removed.
#[test]
fn each_part_of_a_source_identity_detects_its_own_kind_of_change() {
    let changes: [(Change, &str); 5] = [
        (other_middle_by_rename, "replaced"),
        (other_middle_in_place, "edited"),
        (other_beginning, "head-changed"),
        (other_end, "tail-changed"),
        (cut, "truncated"),
    ];
    for (change, reason) in changes {
        let bench = ProcessBench::new();
        for run in (0..RUNS).map(|n| format!("run-{n:02}")) {
            bench.append_run(LONG, &run);
            bench.append(Stream::Evidence, LONG, evidence(&run.replace("run", "new")));
        }
        bench.once();
        // The times of a day-file that changed within a tick of the clock are known from the second run on.
        bench.once();
        let before = bench.export_bytes();
        let path = bench.path(Stream::Scored, LONG);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.len() > 2_048);
        change(&bench, &path, &text);
        let ended = bench.once();
        let rereads = ended.stderr.matches("re-reading from the start").count();
        assert_eq!(rereads, 1, "{reason}: {}", ended.stderr);
        ended.check(0, &[&format!("reason={reason}")]);

        let naive = naive_batch(&read_pairs(&OsStorage, &bench.root()).unwrap(), false);
        let before = String::from_utf8(before).unwrap();
        let mut expected = keys_of(before.lines());
        expected.extend(keys_of(naive.rows.iter().map(String::as_str)));
        let export = String::from_utf8(bench.export_bytes()).unwrap();
        assert!(export.starts_with(&before), "{reason}");
        assert_eq!(keys_of(export.lines()), expected, "{reason}");
        let scored = &bench.ask(&["status", "--json"])["scored"];
        assert_eq!(
            (&scored["exported"], &scored["lines"]),
            (&naive.counts.exported.into(), &naive.counts.records.into()),
            "{reason}"
        );
    }
}

/// Returns the number of read calls during the reread of a day-file in which one run was accepted and rejected
/// alternately.
fn read_calls_for_claims(times: usize) -> u64 {
    let pair = "2026/01/02/outcomes.jsonl";
    let [path, given] =
        [Stream::Scored, Stream::Evidence].map(|stream| stream.path(Path::new(ROOT), pair));
    let line = |n: usize, category: &str| {
        let line = scored_as("a", category);
        line.replace("\"line_offset\":7", &format!("\"line_offset\":{n}"))
    };
    let lines = (0..times).map(|n| line(n, "accepted") + &line(n, "rejected"));
    let lines: Vec<String> = lines.collect();
    let mut bench = Bench::new(SimDisk::new());
    bench.disk.append_durable(&given, evidence("a").as_bytes());
    bench.disk.append_durable(&path, lines.concat().as_bytes());
    bench.open().unwrap();
    bench.quiet().unwrap();
    bench.read_export().unwrap();
    let first = bench.seen.clone();
    let reversed: Vec<&str> = lines.iter().rev().map(String::as_str).collect();
    bench.disk.write_file(&path, reversed.concat().as_bytes());
    let read_calls_before = bench.disk.read_calls();
    bench.scan().unwrap();
    bench.quiet().unwrap();
    let read_calls = bench.disk.read_calls() - read_calls_before;
    bench.read_export().unwrap();
    assert_eq!(bench.seen, first, "each line has found its row");
    let naive = naive_batch(&read_pairs(&bench.disk, Path::new(ROOT)).unwrap(), false);
    assert_eq!(naive.counts.contradicted, times as u64);
    assert_eq!(bench.count_fault(&naive.counts), None);
    read_calls
}

#[test]
fn the_cost_of_alternating_verdicts_is_linear_in_the_lines() {
    let (few, many) = (read_calls_for_claims(100), read_calls_for_claims(400));
    assert!(
        many < few * 6,
        "{few} calls for 100 of each, {many} for 400"
    );
}

/// Restores a day-file in place after a first read of it within a tick of its time stamps, whose stat is not relied on.
#[test]
fn a_day_file_that_is_mended_in_place_soon_after_its_first_read_is_read_again() {
    let pair = "2026/05/01/a.jsonl";
    for pads in [0, 40] {
        let bench = ProcessBench::new();
        let mut runs = Vec::new();
        for n in 0..2 * pads + 1 {
            runs.push(format!("run-{n}"));
        }
        let whole: String = runs.iter().map(|run| scored(run)).collect();
        let at = runs[..pads]
            .iter()
            .map(|run| scored(run).len() as u64)
            .sum::<u64>();
        let hurt_len = scored(&runs[pads]).len() - 1;
        let hurt = [
            &whole.as_bytes()[..at as usize],
            &vec![0; hurt_len],
            &whole.as_bytes()[at as usize + hurt_len..],
        ]
        .concat();
        for run in &runs {
            bench.append(Stream::Evidence, pair, evidence(run));
        }
        bench.append(Stream::Scored, pair, hurt);
        let path = bench.path(Stream::Scored, pair);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        // Whole seconds: a file system that keeps only those has a long tick, and the first read is within it.
        let now_s = file.metadata().unwrap().modified().unwrap();
        let now_s = now_s
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let second = std::time::UNIX_EPOCH + std::time::Duration::from_secs(now_s);
        file.set_modified(second).unwrap();
        bench.once();
        let damaged = bench.row_count();
        file.write_all_at(whole.as_bytes(), 0).unwrap();
        bench.once();
        assert_eq!((damaged, bench.row_count()), (2 * pads, 2 * pads + 1));
        bench.assert_distinct(2 * pads + 1);
    }
}
