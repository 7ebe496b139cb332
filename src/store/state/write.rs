//! Owns what a transaction of the state writes: checkpoints, blocks, claims, dead letters. It commits nothing.

use std::collections::BTreeMap;

use redb::{ReadableTable as _, TableDefinition, WriteTransaction};

use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::index::{DeadLetter, EvidenceLine, Packed, PairId, ScoredLine, UnclaimedRow};
use crate::store::export::Segment;
use crate::store::ledger::{LedgerChanges, RowFlags};
use crate::store::state::blocks;
use crate::store::state::blocks::DamagedBlock;
use crate::store::state::error::CallError;
use crate::store::state::header::{decode, encode};
use crate::store::state::{
    Blocks, CLAIMABLE, DEAD_LETTERS, EVIDENCE, INODES, LEDGER_ROWS, LEDGER_SEGMENTS, ORDERS, PAIRS,
    PATHS, PairReset, PairWrite, Reset, SCORED, SEGMENTS, range_of,
};

/// Claimable rows whose scope is changed at a time, 32 bytes each.
const CLAIMS_AT_ONCE: usize = 64 << 10;

pub(super) fn create_tables(transaction: &WriteTransaction) -> Result<(), CallError> {
    transaction.open_table(PAIRS)?;
    transaction.open_table(PATHS)?;
    transaction.open_table(INODES)?;
    transaction.open_table(EVIDENCE)?;
    transaction.open_table(SCORED)?;
    transaction.open_table(CLAIMABLE)?;
    transaction.open_table(DEAD_LETTERS)?;
    transaction.open_table(SEGMENTS)?;
    transaction.open_table(LEDGER_SEGMENTS)?;
    transaction.open_table(LEDGER_ROWS)?;
    transaction.open_table(ORDERS)?;
    Ok(())
}

pub(super) fn write_pair(
    transaction: &WriteTransaction,
    pair: &PairWrite<'_>,
) -> Result<(), CallError> {
    write_checkpoint(transaction, pair.id, pair.checkpoint)?;
    if pair.is_new {
        write_path(transaction, pair.id, &pair.checkpoint.path)?;
    }
    merge_into::<EvidenceLine>(transaction, EVIDENCE, pair.id, &pair.evidence)?;
    merge_into::<ScoredLine>(transaction, SCORED, pair.id, &pair.entries)?;
    write_dead_letters(transaction, pair.id, pair.dead_letters)
}

pub(super) fn reset_pair(
    transaction: &WriteTransaction,
    pair: &PairReset,
) -> Result<(), CallError> {
    let id = pair.id;
    write_checkpoint(transaction, id, &pair.checkpoint)?;
    for reset in &pair.sources {
        match reset {
            Reset::Scored { released, .. } => {
                remove_blocks(transaction, SCORED, id)?;
                remove_dead_letters(transaction, id, false)?;
                insert_claimable(transaction, released)?;
            }
            Reset::Evidence(now_s) => {
                remove_blocks(transaction, EVIDENCE, id)?;
                remove_dead_letters(transaction, id, true)?;
                wait_again(transaction, id, *now_s)?;
            }
            Reset::Bequeath(_) => {}
        }
    }
    Ok(())
}

fn write_checkpoint(
    transaction: &WriteTransaction,
    id: PairId,
    checkpoint: &PairCheckpoint,
) -> Result<(), CallError> {
    let mut pairs = transaction.open_table(PAIRS)?;
    let before = pairs.insert(id.0, encode(checkpoint)?.as_slice())?;
    let before = before.map(|before| decode::<PairCheckpoint>(before.value()));
    let before = before.transpose()?.and_then(|before| before.scored_inode());
    let after = checkpoint.scored_inode();
    if before != after {
        let mut inodes = transaction.open_table(INODES)?;
        if let Some(inode) = before {
            inodes.remove((inode, id.0))?;
        }
        if let Some(inode) = after {
            inodes.insert((inode, id.0), ())?;
        }
    }
    Ok(())
}

/// By this a pair is found; it never changes.
fn write_path(transaction: &WriteTransaction, id: PairId, path: &[u8]) -> Result<(), CallError> {
    transaction.open_table(PATHS)?.insert(path, id.0)?;
    Ok(())
}

