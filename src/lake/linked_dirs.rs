//! Links to directories. The walk follows none: a link to a directory of the same stream would give its day-files a
//! second time. A link to day-files elsewhere hides input, so that it has to be reported.

use std::io;
use std::path::{Path, PathBuf};

use crate::lake::path::{Stream, is_day_file_name};
use crate::lake::walk::{Level, list_level};
use crate::platform::storage::{FileKind, ListedEntry, Storage};

/// The number of names below a base that lead to a directory with day-files.
const DAY_DEPTH: usize = 3;
/// Maximum number of directories that are listed in search of a day-file; a link with more of them counts as one to
/// day-files.
const LISTED_MAX: usize = 64;

/// Returns the links in a directory of a stream, as paths below its base, that lead to day-files outside the base. `dir`
/// is the base (empty), a year or a month.
pub fn links_to_unread(
    storage: &dyn Storage,
    root: &Path,
    stream: Stream,
    dir: &Path,
) -> Vec<(PathBuf, io::Error)> {
    let depth = dir.components().count();
    if depth >= DAY_DEPTH {
        return Vec::new();
    }
    let base = stream.base(root);
    let entries = storage.list_below(&base, dir).unwrap_or_default();
    let is_link = |entry: &ListedEntry| entry.kind == FileKind::Link;
    if !entries.iter().any(is_link) {
        return Vec::new();
    }
    let links = entries.into_iter().filter(is_link);
    let Ok(canonical_base) = storage.canonicalize(&base) else {
        return Vec::new();
    };
    let leads_out = |link: &PathBuf| {
        let target = storage.canonicalize(&base.join(link)).ok();
        target
            .filter(|target| !target.starts_with(&canonical_base))
            .is_some_and(|target| has_day_files(storage, target, depth + 1))
    };
    let links = links.map(|entry| dir.join(entry.name)).filter(leads_out);
    let not_followed = || {
        io::Error::other(format!(
            "a link to a directory outside {} is not followed; mount the directory in its place, as with `mount --bind`",
            stream.dir_name()
        ))
    };
    links.map(|link| (link, not_followed())).collect()
}

/// Returns the same for the base of a stream, all years and all months, with whole paths.
pub fn all_links_to_unread(
    storage: &dyn Storage,
    root: &Path,
    stream: Stream,
) -> Vec<(PathBuf, io::Error)> {
    let (base, mut found) = (stream.base(root), Vec::new());
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        let links = links_to_unread(storage, root, stream, &dir).into_iter();
        found.extend(links.map(|(link, error)| (base.join(link), error)));
        if dir.components().count() + 1 < DAY_DEPTH
            && let Ok(Level::Directories(deeper)) = list_level(storage, root, stream, &dir)
        {
            dirs.extend(deeper);
        }
    }
    found
}

/// Returns whether a directory that would be `depth` names below a base has day-files where they are read.
fn has_day_files(storage: &dyn Storage, dir: PathBuf, depth: usize) -> bool {
    let mut dirs = vec![(dir, depth)];
    let mut listed = 0;
    while let Some((dir, depth)) = dirs.pop() {
        listed += 1;
        if listed > LISTED_MAX {
            return true;
        }
        for entry in storage.list(&dir).unwrap_or_default() {
            if depth == DAY_DEPTH && is_day_file_name(&entry.name) {
                return true;
            }
            if depth < DAY_DEPTH && entry.kind == FileKind::Directory {
                dirs.push((dir.join(&entry.name), depth + 1));
            }
        }
    }
    false
}
