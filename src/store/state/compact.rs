//! Copies a state into a file of its own, without free pages and with full blocks. The state that it copies stays
//! as it is and in use, and the copy takes its place by a rename once it is complete and durable.
//!
//! A live load inserts run keys in random order: each checkpoint writes most pages of the growing pairs again, those of
//! the last two checkpoints are still there, and blocks that were split are half full. A copy in key order costs one
//! read and one write of what is kept; to move the pages within the file would cost more and could not be interrupted.

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, Durability, Key, TableDefinition, Value, WriteTransaction};

use crate::pair::index::{EvidenceLine, Packed, PairId, ScoredLine};
use crate::platform::storage::{Storage, remove_if_exists};
use crate::store::state::backend::{Backend, redb_builder};
use crate::store::state::blocks::{self, DamagedBlock};
use crate::store::state::error::{CallError, StateError};
use crate::store::state::failures::Failures;
use crate::store::state::header::Header;
use crate::store::state::{
    Blocks, CLAIMABLE, DEAD_LETTERS, EVIDENCE, Generation, HEADER, INODES, LEDGER_ROWS,
    LEDGER_SEGMENTS, ORDERS, PAIRS, PATHS, SCORED, SEGMENTS, State, StateView, range_of,
};

/// Appended to the name of the state's file for its copy.
const COPY_SUFFIX: &str = ".compacting";
/// Bytes that one step copies: a few milliseconds.
const STEP_BYTES: usize = 256 << 10;
/// Bytes after which the copy is committed. The store remembers each page of a transaction.
const COMMIT_BYTES: usize = 4 << 20;
/// Payload of a block of the copy. Two of them with their keys fill a page, so that a pair wastes half a page at most.
const PAYLOAD_BYTES: usize = 1_990;

/// Copies entries of one table, and returns whether it has copied all of them.
type CopyTable = fn(&mut Compaction, &WriteTransaction) -> Result<bool, CallError>;

/// The tables of the state in the order in which they are copied.
const TABLES: [CopyTable; 12] = [
    |copy, to| copy.entries(to, PAIRS),
    |copy, to| copy.entries(to, PATHS),
    |copy, to| copy.entries(to, INODES),
    |copy, to| copy.blocks::<EvidenceLine>(to, EVIDENCE),
    |copy, to| copy.blocks::<ScoredLine>(to, SCORED),
    |copy, to| copy.entries(to, CLAIMABLE),
    |copy, to| copy.entries(to, DEAD_LETTERS),
    |copy, to| copy.entries(to, SEGMENTS),
    |copy, to| copy.entries(to, LEDGER_SEGMENTS),
    |copy, to| copy.entries(to, LEDGER_ROWS),
    |copy, to| copy.entries(to, ORDERS),
    |copy, to| copy.entries(to, HEADER),
];

/// How far a copy is.
#[derive(Debug)]
pub enum Progress {
    /// Entries are left to be copied.
    Partial,
    /// All entries are copied.
    Complete,
    /// The copy cannot be written; the state is as it was.
    Failed(StateError),
}

/// A copy of the state that is being written.
pub struct Compaction {
    path: PathBuf,
    view: StateView,
    /// What the state was when the copy began.
    generation: Generation,
    database: Database,
    failures: Arc<Failures>,
    /// The transaction of the last steps.
    transaction: Option<WriteTransaction>,
    uncommitted_bytes: usize,
    /// Bytes that this step may still copy.
    budget: usize,
    /// Tables that are copied.
    tables: usize,
    /// The last key that was copied of the next table.
    last_key: Option<Vec<u8>>,
    partial: Partial,
}

/// The entries of a pair that do not fill a block yet.
#[derive(Debug, Default)]
struct Partial {
    pair: Option<PairId>,
    /// Whether a block of the pair is written.
    has_blocks: bool,
    entries: Vec<u8>,
}

impl std::fmt::Debug for Compaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compaction")
            .field("path", &self.path)
            .field("tables", &self.tables)
            .finish_non_exhaustive()
    }
}

/// Returns the path of the copy of a state.
fn copy_path(state_path: &Path) -> PathBuf {
    let mut path = state_path.as_os_str().to_owned();
    path.push(COPY_SUFFIX);
    PathBuf::from(path)
}

