//! The header of the state: how far the state goes, and the marks of export and journal.

use crate::pair::accounting::Account;
use crate::pair::checkpoint::FORMAT;
use crate::store::export::{ExportMark, ScrubState};
use crate::store::state::error::{CallError, StateError};
use crate::store::state::{blocks, *};
use redb::{ReadTransaction, WriteTransaction};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;

/// The extent of the state. Read first at a start, and written in the transaction of each checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`] of all that is persisted.
    pub format: u32,
    /// Frames of the journal up to this seq are taken in.
    pub seq_applied: u64,
    /// The epoch of frames that are not.
    pub journal_epoch: u64,
    /// The export that belongs to this state.
    pub export: ExportMark,
    /// By what a change in the middle of that export is noticed.
    pub guard: ScrubState,
    /// Sums over all pairs.
    pub account: Account,
    /// The id that the next new pair gets.
    pub pair_next: u32,
    /// Rows that no line has claimed.
    pub claimable: u64,
    /// The ledger that belongs to this state.
    pub ledger: LedgerMark,
}

/// The extent of the retraction ledger in the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LedgerMark {
    /// The file.
    pub file: ExportMark,
    /// By what a change in the middle of the file is noticed.
    pub guard: ScrubState,
    /// The identity of the export, as the ledger names it.
    pub export: [u8; 8],
    /// The number of its next line.
    pub next_seq: u64,
    /// Rows that are out.
    pub rows_out: u64,
}

impl Header {
    /// The header of a state that knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            format: FORMAT,
            seq_applied: 0,
            journal_epoch: 1,
            export: ExportMark::default(),
            guard: ScrubState::default(),
            account: Account::default(),
            pair_next: 0,
            claimable: 0,
            ledger: LedgerMark::default(),
        }
    }
}

impl Default for Header {
    fn default() -> Self {
        Self::new()
    }
}

pub(super) fn read_header(transaction: &ReadTransaction) -> Result<Header, CallError> {
    let table = transaction.open_table(HEADER)?;
    let value = table
        .get(())?
        .ok_or_else(|| StateError::damaged("it has no header"))?;
    let header: Header = decode(value.value())?;
    if header.format != FORMAT {
        let what = format!(
            "it is of format {}, this distilld writes {FORMAT}",
            header.format
        );
        return Err(StateError::Damaged(what).into());
    }
    Ok(header)
}

pub(super) fn write_header(
    transaction: &WriteTransaction,
    header: &Header,
) -> Result<(), CallError> {
    transaction
        .open_table(HEADER)?
        .insert((), encode(header)?.as_slice())?;
    Ok(())
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StateError> {
    postcard::to_stdvec(value)
        .map(|payload| blocks::seal(&payload))
        .map_err(StateError::damaged)
}

pub(crate) fn decode<'v, T: Deserialize<'v>>(sealed: &'v [u8]) -> Result<T, StateError> {
    postcard::from_bytes(blocks::open(sealed)?).map_err(StateError::damaged)
}
