//! The paths below a root: the two streams of day-files, the pairs in them, and the export.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use crate::record::json::utf8::decode_utf8;

/// Path of the export below a root.
pub const EXPORT_PATH: &str = "data/distilled/sft/sft_export.jsonl";

/// Name of the ledger of retractions, next to its export.
pub const LEDGER_NAME: &str = "sft_retractions.jsonl";

/// Appended to the names of an export and a ledger that a rebuild replaced, before their number.
pub const KEPT_SUFFIX: &str = ".before-rebuild";

/// The two streams of day-files below a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stream {
    /// Scored runs.
    Scored,
    /// The input and output of each run.
    Evidence,
}

impl Stream {
    /// Both streams.
    pub const ALL: [Stream; 2] = [Stream::Scored, Stream::Evidence];

    /// Returns the name of its directory below `data`.
    pub fn dir_name(self) -> &'static str {
        match self {
            Stream::Scored => "scored-runs",
            Stream::Evidence => "evidence",
        }
    }

    /// Returns its directory below `root`.
    pub fn base(self, root: &Path) -> PathBuf {
        root.join("data").join(self.dir_name())
    }
}

/// The path that the two day-files of a pair share below their streams' directories: three directories and a name that
/// ends in `.jsonl`. Ordered like the walk: directory by directory, each by the bytes of its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PairPath(pub(super) PathBuf);

/// Orders like [`Path`], component by component, at a tenth of the cost: every change event and every read compares a
/// dozen of them.
impl Ord for PairPath {
    fn cmp(&self, other: &Self) -> Ordering {
        let (own, others) = (self.as_bytes(), other.as_bytes());
        let differing = own.iter().zip(others).find(|(own, other)| own != other);
        match differing {
            // The component that ends first is a prefix of the other.
            Some((b'/', _)) => Ordering::Less,
            Some((_, b'/')) => Ordering::Greater,
            Some((own, other)) => own.cmp(other),
            None => own.len().cmp(&others.len()),
        }
    }
}

impl PartialOrd for PairPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PairPath {
    /// Makes a pair of a path below a stream's directory; `None` if no day-file can have this path.
    pub fn from_relative(path: &Path) -> Option<PairPath> {
        let names: Option<PathBuf> = path
            .components()
            .map(|part| matches!(part, Component::Normal(_)).then_some(part))
            .collect();
        let pair = PairPath(names?);
        let is_pair = pair.0.components().count() == 4 && is_day_file_name(pair.name());
        is_pair.then_some(pair)
    }

    /// Returns the pair's path below a stream's directory.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// Returns the path's bytes in their persisted form.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_os_str().as_bytes()
    }

    /// Returns `NAME.jsonl` as the file system has it.
    pub fn name_bytes(&self) -> &[u8] {
        self.name().as_bytes()
    }

    /// Returns `NAME.jsonl`, with each byte that is not UTF-8 as U+FFFD.
    pub fn file_name(&self) -> Cow<'_, str> {
        decode_utf8(self.name().as_bytes())
    }

    /// Returns whether the other pair's day-files have the same name, on any day.
    pub fn has_name_of(&self, other: &PairPath) -> bool {
        self.name() == other.name()
    }

    /// Returns the path of the pair's day-file in a stream.
    pub fn path(&self, root: &Path, stream: Stream) -> PathBuf {
        stream.base(root).join(&self.0)
    }

    fn name(&self) -> &OsStr {
        self.0.file_name().unwrap_or_default()
    }
}

impl std::fmt::Display for PairPath {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.display().fmt(formatter)
    }
}

/// Returns whether a file name is that of a day-file.
pub(crate) fn is_day_file_name(name: &OsStr) -> bool {
    name.as_bytes().ends_with(b".jsonl")
}

/// Returns the path of a root's export.
#[must_use]
pub fn export_path(root: &Path) -> PathBuf {
    root.join(EXPORT_PATH)
}

/// Returns the path under which a rebuild makes the file that will replace an export or a ledger.
#[must_use]
pub fn new_path(file: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(".rebuilding");
    file.with_file_name(name)
}

/// Returns the path of an export's ledger, in the same directory. That of an export which a rebuild replaced was replaced
/// with it, and has the end of its name: the ledger without it is of another export.
#[must_use]
pub fn ledger_path(export: &Path) -> PathBuf {
    let name = export.file_name().unwrap_or_default().as_bytes();
    let mut starts = name.windows(KEPT_SUFFIX.len());
    let kept_from = starts.position(|part| part == KEPT_SUFFIX.as_bytes());
    let mut ledger = OsString::from(LEDGER_NAME);
    ledger.push(OsStr::from_bytes(&name[kept_from.unwrap_or(name.len())..]));
    export.with_file_name(ledger)
}
