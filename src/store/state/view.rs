//! Reads the state as of one moment: pairs, the location of evidence, the verdicts of lines.

mod ledger;
mod lookup;
mod unclaimed;

use std::fmt::Debug;
use std::sync::Arc;

use redb::{ReadTransaction, ReadableTable as _};

use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::index::{DeadLetter, EvidenceLine, EvidenceLocation, Packed, PairId, ScoredLine};
use crate::platform::background::spawn_in;
use crate::record::keys::RunKey;
use crate::store::state::blocks;
use crate::store::state::blocks::DamagedBlock;
use crate::store::state::error::{CallError, StateError};
use crate::store::state::failures::Failures;
use crate::store::state::header::{Header, decode, read_header};
use crate::store::state::held::HeldClaims;
use crate::store::state::view::lookup::OpenTables;
use crate::store::state::{
    Blocks, DEAD_LETTERS, EVIDENCE, INODES, PAIRS, PATHS, SCORED, SEGMENTS, range_of,
};

/// A view of the state at one moment; shared by the threads that read day-files.
pub struct StateView {
    pub(super) transaction: ReadTransaction,
    pub(super) failures: Arc<Failures>,
    pub(super) tables: OpenTables,
    /// Unclaimed rows that the table lacks.
    pub(super) held: HeldClaims,
}

impl Debug for StateView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateView").finish_non_exhaustive()
    }
}

