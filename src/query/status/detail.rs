//! The parts of a status that need reading: the longest-waiting runs and the unread bytes. Computed outside the
//! pipeline, on one snapshot.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Lag};
use crate::lake::chunk::LineLimits;
use crate::lake::identity::SourceState;
use crate::lake::path::{PairPath, Stream};
use crate::lake::source::Source;
use crate::lake::walk::stat_day_file;
use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::index::ScoredLine;
use crate::pair::verdict::VerdictKind;
use crate::platform::storage::Storage;
use crate::query::health::Unreadable;
use crate::record::keys::RunKey;
use crate::record::parse;
use crate::record::timestamp::stamp;
use crate::store::snapshot::{StateSnapshot, pair_path, stream_name};
use crate::store::state::error::StateError;

/// Maximum number of waiting runs listed.
const OLDEST_MAX: usize = 8;
/// Maximum length of an id in a list, bytes: an id may be as long as a line, and a page may request the status every second.
pub(crate) const RUN_ID_SHOWN_MAX: usize = 4 << 10;
/// Unread bytes up to which their lines are counted.
const LINES_COUNTED_BYTES_MAX: u64 = 8 << 20;

/// A run that waits for its evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingRun {
    /// Its pair, `YYYY/MM/DD/NAME.jsonl`.
    pub day_file: String,
    /// Its id; `None` where its line cannot be read now, and for an id of more than 4 KiB.
    pub run_id: Option<String>,
    /// Offset of its line in the scored day-file, bytes.
    pub offset: u64,
    /// Since when it has been waiting, RFC 3339.
    pub since: String,
}

/// A day-file or directory that cannot be read now. Nothing more is read of a pair until both of its day-files can be
/// read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SkippedPath {
    /// The path, relative to the root.
    pub path: String,
    /// `scored` or `evidence`.
    pub stream: String,
    /// The error of the file system.
    pub why: String,
}

/// Last lines without a newline: no records yet, and no lag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Unterminated {
    /// Number of lines.
    pub lines: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The runs that wait for the longest time, oldest first. Pairs are asked by the bound that each keeps, so that a
/// million waiting runs cost what a few do.
///
/// # Errors
/// The state's.
pub fn waiting_oldest(
    state: &StateSnapshot,
    storage: &dyn Storage,
    root: &Path,
) -> Result<Vec<WaitingRun>, StateError> {
    let mut pairs = Vec::new();
    state.for_each_pair(|_, checkpoint| {
        if checkpoint.counts[VerdictKind::Waiting] > 0 {
            pairs.extend(pair_path(checkpoint).map(|path| (checkpoint.waiting_since_s, path)));
        }
    })?;
    pairs.sort_unstable();
    let mut oldest: BTreeSet<(u64, PairPath, u64)> = BTreeSet::new();
    let mut entries = std::collections::BTreeMap::new();
    for (since_s, path) in pairs {
        let newest = oldest.last().map(|(newest_s, _, _)| *newest_s);
        if oldest.len() == OLDEST_MAX && newest.is_some_and(|newest_s| newest_s <= since_s) {
            break;
        }
        let Some(pair) = state.pair(&path)? else {
            continue;
        };
        state.for_each_waiting(&pair, |entry, since_s| {
            let newest = oldest.last().map(|(newest_s, _, _)| *newest_s);
            if oldest.len() == OLDEST_MAX && newest.is_some_and(|newest_s| newest_s < since_s) {
                return;
            }
            oldest.insert((since_s, path.clone(), entry.offset));
            entries.insert((path.clone(), entry.offset), entry);
            if oldest.len() > OLDEST_MAX
                && let Some((_, path, offset)) = oldest.pop_last()
            {
                entries.remove(&(path, offset));
            }
        })?;
    }
    let runs = oldest.into_iter().filter_map(|(since_s, path, offset)| {
        let entry = entries.remove(&(path.clone(), offset))?;
        Some(WaitingRun {
            day_file: path.to_string(),
            run_id: run_id(storage, root, &path, &entry)
                .unwrap_or_default()
                .filter(|run_id| run_id.len() <= RUN_ID_SHOWN_MAX),
            offset,
            since: stamp(since_s * 1_000),
        })
    });
    Ok(runs.collect())
}

/// Returns the id in a scored line, if the line is unchanged.
fn run_id(
    storage: &dyn Storage,
    root: &Path,
    path: &PairPath,
    entry: &ScoredLine,
) -> io::Result<Option<String>> {
    let Some(source) = Source::open(storage, root, Stream::Scored, path)? else {
        return Ok(None);
    };
    let line = source.line(entry.offset, entry.len_bytes)?;
    let run = parse::scored_run(parse::trim(&line)).ok();
    let run_id = run.map(|run| run.evidence_run_id.decode().into_owned());
    Ok(run_id.filter(|run_id| RunKey::from_run_id(run_id) == entry.run))
}

