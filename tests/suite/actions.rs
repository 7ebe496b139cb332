//! The real daemon on a real file system under random sequences of what people, scorers and log rotation do to
//! day-files, compared with the naive batch whenever all is quiet. A failing sequence is shrunk.
//!
//! `DISTILLD_ACTIONS_SECONDS=3600 cargo test --test suite actions::` runs for an hour; `DISTILLD_ACTIONS_SEED` starts
//! with the seed that a failure printed.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::support::account::{Compared, account_fault};
use crate::support::kill_harness::{Daemon, wait_until};
use crate::support::lake_gen::Stream;
use crate::support::ledger::{effective_rows, read_ledger};
use crate::support::naive::{Pairs, naive_batch, read_pairs, row_key};
use crate::support::naive_json;
use crate::support::process::{Bench, LONG, evidence, scored_as};
use crate::support::tools::number_from;
use distilld::platform::storage::OsStorage;

/// Duration of the ordinary run.
const SECONDS: u64 = 20;
/// Maximum duration of shrinking a failing sequence.
const SHRINKING: Duration = Duration::from_secs(120);
/// Maximum time for the daemon after the last action of a part: longer than it should need, shorter than until its
/// next scan, because events alone must be enough.
const QUIET_DEADLINE: Duration = Duration::from_secs(15);

const DAYS: [&str; 2] = ["2026/01/01", "2026/01/02"];
const OTHER_DAY: &str = "2026/02/03";
const NAMES: [&str; 2] = ["a.jsonl", "b.jsonl"];

/// Number of rows by key.
type Rows = BTreeMap<String, usize>;

/// A change of the lake or of the daemon.
#[derive(Debug, Clone)]
enum Action {
    /// A part of a line, a line, or several; in one write.
    Append(Stream, String, Vec<u8>),
    Rewrite(Stream, String, Content, Way),
    /// Truncates to this number of 256ths of the length.
    Truncate(Stream, String, u8),
    /// Copies to another name, then truncates to zero.
    CopyTruncate(Stream, String),
    Rename(Stream, String, String),
    Delete(Stream, String),
    /// Removes all permissions until the next quiet.
    Forbid(Stream, String),
    /// Moves the second day out of the lake or back.
    MoveDay(Stream),
    /// Renames the second day, or renames it back.
    RenameDay(Stream),
    Quiet,
    Restart,
    Kill,
}

/// The new content of a rewritten day-file.
#[derive(Debug, Clone, Copy)]
enum Content {
    Same,
    Shuffled(u64),
    Doubled,
    /// Without its first lines.
    WithoutHead,
    /// The first half, then other lines.
    SameHead(u32),
    /// Other lines of the same length.
    SameSize,
}

/// The way in which a day-file is rewritten.
#[derive(Debug, Clone, Copy)]
enum Way {
    InPlace,
    /// In place, with the modification time restored.
    InPlaceWithOldTime,
    ByRename,
    /// Removed and created again: file systems often assign the same inode.
    Anew,
}

fn random_actions(rng: &mut Rng) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut run = 0;
    for _ in 0..rng.usize(5..40) {
        let stream = *rng.choice(&Stream::BOTH).unwrap();
        let pair = random_pair(rng);
        let action = match rng.u8(..30) {
            0..10 => {
                append_runs(rng, &mut actions, &mut run);
                continue;
            }
            10..15 => Action::Rewrite(stream, pair, random_content(rng), random_way(rng)),
            15..17 => Action::Truncate(stream, pair, rng.u8(..)),
            17 => Action::CopyTruncate(stream, pair),
            18 => Action::Rename(stream, pair, random_pair(rng)),
            19 => Action::Delete(stream, pair),
            20 => Action::Forbid(stream, pair),
            21 | 22 => Action::MoveDay(stream),
            23 => Action::RenameDay(stream),
            24 | 25 => Action::Restart,
            26 => Action::Kill,
            _ => Action::Quiet,
        };
        actions.push(action);
    }
    actions.push(Action::Quiet);
    actions
}

fn random_pair(rng: &mut Rng) -> String {
    let (day, name) = (rng.choice(&DAYS).unwrap(), rng.choice(&NAMES).unwrap());
    format!("{day}/{name}")
}