/// Removes the copy that a process has left that was killed.
///
/// # Errors
/// It cannot be removed.
pub fn remove_copy(storage: &dyn Storage, state_path: &Path) -> std::io::Result<()> {
    remove_if_exists(storage, &copy_path(state_path))
}

/// Returns the length that a state of this header should have at most, bytes: its records in blocks of which a tenth is
/// empty, and its other entries with room for the pages that they share. A file longer than that is worth a copy.
#[must_use]
pub fn len_worth_keeping(header: &Header) -> u64 {
    /// What a file of any state has.
    const FIXED: u64 = 256 << 10;
    /// Checkpoint, path, inode and half a page for each of its indexes.
    const PAIR: u64 = 1_200;
    /// A dead letter, or a row that no line has claimed.
    const ENTRY: u64 = 100;
    let totals = &header.account.totals;
    let scored = (totals.scored_lines - totals.scored_malformed.min(totals.scored_lines))
        * ScoredLine::LEN as u64;
    let evidence = totals.evidence_lines * EvidenceLine::LEN as u64;
    let records = (scored + evidence) * 10 / 9;
    let malformed = totals.scored_malformed + totals.evidence_malformed;
    let others = (malformed + header.claimable) * ENTRY + header.ledger.rows_out * 30;
    let segments = (header.export.len_bytes + header.ledger.file.len_bytes) >> 14;
    let needed = records + u64::from(header.pair_next) * PAIR + others + segments;
    FIXED + needed * 6 / 5
}

impl Compaction {
    /// Creates the file of the copy next to that of the state.
    ///
    /// # Errors
    /// It cannot be created, or redb fails.
    pub fn begin(storage: &dyn Storage, state: &State, path: &Path) -> Result<Self, StateError> {
        let path = copy_path(path);
        remove_if_exists(storage, &path).map_err(StateError::Io)?;
        let file = storage.create(&path).map_err(StateError::Io)?;
        let failures = Arc::default();
        let backend = Backend::new(file, &failures);
        let database = redb_builder().create_with_backend(backend);
        Ok(Self {
            path,
            view: state.view()?,
            generation: state.generation(),
            database: database.map_err(|error| failures.cause(error.into()))?,
            failures,
            transaction: None,
            uncommitted_bytes: 0,
            budget: 0,
            tables: 0,
            last_key: None,
            partial: Partial::default(),
        })
    }

    /// Returns whether the state is still the one that is copied.
    #[must_use]
    pub fn is_of(&self, state: &State) -> bool {
        self.generation == state.generation()
    }

    /// Returns the path of the copy.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Copies for a few milliseconds.
    ///
    /// # Errors
    /// The state cannot be read; [`StateError::Damaged`] for a block that does not match its checksum.
    pub fn step(&mut self) -> Result<Progress, StateError> {
        match self.try_step() {
            Ok(true) => Ok(Progress::Complete),
            Ok(false) => Ok(Progress::Partial),
            Err(error) => match self.failures.first() {
                Some(failure) => Ok(Progress::Failed(failure)),
                None => Err(self.view.failures.cause(error)),
            },
        }
    }

    /// Returns whether the copy is complete.
    fn try_step(&mut self) -> Result<bool, CallError> {
        let transaction = match self.transaction.take() {
            Some(transaction) => transaction,
            None => self.database.begin_write()?,
        };
        self.budget = STEP_BYTES;
        while self.budget > 0 && self.tables < TABLES.len() {
            if TABLES[self.tables](self, &transaction)? {
                self.tables += 1;
                self.last_key = None;
            }
        }
        self.uncommitted_bytes += STEP_BYTES;
        let is_complete = self.tables == TABLES.len();
        if is_complete || self.uncommitted_bytes >= COMMIT_BYTES {
            self.uncommitted_bytes = 0;
            commit(transaction, is_complete)?;
        } else {
            self.transaction = Some(transaction);
        }
        Ok(is_complete)
    }

    /// Removes the copy, which is not complete.
    ///
    /// # Errors
    /// It cannot be removed; the next copy or start removes it.
    pub fn abandon(self, storage: &dyn Storage) -> std::io::Result<()> {
        self.failures.retire();
        storage.remove_file(&self.path)
    }

