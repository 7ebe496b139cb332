//! The lake of a simulation: steps of scorers, each with the events that it causes, and since when the daemon can know
//! of each change.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use distilld::lake::path::{PairPath, Stream};

use crate::support::bench::ROOT;
use crate::support::naive::Pairs;
use crate::support::sim_disk::SimDisk;

use super::events::{Kernel, Kind};

/// The directories of both streams, and one outside of them.
pub const BASES: [&str; 2] = ["/lake/data/scored-runs", "/lake/data/evidence"];
pub const AWAY: &str = "/lake/away";

/// One step of a scorer.
#[derive(Clone)]
pub enum Step {
    MakeDir(PathBuf),
    Append(PathBuf, Vec<u8>),
    /// Writes a new content into the same file.
    Rewrite(PathBuf, Vec<u8>),
    Truncate(PathBuf, u64),
    Remove(PathBuf),
    RemoveDir(PathBuf),
    /// Renames a file, over another one, or a directory to a free name.
    Rename(PathBuf, PathBuf),
    Deny(PathBuf, bool),
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::MakeDir(dir) => write!(f, "make {}", dir.display()),
            Step::Append(file, bytes) => {
                let text = String::from_utf8_lossy(bytes);
                write!(f, "append to {}: {text:?}", file.display())
            }
            Step::Rewrite(file, bytes) => {
                write!(f, "rewrite {}, {} bytes", file.display(), bytes.len())
            }
            Step::Truncate(file, len) => write!(f, "truncate {} to {len}", file.display()),
            Step::Remove(file) => write!(f, "remove {}", file.display()),
            Step::RemoveDir(dir) => write!(f, "remove the directory {}", dir.display()),
            Step::Rename(from, to) => write!(f, "rename {} to {}", from.display(), to.display()),
            Step::Deny(path, denied) => write!(f, "deny {}: {denied}", path.display()),
        }
    }
}

/// A change of a day-file.
#[derive(Debug, Clone)]
struct Change {
    /// The length of its whole lines from then on, bytes.
    len: usize,
    at_ms: u64,
    /// The state of the event source at that time.
    generation: u64,
    queued: u64,
    is_reliable: bool,
    /// When the last event of the change was delivered.
    known: Option<Known>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    moment: u64,
    at_ms: u64,
}

/// What the status `fresh` implies.
#[derive(Debug, Clone, Copy)]
pub struct Promise {
    /// All is read that was known before this moment.
    pub moment: u64,
    /// All is read that was known at this time.
    pub known_by_ms: u64,
    /// All is read that happened before this time, also without an event.
    pub scanned_by_ms: u64,
}

/// The lake as others than the daemon see it.
#[derive(Debug)]
pub struct Lake {
    pub disk: SimDisk,
    pub kernel: Arc<Mutex<Kernel>>,
    changes: BTreeMap<PathBuf, Vec<Change>>,
    /// Counts changes, deliveries and turns of the daemon, to order them.
    pub moment: u64,
    /// Number of steps that did more than append.
    pub rewrites: u64,
    cookies: usize,
}

impl Lake {
    pub fn new(disk: SimDisk, kernel: Arc<Mutex<Kernel>>) -> Self {
        for base in BASES {
            disk.make_dir(base);
        }
        disk.make_dir(AWAY);
        for dir in ["/", ROOT, "/lake/data"] {
            disk.settle_names(dir);
        }
        Self {
            disk,
            kernel,
            changes: BTreeMap::new(),
            moment: 0,
            rewrites: 0,
            cookies: 0,
        }
    }

    pub fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a step, if it is possible. Everything is durable at once.
    /// Takes a step. Returns the pairs from which scored day-files moved to other pairs.
    pub fn step(&mut self, step: &Step, now_ms: u64) -> Vec<String> {
        let mut moved = Vec::new();
        match step {
            Step::MakeDir(dir) => self.make_dir(dir),
            Step::Append(file, bytes) => self.append(file, bytes),
            Step::Rewrite(file, bytes) if self.exists(file) => {
                self.rewrites += 1;
                self.disk.write_file(file, bytes);
                self.written(file);
            }
            Step::Truncate(file, len_bytes) if self.exists(file) => {
                self.rewrites += 1;
                self.disk.truncate(file, *len_bytes);
                self.written(file);
            }
            Step::Remove(file) if self.exists(file) => self.remove(file),
            Step::RemoveDir(dir) if self.exists(dir) && self.disk.names_in(dir).is_empty() => {
                let inode = self.disk.stat_of(dir).unwrap().inode;
                self.disk.remove_dir(dir);
                self.kernel().emit_at(inode, Kind::SelfDeleted, None, true);
                self.name_changed(dir, Kind::Deleted, true);
            }
            Step::Rename(from, to) if self.exists(from) => {
                let before = self.scored_inodes();
                self.rename(from, to);
                moved = moved_from(&before, &self.scored_inodes());
            }
            Step::Deny(path, denied) if self.exists(path) => {
                self.disk.deny(path, *denied);
                self.emit(path, Kind::Rights, false);
            }
            _ => {}
        }
        self.note_changes(step, now_ms);
        moved
    }