impl StateView {
    /// Returns whether a call to the state failed, on any thread.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failures.first().is_some()
    }

    /// Runs `work` on the tables. An error of it has its cause.
    fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, CallError>,
    ) -> Result<T, StateError> {
        work(&self.transaction).map_err(|error| self.failures.cause(error))
    }

    /// Returns the id of the pair at a relative path, if it is known.
    ///
    /// # Errors
    /// redb fails.
    pub fn pair_id(&self, path: &[u8]) -> Result<Option<PairId>, StateError> {
        self.read(|tables| {
            Ok(tables
                .open_table(PATHS)?
                .get(path)?
                .map(|id| PairId(id.value())))
        })
    }

    /// Returns the first pairs, at most `max`, whose path begins with `prefix`, in the order of their paths.
    ///
    /// # Errors
    /// redb fails.
    pub fn pairs_below(&self, prefix: &[u8], max: usize) -> Result<Vec<PairId>, StateError> {
        self.read(|tables| {
            let table = tables.open_table(PATHS)?;
            let mut ids = Vec::new();
            for entry in table.range(prefix..)?.take(max) {
                let (path, id) = entry?;
                if !path.value().starts_with(prefix) {
                    break;
                }
                ids.push(PairId(id.value()));
            }
            Ok(ids)
        })
    }

    /// Returns the last pairs before those below a directory, and the first ones after them, at most `max` each.
    ///
    /// # Errors
    /// redb fails.
    pub fn pairs_next_to(&self, dir: &[u8], max: usize) -> Result<Vec<PairId>, StateError> {
        self.read(|tables| {
            let table = tables.open_table(PATHS)?;
            let [first, after] = [b'/', b'/' + 1].map(|end| [dir, &[end]].concat());
            let before = table.range(..&*first)?.rev().take(max);
            let found = before.chain(table.range(&*after..)?.take(max));
            found.map(|entry| Ok(PairId(entry?.1.value()))).collect()
        })
    }

    /// Returns the pairs whose scored day-file had this inode when it was last read.
    ///
    /// # Errors
    /// redb fails.
    pub fn pairs_with_inode(&self, inode: u64) -> Result<Vec<PairId>, StateError> {
        self.read(|tables| {
            let table = tables.open_table(INODES)?;
            let found = table.range((inode, 0)..=(inode, u32::MAX))?;
            found.map(|found| Ok(PairId(found?.0.value().1))).collect()
        })
    }

    /// The checkpoint of a pair.
    ///
    /// # Errors
    /// [`StateError::Damaged`] where it is missing or does not fit its checksum.
    pub fn checkpoint(&self, id: PairId) -> Result<PairCheckpoint, StateError> {
        self.read(|tables| {
            let table = tables.open_table(PAIRS)?;
            let value = table
                .get(id.0)?
                .ok_or_else(|| StateError::Damaged(format!("pair {id} is missing")))?;
            Ok(decode(value.value())?)
        })
    }

    /// Calls `visit` with every pair, in the order of their ids.
    ///
    /// # Errors
    /// redb fails; [`StateError::Damaged`] for a checkpoint that does not match its checksum.
    pub fn for_each_pair(
        &self,
        mut visit: impl FnMut(PairId, PairCheckpoint),
    ) -> Result<(), StateError> {
        self.read(|tables| {
            for pair in tables.open_table(PAIRS)?.iter()? {
                let (id, value) = pair?;
                visit(PairId(id.value()), decode(value.value())?);
            }
            Ok(())
        })
    }

    /// Returns the location of a run's evidence in the pair's evidence day-file.
    ///
    /// # Errors
    /// redb fails; [`StateError::Damaged`] for a block that does not match its checksum.
    pub fn evidence(
        &self,
        id: PairId,
        run: RunKey,
    ) -> Result<Option<EvidenceLocation>, StateError> {
        let found = self.find::<EvidenceLine>((&self.tables.evidence, EVIDENCE), id, &run.0)?;
        Ok(found.first().map(|entry| entry.place))
    }

    /// The scored lines of a run in the pair, in the order of their offsets.
    ///
    /// # Errors
    /// As [`Self::evidence`].
    pub fn entries(&self, id: PairId, run: RunKey) -> Result<Vec<ScoredLine>, StateError> {
        self.find::<ScoredLine>((&self.tables.scored, SCORED), id, &run.0)
    }

    /// Calls `visit` with every scored line of a pair that the state has taken in.
    ///
    /// # Errors
    /// As [`Self::evidence`].
    pub fn for_each_entry(
        &self,
        id: PairId,
        visit: impl FnMut(ScoredLine),
    ) -> Result<(), StateError> {
        self.for_each_packed(SCORED, id, visit)
    }

    /// Calls `visit` with every evidence record of a pair that the state has taken in, the last one of each id.
    ///
    /// # Errors
    /// As [`Self::evidence`].
    pub fn for_each_evidence(
        &self,
        id: PairId,
        visit: impl FnMut(EvidenceLine),
    ) -> Result<(), StateError> {
        self.for_each_packed(EVIDENCE, id, visit)
    }

    fn for_each_packed<T: Packed>(
        &self,
        table: Blocks,
        id: PairId,
        mut visit: impl FnMut(T),
    ) -> Result<(), StateError> {
        self.read(|tables| {
            let table = tables.open_table(table)?;
            let (from, to) = range_of(id, &[], &[]);
            for block in table.range::<&[u8]>(from.as_slice()..=to.as_slice())? {
                let (_, block) = block?;
                for bytes in blocks::entries_of::<T>(block.value())?.chunks_exact(T::LEN) {
                    visit(T::unpack(bytes).ok_or(DamagedBlock)?);
                }
            }
            Ok(())
        })
    }

    /// The pairs with scored lines or evidence of a run: all are asked, by two threads, since most of it is checksums.
    ///
    /// # Errors
    /// As [`Self::evidence`].
    pub fn pairs_with(&self, run: RunKey) -> Result<Vec<PairId>, StateError> {
        std::thread::scope(|scope| {
            let in_evidence = move || self.pairs_in::<EvidenceLine>(EVIDENCE, run);
            let evidence = spawn_in(scope, "evidence", in_evidence);
            let mut pairs = self.pairs_in::<ScoredLine>(SCORED, run)?;
            pairs.extend(match evidence {
                Ok(thread) => thread
                    .join()
                    .map_err(|_| StateError::damaged("reading it made the store panic"))??,
                // No thread can be started.
                Err(_) => in_evidence()?,
            });
            pairs.sort_unstable();
            pairs.dedup();
            Ok(pairs)
        })
    }

    fn pairs_in<T: Packed>(&self, table: Blocks, run: RunKey) -> Result<Vec<PairId>, StateError> {
        self.read(|tables| {
            let table = tables.open_table(table)?;
            let mut pairs = Vec::new();
            for block in table.iter()? {
                let (key, block) = block?;
                let key = key.value();
                let (id, first) = key.split_at_checked(4).ok_or(DamagedBlock)?;
                // A block that begins after the run is not read. One that begins before it may also end before it.
                if first.get(..run.0.len()) > Some(&run.0) {
                    continue;
                }
                let payload = blocks::peek(block.value())?;
                if blocks::matching::<T>(payload, &run.0).next().is_some() {
                    pairs.push(PairId(u32::from_be_bytes(
                        id.try_into().map_err(|_| DamagedBlock)?,
                    )));
                }
            }
            Ok(pairs)
        })
    }

    /// Returns the header of the last checkpoint.
    ///
    /// # Errors
    /// redb fails; [`StateError::Damaged`] where it does not fit its checksum.
    pub fn header(&self) -> Result<Header, StateError> {
        self.read(read_header)
    }

    /// Returns the hash of a whole segment of the export, or `None` if the state does not have it.
    ///
    /// # Errors
    /// redb fails.
    pub fn segment(&self, number: u64) -> Result<Option<u64>, StateError> {
        self.read(|tables| {
            let table = tables.open_table(SEGMENTS)?;
            Ok(table.get(number)?.map(|hash| hash.value()))
        })
    }

    /// Calls `visit` with every dead letter, pair by pair, until `visit` returns a break.
    ///
    /// # Errors
    /// redb fails; [`StateError::Damaged`] for a checksum that does not match.
    pub fn for_each_dead_letter(
        &self,
        mut visit: impl FnMut(PairId, DeadLetter) -> bool,
    ) -> Result<(), StateError> {
        self.read(|tables| {
            for letter in tables.open_table(DEAD_LETTERS)?.iter()? {
                let (key, value) = letter?;
                let (id, in_evidence, offset) = key.value();
                let (len_bytes, reason) = decode(value.value())?;
                let letter = DeadLetter {
                    in_evidence,
                    offset,
                    len_bytes,
                    reason,
                };
                if !visit(PairId(id), letter) {
                    break;
                }
            }
            Ok(())
        })
    }
}
