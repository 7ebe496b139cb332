//! Applies the journal to the state in memory, batch by batch: for the start of the engine, and for a query that reads
//! the files of a daemon that is not running. It writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::lake::path::PairPath;
use crate::pair::accounting::Account;
use crate::pair::checkpoint::PairCheckpoint;
use crate::pair::index::UnclaimedRow;
use crate::pair::orders::Orders;
use crate::pair::{ActivePair, Overlay};
use crate::platform::storage::StorageFile;
use crate::record::ledger::{LedgerLine, Op};
use crate::store::journal::Journal;
use crate::store::journal::batch::{Batch, LedgerAppend, PairDelta};
use crate::store::journal::error::JournalError;
use crate::store::ledger::{LedgerChanges, RowFlags, standing_orders};
use crate::store::snapshot::{StateSnapshot, pair_path, shown_path};
use crate::store::state::error::StateError;
use crate::store::state::header::{Header, LedgerMark};
use crate::store::state::{State, StateView};

/// The state with the batches that the journal holds since its last checkpoint.
#[derive(Debug)]
pub struct Replay {
    /// The state as of its last checkpoint.
    pub view: Arc<StateView>,
    /// Pairs that the journal changes; each overlay holds what the state does not have yet.
    pub pairs: BTreeMap<PairPath, ActivePair>,
    /// Sums over all pairs.
    pub account: Account,
    /// Rows that no line has claimed.
    pub claimable: u64,
    /// The id that the next new pair gets.
    pub pair_next: u32,
    /// Length of the export with the rows of the journal, bytes.
    pub export_bytes: u64,
    /// Length of the export file, bytes.
    file_bytes: u64,
    /// Rows of the journal that end after that length: committed, and not in the export.
    pub rows_pending: u64,
    /// Batches applied.
    pub batches: u64,
    /// The ledger with the lines of the journal.
    pub ledger: LedgerMark,
    /// Length of the ledger with the lines of the journal, bytes.
    pub ledger_bytes: u64,
    /// The changes that these lines make.
    pub ledger_changes: LedgerChanges,
}

impl Replay {
    /// A replay that has applied no batch: the state as `header` and `view` describe it, with an export file of
    /// `file_bytes`.
    #[must_use]
    pub fn new(view: StateView, header: &Header, file_bytes: u64) -> Self {
        Self {
            view: Arc::new(view),
            pairs: BTreeMap::new(),
            account: header.account.clone(),
            claimable: header.claimable,
            pair_next: header.pair_next,
            export_bytes: header.export.len_bytes,
            file_bytes,
            rows_pending: 0,
            batches: 0,
            ledger: header.ledger,
            ledger_bytes: header.ledger.file.len_bytes,
            ledger_changes: LedgerChanges::default(),
        }
    }

    /// Returns the state with all batches of a journal, which is only read; `file_bytes` is the length of the export file.
    ///
    /// # Errors
    /// The state or the journal cannot be read.
    pub fn read<E: From<StateError> + From<JournalError>>(
        state: &State,
        journal: Arc<dyn StorageFile>,
        file_bytes: u64,
    ) -> Result<Self, E> {
        let header = state.header();
        let mut replay = Self::new(state.view()?, header, file_bytes);
        Journal::replay(
            journal,
            header.journal_epoch,
            header.seq_applied,
            |_, batch| Ok::<(), E>(replay.apply(batch)?),
        )?;
        Ok(replay)
    }

    /// Applies one batch. Batches must come in the order of the journal.
    ///
    /// # Errors
    /// The state cannot be read; [`StateError::Damaged`] where a delta names no day-file.
    pub fn apply(&mut self, batch: Batch) -> Result<(), StateError> {
        self.batches += 1;
        self.export_bytes = batch.export_to();
        for delta in &batch.delta.pairs {
            self.apply_delta(delta)?;
        }
        if let Some(lines) = &batch.delta.ledger {
            self.apply_lines(lines)?;
        }
        for (at, rows) in batch.rows.placed(batch.delta.export_from) {
            let len_there = self.file_bytes.saturating_sub(at).min(rows.len() as u64);
            let missing = &rows[len_there as usize..];
            self.rows_pending += memchr::memchr_iter(b'\n', missing).count() as u64;
        }
        Ok(())
    }

