//! Lists malformed lines, shows their bytes, and reads a corrected day-file again. A correction that keeps the length
//! and is far from the end leaves no trace in the identity of a source, so a person must request the second read.

mod retry;
mod within_limit;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::lake::path::{PairPath, Stream};
use crate::lake::source::Source;
use crate::pair::index::{DeadLetter, PairId};
use crate::platform::storage::Storage;
use crate::query::line_numbers::line_numbers;
use crate::query::status::ClassStatus;
use crate::record::parse;
use crate::store::snapshot::{StateSnapshot, pair_path, stream_name};
use crate::store::state::error::StateError;

pub use retry::{RetryError, RetryRefusal, RetryStart, retry};
pub use within_limit::WithinLimit;

/// Maximum bytes of a day-file that are read to number its lines.
const NUMBERED_BYTES_MAX: u64 = 256 << 20;
/// Maximum bytes of a line that is parsed again for its detail.
const DETAILED_BYTES_MAX: u64 = 1 << 20;

/// Some dead letters. Keys are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeadLetterPage {
    /// The dead letters on this page.
    pub letters: Vec<DeadLetterInfo>,
    /// Whether more follow.
    pub more: bool,
}

/// A line that is no record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeadLetterInfo {
    /// `YYYY/MM/DD/NAME.jsonl`, below the stream's directory.
    pub day_file: String,
    /// `scored` or `evidence`.
    pub stream: String,
    /// Its line number in the day-file, from 1; `None` if it cannot be determined now.
    pub line: Option<u64>,
    /// Its offset, bytes.
    pub offset: u64,
    /// Its length without the newline, bytes.
    pub len_bytes: u64,
    /// The code of what is wrong with it: `syntax`, `not-an-object`, `wrong-type`, `too-long`.
    pub reason: String,
    /// The field, or the byte of the line without the white space around it, at which it is wrong; `None` where the line
    /// cannot be read now, is another one, or is too long.
    #[serde(default)]
    pub detail: Option<String>,
}

impl DeadLetterInfo {
    /// Returns the code with the detail.
    #[must_use]
    pub fn fault(&self) -> String {
        match &self.detail {
            Some(detail) => format!("{}: {detail}", self.reason),
            None => self.reason.clone(),
        }
    }
}

/// Which dead letters are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadLetterFilter {
    /// Only those of this pair.
    pub day_file: Option<PairPath>,
    /// Only those of this stream.
    pub stream: Option<Stream>,
    /// Number of results to skip.
    pub skip: usize,
    /// Maximum number of results.
    pub limit: usize,
}

/// The change of the counts after a day-file was read again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RetryReport {
    /// The pair, `YYYY/MM/DD/NAME.jsonl`.
    pub day_file: String,
    /// `scored` or `evidence`.
    pub stream: String,
    /// The pair's account before.
    pub before: ClassStatus,
    /// The pair's account after.
    pub after: ClassStatus,
}

/// The dead letters that are wanted.
///
/// # Errors
/// The state's. A day-file that cannot be read leaves lines without their numbers.
pub fn letters(
    state: &StateSnapshot,
    storage: &dyn Storage,
    root: &Path,
    wanted: &DeadLetterFilter,
) -> Result<DeadLetterPage, StateError> {
    let id = match &wanted.day_file {
        None => None,
        Some(path) => match state.pair(path)? {
            Some(pair) => Some(pair.id),
            None => return Ok(DeadLetterPage::default()),
        },
    };
    let (found, more) = collect(state, wanted, id)?;
    let mut by_source: BTreeMap<(PairPath, Stream), Vec<DeadLetter>> = BTreeMap::new();
    let paths = paths_of(state, &found)?;
    for (id, letter) in found {
        let stream = stream_of(&letter);
        if let Some(path) = paths.get(&id) {
            let key = (path.clone(), stream);
            by_source.entry(key).or_default().push(letter);
        }
    }
    let mut letters = Vec::new();
    for ((path, stream), found) in &by_source {
        let numbers = numbers(storage, root, path, *stream, found).unwrap_or_default();
        let mut details = details(storage, root, path, *stream, found);
        letters.extend(found.iter().enumerate().map(|(n, letter)| DeadLetterInfo {
            day_file: path.to_string(),
            stream: stream_name(*stream).to_owned(),
            line: numbers.get(n).copied(),
            offset: letter.offset,
            len_bytes: letter.len_bytes,
            reason: letter.reason.clone(),
            detail: details.get_mut(n).and_then(Option::take),
        }));
    }
    Ok(DeadLetterPage { letters, more })
}

