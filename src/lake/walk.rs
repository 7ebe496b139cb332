//! Lists the day-files of a root and opens one. Reads no day-file's bytes and keeps no state.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::lake::linked_dirs::links_to_unread;
use crate::lake::path::{PairPath, Stream, is_day_file_name};
use crate::platform::storage::{FileKind, FileStat, Storage, StorageFile};

/// Returns the stat of a day-file; that of a link is its own.
///
/// # Errors
/// `NotFound` if the walk finds no such day-file, also because a directory above it is a link; else the error of the
/// storage.
pub fn stat_day_file(
    storage: &dyn Storage,
    root: &Path,
    stream: Stream,
    pair: &PairPath,
) -> io::Result<FileStat> {
    storage.stat_below(&stream.base(root), pair.as_path())
}

/// Returns the stats of day-files of one directory, as [`stat_day_file`] does.
pub fn stat_day_files(
    storage: &dyn Storage,
    root: &Path,
    stream: Stream,
    dir: &Path,
    pairs: &[PairPath],
) -> Vec<io::Result<FileStat>> {
    let names = pairs.iter().filter_map(|pair| pair.as_path().file_name());
    storage.stats_below(&stream.base(root), dir, &names.collect::<Vec<_>>())
}

/// Returns the current length of both day-files of a pair, bytes. A file that cannot be inspected counts as 0.
pub fn pair_bytes(storage: &dyn Storage, root: &Path, pair: &PairPath) -> u64 {
    let stats = Stream::ALL.map(|stream| stat_day_file(storage, root, stream, pair));
    stats.iter().flatten().map(|stat| stat.len_bytes).sum()
}

/// The contents of one directory of the walk, in walk order; paths are relative to the stream's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Level {
    /// The subdirectories of the stream's directory, of a year or of a month.
    Directories(Vec<PathBuf>),
    /// The day-files of a day, of any file kind.
    DayFiles(Vec<PairPath>),
}

/// Lists one directory of a stream. `dir` is empty for the stream's own directory, else it has one to three names.
///
/// # Errors
/// The directory cannot be listed, or is nested deeper than day-files are (`InvalidInput`).
pub fn list_level(
    storage: &dyn Storage,
    root: &Path,
    stream: Stream,
    dir: &Path,
) -> io::Result<Level> {
    let depth = dir.components().count();
    if depth > 3 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "directory is nested deeper than day-files are",
        ));
    }
    let entries = storage.list_below(&stream.base(root), dir)?;
    if depth < 3 {
        let dirs = entries
            .into_iter()
            .filter(|entry| entry.kind == FileKind::Directory);
        return Ok(Level::Directories(
            dirs.map(|entry| dir.join(entry.name)).collect(),
        ));
    }
    let names = entries
        .into_iter()
        .filter(|entry| is_day_file_name(&entry.name));
    Ok(Level::DayFiles(
        names.map(|entry| PairPath(dir.join(entry.name))).collect(),
    ))
}

/// The result of a walk.
#[derive(Debug, Default)]
pub struct Walk {
    /// The day-files, in walk order.
    pub day_files: Vec<PairPath>,
    /// Directories that could not be listed and were skipped.
    pub unreadable: Vec<(PathBuf, io::Error)>,
}

/// Walks all of a stream. A stream without a directory is empty.
///
/// # Errors
/// The stream's own directory exists and cannot be listed. Failures below it are collected in [`Walk::unreadable`].
pub fn walk(storage: &dyn Storage, root: &Path, stream: Stream) -> io::Result<Walk> {
    let mut result = Walk::default();
    match list_level(storage, root, stream, Path::new("")) {
        Ok(level) => walk_level(storage, root, stream, Path::new(""), level, &mut result),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(result)
}

/// Walks one directory of a stream and its subdirectories, adding to `result`. A missing directory is empty.
pub fn walk_dir(storage: &dyn Storage, root: &Path, stream: Stream, dir: &Path, result: &mut Walk) {
    match list_level(storage, root, stream, dir) {
        Ok(level) => walk_level(storage, root, stream, dir, level, result),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => result.unreadable.push((stream.base(root).join(dir), error)),
    }
}

fn walk_level(
    storage: &dyn Storage,
    root: &Path,
    stream: Stream,
    dir: &Path,
    level: Level,
    result: &mut Walk,
) {
    match level {
        Level::DayFiles(day_files) => result.day_files.extend(day_files),
        Level::Directories(dirs) => {
            let links = links_to_unread(storage, root, stream, dir);
            let base = stream.base(root);
            let links = links.into_iter();
            result
                .unreadable
                .extend(links.map(|(link, error)| (base.join(link), error)));
            for dir in dirs {
                walk_dir(storage, root, stream, &dir, result);
            }
        }
    }
}

/// Why an empty directory may be a file system that is not mounted.
pub const NOT_MOUNTED: &str = "empty, and on another device than the day-files that were read below it; is it mounted? \
                               If they were deleted, remove it";

/// Returns why an empty directory may be a file system that is not mounted: it is on another device than the day-files
/// that were read below it, which were on `read_device`.
pub fn not_mounted(
    storage: &dyn Storage,
    dir: &Path,
    read_device: Option<u64>,
) -> Option<&'static str> {
    let device = storage.stat(dir).ok()?.device;
    (read_device? != device).then_some(NOT_MOUNTED)
}