/// Merges new entries, packed and sorted, into a pair's blocks. A pair's first block has the smallest key there is, so
/// that every key has a block to be found in; blocks never overlap.
fn merge_into<T: Packed>(
    transaction: &WriteTransaction,
    table: Blocks,
    id: PairId,
    mut added: &[u8],
) -> Result<(), CallError> {
    let mut table = transaction.open_table(table)?;
    while let Some(first_key) = added.get(..T::KEY_LEN) {
        let (key, _) = range_of(id, first_key, &[]);
        let (_, pair_end) = range_of(id, &[], &[]);
        let block = table
            .range::<&[u8]>(..=key.as_slice())?
            .next_back()
            .transpose()?;
        let block = block.filter(|(key, _)| key.value().starts_with(&id.0.to_be_bytes()));
        let (block_key, payload) = match &block {
            Some((key, value)) => (
                key.value().to_vec(),
                blocks::entries_of::<T>(value.value())?.to_vec(),
            ),
            None => (range_of(id, &[], &[]).0, Vec::new()),
        };
        drop(block);
        let next_key = {
            let behind = (
                std::ops::Bound::Excluded(key.as_slice()),
                std::ops::Bound::Included(pair_end.as_slice()),
            );
            table
                .range::<&[u8]>(behind)?
                .next()
                .transpose()?
                .map(|(key, _)| key.value().to_vec())
        };
        let (here, behind) = match &next_key {
            Some(next) => blocks::split::<T>(added, &next[4..4 + T::KEY_LEN]),
            None => (added, &[][..]),
        };
        let merged = blocks::merge::<T>(&payload, here);
        for (n, piece) in blocks::cut::<T>(&merged).enumerate() {
            let piece_key = if n == 0 {
                block_key.clone()
            } else {
                range_of(id, &piece[..T::KEY_LEN], &[]).0
            };
            table.insert(piece_key.as_slice(), blocks::seal(piece).as_slice())?;
        }
        added = behind;
    }
    Ok(())
}

fn remove_blocks(
    transaction: &WriteTransaction,
    table: Blocks,
    id: PairId,
) -> Result<(), CallError> {
    let (from, to) = range_of(id, &[], &[]);
    transaction
        .open_table(table)?
        .retain_in::<&[u8], _>(from.as_slice()..=to.as_slice(), |_, _| false)?;
    Ok(())
}

/// Sets every run of the pair that was refused for its evidence to waiting, because the evidence is read again.
fn wait_again(transaction: &WriteTransaction, id: PairId, since_s: u64) -> Result<(), CallError> {
    let table = transaction.open_table(SCORED)?;
    let (from, to) = range_of(id, &[], &[]);
    let mut changed = Vec::new();
    for block in table.range::<&[u8]>(from.as_slice()..=to.as_slice())? {
        let (_, block) = block?;
        for bytes in blocks::entries_of::<ScoredLine>(block.value())?.chunks_exact(ScoredLine::LEN)
        {
            let entry = ScoredLine::unpack(bytes).ok_or(DamagedBlock)?;
            if let Some(verdict) = entry.verdict.requeued(since_s) {
                changed.push(ScoredLine { verdict, ..entry });
            }
        }
    }
    drop(table);
    merge_into::<ScoredLine>(transaction, SCORED, id, &blocks::packed(changed))
}

pub(super) fn insert_claimable(
    transaction: &WriteTransaction,
    claims: &[UnclaimedRow],
) -> Result<(), CallError> {
    let mut table = transaction.open_table(CLAIMABLE)?;
    for claim in claims {
        table.insert((&claim.row.0, claim.scope.0, claim.row_offset), ())?;
    }
    Ok(())
}