fn random_content(rng: &mut Rng) -> Content {
    match rng.u8(..6) {
        0 => Content::Same,
        1 => Content::Shuffled(rng.u64(..)),
        2 => Content::Doubled,
        3 => Content::WithoutHead,
        4 => Content::SameHead(rng.u32(..)),
        _ => Content::SameSize,
    }
}

fn random_way(rng: &mut Rng) -> Way {
    *rng.choice(&[
        Way::InPlace,
        Way::InPlaceWithOldTime,
        Way::ByRename,
        Way::Anew,
    ])
    .unwrap()
}

/// Appends a few runs to a pair, in both streams or one, complete or in pieces.
fn append_runs(rng: &mut Rng, actions: &mut Vec<Action>, run: &mut u32) {
    let pair = random_pair(rng);
    let runs: Vec<String> = (0..rng.u32(1..6))
        .map(|more| name_of(*run + more))
        .collect();
    *run += 10;
    let mut streams = Stream::BOTH;
    rng.shuffle(&mut streams);
    for stream in &streams[..if rng.u8(..5) == 0 { 1 } else { 2 }] {
        let mut bytes: Vec<u8> = runs
            .iter()
            .flat_map(|run| line(*stream, run).into_bytes())
            .collect();
        if rng.bool() {
            // Split before the closing brace of a line: the part before it is not a complete value.
            let rest = bytes.split_off(rng.usize(..bytes.len() - 2));
            actions.push(Action::Append(*stream, pair.clone(), bytes));
            bytes = rest;
        }
        actions.push(Action::Append(*stream, pair.clone(), bytes));
    }
    if rng.u8(..3) == 0 {
        let later = scored_as(&name_of(rng.u32(..*run)), "rejected");
        actions.push(Action::Append(Stream::Scored, pair, later.into_bytes()));
    }
}

/// Returns run ids of equal length, so that lines have equal lengths too.
fn name_of(run: u32) -> String {
    format!("run {run:08}")
}

fn line(stream: Stream, run: &str) -> String {
    match stream {
        Stream::Scored => scored_as(run, category_of(run)),
        Stream::Evidence => evidence(run),
    }
}

/// Returns mostly `accepted`; all categories have the same length.
fn category_of(run: &str) -> &'static str {
    match run.as_bytes().last() {
        Some(b'3') => "rejected",
        Some(b'4') => "doubtful",
        _ => "accepted",
    }
}

/// Root bypasses permissions, so its daemon runs as another user.
fn start(bench: &Bench) -> Daemon {
    let root = rustix::process::geteuid().is_root();
    if root {
        bench.start_command(&mut bench.as_unprivileged(&["run"]))
    } else {
        bench.start()
    }
}

/// A lake, its daemon, and all rows that the lake ever earned.
struct Run {
    bench: Bench,
    daemon: Option<Daemon>,
    /// By pair: for each key, the maximum number of rows that it ever earned at once.
    peaks: BTreeMap<String, Rows>,
    /// Events of the ledger at the end.
    retracted: usize,
    restored: usize,
}

impl Run {
    fn new() -> Self {
        let bench = Bench::new();
        let daemon = Some(start(&bench));
        Self {
            bench,
            daemon,
            peaks: BTreeMap::new(),
            retracted: 0,
            restored: 0,
        }
    }