/// Opens the day-file of a pair for reading, without ever blocking. A day-file that is a symbolic link is followed only
/// if its target is below `canonical_root`, the root with all links resolved.
///
/// # Errors
/// `NotFound` if the walk finds no such day-file, also because a directory above it is a link; `InvalidInput` if it is
/// not a regular file; `PermissionDenied` if it is a link that leaves the root; `Other` if it is one that leads to no file,
/// which may be on a file system that is not mounted; else the error of the storage.
pub fn open_day_file(
    storage: &dyn Storage,
    root: &Path,
    canonical_root: &Path,
    stream: Stream,
    pair: &PairPath,
) -> io::Result<Arc<dyn StorageFile>> {
    let base = stream.base(root);
    match storage.open_read_below(&base, pair.as_path()) {
        // A link in the place of the day-file is not followed: to this call it does not exist.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if stat_day_file(storage, root, stream, pair)?.kind != FileKind::Link {
                return Err(error);
            }
        }
        opened => return opened,
    }
    let target = match storage.canonicalize(&base.join(pair.as_path())) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // The link itself may be gone by now.
            stat_day_file(storage, root, stream, pair)?;
            return Err(io::Error::other(
                "symbolic link leads to no file; is it mounted?",
            ));
        }
        target => target?,
    };
    let Ok(below) = target.strip_prefix(canonical_root) else {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "symbolic link leaves the root",
        ));
    };
    storage.open_read_below(canonical_root, below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::storage::OsStorage;
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;

    fn pair(path: &str) -> PairPath {
        PairPath::from_relative(Path::new(path)).unwrap()
    }

    #[test]
    fn a_directory_exchanged_for_a_link_after_it_was_checked_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (lake, other) = (dir.path().join("lake"), dir.path().join("other"));
        fs::create_dir_all(lake.join("2026/05")).unwrap();
        fs::create_dir_all(&other).unwrap();
        fs::write(other.join("a.jsonl"), "text").unwrap();
        symlink(&other, lake.join("2026/05/01")).unwrap();
        let opened = OsStorage.open_read_below(&lake, Path::new("2026/05/01/a.jsonl"));
        assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::remove_file(lake.join("2026/05/01")).unwrap();
        fs::rename(&other, lake.join("2026/05/01")).unwrap();
        let opened = OsStorage.open_read_below(&lake, Path::new("2026/05/01/a.jsonl"));
        assert_eq!(opened.unwrap().stat().unwrap().len_bytes, 4);
    }

    #[test]
    fn pairs_are_ordered_like_paths() {
        const NAMES: [&str; 6] = ["a", "a-b", "a.", "ab", "a0", "\u{e9}"];
        let mut rng = fastrand::Rng::with_seed(1);
        let mut path = || {
            let mut name = || rng.choice(NAMES).unwrap();
            PathBuf::from(format!("{}/{}/{}/{}.jsonl", name(), name(), name(), name()))
        };
        for _ in 0..20_000 {
            let (one, other) = (path(), path());
            let pair = |path: &Path| PairPath::from_relative(path).unwrap();
            assert_eq!(
                pair(&one).cmp(&pair(&other)),
                one.cmp(&other),
                "{one:?}, {other:?}"
            );
        }
    }

    #[test]
    fn a_pair_path_is_three_directories_and_a_day_file() {
        for good in ["2026/05/01/a.jsonl", "x/y/z/.jsonl", "x/./y/z/a b.jsonl"] {
            assert_eq!(pair(good).as_path().components().count(), 4, "{good}");
        }
        for bad in [
            "",
            "a.jsonl",
            "y/m/a.jsonl",
            "y/m/d/e/a.jsonl",
            "/m/d/a.jsonl",
            "y/../d/a.jsonl",
            "y/m/d/a.JSONL",
            "y/m/d/a.json",
        ] {
            assert_eq!(PairPath::from_relative(Path::new(bad)), None, "{bad}");
        }
        let odd = PairPath::from_relative(Path::new(OsStr::from_bytes(b"y/m/d/a\xe2\x82.jsonl")))
            .unwrap();
        assert_eq!(odd.file_name(), "a\u{fffd}\u{fffd}.jsonl");
        assert!(pair("a/m/d/x.jsonl") < pair("a-/m/d/x.jsonl"));
    }

    #[test]
    fn the_walk_goes_three_levels_deep_in_byte_order_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let base = Stream::Scored.base(dir.path());
        for day in [
            "2026/05/01",
            "2026/05/01/deeper.jsonl",
            "2026-/05/01",
            "B/05/01",
            "a/05/01",
        ] {
            fs::create_dir_all(base.join(day)).unwrap();
        }
        for file in [
            "x.jsonl",
            "2026/x.jsonl",
            "2026/05/x.jsonl",
            "2026/05/01/b.jsonl",
            "2026/05/01/B.jsonl",
            "2026/05/01/.jsonl",
            "2026/05/01/c.JSONL",
            "2026/05/01/deeper.jsonl/d.jsonl",
            "2026-/05/01/a.jsonl",
            "B/05/01/a.jsonl",
            "a/05/01/a.jsonl",
        ] {
            fs::write(base.join(file), "").unwrap();
        }
        symlink(base.join("2026"), base.join("linked")).unwrap();
        symlink("nowhere", base.join("2026/05/01/link.jsonl")).unwrap();
        let result = walk(&OsStorage, dir.path(), Stream::Scored).unwrap();
        let expected = [
            "2026/05/01/.jsonl",
            "2026/05/01/B.jsonl",
            "2026/05/01/b.jsonl",
            "2026/05/01/deeper.jsonl",
            "2026/05/01/link.jsonl",
            "2026-/05/01/a.jsonl",
            "B/05/01/a.jsonl",
            "a/05/01/a.jsonl",
        ];
        assert_eq!(result.day_files, expected.map(pair));
        assert!(result.day_files.is_sorted() && result.unreadable.is_empty());
        assert!(
            walk(&OsStorage, dir.path(), Stream::Evidence)
                .unwrap()
                .day_files
                .is_empty()
        );
    }

    #[test]
    fn a_stream_that_is_a_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        fs::write(Stream::Scored.base(dir.path()), "").unwrap();
        assert!(walk(&OsStorage, dir.path(), Stream::Scored).is_err());
    }

    #[test]
    fn only_regular_files_below_the_root_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let day = Stream::Evidence.base(&root).join("y/m/d");
        fs::create_dir_all(day.join("dir.jsonl")).unwrap();
        fs::write(dir.path().join("outside"), "").unwrap();
        fs::write(root.join("inside"), "").unwrap();
        fs::write(day.join("file.jsonl"), "").unwrap();
        symlink(dir.path().join("outside"), day.join("out.jsonl")).unwrap();
        symlink(root.join("inside"), day.join("in.jsonl")).unwrap();
        symlink("nowhere", day.join("dangling.jsonl")).unwrap();
        symlink("m", Stream::Evidence.base(&root).join("y/linked")).unwrap();
        let fifo = day.join("fifo.jsonl");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        let canonical = fs::canonicalize(&root).unwrap();
        for (path, expected) in [
            ("y/m/d/file.jsonl", None),
            ("y/m/d/in.jsonl", None),
            ("y/m/d/out.jsonl", Some(io::ErrorKind::PermissionDenied)),
            ("y/m/d/dangling.jsonl", Some(io::ErrorKind::Other)),
            ("y/m/d/none.jsonl", Some(io::ErrorKind::NotFound)),
            ("y/linked/d/file.jsonl", Some(io::ErrorKind::NotFound)),
            ("y/m/d/dir.jsonl", Some(io::ErrorKind::InvalidInput)),
            ("y/m/d/fifo.jsonl", Some(io::ErrorKind::InvalidInput)),
        ] {
            let opened =
                open_day_file(&OsStorage, &root, &canonical, Stream::Evidence, &pair(path));
            assert_eq!(opened.err().map(|error| error.kind()), expected, "{path}");
        }
    }
}
