//! Day-files whose history is rewritten: truncated, replaced, shuffled, shortened, deleted and put back, with inodes
//! reused or not. Nothing is written twice, nothing that stands there now is missing, the counts follow the content.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use distilld::discover::PairPath;
use fastrand::Rng;

use crate::support::bench::{Bench, EXPORT, ROOT};
use crate::support::lake_gen::{EvidenceMode, Shape, Step, Stream, pairs_of, script};
use crate::support::naive::{Pairs, naive_batch, row_key};
use crate::support::process;
use crate::support::sim_disk::SimDisk;

/// Lakes of the ordinary run, a dozen rewritings each.
const CASES: u64 = 400;

type Rows = BTreeMap<String, usize>;

fn keys_of<'r>(rows: impl IntoIterator<Item = &'r str>) -> Rows {
    let mut keys = Rows::new();
    for row in rows {
        *keys.entry(row_key(row)).or_default() += 1;
    }
    keys
}

/// The rows that one pair earns as it stands.
fn earned(pairs: &Pairs, pair: &str) -> Rows {
    let alone: Pairs = pairs
        .iter()
        .filter(|(name, _)| *name == pair)
        .map(|(name, files)| (name.clone(), files.clone()))
        .collect();
    let batch = naive_batch(&alone, false);
    keys_of(batch.rows.iter().map(String::as_str))
}

struct Rewriting {
    bench: Bench,
    pairs: Pairs,
    /// By pair: of each key, the most rows that it ever earned at once.
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
        rewriting.look();
        rewriting
    }

    fn look(&mut self) {
        self.bench.look_around().unwrap();
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

    /// Puts other bytes into the scored day-file of a pair, one way or another.
    fn rewrite(&mut self, rng: &mut Rng, pair: &str) -> String {
        let path = Stream::Scored.path(Path::new(ROOT), pair);
        let old = self.pairs[pair].0.clone().unwrap_or_default();
        let mut lines: Vec<Vec<u8>> = old
            .split_inclusive(|byte| *byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect();
        let what = rng.u8(..6);
        match what {
            0 => rng.shuffle(&mut lines),
            1 => lines.truncate(rng.usize(..=lines.len())),
            2 => lines.extend(lines.clone()),
            3 => lines.reverse(),
            4 if !lines.is_empty() => drop(lines.remove(rng.usize(..lines.len()))),
            _ => {}
        }
        let new = lines.concat();
        let way = rng.u8(..3);
        match way {
            0 => self.bench.disk.write_file(&path, &new),
            1 => {
                self.bench.disk.remove(&path);
                self.bench.disk.append_durable(&path, &new);
            }
            _ => {
                let beside = path.with_extension("tmp");
                self.bench.disk.append_durable(&beside, &new);
                self.bench.disk.move_file(&beside, &path);
            }
        }
        self.pairs.get_mut(pair).unwrap().0 = Some(new);
        self.bench
            .engine
            .as_mut()
            .unwrap()
            .touch(PairPath::from_relative(Path::new(pair)).unwrap());
        format!("content {what}, way {way}")
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
        let counts = naive_batch(&self.pairs, false).counts;
        let totals = self.bench.engine.as_ref().unwrap().totals();
        assert_eq!(totals.counts.exported, counts.exported, "{what}: exported");
        assert_eq!(
            totals.counts.firewalled, counts.firewall,
            "{what}: firewalled"
        );
        assert_eq!(totals.counts.waiting, counts.no_evidence, "{what}: waiting");
        assert_eq!(
            totals.scored_malformed, counts.malformed,
            "{what}: malformed"
        );
    }
}

#[test]
fn rewritten_day_files_give_each_line_one_row() {
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
            let how = rewriting.rewrite(&mut rng, &pair);
            if rng.u8(..4) == 0 {
                rewriting.bench.step(&Step::Restart, false).unwrap();
            }
            rewriting.look();
            rewriting.check(&format!("seed {seed}, round {round}, {pair}: {how}"));
        }
    }
}

/// That it was rewritten is remembered in the commit that notices it.
#[test]
fn a_rewritten_day_file_is_read_again_once() {
    let bench = process::Bench::new();
    let pair = "2026/01/02/outcomes.jsonl";
    for run in ["a", "b", "c"] {
        bench.append_run(pair, run);
    }
    bench.once();
    let said = "reading it again from its start";
    for stream in Stream::BOTH {
        let path = bench.path(stream, pair);
        let old = fs::read_to_string(&path).unwrap();
        let (first, rest) = old.split_once('\n').unwrap();
        fs::write(&path, format!("{rest}{first}\n")).unwrap();
        bench.once().check(0, &[said]);
        let again = bench.once();
        assert!(!again.stderr.contains(said), "{stream:?}: {}", again.stderr);
    }
    bench.assert_runs(&["a", "b", "c"]);
}

#[test]
fn evidence_that_is_replaced_by_rename_is_read_again_and_its_rows_stay() {
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
    bench.look_around().unwrap();
    bench.quiet().unwrap();
    let counts = bench.engine.as_ref().unwrap().totals().counts;
    assert_eq!((counts.exported, counts.role, counts.waiting), (1, 1, 1));

    let second = line("a", "executor", "one")
        + &line("b", "executor", "two")
        + &line("a", "executor", "other");
    let beside = evidence.with_extension("tmp");
    bench.disk.append_durable(&beside, second.as_bytes());
    bench.disk.move_file(&beside, &evidence);
    bench.look_around().unwrap();
    bench.quiet().unwrap();
    bench.read_export().unwrap();
    let counts = bench.engine.as_ref().unwrap().totals().counts;
    assert_eq!(
        (
            counts.exported,
            counts.role,
            counts.waiting,
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
        bench.look_around().unwrap();
        bench.quiet().unwrap();
    }
    let counts = bench.engine.as_ref().unwrap().totals().counts;
    assert_eq!(
        (counts.exported, counts.firewalled, counts.contradicted),
        (1, 2, 1)
    );
}