    fn act(&mut self, action: &Action) -> Result<(), String> {
        let describe = |error: io::Error| format!("{action:?}: {error}");
        let path = |stream: &Stream, pair: &String| self.bench.path(*stream, pair);
        match action {
            Action::Append(stream, pair, bytes) => self.bench.append(*stream, pair, bytes),
            Action::Rewrite(stream, pair, content, way) => {
                rewrite(*stream, &path(stream, pair), *content, *way).map_err(describe)?;
            }
            Action::Truncate(stream, pair, part) => {
                truncate(&path(stream, pair), *part).map_err(describe)?;
            }
            Action::CopyTruncate(stream, pair) => {
                let path = path(stream, pair);
                if path.exists() {
                    fs::copy(&path, path.with_extension("1.jsonl")).map_err(describe)?;
                    File::create(&path).map_err(describe)?;
                }
            }
            Action::Rename(stream, pair, to) => {
                let (from, to) = (path(stream, pair), path(stream, to));
                if from.exists() && to.parent().is_some_and(Path::exists) {
                    fs::rename(from, to).map_err(describe)?;
                }
            }
            Action::Delete(stream, pair) => {
                // The file may not exist.
                _ = fs::remove_file(path(stream, pair));
            }
            Action::Forbid(stream, pair) => {
                _ = fs::set_permissions(path(stream, pair), Permissions::from_mode(0o000));
            }
            Action::MoveDay(stream) => self
                .swap_day(*stream, &self.away(*stream))
                .map_err(describe)?,
            Action::RenameDay(stream) => {
                let other = self.bench.path(*stream, OTHER_DAY);
                self.swap_day(*stream, &other).map_err(describe)?;
            }
            Action::Quiet => return self.check_quiet(),
            Action::Restart => {
                self.stop()?;
                self.daemon = Some(start(&self.bench));
            }
            Action::Kill => {
                let daemon = self.daemon.take().ok_or("no daemon")?;
                daemon.kill_9().map_err(describe)?;
                self.daemon = Some(start(&self.bench));
            }
        }
        self.note_peaks();
        Ok(())
    }

    fn stop(&mut self) -> Result<(), String> {
        let daemon = self.daemon.take().ok_or("no daemon")?;
        let ended = daemon.terminate(LONG);
        match ended.map(|status| (status.code(), status)) {
            Ok((Some(0), _)) => Ok(()),
            Ok((_, status)) => Err(format!("SIGTERM: {status}")),
            Err(error) => Err(format!("SIGTERM: {error}")),
        }
    }

    fn away(&self, stream: Stream) -> PathBuf {
        self.bench.sibling(match stream {
            Stream::Scored => "scored away",
            Stream::Evidence => "evidence away",
        })
    }

    /// Moves the second day elsewhere, or back if it is away and its place is free.
    fn swap_day(&self, stream: Stream, elsewhere: &Path) -> io::Result<()> {
        let day = self.bench.path(stream, DAYS[1]);
        fs::create_dir_all(elsewhere.parent().unwrap())?;
        match (day.exists(), elsewhere.exists()) {
            (true, false) => fs::rename(day, elsewhere),
            (false, true) => {
                fs::create_dir_all(day.parent().unwrap())?;
                fs::rename(elsewhere, day)
            }
            _ => Ok(()),
        }
    }

    fn note_peaks(&mut self) {
        for (pair, files) in self.pairs() {
            let alone = Pairs::from([(pair.clone(), files)]);
            let peak = self.peaks.entry(pair).or_default();
            for (key, count) in keys_of(&naive_batch(&alone, false).rows) {
                let peak = peak.entry(key).or_default();
                *peak = (*peak).max(count);
            }
        }
    }

    fn pairs(&self) -> Pairs {
        read_pairs(&OsStorage, &self.bench.root()).unwrap()
    }

    /// Waits for the rows of the batch, then compares the whole export with everything that was ever earned.
    fn check_quiet(&mut self) -> Result<(), String> {
        self.allow_all();
        self.bench.append_run("2026/01/01/probe.jsonl", "probe");
        self.note_peaks();
        let mut daemon = self.daemon.take().ok_or("no daemon")?;
        let mut missing = None;
        let reached = wait_until(QUIET_DEADLINE, || {
            daemon.check_running()?;
            missing = self.missing();
            Ok(missing.is_none())
        });
        self.daemon = Some(daemon);
        reached?;
        missing.map_or(Ok(()), Err)?;
        self.check_surplus()?;
        self.check_account()
    }

    /// Returns a row that the batch earns and the export lacks.
    fn missing(&self) -> Option<String> {
        let rows = self.rows();
        let earned = keys_of(&naive_batch(&self.pairs(), false).rows);
        earned.iter().find_map(|(key, count)| {
            let actual = rows.get(key).copied().unwrap_or_default();
            (actual < *count).then(|| format!("{actual} of {count} rows: {key}"))
        })
    }