/// Pairs of day-files that are known to be unread.
#[derive(Debug, Clone, Default)]
pub struct UnreadPairs {
    /// The first of them.
    pub pairs: Vec<PairPath>,
    /// Whether these are all of them, and no directory is still to be listed.
    pub is_complete: bool,
}

/// Measures the unread bytes of a lag on disk, and counts their lines if they are few. A day-file that cannot be read
/// counts as nothing; the status lists it as skipped.
#[must_use]
pub fn measured(
    lag: Lag,
    state: &StateSnapshot,
    unread: &UnreadPairs,
    storage: &dyn Storage,
    root: &Path,
) -> Lag {
    let mut gaps = Vec::new();
    for path in &unread.pairs {
        let checkpoint = match state.pair(path) {
            Ok(Some(pair)) => pair.checkpoint.clone(),
            _ => PairCheckpoint::default(),
        };
        for stream in Stream::ALL {
            let read_bytes = checkpoint.source(stream).offset;
            let len_bytes =
                stat_day_file(storage, root, stream, path).map_or(0, |stat| stat.len_bytes);
            if len_bytes > read_bytes {
                gaps.push((path, stream, read_bytes, len_bytes));
            }
        }
    }
    let bytes = gaps.iter().map(|(_, _, from, to)| to - from).sum::<u64>();
    let lines = (unread.is_complete && bytes <= LINES_COUNTED_BYTES_MAX).then(|| {
        let count = |(path, stream, from, to): &(&PairPath, Stream, u64, u64)| {
            let source = Source::open(storage, root, *stream, path).ok()??;
            let unread = source.line(*from, u32::try_from(to - from).ok()?).ok()?;
            Some(memchr::memchr_iter(b'\n', &unread).count() as u64)
        };
        gaps.iter().filter_map(count).sum()
    });
    Lag {
        // The engine has measured pairs beyond the first ones.
        bytes: if unread.is_complete {
            bytes
        } else {
            bytes.max(lag.bytes)
        },
        bytes_exact: unread.is_complete,
        lines,
        ..lag
    }
}

/// Counts the unterminated last lines of the day-files that were not read to their end when the state was written,
/// which are few. A line that was torn later in a day-file that had been read whole is found by the next daemon;
/// finding it here would require examining all of them.
///
/// # Errors
/// The state cannot be read. Unreadable day-files are not counted here.
pub fn unterminated(
    state: &StateSnapshot,
    storage: &dyn Storage,
    root: &Path,
    limits: LineLimits,
) -> Result<Unterminated, StateError> {
    let mut has_unarmed: Vec<(PairPath, Stream, SourceState)> = Vec::new();
    state.for_each_pair(|_, checkpoint| {
        let sources = Stream::ALL.map(|stream| (stream, checkpoint.source(stream)));
        for (stream, state) in sources {
            // 0 where not all was read, and where the stat was too new to be relied on.
            if state.seen.changed_ns == 0 || state.overlong_from.is_some() {
                let found = pair_path(checkpoint).map(|path| (path, stream, *state));
                has_unarmed.extend(found);
            }
        }
    })?;
    let mut found = Unterminated::default();
    for (path, stream, state) in has_unarmed {
        let bytes = match Source::open(storage, root, stream, &path) {
            Ok(Some(source)) => source.unterminated_bytes(&state, limits).unwrap_or(0),
            _ => 0,
        };
        found.lines += u64::from(bytes > 0);
        found.bytes += bytes;
    }
    Ok(found)
}

/// Maximum number of unreadable day-files listed.
const SKIPPED_MAX: usize = 16;

/// Returns the day-files that cannot be read, after the directories that cannot be listed.
#[must_use]
pub fn unreadable(engine: &Engine, directories: &[SkippedPath]) -> Unreadable {
    let day_files = engine.skipped().map(|(path, stream, why)| SkippedPath {
        path: path.path(Path::new(""), stream).display().to_string(),
        stream: stream_name(stream).to_owned(),
        why: why.to_owned(),
    });
    Unreadable {
        day_files: engine.skipped().count() as u64,
        directories: directories.len() as u64,
        paths: directories
            .iter()
            .cloned()
            .chain(day_files)
            .take(SKIPPED_MAX)
            .collect(),
    }
}
