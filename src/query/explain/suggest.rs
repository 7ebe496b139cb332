//! Suggests ids similar to an unknown one. The state holds only hashes of ids, so similar ones are searched where
//! reading is cheap: at the end of the newest day-files and among the longest-waiting runs.

use std::collections::BTreeSet;

use crate::lake::path::{PairPath, Stream};
use crate::lake::source::Source;
use crate::query::explain::ExplainContext;
use crate::query::status::waiting_oldest;
use crate::record::parse;
use crate::store::snapshot::pair_path;
use crate::store::state::error::StateError;

/// Pairs whose day-files are read.
const PAIRS_MAX: usize = 32;
/// Read of each of their day-files, from the end.
const TAIL_BYTES_MAX: u64 = 128 << 10;
/// Maximum number of suggestions.
const NEAR_MAX: usize = 5;
/// Longer ids are compared by their beginning alone.
const ID_CHARS_MAX: usize = 128;

/// Ids like this one, nearest first.
pub(super) fn near(run_id: &str, context: &ExplainContext<'_>) -> Result<Vec<String>, StateError> {
    let mut newest: BTreeSet<PairPath> = BTreeSet::new();
    context.state.for_each_pair(|_, checkpoint| {
        newest.extend(pair_path(checkpoint));
        if newest.len() > PAIRS_MAX {
            newest.pop_first();
        }
    })?;
    let waiting = waiting_oldest(context.state, context.storage, context.root)?;
    let mut ids: BTreeSet<String> = waiting.into_iter().filter_map(|run| run.run_id).collect();
    for path in newest.iter().rev() {
        for stream in Stream::ALL {
            ids_at_the_end(context, path, stream, &mut ids);
        }
    }
    Ok(nearest(run_id, ids))
}

/// Returns the ids at the end of a day-file; none if it cannot be read.
fn ids_at_the_end(
    context: &ExplainContext<'_>,
    path: &PairPath,
    stream: Stream,
    ids: &mut BTreeSet<String>,
) {
    let source = Source::open(context.storage, context.root, stream, path);
    let Ok(Some(source)) = source else { return };
    let len = source.len_bytes().min(TAIL_BYTES_MAX);
    let from = source.len_bytes() - len;
    let Ok(tail) = source.line(from, len as u32) else {
        return;
    };
    for line in tail.split(|byte| *byte == b'\n') {
        let line = parse::trim(line);
        let id = match stream {
            Stream::Scored => parse::scored_run(line).map(|run| run.evidence_run_id),
            Stream::Evidence => parse::evidence(line).map(|evidence| evidence.run_id),
        };
        ids.extend(id.ok().map(|id| id.decode().into_owned()));
    }
}

fn nearest(run_id: &str, ids: BTreeSet<String>) -> Vec<String> {
    let wanted = folded(run_id);
    let distance_max = (wanted.chars().count() / 4).max(2);
    let mut near: Vec<(usize, String)> = ids
        .into_iter()
        .filter_map(|id| Some((distance(&wanted, &folded(&id), distance_max)?, id)))
        .collect();
    near.sort();
    near.truncate(NEAR_MAX);
    near.into_iter().map(|(_, id)| id).collect()
}

/// A part of an id, as a person copies it, is nearer than one with other letters in it.
fn distance(wanted: &str, id: &str, distance_max: usize) -> Option<usize> {
    if wanted == id {
        return Some(0);
    }
    if wanted.chars().count() > 3 && id.contains(wanted) {
        return Some(1);
    }
    let lengths_differ = wanted.len().abs_diff(id.len());
    if id.is_empty() || lengths_differ > distance_max * 4 {
        return None;
    }
    let distance = 1 + strsim::osa_distance(wanted, id);
    (distance <= 1 + distance_max).then_some(distance)
}

fn folded(id: &str) -> String {
    let id = id.trim().to_lowercase();
    id.chars().take(ID_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_like_the_unknown_one_are_offered_nearest_first_and_few() {
        let ids = |ids: &[&str]| ids.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let known = ids(&[
            "run-00041",
            "run-00042",
            "run-00142x",
            "walk",
            "RUN-00043",
            "",
        ]);
        let near = |run_id| nearest(run_id, known.clone());
        assert_eq!(near("run-00042 ")[0], "run-00042");
        assert_eq!(near("run-0042")[0], "run-00042");
        assert_eq!(near("00142"), ["run-00142x"]);
        assert_eq!(near("run-00043")[0], "RUN-00043");
        assert!(near("another thing").is_empty());
        let many: BTreeSet<String> = (0..100).map(|n| format!("run-{n:05}")).collect();
        assert_eq!(nearest("run-0000x", many).len(), NEAR_MAX);
    }
}