    /// Compares rows and account once more when all rereads are certain to be complete: the daemon ends, and a run
    /// reads everything.
    fn check_end(&mut self) -> Result<(), String> {
        self.stop()?;
        // The lines that were read of a missing day-file remain in the account until the day-file exists again and is
        // empty.
        for pair in self.gone() {
            self.bench.append(Stream::Scored, &pair, "");
        }
        let ended = (self.bench).run(&mut self.bench.command(&["run", "--once"]));
        if ended.status.code() != Some(0) {
            return Err(format!("run --once: {}", ended.stderr));
        }
        self.missing().map_or(Ok(()), Err)?;
        self.check_surplus()?;
        self.check_ledger()?;
        account_fault(&self.bench.root(), Compared::Lines).map_or(Ok(()), Err)
    }

    /// Asserts that each row of the effective set of the batch is effective. Rows without a line may be so or not.
    fn check_ledger(&mut self) -> Result<(), String> {
        let export = self.bench.export_bytes();
        let ledger = fs::read(self.bench.export().with_file_name("sft_retractions.jsonl"));
        let events = read_ledger(&export, &ledger.map_err(|error| error.to_string())?)?;
        let count = |op: &str| events.iter().filter(|event| event.op == op).count();
        self.retracted = count("retract");
        self.restored = count("restore");
        let effective = String::from_utf8(effective_rows(&export, &events)).unwrap();
        let effective = keys_of(effective.lines());
        for (key, count) in keys_of(&naive_batch(&self.pairs(), false).effective) {
            let actual = effective.get(&key).copied().unwrap_or_default();
            if actual < count {
                return Err(format!("{actual} of {count} effective rows: {key}"));
            }
        }
        Ok(())
    }

    /// Returns the pairs that had a scored day-file and have none now.
    fn gone(&self) -> Vec<String> {
        let pairs = self.pairs();
        let ever = self.peaks.keys();
        ever.filter(|pair| !pairs.contains_key(*pair))
            .cloned()
            .collect()
    }

    fn rows(&self) -> Rows {
        let export = String::from_utf8(self.bench.export_bytes()).unwrap();
        // An incomplete line is not a row yet.
        let whole = export.rfind('\n').map_or(0, |end| end + 1);
        keys_of(export[..whole].lines())
    }

    fn check_surplus(&self) -> Result<(), String> {
        for (key, count) in self.rows() {
            let peaks = self.peaks.values();
            let most: usize = peaks.map(|peak| peak.get(&key).copied().unwrap_or(0)).sum();
            if count > most {
                return Err(format!("{count} rows, {most} ever earned at once: {key}"));
            }
        }
        Ok(())
    }

    /// Asserts that every line is accounted for: the daemon's own account reaches that of the batch.
    fn check_account(&self) -> Result<(), String> {
        let compared = match self.gone().is_empty() {
            true => Compared::Lines,
            false => Compared::AtLeast,
        };
        let mut fault = None;
        wait_until(QUIET_DEADLINE, || {
            fault = account_fault(&self.bench.root(), compared);
            Ok(fault.is_none())
        })?;
        fault.map_or(Ok(()), Err)
    }

    fn allow_all(&self) {
        for stream in Stream::BOTH {
            let mut dirs = vec![self.bench.path(stream, "")];
            while let Some(dir) = dirs.pop() {
                for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                    if entry.file_type().unwrap().is_dir() {
                        dirs.push(entry.path());
                    } else {
                        fs::set_permissions(entry.path(), Permissions::from_mode(0o644)).unwrap();
                    }
                }
            }
        }
    }
}

fn keys_of<R: AsRef<str>>(rows: impl IntoIterator<Item = R>) -> Rows {
    let mut keys = Rows::new();
    for row in rows {
        *keys.entry(row_key(row.as_ref())).or_default() += 1;
    }
    keys
}

fn rewrite(stream: Stream, path: &Path, content: Content, way: Way) -> io::Result<()> {
    let Ok(old) = fs::read(path) else {
        return Ok(());
    };
    let new = rewritten(stream, &old, content);
    match way {
        Way::InPlace => fs::write(path, new),
        Way::InPlaceWithOldTime => {
            let modified = fs::metadata(path)?.modified()?;
            let mut file = File::create(path)?;
            file.write_all(&new)?;
            file.set_modified(modified)
        }
        Way::ByRename => {
            fs::write(path.with_extension("new"), new)?;
            fs::rename(path.with_extension("new"), path)
        }
        Way::Anew => {
            fs::remove_file(path)?;
            fs::write(path, new)
        }
    }
}