    /// Returns the inode of the scored day-file of each pair.
    fn scored_inodes(&self) -> BTreeMap<String, u64> {
        let files = self.day_files().into_iter();
        let scored = files.filter_map(|file| {
            let pair = file.strip_prefix(BASES[0]).ok()?.to_str()?.to_owned();
            Some((pair, self.disk.stat_of(&file)?.inode))
        });
        scored.collect()
    }

    fn exists(&self, path: &Path) -> bool {
        self.disk.stat_of(path).is_some()
    }

    fn make_dir(&mut self, dir: &Path) {
        if !self.exists(dir) && self.exists(parent(dir)) {
            self.disk.make_dir(dir);
            self.name_changed(dir, Kind::Created, true);
        }
    }

    fn append(&mut self, file: &Path, bytes: &[u8]) {
        if !self.exists(parent(file)) {
            return;
        }
        let is_new = !self.exists(file);
        self.disk.append_durable(file, bytes);
        if is_new {
            self.emit(file, Kind::Created, false);
        }
        self.emit(file, Kind::Modified, false);
        self.emit(file, Kind::Closed, false);
    }

    fn written(&mut self, file: &Path) {
        self.disk.settle(file);
        self.emit(file, Kind::Modified, false);
        self.emit(file, Kind::Closed, false);
    }

    fn remove(&mut self, file: &Path) {
        self.rewrites += 1;
        self.disk.remove(file);
        self.name_changed(file, Kind::Deleted, false);
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        let is_dir = !from.to_string_lossy().contains(".jsonl");
        if !self.exists(parent(to)) || is_dir && self.exists(to) {
            return;
        }
        self.rewrites += 1;
        let inode = self.disk.stat_of(from).unwrap().inode;
        self.disk.move_file(from, to);
        self.cookies += 1;
        self.name_changed(from, Kind::MovedFrom(self.cookies), is_dir);
        self.name_changed(to, Kind::MovedTo(self.cookies), is_dir);
        self.kernel().emit_at(inode, Kind::SelfMoved, None, is_dir);
    }

    fn name_changed(&mut self, path: &Path, kind: Kind, is_dir: bool) {
        self.disk.settle_names(parent(path));
        self.emit(path, kind, is_dir);
    }

    fn emit(&mut self, path: &Path, kind: Kind, is_dir: bool) {
        let name = path.file_name().unwrap().to_string_lossy();
        self.kernel().emit(parent(path), kind, &name, is_dir);
    }

    /// Notes which day-files a step changed.
    fn note_changes(&mut self, step: &Step, now_ms: u64) {
        let (Step::Append(path, _)
        | Step::Rewrite(path, _)
        | Step::Truncate(path, _)
        | Step::Remove(path)
        | Step::Rename(_, path)
        | Step::MakeDir(path)
        | Step::RemoveDir(path)
        | Step::Deny(path, _)) = step;
        let is_append = matches!(step, Step::Append(..));
        let gone = |file: &PathBuf| self.disk.read(file).is_none();
        let gone: Vec<_> = self
            .changes
            .keys()
            .filter(|file| gone(file))
            .cloned()
            .collect();
        gone.iter().for_each(|file| _ = self.changes.remove(file));
        if matches!(step, Step::MakeDir(_) | Step::Deny(..)) {
            return;
        }
        for file in self.day_files() {
            if file.starts_with(path) {
                self.note_change(file, is_append, now_ms);
            }
        }
    }

    fn note_change(&mut self, file: PathBuf, is_append: bool, now_ms: u64) {
        let bytes = self.disk.read(&file).unwrap_or_default();
        let change = {
            let kernel = self.kernel();
            Change {
                len: whole_lines(&bytes).len(),
                at_ms: now_ms,
                generation: kernel.generation,
                queued: kernel.queued,
                is_reliable: kernel.is_reliable(),
                known: None,
            }
        };
        let changes = self.changes.entry(file).or_default();
        if !is_append {
            changes.clear();
        }
        changes.push(change);
        self.note_known(now_ms);
    }

