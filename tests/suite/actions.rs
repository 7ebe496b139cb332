//! The real daemon on a real file system under random sequences of what people, scorers and log rotation do to
//! day-files, compared with the naive batch whenever all is quiet. A sequence that fails is shrunk.
//!
//! `DISTILLD_ACTIONS_SECONDS=3600 cargo test --test suite actions::` goes on for an hour; `DISTILLD_ACTIONS_SEED` begins
//! with the seed that a failure named.

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
use crate::support::naive::{Pairs, naive_batch, read_pairs, row_key};
use crate::support::naive_json;
use crate::support::process::{Bench, LONG, evidence, scored_as};
use crate::support::tools::number_from;
use distilld::platform::storage::OsStorage;

/// How long the ordinary run goes on.
const SECONDS: u64 = 20;
/// How long a failing sequence is shrunk.
const SHRINKING: Duration = Duration::from_secs(120);
/// How long the daemon may take after the last action of a part: longer than it should, shorter than until its next
/// scan, because events alone have to do.
const QUIET_DEADLINE: Duration = Duration::from_secs(15);

const DAYS: [&str; 2] = ["2026/01/01", "2026/01/02"];
const OTHER_DAY: &str = "2026/02/03";
const NAMES: [&str; 2] = ["a.jsonl", "b.jsonl"];

/// Rows by what they are known by.
type Rows = BTreeMap<String, usize>;

/// Something that happens to the lake or to the daemon.
#[derive(Debug, Clone)]
enum Action {
    /// A piece of a line, a line, several; in one write.
    Append(Stream, String, Vec<u8>),
    Rewrite(Stream, String, Content, Way),
    /// To so many 256ths of its length.
    Truncate(Stream, String, u8),
    /// Copied under another name, then cut to nothing.
    CopyTruncate(Stream, String),
    Rename(Stream, String, String),
    Delete(Stream, String),
    /// Nobody may read it until the next quiet.
    Forbid(Stream, String),
    /// The second day, out of the lake or back.
    MoveDay(Stream),
    /// The second day becomes another, or back.
    RenameDay(Stream),
    Quiet,
    Restart,
    Kill,
}

/// What a day-file is rewritten to.
#[derive(Debug, Clone, Copy)]
enum Content {
    Same,
    Shuffled(u64),
    Doubled,
    /// Without its first lines.
    WithoutHead,
    /// Its first half, then other lines.
    SameHead(u32),
    /// Other lines of the same length.
    SameSize,
}

/// How a day-file is rewritten.
#[derive(Debug, Clone, Copy)]
enum Way {
    InPlace,
    /// In place, and the time of the last change as it was.
    InPlaceWithOldTime,
    ByRename,
    /// Removed and made again: file systems like to give the same inode.
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

/// A few runs to a pair, in both streams or one, whole or in pieces.
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
            // A cut before a line's closing brace: what is there till then is no whole value.
            let rest = bytes.split_off(rng.usize(..bytes.len() - 2));
            actions.push(Action::Append(*stream, pair.clone(), bytes));
            bytes = rest;
        }
        actions.push(Action::Append(*stream, pair.clone(), bytes));
    }
}

/// Names of one length, so that lines have one too.
fn name_of(run: u32) -> String {
    format!("run {run:08}")
}

fn line(stream: Stream, run: &str) -> String {
    match stream {
        Stream::Scored => scored_as(run, category_of(run)),
        Stream::Evidence => evidence(run),
    }
}

/// Most are accepted; categories of one length.
fn category_of(run: &str) -> &'static str {
    match run.as_bytes().last() {
        Some(b'3') => "rejected",
        Some(b'4') => "doubtful",
        _ => "accepted",
    }
}

/// For root nothing is forbidden: its daemon is another user's.
fn start(bench: &Bench) -> Daemon {
    let root = rustix::process::geteuid().is_root();
    if root {
        bench.start_command(&mut bench.as_nobody(&["run"]))
    } else {
        bench.start()
    }
}

/// A lake, its daemon, and what the lake ever earned.
struct Run {
    bench: Bench,
    daemon: Option<Daemon>,
    /// By pair: of each key, the most rows that it ever earned at once.
    peaks: BTreeMap<String, Rows>,
}

impl Run {
    fn new() -> Self {
        let bench = Bench::new();
        let daemon = Some(start(&bench));
        Self {
            bench,
            daemon,
            peaks: BTreeMap::new(),
        }
    }

