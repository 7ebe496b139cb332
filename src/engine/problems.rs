//! The problems that the last read of each pair met: each is reported once, and is part of the health until it ends.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::merge::SourceProblem;
use crate::engine::pairs::PairCache;
use crate::lake::path::{PairPath, Stream};

/// The problems of the sources of a pair.
pub(super) type Problems = BTreeSet<(Stream, SourceProblem)>;

impl PairCache {
    /// Returns the problems of the last reads.
    pub(super) fn problems(&self) -> &BTreeMap<PairPath, Problems> {
        &self.problems
    }

    /// Returns whether the last read of a pair could not read this day-file.
    pub(super) fn is_unreadable(&self, path: &PairPath, stream: Stream) -> bool {
        let mut problems = self.problems.get(path).into_iter().flatten();
        problems.any(|(of, problem)| {
            *of == stream && matches!(problem, SourceProblem::Unreadable { .. })
        })
    }

    /// Replaces the problems of a pair, and returns those of its read before.
    pub(super) fn replace_problems(&mut self, path: &PairPath, problems: Problems) -> Problems {
        let before = match problems.is_empty() {
            true => self.problems.remove(path),
            false => self.problems.insert(path.clone(), problems),
        };
        before.unwrap_or_default()
    }
}