    fn apply_lines(&mut self, lines: &LedgerAppend) -> Result<(), StateError> {
        self.ledger_bytes = lines.to();
        for line in lines.lines.split_inclusive(|byte| *byte == b'\n') {
            let line = LedgerLine::parse(line).map_err(|error| {
                StateError::Damaged(format!(
                    "the journal has a wrong line of the ledger: {error}"
                ))
            })?;
            self.ledger.next_seq = line.seq + 1;
            let mut before = RowFlags::default();
            if let Some(row) = line.row {
                let recent = self.ledger_changes.rows.get(&row.offset).copied();
                before = match recent {
                    Some(recent) => recent,
                    None => self.view.row_flags(row.offset)?,
                };
            }
            match line.op {
                Op::Retract => self.ledger.rows_out += 1,
                Op::Restore => self.ledger.rows_out = self.ledger.rows_out.saturating_sub(1),
                _ => {}
            }
            self.ledger_changes.apply(&line, before);
        }
        Ok(())
    }

    fn apply_delta(&mut self, delta: &PairDelta) -> Result<(), StateError> {
        let path = pair_path(&delta.checkpoint).ok_or_else(|| {
            let path = shown_path(&delta.checkpoint);
            StateError::Damaged(format!("the journal names {path:?}, which is no day-file"))
        })?;
        self.pair_next = self.pair_next.max(delta.id.0 + 1);
        if !self.pairs.contains_key(&path) {
            let pair = self.load(&path, delta)?;
            self.pairs.insert(path.clone(), pair);
        }
        let pair = self.pairs.get_mut(&path).expect("inserted above");
        self.account.replace(&pair.checkpoint, &delta.checkpoint);
        pair.checkpoint = delta.checkpoint.clone();
        let overlay = delta.overlay();
        self.claimable = self
            .claimable
            .saturating_sub(overlay.claimed_rows.len() as u64);
        pair.overlay.extend(overlay);
        Ok(())
    }

    /// Reads the pair as of the last checkpoint; a pair that the state does not have is empty.
    fn load(&self, path: &PairPath, delta: &PairDelta) -> Result<ActivePair, StateError> {
        let persisted = self.view.pair_id(path.as_bytes())?.is_some();
        let checkpoint = if persisted {
            self.view.checkpoint(delta.id)?
        } else {
            PairCheckpoint::new(path.as_bytes().to_vec())
        };
        Ok(ActivePair {
            id: delta.id,
            checkpoint,
            overlay: Overlay::default(),
            persisted,
        })
    }

    /// Returns the rows that lines in the journal have claimed and that the state still lists as unclaimed.
    #[must_use]
    pub fn claimed(&self) -> BTreeSet<UnclaimedRow> {
        let overlays = self.pairs.values().map(|pair| &pair.overlay);
        overlays
            .flat_map(|overlay| overlay.claimed_rows.iter().copied())
            .collect()
    }

    /// Returns the standing orders.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn orders(&self) -> Result<Orders, StateError> {
        standing_orders(&self.view, &self.ledger_changes)
    }

    /// Returns the state with the journal, for queries.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn into_snapshot(self) -> Result<StateSnapshot, StateError> {
        let claimed = Arc::new(self.claimed());
        let orders = Arc::new(self.orders()?);
        let pairs = self.pairs.into_iter();
        Ok(StateSnapshot {
            orders,
            view: self.view,
            claimed,
            claimable: self.claimable,
            changed: pairs.map(|(path, pair)| (path, Arc::new(pair))).collect(),
            recent_flags: Arc::new(self.ledger_changes.rows),
        })
    }
}
