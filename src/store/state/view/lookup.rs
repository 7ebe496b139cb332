//! Finds the entries of a run in a pair. Each line that is read costs such a lookup.

use std::ops::Bound;
use std::sync::OnceLock;

use redb::ReadOnlyTable;

use crate::pair::index::{Packed, PairId};
use crate::store::state::blocks::{self, DamagedBlock};
use crate::store::state::error::StateError;
use crate::store::state::view::StateView;
use crate::store::state::{Blocks, range_of};

type Claimable = ReadOnlyTable<(&'static [u8; 12], u32, u64), ()>;
type OpenBlocks = OnceLock<ReadOnlyTable<&'static [u8], &'static [u8]>>;

/// The tables that lines are looked up in. Each is opened at its first lookup, because to open it is a lookup too.
#[derive(Default)]
pub(in crate::store::state) struct OpenTables {
    /// `None` if it is empty.
    pub(super) claimable: OnceLock<Option<Claimable>>,
    pub(super) scored: OpenBlocks,
    pub(super) evidence: OpenBlocks,
}

impl StateView {
    /// Returns the entries of a pair whose key starts with `prefix`.
    pub(super) fn find<T: Packed>(
        &self,
        (table, name): (&OpenBlocks, Blocks),
        id: PairId,
        prefix: &[u8],
    ) -> Result<Vec<T>, StateError> {
        self.read(|tables| {
            let table = match table.get() {
                Some(table) => table,
                None => {
                    let opened = tables.open_table(name)?;
                    table.get_or_init(|| opened)
                }
            };
            let (from, to) = range_of(id, prefix, prefix);
            let mut found = Vec::new();
            // The first block of the prefix has a key at or below it.
            let first = table.range::<&[u8]>(..=from.as_slice())?.next_back();
            if let Some((key, block)) = first.transpose()?
                && key.value().starts_with(&id.0.to_be_bytes())
            {
                let entries = blocks::entries_of::<T>(block.value())?;
                unpack_matching(entries, prefix, &mut found)?;
                // Most lookups end here; each search in the table takes as long as the rest of the lookup.
                if blocks::ends_after::<T>(entries, prefix) {
                    return Ok(found);
                }
            }
            // Later blocks may begin with the prefix too.
            let later = (Bound::Excluded(&*from), Bound::Included(&*to));
            for block in table.range::<&[u8]>(later)? {
                let (_, block) = block?;
                unpack_matching(blocks::entries_of::<T>(block.value())?, prefix, &mut found)?;
            }
            Ok(found)
        })
    }
}

/// Adds the entries of a block whose key starts with `prefix`.
fn unpack_matching<T: Packed>(
    entries: &[u8],
    prefix: &[u8],
    found: &mut Vec<T>,
) -> Result<(), DamagedBlock> {
    for bytes in blocks::matching::<T>(entries, prefix) {
        found.push(T::unpack(bytes).ok_or(DamagedBlock)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::checkpoint::PairCheckpoint;
    use crate::pair::index::ScoredLine;
    use crate::pair::verdict::Verdict;
    use crate::platform::storage::OsStorage;
    use crate::record::keys::RunKey;
    use crate::store::state::header::Header;
    use crate::store::state::{PairWrite, State};

    /// Runs with one line and runs whose lines fill several blocks, in neighbouring pairs.
    #[test]
    fn every_line_of_a_run_is_found_wherever_its_blocks_begin() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = State::create(&OsStorage, &dir.path().join("state")).unwrap();
        let mut rng = fastrand::Rng::with_seed(3);
        let pairs: Vec<Vec<ScoredLine>> = (0..4)
            .map(|_| {
                let runs = (0..60).map(|_| {
                    RunKey(std::array::from_fn(|at| match at {
                        0 => rng.u8(..4),
                        _ => 0,
                    }))
                });
                let mut runs: Vec<_> = runs.collect();
                runs.extend((0..200).map(|_| RunKey(std::array::from_fn(|_| rng.u8(..)))));
                let line = |(offset, run)| ScoredLine {
                    run,
                    offset: offset as u64,
                    len_bytes: 1,
                    verdict: Verdict::Waiting {
                        index: 0,
                        since_s: 1,
                    },
                };
                let lines = runs.into_iter().cycle().take(1_000).enumerate().map(line);
                let mut lines: Vec<_> = lines.collect();
                lines.sort_by_key(|line| (line.run, line.offset));
                lines
            })
            .collect();
        let checkpoint = PairCheckpoint::default();
        let writes: Vec<_> = (0..)
            .zip(&pairs)
            .map(|(id, lines)| PairWrite {
                id: PairId(id),
                is_new: true,
                checkpoint: &checkpoint,
                evidence: Vec::new(),
                entries: lines.iter().fold(Vec::new(), |mut packed, line| {
                    line.pack(&mut packed);
                    packed
                }),
                dead_letters: &[],
                claims: &[],
            })
            .collect();
        state.checkpoint(Header::new(), &writes).unwrap();
        let view = state.view().unwrap();
        let mut runs: Vec<_> = pairs.iter().flatten().map(|line| line.run).collect();
        runs.push(RunKey([0xff; 12]));
        for run in runs {
            for (id, lines) in (0..).zip(&pairs) {
                let of_run = lines.iter().filter(|line| line.run == run);
                let expected: Vec<_> = of_run.copied().collect();
                assert_eq!(view.entries(PairId(id), run).unwrap(), expected);
            }
        }
    }
}