fn rewritten(stream: Stream, old: &[u8], content: Content) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = old
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.ends_with(b"\n"))
        .map(<[u8]>::to_vec)
        .collect();
    match content {
        Content::Same => return old.to_vec(),
        Content::Shuffled(seed) => Rng::with_seed(seed).shuffle(&mut lines),
        Content::Doubled => lines.extend(lines.clone()),
        Content::WithoutHead => drop(lines.drain(..lines.len() / 2)),
        Content::SameHead(run) => {
            let changed = lines.len() / 2..lines.len();
            for (at, old) in changed.clone().zip(&mut lines[changed]) {
                *old = line(stream, &name_of(50_000_000 + run % 40_000_000 + at as u32)).into();
            }
        }
        // Other digits in all run ids.
        Content::SameSize => {
            let text = String::from_utf8_lossy(&lines.concat()).replace("run 0", "run 7");
            return text.into_bytes();
        }
    }
    lines.concat()
}

/// Truncates a day-file, but not directly after a complete value: that would be accepted as a line, and the following
/// bytes would not continue it.
fn truncate(path: &Path, part: u8) -> io::Result<()> {
    let Ok(old) = fs::read(path) else {
        return Ok(());
    };
    let mut len = old.len() * usize::from(part) / 256;
    let tail = old[..len].rsplit(|byte| *byte == b'\n').next();
    let tail = String::from_utf8_lossy(tail.unwrap_or_default());
    if naive_json::parse(tail.trim()).is_some() {
        len -= 1;
    }
    File::options().write(true).open(path)?.set_len(len as u64)
}

/// Runs a sequence. Returns the retractions and restorations that it caused.
fn run(actions: &[Action]) -> Result<(usize, usize), String> {
    let mut run = Run::new();
    let outcome = actions.iter().try_for_each(|action| run.act(action));
    let outcome = outcome.and_then(|()| run.check_end());
    let Err(fault) = outcome else {
        return Ok((run.retracted, run.restored));
    };
    let log = run.bench.log_text();
    let lines: Vec<&str> = log.lines().collect();
    let end = lines[lines.len().saturating_sub(15)..].join("\n");
    Err(format!("{fault}\n--- end of the log\n{end}"))
}

/// Returns the shortest sequence found that still fails, by removing ever smaller parts.
fn shrink(actions: &[Action], mut fails: impl FnMut(&[Action]) -> bool) -> Vec<Action> {
    let end = Instant::now() + SHRINKING;
    let mut shortest = actions.to_vec();
    let mut part = shortest.len().div_ceil(2);
    while part > 0 {
        let mut start = 0;
        while start < shortest.len() && Instant::now() < end {
            let stop = (start + part).min(shortest.len());
            let candidate = [&shortest[..start], &shortest[stop..]].concat();
            if fails(&candidate) {
                shortest = candidate;
            } else {
                start = stop;
            }
        }
        part /= 2;
    }
    shortest
}

#[test]
fn random_changes_of_day_files_leave_one_row_per_line() {
    let seconds = number_from("DISTILLD_ACTIONS_SECONDS").unwrap_or(SECONDS);
    let first = number_from("DISTILLD_ACTIONS_SEED").unwrap_or_else(|| fastrand::u64(..));
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut sequences, mut done) = (0, 0);
    let (mut retracted, mut restored) = (0, 0);
    while Instant::now() < end {
        let seed = first.wrapping_add(sequences);
        let actions = random_actions(&mut Rng::with_seed(seed));
        match run(&actions) {
            Ok(events) => {
                retracted += events.0;
                restored += events.1;
            }
            Err(fault) => {
                let least = shrink(&actions, |actions| {
                    let quiet = [actions, &[Action::Quiet]].concat();
                    run(&quiet).is_err()
                });
                panic!("DISTILLD_ACTIONS_SEED={seed}: {fault}\nleast sequence: {least:#?}");
            }
        }
        sequences += 1;
        done += actions.len();
    }
    eprintln!(
        "from seed {first}: {sequences} sequences, {done} actions, {retracted} rows retracted, {restored} restored"
    );
    assert!(sequences > 0);
}
