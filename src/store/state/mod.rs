//! The persisted state as of the last checkpoint of the journal. It is a redb file with, per pair, its checkpoint and
//! its packed indexes, and with the claimable rows, the dead letters and the header.
//!
//! | table | key | value |
//! |---|---|---|
//! | `header` | `()` | [`Header`], sealed |
//! | `pairs` | pair id | [`PairCheckpoint`], sealed |
//! | `paths` | relative path | pair id |
//! | `evidence` | pair id, first run key | block of [`EvidenceLine`] |
//! | `scored` | pair id, first run key and offset | block of [`ScoredLine`] |
//! | `inodes` | inode of a scored day-file, pair id | - |
//! | `claimable` | row key, scope, row offset | - |
//! | `segments` | number of a segment of the export | its xxh3-64 |
//! | `ledger_rows` | offset of a row of the export | how the ledger has it, `RowFlags` |
//! | `ledger_segments` | number of a segment of the ledger | its xxh3-64 |
//! | `orders` | run id, path of a pair or nothing | - |
//! | `dead_letters` | pair id, stream, offset | length and reason, sealed |
//!
//! redb is trusted for this: after a crash a commit is there whole or not at all, and a commit that returned is
//! there. The crash tests run on redb's own file too. It is not trusted to notice that pages changed on the disk: all
//! of them go through a [checksummed file](crate::platform::checksummed_file::CheckedFile), each value has its own
//! checksum, opening is guarded against panics, and anything that does not match is [`StateError::Damaged`]. The state is
//! expendable (promise 6), a wrong answer from it is not.

use crate::store::state::header::{Header, read_header, write_header};

use crate::store::state::backend::{Backend, redb_builder};

use crate::store::state::error::{CallError, StateError};
use crate::store::state::failures::Failures;
use crate::store::state::held::HeldClaims;

pub mod backend;
pub mod blocks;
pub mod compact;
pub mod error;
mod failures;
pub mod header;
mod held;
mod reset;
mod view;
mod write;

pub use reset::{PairReset, Reset};
pub use view::StateView;

use crate::store::ledger::LedgerChanges;

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use redb::{Database, Durability, ReadableDatabase as _, TableDefinition, WriteTransaction};

use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::index::{DeadLetter, EvidenceLine, Packed, PairId, ScoredLine, UnclaimedRow};
use crate::platform::storage::Storage;
use crate::store::export::Segment;
use write::{
    bequeath_claims, create_tables, remove_claims, reset_pair, write_ledger, write_pair,
    write_segments,
};

type Blocks = TableDefinition<'static, &'static [u8], &'static [u8]>;

pub(super) const HEADER: TableDefinition<(), &[u8]> = TableDefinition::new("header");
const PAIRS: TableDefinition<u32, &[u8]> = TableDefinition::new("pairs");
const PATHS: TableDefinition<&[u8], u32> = TableDefinition::new("paths");
/// Finds candidates for moved day-files. An inode match is only a hint; the caller verifies the identity.
const INODES: TableDefinition<(u64, u32), ()> = TableDefinition::new("inodes");
const EVIDENCE: Blocks = TableDefinition::new("evidence");
const SCORED: Blocks = TableDefinition::new("scored");
const CLAIMABLE: TableDefinition<(&[u8; 12], u32, u64), ()> = TableDefinition::new("claimable");
const DEAD_LETTERS: TableDefinition<(u32, bool, u64), &[u8]> = TableDefinition::new("dead_letters");

const SEGMENTS: TableDefinition<u64, u64> = TableDefinition::new("segments");
const LEDGER_SEGMENTS: TableDefinition<u64, u64> = TableDefinition::new("ledger_segments");
const LEDGER_ROWS: TableDefinition<u64, u8> = TableDefinition::new("ledger_rows");
const ORDERS: TableDefinition<(&str, &[u8]), ()> = TableDefinition::new("orders");

/// Pages that redb keeps in memory. Blocks are looked up in an order that no cache helps; this holds the branches.
pub(super) const CACHE_BYTES: usize = 6 << 20;

