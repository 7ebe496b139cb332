//! The property that holds for any history of a lake: after any changes of scorers to the day-files, and any restart,
//! crash or error of the disk, each line has its row, no row is written twice, and what a reader has seen stays. The
//! expected rows are those of the naive batch.

use std::path::{Path, PathBuf};

use distilld::engine::EngineError;
use distilld::lake::path::{PairPath, ledger_path};
use distilld::query::explain::{Page, retracted_rows};

use crate::support::bench::{Bench, EXPORT, ROOT};
use crate::support::earned::{Peaks, evidence_line, scored_line};
use crate::support::lake_gen::Stream;
use crate::support::naive::{Pairs, multiset_difference, naive_batch, read_pairs};
use crate::support::sim_disk::{EIO, ENOSPC, Fate, Fault, SimDisk};

/// Two of one name, whose lines may earn rows with one key.
const PAIRS: [&str; 3] = [
    "2026/01/01/audits.jsonl",
    "2026/01/02/audits.jsonl",
    "2026/01/02/outcomes.jsonl",
];
const CATEGORIES: [&str; 4] = ["accepted", "partially_accepted", "rejected", "accepted"];
const RUNS: u8 = 6;
/// Actions of one history; the rest of an input is ignored.
const ACTIONS_MAX: usize = 48;
/// Tries until an action succeeds: each fault fails one call.
const TRIES: usize = 12;

type File = (usize, Stream);

/// Checks the history that the bytes describe: an action a byte, followed by the bytes of its choices.
pub fn history(bytes: &[u8]) {
    let mut history = History::new();
    let mut input = Input(bytes);
    for _ in 0..ACTIONS_MAX {
        if input.0.is_empty() {
            break;
        }
        history.act(&mut input);
    }
    history.check();
}

/// The rest of an input; zeros follow its end.
struct Input<'b>(&'b [u8]);

impl Input<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(self.next()) % end.max(1)
    }

    fn file(&mut self) -> File {
        (self.below(PAIRS.len()), Stream::BOTH[self.below(2)])
    }
}

struct History {
    bench: Bench,
    /// Appends of which the last bytes are missing yet.
    missing: Vec<(File, Vec<u8>)>,
    peaks: Peaks,
    /// Whether every day-file only grew, so that everything equals the batch.
    has_only_grown: bool,
    /// What the next crash leaves.
    fate: Fate,
}

impl History {
    fn new() -> Self {
        let mut bench = Bench::new(SimDisk::new());
        bench.checkpoint_bytes = 4 << 10;
        Self {
            bench,
            missing: Vec::new(),
            peaks: Peaks::default(),
            has_only_grown: true,
            fate: Fate::Kept,
        }
    }

    fn act(&mut self, input: &mut Input<'_>) {
        match input.next() % 16 {
            0..=4 => self.append(input),
            5 => self.complete(),
            6 => self.rewrite(input),
            7 => self.rename(input),
            8 => self.truncate(input),
            9 => self.check(),
            10 => self.drive(|bench| bench.open().map(drop)),
            11 => self.drive(|bench| bench.engine.as_mut().unwrap().checkpoint()),
            12 => self.crash(input),
            13 => self.fail(input),
            14 => self.query(),
            _ => self.drive(Bench::catch_up),
        }
    }

    /// Appends a line, or its beginning; the rest follows later.
    fn append(&mut self, input: &mut Input<'_>) {
        let file = input.file();
        let run = format!("run {}", input.below(usize::from(RUNS)));
        let line = match file.1 {
            Stream::Scored => scored_line(&run, CATEGORIES[input.below(CATEGORIES.len())]),
            Stream::Evidence if run.ends_with('5') => evidence_line(&run, " "),
            Stream::Evidence => evidence_line(&run, &format!("what {run} said")),
        };
        let mut bytes = line.into_bytes();
        self.complete_file(file);
        // Without its last brace it is no whole value, so that it is not accepted as it is.
        let len = match input.below(4) {
            0 => input.below(bytes.len() - 2) + 1,
            _ => bytes.len(),
        };
        let rest = bytes.split_off(len);
        if !rest.is_empty() {
            self.missing.push((file, rest));
        }
        self.put(file, |disk, path| disk.append_durable(path, &bytes));
    }

    fn complete_file(&mut self, file: File) {
        if let Some(at) = self.missing.iter().position(|(of, _)| *of == file) {
            let (_, rest) = self.missing.swap_remove(at);
            self.put(file, |disk, path| disk.append_durable(path, &rest));
        }
    }

    fn complete(&mut self) {
        while let Some((file, _)) = self.missing.first() {
            self.complete_file(*file);
        }
    }

    /// Replaces a day-file by some of its lines in another order.
    fn rewrite(&mut self, input: &mut Input<'_>) {
        let file = input.file();
        let mut lines = self.lines(file);
        match input.below(4) {
            0 => lines.reverse(),
            1 => lines.extend(lines.clone()),
            2 if !lines.is_empty() => drop(lines.remove(input.below(lines.len()))),
            _ => lines.sort(),
        }
        let way = input.below(3);
        self.forget(file);
        self.put(file, |disk, path| match way {
            0 => {
                disk.write_file(path, &lines.concat());
                disk.settle(path);
            }
            1 => {
                disk.remove(path);
                disk.append_durable(path, &lines.concat());
            }
            _ => {
                let replacement = path.with_extension("tmp");
                disk.append_durable(&replacement, &lines.concat());
                disk.move_file(&replacement, path);
                disk.settle(path);
            }
        });
    }

