//! Whether the day-files of a pair can be read now, or why not. A source that cannot be read now may come back; a source
//! that is gone does not.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::engine::Setup;
use crate::engine::read::last_device;
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::{not_mounted, open_day_file};
use crate::pair::checkpoint::PairCheckpoint;
use crate::platform::storage::{FileKind, Storage};

/// Why an empty directory may hide rows.
pub(super) const EMPTY: &str = "empty, and without a state it is unknown whether it is mounted";
/// Why nothing below a link or a file is read.
const LINKED: &str = "not a directory, and links to directories are not followed";

/// Why rows have no source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Availability {
    /// Both day-files can be read.
    Readable,
    /// The day-file does not exist.
    Gone(PathBuf),
    /// The path exists and cannot be read now, or should exist.
    Unreadable(PathBuf, String),
}

/// The paths that a read of the whole lake could not read, with their errors.
#[derive(Debug, Default)]
pub(super) struct Obstacles {
    /// Directories that cannot be listed.
    pub(super) directories: Vec<(PathBuf, String)>,
    /// The directories of streams that do not exist.
    pub(super) missing_bases: Vec<(PathBuf, String)>,
    /// Day-files that cannot be read.
    pub(super) day_files: BTreeMap<(PairPath, Stream), String>,
    /// Pairs that were skipped.
    pub(super) pairs: u64,
}

impl Obstacles {
    /// Returns a path that may hold the source of a row of which only the name of the day-file is known.
    pub(super) fn may_hide(&self, root: &Path, day_file_name: &str) -> Option<(PathBuf, String)> {
        let named = self.day_files.iter();
        let mut named = named.filter(|((pair, _), _)| pair.file_name() == day_file_name);
        match named.next() {
            Some(((pair, stream), error)) => Some((pair.path(root, *stream), error.clone())),
            None => {
                let mut directories = self.missing_bases.iter().chain(&self.directories);
                directories.next().cloned()
            }
        }
    }

    /// Adds what a read of the lake skips without an error, and what may be a file system that is not mounted. Only a row
    /// whose day-file no state knows needs it.
    pub(super) fn add_unknown(&mut self, setup: &Setup) {
        for stream in Stream::ALL {
            self.add_unknown_below(setup, stream, Path::new(""));
        }
    }

    fn add_unknown_below(&mut self, setup: &Setup, stream: Stream, dir: &Path) {
        let storage = &*setup.storage;
        let path = stream.base(&setup.root).join(dir);
        // A directory that cannot be listed is recorded already.
        let Ok(entries) = storage.list(&path) else {
            return;
        };
        if entries.is_empty() {
            self.directories.push((path, EMPTY.to_owned()));
            return;
        }
        let is_day = dir.components().count() == 3;
        for entry in entries {
            let below = dir.join(&entry.name);
            match entry.kind {
                FileKind::Directory if !is_day => self.add_unknown_below(setup, stream, &below),
                FileKind::Link if !is_day => {
                    let path = stream.base(&setup.root).join(below);
                    self.directories.push((path, LINKED.to_owned()));
                }
                FileKind::Link => {
                    let pair = PairPath::from_relative(&below);
                    let target = storage.canonicalize(&path.join(&entry.name));
                    if let (Some(pair), Err(error)) = (pair, target) {
                        self.day_files.insert((pair, stream), error.to_string());
                    }
                }
                _ => {}
            }
        }
    }

    /// Returns the number of directories and pairs that were skipped.
    pub(super) fn passed_over(&self) -> u64 {
        self.directories.len() as u64 + self.pairs
    }
}

/// Returns whether the day-files of a pair can be read. `checkpoint` is what an earlier state knows of it.
pub(super) fn availability(
    setup: &Setup,
    obstacles: &Obstacles,
    pair: &PairPath,
    checkpoint: &PairCheckpoint,
) -> Availability {
    let mut worst = Availability::Readable;
    for stream in Stream::ALL {
        let device = last_device(checkpoint.source(stream));
        match of_stream(setup, obstacles, pair, stream, device) {
            Availability::Readable => {}
            unreadable @ Availability::Unreadable(..) => return unreadable,
            gone @ Availability::Gone(_) => worst = gone,
        }
    }
    worst
}

fn of_stream(
    setup: &Setup,
    obstacles: &Obstacles,
    pair: &PairPath,
    stream: Stream,
    device: Option<u64>,
) -> Availability {
    let storage = &*setup.storage;
    let path = pair.path(&setup.root, stream);
    // An error of the read counts even if the same path can be read again by now: its rows were not made.
    if let Some(error) = obstacles.day_files.get(&(pair.clone(), stream)) {
        return Availability::Unreadable(path, error.clone());
    }
    let mut directories = obstacles.missing_bases.iter().chain(&obstacles.directories);
    if let Some((dir, error)) = directories.find(|(dir, _)| path.starts_with(dir)) {
        return Availability::Unreadable(dir.clone(), error.clone());
    }
    let mut above = stream.base(&setup.root);
    if let Err(error) = storage.list(&above) {
        return Availability::Unreadable(above, format!("{error}; is it mounted?"));
    }
    let names: Vec<_> = pair.as_path().components().collect();
    for name in &names[..names.len() - 1] {
        let dir = above.join(name);
        match storage.stat(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return hidden(storage, above, device).unwrap_or(Availability::Gone(path));
            }
            Err(error) => return Availability::Unreadable(dir, error.to_string()),
            Ok(stat) if stat.kind != FileKind::Directory => {
                return Availability::Unreadable(dir, LINKED.to_owned());
            }
            Ok(_) => above = dir,
        }
    }
    match storage.stat(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            hidden(storage, above, device).unwrap_or(Availability::Gone(path))
        }
        Err(error) => Availability::Unreadable(path, error.to_string()),
        Ok(_) => match open_day_file(storage, &setup.root, &setup.root, stream, pair) {
            Ok(_) => Availability::Readable,
            Err(error) => Availability::Unreadable(path, error.to_string()),
        },
    }
}

/// Returns the reason why a directory does not have what was read below it, other than a deletion.
fn hidden(storage: &dyn Storage, dir: PathBuf, device: Option<u64>) -> Option<Availability> {
    let why = match storage.list(&dir) {
        Ok(entries) if entries.is_empty() => not_mounted(storage, &dir, device)?.to_owned(),
        Ok(_) => return None,
        Err(error) => error.to_string(),
    };
    Some(Availability::Unreadable(dir, why))
}