    /// Notes which changes the daemon knows: all their events were delivered, or the event source was opened again, so
    /// that everything is listed.
    pub fn note_known(&mut self, now_ms: u64) {
        self.moment += 1;
        let (generation, delivered, is_reliable) = {
            let kernel = self.kernel();
            (kernel.generation, kernel.delivered, kernel.is_reliable())
        };
        for change in self.changes.values_mut().flatten() {
            let is_told = change.generation != generation || change.queued <= delivered;
            if !is_reliable {
                change.is_reliable = false;
            }
            if is_told && change.known.is_none() {
                change.known = Some(Known {
                    moment: self.moment,
                    at_ms: now_ms,
                });
            }
        }
    }

    /// A process starts: it lists everything before it is fresh.
    pub fn note_start(&mut self, now_ms: u64) {
        self.moment += 1;
        for change in self.changes.values_mut().flatten() {
            change.is_reliable = true;
            change.known = Some(Known {
                moment: self.moment,
                at_ms: now_ms,
            });
        }
    }

    /// Returns the day-files of both streams.
    pub fn day_files(&self) -> Vec<PathBuf> {
        let mut dirs: Vec<PathBuf> = BASES.map(PathBuf::from).into();
        for _ in 0..3 {
            let below = dirs.iter().flat_map(|dir| {
                let names = self.disk.names_in(dir);
                names.into_iter().map(|name| dir.join(name))
            });
            dirs = below.collect();
        }
        let files = dirs.iter().flat_map(|dir| {
            let names = self.disk.names_in(dir).into_iter();
            let names = names.filter(|name| name.ends_with(".jsonl"));
            names.map(|name| dir.join(name)).collect::<Vec<_>>()
        });
        files.collect()
    }

    /// Returns what the day-files hold.
    pub fn pairs(&self) -> Pairs {
        self.pairs_of(|_, bytes| bytes.len())
    }

    /// Returns the whole lines that the day-files hold.
    pub fn whole_pairs(&self) -> Pairs {
        self.pairs_of(|_, bytes| whole_lines(bytes).len())
    }

    /// Returns the beginning of each day-file that was read if a promise holds.
    pub fn promised(&self, promise: &Promise) -> Pairs {
        self.pairs_of(|file, _| self.promised_len(file, promise))
    }

    /// Returns the length of the beginning of a day-file that was read if a promise holds, bytes.
    fn promised_len(&self, file: &Path, promise: &Promise) -> usize {
        let due = self.changes.get(file).into_iter().flatten();
        let due = due.filter(|change| {
            let known = change.known.filter(|_| change.is_reliable);
            change.at_ms < promise.scanned_by_ms
                || known.is_some_and(|known| {
                    known.moment < promise.moment && known.at_ms <= promise.known_by_ms
                })
        });
        due.map(|change| change.len).next_back().unwrap_or(0)
    }

    /// Returns the same for each day-file.
    pub fn promised_lengths(&self, promise: &Promise) -> Vec<(PairPath, Stream, usize)> {
        let lengths = self.day_files().into_iter().filter_map(|file| {
            let len = self.promised_len(&file, promise);
            let streams = [Stream::Scored, Stream::Evidence].into_iter();
            let mut of_streams = streams.zip(BASES);
            of_streams.find_map(|(stream, base)| {
                let path = PairPath::from_relative(file.strip_prefix(base).ok()?)?;
                Some((path, stream, len))
            })
        });
        lengths.collect()
    }

    fn pairs_of(&self, len_of: impl Fn(&Path, &[u8]) -> usize) -> Pairs {
        let mut pairs = Pairs::new();
        for file in self.day_files() {
            let mut bytes = self.disk.read(&file).unwrap_or_default();
            bytes.truncate(len_of(&file, &bytes));
            let below = file.strip_prefix(Path::new(ROOT).join("data")).unwrap();
            let (stream, path) = below.to_str().unwrap().split_once('/').unwrap();
            let pair = pairs.entry(path.to_owned()).or_default();
            match stream {
                "scored-runs" => pair.0 = Some(bytes),
                _ => pair.1 = Some(bytes),
            }
        }
        pairs.retain(|_, pair| pair.0.is_some());
        pairs
    }
}

/// Returns the pairs whose day-files are at other pairs now.
fn moved_from(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> Vec<String> {
    let has_moved = |(from, inode): &(&String, &u64)| {
        let elsewhere = now.iter().filter(|(to, _)| to != from);
        elsewhere.into_iter().any(|(_, other)| other == *inode)
    };
    let moved = before.iter().filter(has_moved);
    moved.map(|(from, _)| from.clone()).collect()
}

pub fn parent(path: &Path) -> &Path {
    path.parent().unwrap()
}

fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte == b'\n');
    &bytes[..end.map_or(0, |end| end + 1)]
}