    /// Truncates a day-file at the end of a line.
    fn truncate(&mut self, input: &mut Input<'_>) {
        let file = input.file();
        let mut lines = self.lines(file);
        lines.truncate(input.below(lines.len() + 1));
        self.forget(file);
        self.put(file, |disk, path| {
            disk.truncate(path, lines.concat().len() as u64);
            disk.settle(path);
        });
    }

    /// Moves both day-files of a pair to another pair's place, over what is there.
    fn rename(&mut self, input: &mut Input<'_>) {
        let [from, to] = [input.below(PAIRS.len()), input.below(PAIRS.len())];
        if from == to {
            return;
        }
        for stream in Stream::BOTH {
            self.forget((from, stream));
            let old = path_of((from, stream));
            if self.bench.disk.read(&old).is_some() {
                self.forget((to, stream));
                if stream == Stream::Scored {
                    self.peaks.moved_from([&PAIRS[from].to_owned()]);
                }
                self.put((to, stream), |disk, path| {
                    disk.move_file(&old, path);
                    disk.settle(path);
                });
            }
        }
        self.enqueue(from);
    }

    /// Returns the whole lines of a day-file.
    fn lines(&self, file: File) -> Vec<Vec<u8>> {
        let bytes = self.bench.disk.read(path_of(file)).unwrap_or_default();
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let whole = lines.filter(|line| line.ends_with(b"\n"));
        whole.map(<[u8]>::to_vec).collect()
    }

    /// The day-file no longer only grows.
    fn forget(&mut self, file: File) {
        self.missing.retain(|(of, _)| *of != file);
        self.has_only_grown = false;
    }

    /// Changes a day-file, which is created if it is missing.
    fn put(&mut self, file: File, change: impl FnOnce(&SimDisk, &Path)) {
        let path = path_of(file);
        if self.bench.disk.read(&path).is_none() {
            self.bench.disk.append_durable(&path, b"");
        }
        change(&self.bench.disk, &path);
        self.note_peaks();
        self.enqueue(file.0);
    }

    fn enqueue(&mut self, pair: usize) {
        if let Some(engine) = &mut self.bench.engine {
            engine.enqueue(PairPath::from_relative(Path::new(PAIRS[pair])).unwrap());
        }
    }

    fn pairs(&self) -> Pairs {
        self.bench.disk.heal();
        read_pairs(&self.bench.disk, Path::new(ROOT)).unwrap_or_default()
    }

    /// Records how many rows the day-files earn now.
    fn note_peaks(&mut self) {
        self.peaks.note(&self.pairs());
    }

    /// Crashes the process at one of its next calls.
    fn crash(&mut self, input: &mut Input<'_>) {
        self.fate = Fate::ALL[input.below(Fate::ALL.len())];
        self.bench.disk.crash_at(input.next().into());
        self.drive(Bench::catch_up);
    }

    /// Fails one of the next calls.
    fn fail(&mut self, input: &mut Input<'_>) {
        let fault = Fault::once([EIO, ENOSPC][input.below(2)]);
        match input.below(2) {
            0 => self.bench.disk.fail_at(input.next().into(), fault),
            _ => self
                .bench
                .disk
                .fail_read_call_at(input.next().into(), fault),
        }
        self.drive(|bench| bench.scan().and_then(|()| bench.catch_up()));
    }

    /// Asks what an operator may ask.
    fn query(&mut self) {
        self.drive(|bench| {
            bench.disk.heal();
            let engine = bench.engine.as_mut().unwrap();
            let read = engine.state_snapshot().for_each_pair(|_, _| ());
            if read.is_err() {
                // As the daemon does after a query.
                engine.reopen_state_if_failed()?;
            }
            read?;
            let page = Page {
                skip: 0,
                limit: usize::MAX,
            };
            let found = retracted_rows(&bench.disk, &ledger_path(Path::new(EXPORT)), page);
            let found = found.expect("the ledger can be read");
            assert_eq!(found.rows.len() as u64, found.counted, "{found:?}");
            Ok(())
        });
    }

    /// Repeats an action until it succeeds, as the daemon and its service manager do.
    fn drive(&mut self, act: impl Fn(&mut Bench) -> Result<(), EngineError>) {
        for _ in 0..TRIES {
            let opened = match self.bench.engine {
                Some(_) => Ok(()),
                None => self.bench.open().map(drop),
            };
            match opened.and_then(|()| act(&mut self.bench)) {
                Ok(()) => return self.bench.read_export().unwrap(),
                Err(error) => self.after_error(&error),
            }
        }
        panic!("no success in {TRIES} tries");
    }

    fn after_error(&mut self, error: &EngineError) {
        let fate = match self.bench.disk.is_dead() {
            true => self.fate,
            false if error.is_transient() => return,
            false => Fate::Kept,
        };
        let found = self.bench.disk.power_cut(1, fate);
        self.bench.engine = None;
        self.bench.disk = found;
        // A name that was removed may be there again.
        self.note_peaks();
    }

    /// Compares export and account with the batch.
    fn check(&mut self) {
        self.complete();
        self.drive(|bench| bench.scan().and_then(|()| bench.quiet()));
        // A day-file that could not be read then is read by the next scan.
        self.bench.disk.heal();
        self.drive(|bench| bench.scan().and_then(|()| bench.quiet()));
        let pairs = self.pairs();
        let export = self.bench.disk.read(EXPORT).unwrap_or_default();
        if self.has_only_grown {
            let naive = naive_batch(&pairs, false);
            assert_eq!(multiset_difference(&export, &naive.rows), None);
            assert_eq!(self.bench.count_fault(&naive.counts), None);
            assert_eq!(self.bench.ledger_fault(&naive), None);
        }
        assert_eq!(self.peaks.fault(&export, &pairs), None);
    }
}

fn path_of((pair, stream): File) -> PathBuf {
    stream.path(Path::new(ROOT), PAIRS[pair])
}