/// Gives the claimable rows of pairs whose day-file was moved to the pairs that have it now. A line of such a row may be in
/// that day-file and have no verdict yet, because its evidence is missing; it would write the row again if it had to
/// compare it, since the line number in the row's id may have changed since. An heir may have been moved itself: a row that
/// was given is not met as one to give, because no part of the table that is read at once ends between rows of one key.
pub(super) fn bequeath_claims(
    transaction: &WriteTransaction,
    pairs: &[PairReset],
) -> Result<(), CallError> {
    let heir_of = |pair: &PairReset| {
        pair.sources.iter().find_map(|reset| match reset {
            Reset::Scored { heir, .. } => heir.map(|heir| (pair.id.0, heir.0)),
            Reset::Bequeath(heir) => Some((pair.id.0, heir.0)),
            Reset::Evidence(_) => None,
        })
    };
    let heirs: BTreeMap<u32, u32> = pairs.iter().filter_map(heir_of).collect();
    if heirs.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(CLAIMABLE)?;
    let mut from = Some(([0; 12], 0, 0));
    while let Some((row, scope, row_offset)) = from.take() {
        let mut rows = Vec::<([u8; 12], u32, u64, u32)>::new();
        for found in table.range((&row, scope, row_offset)..)? {
            let (key, _) = found?;
            let (row, scope, row_offset) = key.value();
            let is_next_key = rows.last().is_some_and(|(last, ..)| last != row);
            if rows.len() >= CLAIMS_AT_ONCE && is_next_key {
                from = Some((*row, scope, row_offset));
                break;
            }
            if let Some(heir) = heirs.get(&scope) {
                rows.push((*row, scope, row_offset, *heir));
            }
        }
        for (row, scope, row_offset, heir) in rows {
            table.remove((&row, scope, row_offset))?;
            table.insert((&row, heir, row_offset), ())?;
        }
    }
    Ok(())
}

/// Removes the claims of pairs in the order of the table, which costs the store far less than any other.
pub(super) fn remove_claims(
    transaction: &WriteTransaction,
    pairs: &[PairWrite<'_>],
) -> Result<(), CallError> {
    let claims = pairs.iter().flat_map(|pair| pair.claims);
    let mut claims: Vec<&UnclaimedRow> = claims.collect();
    claims.sort_unstable();
    let mut table = transaction.open_table(CLAIMABLE)?;
    for claim in claims {
        table.remove((&claim.row.0, claim.scope.0, claim.row_offset))?;
    }
    Ok(())
}

fn write_dead_letters(
    transaction: &WriteTransaction,
    id: PairId,
    letters: &[DeadLetter],
) -> Result<(), CallError> {
    let mut table = transaction.open_table(DEAD_LETTERS)?;
    for letter in letters {
        let value = encode(&(letter.len_bytes, &letter.reason))?;
        table.insert((id.0, letter.in_evidence, letter.offset), value.as_slice())?;
    }
    Ok(())
}

pub(super) fn write_segments(
    transaction: &WriteTransaction,
    table: TableDefinition<'static, u64, u64>,
    segments: &[Segment],
) -> Result<(), CallError> {
    if segments.is_empty() {
        return Ok(());
    }
    let mut table = transaction.open_table(table)?;
    for segment in segments {
        table.insert(segment.number, segment.hash)?;
    }
    Ok(())
}

pub(super) fn write_ledger(
    transaction: &WriteTransaction,
    changes: LedgerChanges,
) -> Result<(), CallError> {
    write_segments(transaction, LEDGER_SEGMENTS, &changes.segments)?;
    if !changes.rows.is_empty() {
        let mut table = transaction.open_table(LEDGER_ROWS)?;
        for (row_offset, flags) in changes.rows {
            if flags == RowFlags::default() {
                table.remove(row_offset)?;
            } else {
                table.insert(row_offset, flags.0)?;
            }
        }
    }
    if !changes.orders.is_empty() {
        let mut table = transaction.open_table(ORDERS)?;
        for (order, is_in_force) in changes.orders {
            let key = (order.run_id.as_str(), order.pair.as_slice());
            if is_in_force {
                table.insert(key, ())?;
            } else {
                table.remove(key)?;
            }
        }
    }
    Ok(())
}

fn remove_dead_letters(
    transaction: &WriteTransaction,
    id: PairId,
    in_evidence: bool,
) -> Result<(), CallError> {
    let mut table = transaction.open_table(DEAD_LETTERS)?;
    let range = (id.0, in_evidence, 0)..=(id.0, in_evidence, u64::MAX);
    table.retain_in(range, |_, _| false)?;
    Ok(())
}