/// The changes of one pair that a checkpoint writes.
#[derive(Debug)]
pub struct PairWrite<'a> {
    /// The pair.
    pub id: PairId,
    /// Whether the state has no entry of the pair yet.
    pub is_new: bool,
    /// Its checkpoint.
    pub checkpoint: &'a PairCheckpoint,
    /// New evidence records, packed, sorted by key.
    pub evidence: Vec<u8>,
    /// New or changed scored lines, packed, sorted by key.
    pub entries: Vec<u8>,
    /// New dead letters.
    pub dead_letters: &'a [DeadLetter],
    /// Claims that found their row.
    pub claims: &'a [UnclaimedRow],
}

/// What the open state is between two transactions. It equals itself alone.
#[derive(Debug, Clone, Default)]
pub struct Generation(Arc<()>);

impl PartialEq for Generation {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The open state.
pub struct State {
    /// Shared with a checkpoint that another thread writes.
    database: Arc<Database>,
    header: Header,
    generation: Generation,
    additions: Additions,
    failures: Arc<Failures>,
    held: HeldClaims,
}

/// What the next transaction writes in addition to its own work.
#[derive(Default)]
struct Additions {
    /// Segments of the export.
    segments: Vec<Segment>,
    /// Changes of the ledger.
    ledger: LedgerChanges,
}

/// A checkpoint that is to be written.
pub struct CheckpointWrite {
    database: Arc<Database>,
    failures: Arc<Failures>,
    additions: Additions,
    header: Header,
}

impl CheckpointWrite {
    /// Writes all of `pairs` and the header that belongs to them in one durable transaction. Returns the header.
    ///
    /// # Errors
    /// redb fails; nothing is written then.
    pub fn write(self, pairs: &[PairWrite<'_>]) -> Result<Header, StateError> {
        let work = |transaction: &WriteTransaction| write_pairs(transaction, pairs);
        let written = try_write(&self.database, &self.header, self.additions, work);
        self.failures.outcome_of(written)?;
        Ok(self.header)
    }
}

impl Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

impl State {
    /// Creates the state file, which must not exist, with an empty header. Durable on return.
    ///
    /// # Errors
    /// The file cannot be created or redb fails.
    pub fn create(storage: &dyn Storage, path: &Path) -> Result<Self, StateError> {
        let file = storage.create(path).map_err(StateError::Io)?;
        let failures = Arc::default();
        let backend = Backend::new(file, &failures);
        let database = redb_builder().create_with_backend(backend);
        let mut state = Self {
            database: Arc::new(database.map_err(|error| failures.cause(error.into()))?),
            header: Header::new(),
            generation: Generation::default(),
            additions: Additions::default(),
            failures,
            held: HeldClaims::default(),
        };
        state.write(Header::new(), create_tables)?;
        if let Some(dir) = path.parent() {
            storage.sync_dir(dir).map_err(StateError::Io)?;
        }
        Ok(state)
    }

