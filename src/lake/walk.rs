//! Owns the walk: which day-files there are, by the contract's rule, and how one is opened. It never reads a
//! day-file's bytes, and remembers nothing.

use crate::lake::path::{PairPath, Stream, is_day_file_name};

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::platform::storage::{FileKind, Storage, StorageFile};

/// Length of both day-files of a pair as the file system says now; what cannot be looked at counts nothing.
pub fn pair_bytes(storage: &dyn Storage, root: &Path, pair: &PairPath) -> u64 {
    let stats = Stream::ALL.map(|stream| storage.stat(&pair.path(root, stream)));
    stats.iter().flatten().map(|stat| stat.len_bytes).sum()
}

/// What one directory of the walk holds, in walk order; paths are relative to the stream's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Level {
    /// The stream's directory, a year or a month: directories to descend into.
    Directories(Vec<PathBuf>),
    /// A day: its day-files, whatever kind of file each is.
    DayFiles(Vec<PairPath>),
}

/// Lists one directory of a stream: `dir` is empty for the stream's own, else one to three names.
///
/// # Errors
/// The directory cannot be listed, or lies deeper than day-files do (`InvalidInput`).
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
            "day-files do not lie that deep",
        ));
    }
    let entries = storage.list(&stream.base(root).join(dir))?;
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

/// What a walk found.
#[derive(Debug, Default)]
pub struct Walk {
    /// The day-files, in walk order.
    pub day_files: Vec<PairPath>,
    /// Directories that could not be listed and were passed over.
    pub unreadable: Vec<(PathBuf, io::Error)>,
}

/// Walks all of a stream. A stream without a directory is empty.
///
/// # Errors
/// The stream's own directory is there and cannot be listed. Those below are only reported.
pub fn walk(storage: &dyn Storage, root: &Path, stream: Stream) -> io::Result<Walk> {
    let mut found = Walk::default();
    match list_level(storage, root, stream, Path::new("")) {
        Ok(level) => walk_level(storage, root, stream, level, &mut found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(found)
}

/// Walks one directory of a stream and all below it, adding to `found`. One that is gone holds nothing.
pub fn walk_dir(storage: &dyn Storage, root: &Path, stream: Stream, dir: &Path, found: &mut Walk) {
    match list_level(storage, root, stream, dir) {
        Ok(level) => walk_level(storage, root, stream, level, found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => found.unreadable.push((stream.base(root).join(dir), error)),
    }
}

fn walk_level(storage: &dyn Storage, root: &Path, stream: Stream, level: Level, found: &mut Walk) {
    match level {
        Level::DayFiles(day_files) => found.day_files.extend(day_files),
        Level::Directories(dirs) => {
            for dir in dirs {
                walk_dir(storage, root, stream, &dir, found);
            }
        }
    }
}

/// Opens the day-file of a pair for reading, without ever blocking. A day-file that is a link is followed only where
/// its target lies under `canonical_root`, the root with all links resolved.
///
/// # Errors
/// `NotFound` where the walk would find no such day-file, also because a directory above it is a link;
/// `InvalidInput` for what is not a regular file; `PermissionDenied` for a link that leaves the root; else whatever
/// the storage says.
pub fn open_day_file(
    storage: &dyn Storage,
    root: &Path,
    canonical_root: &Path,
    stream: Stream,
    pair: &PairPath,
) -> io::Result<Arc<dyn StorageFile>> {
    let base = stream.base(root);
    let dirs = pair.as_path().ancestors().skip(1);
    for dir in dirs.filter(|dir| !dir.as_os_str().is_empty()) {
        if storage.stat(&base.join(dir))?.kind != FileKind::Directory {
            return Err(io::ErrorKind::NotFound.into());
        }
    }
    let path = base.join(pair.as_path());
    if storage.stat(&path)?.kind != FileKind::Link {
        return storage.open_read(&path);
    }
    let target = storage.canonicalize(&path)?;
    if !target.starts_with(canonical_root) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it is a link that leaves the root",
        ));
    }
    storage.open_read(&target)
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
    fn pairs_are_ordered_as_paths_are() {
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
        let found = walk(&OsStorage, dir.path(), Stream::Scored).unwrap();
        let wanted = [
            "2026/05/01/.jsonl",
            "2026/05/01/B.jsonl",
            "2026/05/01/b.jsonl",
            "2026/05/01/deeper.jsonl",
            "2026/05/01/link.jsonl",
            "2026-/05/01/a.jsonl",
            "B/05/01/a.jsonl",
            "a/05/01/a.jsonl",
        ];
        assert_eq!(found.day_files, wanted.map(pair));
        assert!(found.day_files.is_sorted() && found.unreadable.is_empty());
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
        for (path, wanted) in [
            ("y/m/d/file.jsonl", None),
            ("y/m/d/in.jsonl", None),
            ("y/m/d/out.jsonl", Some(io::ErrorKind::PermissionDenied)),
            ("y/m/d/dangling.jsonl", Some(io::ErrorKind::NotFound)),
            ("y/m/d/none.jsonl", Some(io::ErrorKind::NotFound)),
            ("y/linked/d/file.jsonl", Some(io::ErrorKind::NotFound)),
            ("y/m/d/dir.jsonl", Some(io::ErrorKind::InvalidInput)),
            ("y/m/d/fifo.jsonl", Some(io::ErrorKind::InvalidInput)),
        ] {
            let opened =
                open_day_file(&OsStorage, &root, &canonical, Stream::Evidence, &pair(path));
            assert_eq!(opened.err().map(|error| error.kind()), wanted, "{path}");
        }
    }
}
