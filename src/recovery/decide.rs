//! Decides what a start does: from the facts about state and export to one named case. Pure: the caller collects the
//! facts and executes the case.
//!
//! The two stores cannot commit together, so the state decides: what it records as committed is what the export must
//! hold. `durable` is the length that a checkpoint synced; `committed` adds the rows of the journal. After a crash
//! the export may end anywhere between the two, and the bytes there are written again. Any other length has another
//! cause:
//!
//! | state | export | case |
//! |---|---|---|
//! | lost | absent or empty | `Fresh`: no row was ever visible |
//! | lost | has rows | `Adopt`: they are read back, their lines claim them |
//! | read | absent, nothing committed | `Continue`: an empty one is created |
//! | read | absent, rows committed | `Stop(Missing)` |
//! | read | shorter than `durable` | `Stop(Short)`: synced bytes are gone |
//! | read | other bytes before `durable` | `Stop(Changed)` |
//! | read | longer than `committed` | `Adopt`: the state is older than the export |
//! | read | between `durable` and `committed` | `Continue`: redo |
//!
//! A lost state is one that does not exist or reports that it cannot be read; it is never taken for an empty one.
//! With rows in the export it always leads to `Adopt`.
//!
//! A state for which a start would stop counts as lost if a rebuild is proven to have replaced its files since
//! (`recovery::older_state`).

/// The facts about the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateFound {
    /// There is none, or it is unreadable.
    Lost,
    /// It was read, its journal too.
    Read {
        /// Export length of the last checkpoint, bytes.
        durable: u64,
        /// Export length with all that the journal holds, bytes.
        committed: u64,
    },
}

/// The facts about the export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFound {
    /// There is none.
    Absent,
    /// There is one.
    Present {
        /// Its length, bytes.
        len_bytes: u64,
        /// Whether the bytes before `durable` match the mark in the state.
        mark_fits: bool,
    },
}

/// Why the daemon must not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CannotStart {
    /// The export is gone.
    Missing,
    /// The export lost durable bytes.
    Short,
    /// The export has other bytes.
    Changed,
}

/// The case of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecoveryCase {
    /// Begin with an empty state and an empty export.
    Fresh,
    /// Begin with an empty state and the rows of the export as claimable.
    Adopt,
    /// Go on from the state; write the journal's rows again.
    Continue,
    /// Stop with an error that names the way out.
    Stop(CannotStart),
}

/// The table above.
#[must_use]
pub fn decide(state: StateFound, export: ExportFound) -> RecoveryCase {
    use RecoveryCase::{Adopt, Continue, Fresh, Stop};
    match (state, export) {
        (StateFound::Lost, ExportFound::Absent | ExportFound::Present { len_bytes: 0, .. }) => {
            Fresh
        }
        (StateFound::Lost, ExportFound::Present { .. }) => Adopt,
        (StateFound::Read { committed: 0, .. }, ExportFound::Absent) => Continue,
        (StateFound::Read { .. }, ExportFound::Absent) => Stop(CannotStart::Missing),
        (
            StateFound::Read { durable, committed },
            ExportFound::Present {
                len_bytes,
                mark_fits,
            },
        ) => {
            if len_bytes < durable {
                Stop(CannotStart::Short)
            } else if !mark_fits {
                Stop(CannotStart::Changed)
            } else if len_bytes > committed {
                Adopt
            } else {
                Continue
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same table, read off the promises instead of the match: exactly one label fits each combination.
    fn labels(state: StateFound, export: ExportFound) -> Vec<RecoveryCase> {
        let mut labels = Vec::new();
        let rows = match export {
            ExportFound::Absent => None,
            ExportFound::Present { len_bytes, .. } => Some(len_bytes),
        };
        let mut label = |fits: bool, case| {
            if fits {
                labels.push(case);
            }
        };
        match state {
            StateFound::Lost => {
                label(rows.unwrap_or(0) == 0, RecoveryCase::Fresh);
                label(rows.unwrap_or(0) > 0, RecoveryCase::Adopt);
            }
            StateFound::Read { durable, committed } => {
                let fits = matches!(
                    export,
                    ExportFound::Present {
                        mark_fits: true,
                        ..
                    }
                );
                let gone = rows.is_none();
                let short = rows.is_some_and(|rows| rows < durable);
                label(gone && committed == 0, RecoveryCase::Continue);
                label(
                    gone && committed > 0,
                    RecoveryCase::Stop(CannotStart::Missing),
                );
                label(short, RecoveryCase::Stop(CannotStart::Short));
                label(
                    !gone && !short && !fits,
                    RecoveryCase::Stop(CannotStart::Changed),
                );
                let beyond = rows.is_some_and(|rows| rows > committed);
                label(!gone && !short && fits && beyond, RecoveryCase::Adopt);
                label(!gone && !short && fits && !beyond, RecoveryCase::Continue);
            }
        }
        labels
    }

    #[test]
    fn every_combination_of_facts_has_exactly_one_case() {
        let lengths = [0, 1, 2, 3, 4];
        let mut states = vec![StateFound::Lost];
        for durable in lengths {
            states.extend(
                lengths
                    .iter()
                    .filter(|committed| **committed >= durable)
                    .map(|committed| StateFound::Read {
                        durable,
                        committed: *committed,
                    }),
            );
        }
        let mut exports = vec![ExportFound::Absent];
        for len_bytes in lengths {
            exports.extend([true, false].map(|mark_fits| ExportFound::Present {
                len_bytes,
                mark_fits,
            }));
        }
        for state in &states {
            for export in &exports {
                assert_eq!(
                    labels(*state, *export),
                    [decide(*state, *export)],
                    "{state:?} {export:?}"
                );
            }
        }
    }

    #[test]
    fn an_unreadable_state_is_never_an_empty_one() {
        let export = ExportFound::Present {
            len_bytes: 7,
            mark_fits: false,
        };
        assert_eq!(decide(StateFound::Lost, export), RecoveryCase::Adopt);
    }
}