    /// Makes the complete copy durable under the name of the state.
    ///
    /// # Errors
    /// [`StateError::Io`] where it cannot be synced or renamed: the state is as it was then.
    pub fn replace(self, storage: &dyn Storage, state_path: &Path) -> Result<(), StateError> {
        // The store shortens its file when it is closed, and syncs it.
        let closed = self.database.close();
        if let Some(failure) = self.failures.first() {
            return Err(failure);
        }
        closed.map_err(|error| self.failures.cause(error.into()))?;
        storage
            .rename(&self.path, state_path)
            .map_err(StateError::Io)
    }

    /// Takes the bytes of an entry from what this step may still copy.
    fn spend(&mut self, len: usize) -> bool {
        self.budget = self.budget.saturating_sub(len);
        self.budget > 0
    }

    fn entries<K: Key + 'static, V: Value + 'static>(
        &mut self,
        to: &WriteTransaction,
        table: TableDefinition<'static, K, V>,
    ) -> Result<bool, CallError> {
        let from = self.view.transaction.open_table(table)?;
        let mut to = to.open_table(table)?;
        let last_key = self.last_key.take();
        let behind = last_key
            .as_ref()
            .map_or(Bound::Unbounded, |key| Bound::Excluded(K::from_bytes(key)));
        for entry in from.range::<K::SelfType<'_>>((behind, Bound::Unbounded))? {
            let (key, value) = entry?;
            to.insert(key.value(), value.value())?;
            let (key, value) = (key.value(), value.value());
            let (key, value) = (K::as_bytes(&key), V::as_bytes(&value));
            let (key, value) = (key.as_ref(), value.as_ref());
            if !self.spend(key.len() + value.len()) {
                self.last_key = Some(key.to_vec());
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Copies the entries of blocks into full blocks.
    fn blocks<T: Packed>(
        &mut self,
        to: &WriteTransaction,
        table: Blocks,
    ) -> Result<bool, CallError> {
        let from = self.view.transaction.open_table(table)?;
        let mut to = to.open_table(table)?;
        let last_key = self.last_key.take();
        let behind = last_key
            .as_deref()
            .map_or(Bound::Unbounded, Bound::Excluded);
        for entry in from.range::<&[u8]>((behind, Bound::Unbounded))? {
            let (key, block) = entry?;
            let id = key.value().first_chunk().ok_or(DamagedBlock)?;
            let id = PairId(u32::from_be_bytes(*id));
            if self.partial.pair != Some(id) {
                self.partial.write::<T>(&mut to, 1)?;
                self.partial = Partial {
                    pair: Some(id),
                    ..Partial::default()
                };
            }
            let entries = blocks::entries_of::<T>(block.value())?;
            self.partial.entries.extend_from_slice(entries);
            self.partial.write::<T>(&mut to, PAYLOAD_BYTES)?;
            if !self.spend(entries.len()) {
                self.last_key = Some(key.value().to_vec());
                return Ok(false);
            }
        }
        std::mem::take(&mut self.partial).write::<T>(&mut to, 1)?;
        Ok(true)
    }
}

impl Partial {
    /// Writes blocks for as long as `len_min` bytes of entries are left.
    fn write<T: Packed>(
        &mut self,
        to: &mut redb::Table<'_, &'static [u8], &'static [u8]>,
        len_min: usize,
    ) -> Result<(), CallError> {
        let Some(id) = self.pair else {
            return Ok(());
        };
        let mut written = 0;
        while self.entries.len() - written >= len_min {
            let rest = &self.entries[written..];
            let block = &rest[..rest.len().min(PAYLOAD_BYTES / T::LEN * T::LEN)];
            // The first block of a pair has the smallest key, so that each key has a block to be found in.
            let first = if self.has_blocks {
                &block[..T::KEY_LEN]
            } else {
                &[]
            };
            let (key, _) = range_of(id, first, &[]);
            to.insert(key.as_slice(), blocks::seal(block).as_slice())?;
            self.has_blocks = true;
            written += block.len();
        }
        self.entries.drain(..written);
        Ok(())
    }
}

fn commit(mut transaction: WriteTransaction, is_complete: bool) -> Result<(), CallError> {
    transaction
        .set_durability(Durability::Immediate)
        .map_err(StateError::damaged)?;
    // As in each commit of the state: without it the next start reads the whole file.
    transaction.set_quick_repair(is_complete);
    transaction.commit()?;
    Ok(())
}
