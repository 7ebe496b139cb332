//! The directories that cannot be listed. Every attempt to list one is recorded here, so that a directory without rights
//! is part of the health verdict and is logged once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::engine::Engine;
use crate::lake::linked_dirs::links_to_unread;
use crate::lake::path::Stream;
use crate::lake::walk::{Level, NOT_MOUNTED};
use crate::platform::storage::Storage;
use crate::query::status::SkippedPath;
use crate::store::snapshot::stream_name;

/// Maximum directories named in one log line.
const NAMED_MAX: usize = 16;

/// The directories that could not be listed at the last attempt.
#[derive(Debug, Default)]
pub(crate) struct UnreadableDirectories {
    /// The errors, by stream and path below its base. An entry covers everything below it.
    errors: BTreeMap<(Stream, PathBuf), String>,
    /// Links that lead to day-files elsewhere, which are not followed, by the directory that has them.
    links: BTreeMap<(Stream, PathBuf), Vec<(PathBuf, String)>>,
    /// Streams whose base does not exist.
    missing: BTreeSet<Stream>,
    /// The entries that were not logged yet.
    unreported: Vec<(Stream, PathBuf)>,
}

impl UnreadableDirectories {
    /// Records that a directory was listed.
    pub(crate) fn on_listed(&mut self, stream: Stream, dir: &Path) {
        if dir == Path::new("") {
            self.missing.remove(&stream);
        }
        if !self.errors.is_empty() {
            self.errors.remove(&(stream, dir.to_owned()));
        }
    }

    /// Records the links in a directory that lead to day-files elsewhere.
    pub(crate) fn check_links(
        &mut self,
        storage: &dyn Storage,
        root: &Path,
        stream: Stream,
        dir: &Path,
    ) {
        let links = links_to_unread(storage, root, stream, dir);
        let key = (stream, dir.to_owned());
        if links.is_empty() {
            self.links.remove(&key);
            return;
        }
        let links = links
            .into_iter()
            .map(|(link, error)| (link, error.to_string()));
        let links: Vec<(PathBuf, String)> = links.collect();
        if self.links.get(&key) == Some(&links) {
            return;
        }
        let new = links.iter().map(|(link, _)| (stream, link.clone()));
        self.unreported.extend(new);
        self.links.insert(key, links);
    }

    /// Returns the directories with links to day-files elsewhere.
    pub(crate) fn with_links(&self, stream: Stream) -> Vec<PathBuf> {
        let with_links = self.links.keys().filter(|(of, _)| *of == stream);
        with_links.map(|(_, dir)| dir.clone()).collect()
    }

    /// Returns all errors: a directory that cannot be listed, or a link that is not followed.
    fn all(&self) -> impl Iterator<Item = (Stream, &PathBuf, &String)> {
        let errors = self
            .errors
            .iter()
            .map(|((stream, dir), error)| (*stream, dir, error));
        let links = self.links.iter().flat_map(|((stream, _), links)| {
            let links = links.iter();
            links.map(|(link, error)| (*stream, link, error))
        });
        errors.chain(links)
    }

    /// Records a failed attempt. A directory that does not exist is not an error; its entries are removed. Returns
    /// whether the error is a new one.
    pub(crate) fn on_error(&mut self, stream: Stream, dir: &Path, error: &io::Error) -> bool {
        let is_absent = error.kind() == io::ErrorKind::NotFound
            || error.kind() == io::ErrorKind::NotADirectory && dir != Path::new("");
        if !is_absent
            && dir
                .ancestors()
                .skip(1)
                .any(|above| self.contains(stream, above))
        {
            return false;
        }
        let is_known = self.contains(stream, dir);
        self.errors
            .retain(|(of, path), _| *of != stream || !path.starts_with(dir));
        self.links
            .retain(|(of, path), _| *of != stream || !path.starts_with(dir));
        if is_absent {
            return false;
        }
        let key = (stream, dir.to_owned());
        self.errors.insert(key.clone(), error.to_string());
        if !is_known {
            self.unreported.push(key);
        }
        !is_known
    }

    /// Returns whether the base of a stream does not exist.
    pub(crate) fn is_missing(&self, stream: Stream) -> bool {
        self.missing.contains(&stream)
    }

    fn contains(&self, stream: Stream, dir: &Path) -> bool {
        self.errors.contains_key(&(stream, dir.to_owned()))
    }

    /// Returns the first entries, at most `max`, to be listed again.
    pub(crate) fn to_retry(&self, max: usize) -> Vec<(Stream, PathBuf)> {
        self.errors.keys().take(max).cloned().collect()
    }

    /// Returns the entries with paths relative to the root.
    pub(crate) fn skipped(&self) -> Vec<SkippedPath> {
        self.all()
            .map(|(stream, dir, error)| SkippedPath {
                path: relative(stream, dir).display().to_string(),
                stream: stream_name(stream).to_owned(),
                why: error.clone(),
            })
            .collect()
    }