    /// Opens an existing state.
    ///
    /// # Errors
    /// [`StateError::Damaged`] for a file that is not a state of this format; [`StateError::Io`] where the disk
    /// fails.
    pub fn open(storage: &dyn Storage, path: &Path) -> Result<Self, StateError> {
        let file = storage.open_write(path).map_err(StateError::Io)?;
        // redb makes a new database of an empty file; for us that is a state that was lost.
        if file.stat().map_err(StateError::Io)?.len_bytes == 0 {
            return Err(StateError::damaged("the file is empty"));
        }
        // redb may panic on a file that it did not write; the state is hostile input (a lost sector, a bad copy).
        let failures = Arc::default();
        let backend = Backend::new(file, &failures);
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let database = redb_builder().create_with_backend(backend)?;
            let header = read_header(&database.begin_read()?)?;
            Ok((database, header))
        }))
        .unwrap_or_else(|_| Err(StateError::damaged("opening it made the store panic").into()));
        let (database, header) = opened.map_err(|error| failures.cause(error))?;
        Ok(Self {
            database: Arc::new(database),
            header,
            generation: Generation::default(),
            additions: Additions::default(),
            failures,
            held: HeldClaims::default(),
        })
    }

    /// Returns the header of the last checkpoint.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns what the state is until its next transaction begins.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation.clone()
    }

    /// Returns the error of a failed call, on any thread. Further calls may be refused until the file is opened again.
    pub fn failure(&self) -> Option<StateError> {
        self.failures.first()
    }

    /// Closes the state without a further write to its file, which another one has replaced. Views of it stay valid.
    pub fn retire(self) {
        self.failures.retire();
    }

    /// Returns a view of the state as it is now. It keeps pages alive: drop it before a checkpoint.
    ///
    /// # Errors
    /// redb fails.
    pub fn view(&self) -> Result<StateView, StateError> {
        let transaction = self.database.begin_read();
        Ok(StateView {
            transaction: transaction.map_err(|error| self.failures.cause(error.into()))?,
            failures: Arc::clone(&self.failures),
            tables: Default::default(),
            held: self.held.clone(),
        })
    }

    /// Adds segments of the export to the next commit. If that commit fails, they must be added again.
    pub fn record_segments(&mut self, segments: &[Segment]) {
        self.additions.segments = segments.to_vec();
    }

    /// Adds changes of the ledger to the next commit. If that commit fails, it must be added again.
    pub fn record_ledger(&mut self, changes: LedgerChanges) {
        self.additions.ledger = changes;
    }

    /// Writes all of `pairs` and the header that belongs to them in one durable transaction.
    ///
    /// # Errors
    /// redb fails; nothing is written then.
    pub fn checkpoint(
        &mut self,
        header: Header,
        pairs: &[PairWrite<'_>],
    ) -> Result<(), StateError> {
        self.write(header, |transaction| write_pairs(transaction, pairs))?;
        (self.held).remove(pairs.iter().flat_map(|pair| pair.claims));
        Ok(())
    }

    /// Returns a checkpoint that any thread can write. Until [`Self::end_checkpoint`] no other transaction may begin.
    pub fn begin_checkpoint(&mut self, header: Header) -> CheckpointWrite {
        self.generation = Generation::default();
        CheckpointWrite {
            database: Arc::clone(&self.database),
            failures: Arc::clone(&self.failures),
            additions: std::mem::take(&mut self.additions),
            header,
        }
    }

    /// Records that a checkpoint was written.
    pub fn end_checkpoint(&mut self, written: Header) {
        self.header = written;
    }

    /// Removes what was read of sources in one durable transaction.
    ///
    /// # Errors
    /// redb fails; nothing is removed then.
    pub fn reset(&mut self, header: Header, pairs: &[PairReset]) -> Result<(), StateError> {
        self.write(header, |transaction| {
            bequeath_claims(transaction, pairs)?;
            let mut each = pairs.iter();
            each.try_for_each(|pair| reset_pair(transaction, pair))
        })
    }

    /// Writes the header alone.
    ///
    /// # Errors
    /// redb fails.
    pub fn write_header(&mut self, header: Header) -> Result<(), StateError> {
        self.write(header, |_| Ok(()))
    }

    /// Runs `work` and writes the header in one durable transaction.
    fn write(
        &mut self,
        header: Header,
        work: impl FnOnce(&WriteTransaction) -> Result<(), CallError>,
    ) -> Result<(), StateError> {
        self.generation = Generation::default();
        let additions = std::mem::take(&mut self.additions);
        let written = try_write(&self.database, &header, additions, work);
        self.failures.outcome_of(written)?;
        self.header = header;
        Ok(())
    }
}

fn try_write(
    database: &Database,
    header: &Header,
    additions: Additions,
    work: impl FnOnce(&WriteTransaction) -> Result<(), CallError>,
) -> Result<(), CallError> {
    let mut transaction = database.begin_write()?;
    transaction
        .set_durability(Durability::Immediate)
        .map_err(StateError::damaged)?;
    // Without it an unclean start reads the whole file before READY.
    transaction.set_quick_repair(true);
    work(&transaction)?;
    write_segments(&transaction, SEGMENTS, &additions.segments)?;
    write_ledger(&transaction, additions.ledger)?;
    write_header(&transaction, header)?;
    Ok(transaction.commit()?)
}

fn write_pairs(transaction: &WriteTransaction, pairs: &[PairWrite<'_>]) -> Result<(), CallError> {
    let mut each = pairs.iter();
    each.try_for_each(|pair| write_pair(transaction, pair))?;
    remove_claims(transaction, pairs)
}

/// The first and the last key that blocks with entries of this prefix may have.
fn range_of(id: PairId, from: &[u8], to: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let key = |prefix: &[u8], pad: u8| {
        let mut key = id.0.to_be_bytes().to_vec();
        key.extend_from_slice(prefix);
        key.resize(4 + EvidenceLine::KEY_LEN.max(ScoredLine::KEY_LEN), pad);
        key
    };
    (key(from, 0), key(to, 0xff))
}