    fn act(&mut self, action: &Action) -> Result<(), String> {
        let said = |error: io::Error| format!("{action:?}: {error}");
        let path = |stream: &Stream, pair: &String| self.bench.path(*stream, pair);
        match action {
            Action::Append(stream, pair, bytes) => self.bench.append(*stream, pair, bytes),
            Action::Rewrite(stream, pair, content, way) => {
                rewrite(*stream, &path(stream, pair), *content, *way).map_err(said)?;
            }
            Action::Truncate(stream, pair, part) => {
                truncate(&path(stream, pair), *part).map_err(said)?;
            }
            Action::CopyTruncate(stream, pair) => {
                let path = path(stream, pair);
                if path.exists() {
                    fs::copy(&path, path.with_extension("1.jsonl")).map_err(said)?;
                    File::create(&path).map_err(said)?;
                }
            }
            Action::Rename(stream, pair, to) => {
                let (from, to) = (path(stream, pair), path(stream, to));
                if from.exists() && to.parent().is_some_and(Path::exists) {
                    fs::rename(from, to).map_err(said)?;
                }
            }
            Action::Delete(stream, pair) => {
                // There may be none.
                _ = fs::remove_file(path(stream, pair));
            }
            Action::Forbid(stream, pair) => {
                _ = fs::set_permissions(path(stream, pair), Permissions::from_mode(0o000));
            }
            Action::MoveDay(stream) => self.swap_day(*stream, &self.away(*stream)).map_err(said)?,
            Action::RenameDay(stream) => {
                let other = self.bench.path(*stream, OTHER_DAY);
                self.swap_day(*stream, &other).map_err(said)?;
            }
            Action::Quiet => return self.check_quiet(),
            Action::Restart => {
                self.stop()?;
                self.daemon = Some(start(&self.bench));
            }
            Action::Kill => {
                let daemon = self.daemon.take().ok_or("no daemon")?;
                daemon.kill_9().map_err(said)?;
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
        self.bench.beside(match stream {
            Stream::Scored => "scored away",
            Stream::Evidence => "evidence away",
        })
    }

    /// The second day goes elsewhere, or comes back where it is away and nothing has taken its place.
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

    /// Waits for what the batch earns, then holds all that is there against what was ever earned.
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

    /// A row that the batch earns and that is not there.
    fn missing(&self) -> Option<String> {
        let rows = self.rows();
        let earned = keys_of(&naive_batch(&self.pairs(), false).rows);
        earned.iter().find_map(|(key, count)| {
            let there = rows.get(key).copied().unwrap_or_default();
            (there < *count).then(|| format!("{there} of {count} rows: {key}"))
        })
    }

    /// Rows and account once more, when it is sure that all has been read again that was to be: the daemon ends, and a
    /// run looks at all there is.
    fn check_end(&mut self) -> Result<(), String> {
        self.stop()?;
        // What was read of a day-file that is gone stays in the account, until the day-file is there again and empty.
        for pair in self.gone() {
            self.bench.append(Stream::Scored, &pair, "");
        }
        let ended = (self.bench).run(&mut self.bench.command(&["run", "--once"]));
        if ended.status.code() != Some(0) {
            return Err(format!("run --once: {}", ended.stderr));
        }
        self.missing().map_or(Ok(()), Err)?;
        self.check_surplus()?;
        account_fault(&self.bench.root(), Compared::Lines).map_or(Ok(()), Err)
    }

    /// Pairs that had a scored day-file and have none.
    fn gone(&self) -> Vec<String> {
        let pairs = self.pairs();
        let ever = self.peaks.keys();
        ever.filter(|pair| !pairs.contains_key(*pair))
            .cloned()
            .collect()
    }

    fn rows(&self) -> Rows {
        let export = String::from_utf8(self.bench.export_bytes()).unwrap();
        // A line in the middle of being written is none yet.
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

    /// Nothing vanished silently: the daemon's own account comes to be that of the batch.
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
        // Other digits, wherever names of runs stand.
        Content::SameSize => {
            let text = String::from_utf8_lossy(&lines.concat()).replace("run 0", "run 7");
            return text.into_bytes();
        }
    }
    lines.concat()
}

/// Cuts a day-file, but not right behind a whole value: that would be taken, and whatever follows it would not go on
/// with it.
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

fn fault_of(actions: &[Action]) -> Option<String> {
    let mut run = Run::new();
    let outcome = actions.iter().try_for_each(|action| run.act(action));
    let outcome = outcome.and_then(|()| run.check_end());
    let fault = outcome.err()?;
    let said = run.bench.said();
    let lines: Vec<&str> = said.lines().collect();
    let end = lines[lines.len().saturating_sub(15)..].join("\n");
    Some(format!("{fault}\n--- end of the log\n{end}"))
}

/// The shortest sequence found that still fails, by leaving out ever smaller parts.
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
fn whatever_is_done_to_day_files_each_line_has_one_row() {
    let seconds = number_from("DISTILLD_ACTIONS_SECONDS").unwrap_or(SECONDS);
    let first = number_from("DISTILLD_ACTIONS_SEED").unwrap_or_else(|| fastrand::u64(..));
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut sequences, mut done) = (0, 0);
    while Instant::now() < end {
        let seed = first.wrapping_add(sequences);
        let actions = random_actions(&mut Rng::with_seed(seed));
        if let Some(fault) = fault_of(&actions) {
            let least = shrink(&actions, |actions| {
                let quiet = [actions, &[Action::Quiet]].concat();
                fault_of(&quiet).is_some()
            });
            panic!("DISTILLD_ACTIONS_SEED={seed}: {fault}\nleast sequence: {least:#?}");
        }
        sequences += 1;
        done += actions.len();
    }
    eprintln!("from seed {first}: {sequences} sequences, {done} actions");
    assert!(sequences > 0);
}