    /// Logs the entries since the last call, in one line.
    pub(crate) fn log(&mut self, root: &Path) {
        let new = std::mem::take(&mut self.unreported);
        let new: Vec<(PathBuf, &String)> = new
            .into_iter()
            .filter_map(|key| {
                let mut errors = self.all();
                let found = errors.find(|(stream, dir, _)| (*stream, *dir) == (key.0, &key.1));
                Some((root.join(relative(key.0, &key.1)), found?.2))
            })
            .collect();
        let Some((directory, error)) = new.first() else {
            return;
        };
        let named = new.iter().take(NAMED_MAX);
        let named: Vec<String> = named
            .map(|(directory, error)| format!("{} ({error})", directory.display()))
            .collect();
        let more = match new.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let noun = if new.len() == 1 {
            "directory"
        } else {
            "directories"
        };
        tracing::warn!(
            directory = %directory.display(), %error, directories = new.len(),
            "cannot read {noun} {}{more}; retrying with each scan", named.join(", ")
        );
    }
}

/// Records the result of an attempt to list a directory. A directory that is empty or missing although day-files below it
/// were read is an error too if its file system is not mounted.
pub(crate) fn record_listing(
    engine: &mut Engine,
    directories: &mut UnreadableDirectories,
    root: &Path,
    stream: Stream,
    dir: &Path,
    is_empty: io::Result<bool>,
) {
    if is_empty.is_ok() {
        directories.check_links(&*engine.ctx.storage, root, stream, dir);
    }
    let error = match is_empty {
        Ok(false) => None,
        Ok(true) => {
            let stat = engine.ctx.storage.stat(&stream.base(root).join(dir));
            let is_hiding = stat.is_ok_and(|stat| {
                let hides = engine.hides_day_files(stream, dir, stat.device);
                hides.unwrap_or(false)
            });
            is_hiding.then(|| io::Error::other(NOT_MOUNTED))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && dir == Path::new("") => {
            directories.missing.insert(stream);
            Some(missing_base(engine, stream, error))
        }
        Err(error) => Some(error),
    };
    match error {
        None => directories.on_listed(stream, dir),
        Some(error) if directories.on_error(stream, dir, &error) => {
            engine.metrics().error("source");
        }
        Some(_) => {}
    }
}

/// Returns whether a listed directory is empty, or the error.
pub(crate) fn is_empty(level: &io::Result<Level>) -> io::Result<bool> {
    match level {
        Ok(Level::Directories(dirs)) => Ok(dirs.is_empty()),
        Ok(Level::DayFiles(day_files)) => Ok(day_files.is_empty()),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    }
}

/// Returns the error for a base that does not exist: another one if day-files below it were read.
fn missing_base(engine: &Engine, stream: Stream, error: io::Error) -> io::Error {
    let totals = engine.totals();
    match match stream {
        Stream::Scored => totals.scored_lines,
        Stream::Evidence => totals.evidence_lines,
    } {
        0 => error,
        lines => io::Error::other(format!(
            "{error}, although {lines} lines below it were read"
        )),
    }
}

/// Returns the path of a directory relative to the root.
fn relative(stream: Stream, dir: &Path) -> PathBuf {
    let path = stream.base(Path::new("")).join(dir);
    // Joining an empty path adds a separator.
    path.components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied() -> io::Error {
        io::ErrorKind::PermissionDenied.into()
    }

    fn paths(directories: &UnreadableDirectories) -> Vec<String> {
        let skipped = directories.skipped().into_iter();
        skipped.map(|skipped| skipped.path).collect()
    }

    #[test]
    fn a_directory_is_unreadable_until_it_is_listed_or_gone() {
        let mut directories = UnreadableDirectories::default();
        let (scored, evidence) = (Stream::Scored, Stream::Evidence);
        assert!(directories.on_error(scored, "2026/05/01".as_ref(), &denied()));
        assert!(!directories.on_error(scored, "2026/05/01".as_ref(), &denied()));
        assert!(directories.on_error(evidence, "".as_ref(), &denied()));
        assert_eq!(
            paths(&directories),
            ["data/scored-runs/2026/05/01", "data/evidence"]
        );
        // A directory above covers those below, whichever is met first.
        assert!(directories.on_error(scored, "2026".as_ref(), &denied()));
        assert!(!directories.on_error(scored, "2026/05/01".as_ref(), &denied()));
        assert!(!directories.on_error(evidence, "2026".as_ref(), &denied()));
        assert_eq!(
            paths(&directories),
            ["data/scored-runs/2026", "data/evidence"]
        );
        directories.on_listed(evidence, "".as_ref());
        assert_eq!(paths(&directories), ["data/scored-runs/2026"]);
        assert!(!directories.on_error(scored, "".as_ref(), &io::ErrorKind::NotFound.into()));
        assert!(paths(&directories).is_empty());
    }

    #[test]
    fn a_base_that_is_a_file_is_unreadable() {
        let mut directories = UnreadableDirectories::default();
        let file = || io::Error::from(io::ErrorKind::NotADirectory);
        assert!(directories.on_error(Stream::Scored, "".as_ref(), &file()));
        assert!(!directories.on_error(Stream::Scored, "2026".as_ref(), &file()));
        assert_eq!(paths(&directories), ["data/scored-runs"]);
    }
}