/// Parses the lines of the dead letters of one source again. The state keeps the code alone: a line is there to be
/// corrected, and few lines are ever listed.
fn details(
    storage: &dyn Storage,
    root: &Path,
    path: &PairPath,
    stream: Stream,
    letters: &[DeadLetter],
) -> Vec<Option<String>> {
    let Ok(Some(source)) = Source::open(storage, root, stream, path) else {
        return Vec::new();
    };
    let detail = |letter: &DeadLetter| {
        let len_bytes = u32::try_from(letter.len_bytes).ok()?;
        if letter.len_bytes > DETAILED_BYTES_MAX {
            return None;
        }
        let line = source.line(letter.offset, len_bytes).ok()?;
        let line = parse::trim(&line);
        let fault = match stream {
            Stream::Scored => parse::scored_run(line).err(),
            Stream::Evidence => parse::evidence(line).err(),
        }?;
        (fault.code() == letter.reason).then(|| fault.to_string())
    };
    letters.iter().map(detail).collect()
}

type Found = Vec<(PairId, DeadLetter)>;

fn collect(
    state: &StateSnapshot,
    wanted: &DeadLetterFilter,
    id: Option<PairId>,
) -> Result<(Found, bool), StateError> {
    let mut found = Vec::new();
    let (mut skipped, mut more) = (0, false);
    state.dead_letters(|of, letter| {
        let fits = id.is_none_or(|id| id == of)
            && (wanted.stream).is_none_or(|stream| stream == stream_of(&letter));
        if !fits {
            return true;
        }
        if skipped < wanted.skip {
            skipped += 1;
        } else if found.len() < wanted.limit {
            found.push((of, letter));
        } else {
            more = true;
        }
        !more
    })?;
    Ok((found, more))
}

fn paths_of(
    state: &StateSnapshot,
    found: &Found,
) -> Result<BTreeMap<PairId, PairPath>, StateError> {
    let mut paths: BTreeMap<PairId, PairPath> = (state.changed.iter())
        .map(|(path, pair)| (pair.id, path.clone()))
        .collect();
    for (id, _) in found {
        if !paths.contains_key(id)
            && let Some(path) = pair_path(&state.view.checkpoint(*id)?)
        {
            paths.insert(*id, path);
        }
    }
    Ok(paths)
}

fn stream_of(letter: &DeadLetter) -> Stream {
    if letter.in_evidence {
        Stream::Evidence
    } else {
        Stream::Scored
    }
}

/// Returns the line numbers of the dead letters of one source, as far as they can be determined.
fn numbers(
    storage: &dyn Storage,
    root: &Path,
    path: &PairPath,
    stream: Stream,
    letters: &[DeadLetter],
) -> io::Result<Vec<u64>> {
    let Some(source) = Source::open(storage, root, stream, path)? else {
        return Ok(Vec::new());
    };
    let offsets = letters.iter().map(|letter| letter.offset);
    let near: Vec<u64> = offsets
        .take_while(|offset| *offset <= NUMBERED_BYTES_MAX)
        .collect();
    line_numbers(&source, &near)
}

/// Passes the current bytes of a dead letter to `take` piece by piece; fewer if the file became shorter.
///
/// # Errors
/// The day-file cannot be read or does not exist (`NotFound`); the errors of `take`.
pub fn bytes_of(
    storage: &dyn Storage,
    root: &Path,
    path: &PairPath,
    letter: &DeadLetterInfo,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    const PIECE_LEN: u64 = 1 << 20;
    let stream = stream_named(&letter.stream).ok_or(io::ErrorKind::InvalidInput)?;
    let source = Source::open(storage, root, stream, path)?.ok_or(io::ErrorKind::NotFound)?;
    let end = letter.offset.saturating_add(letter.len_bytes);
    let mut at = letter.offset;
    while at < end {
        let piece = source.line(at, PIECE_LEN.min(end - at) as u32)?;
        if piece.is_empty() {
            break;
        }
        take(&piece)?;
        at += piece.len() as u64;
    }
    Ok(())
}

/// The stream of a name in answers.
#[must_use]
pub fn stream_named(name: &str) -> Option<Stream> {
    Stream::ALL
        .into_iter()
        .find(|stream| stream_name(*stream) == name)
}
