//! The state that a rebuild replaces: which scored line earned a row of the old export, and the standing orders. It is read
//! and not recovered; a damaged one is not used.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::engine::{EngineError, Setup};
use crate::pair::ActivePair;
use crate::pair::index::PairId;
use crate::pair::verdict::Verdict;
use crate::platform::storage::exists;
use crate::record::ledger::{Cause, LedgerLine};
use crate::recovery::open::check_export;
use crate::store::files::{JOURNAL_FILE, STATE_FILE};
use crate::store::journal::Journal;
use crate::store::journal::error::JournalError;
use crate::store::ledger::Order;
use crate::store::replay::Replay;
use crate::store::snapshot::StateSnapshot;
use crate::store::state::State;
use crate::store::state::header::LedgerMark;

/// See the module.
pub(super) struct OldState {
    pub(super) snapshot: StateSnapshot,
    /// Length of the export with the rows of the journal, bytes.
    pub(super) export_bytes: u64,
    /// Keeps the state's file open.
    _state: State,
}

impl OldState {
    /// Opens the state; `None` if there is none, or it cannot be read.
    pub(super) fn open(setup: &Setup) -> Option<Self> {
        let storage = &*setup.storage;
        if !exists(storage, &setup.state_dir.join(STATE_FILE)).ok()? {
            return None;
        }
        let state = State::open(storage, &setup.state_dir.join(STATE_FILE)).ok()?;
        let journal = storage
            .open_read(&setup.state_dir.join(JOURNAL_FILE))
            .ok()?;
        let export = storage.stat(&setup.export_path);
        let file_bytes = export.map_or(0, |stat| stat.len_bytes);
        let replay = Replay::read::<EngineError>(&state, journal, file_bytes).ok()?;
        Some(Self {
            export_bytes: replay.export_bytes,
            snapshot: replay.into_snapshot().ok()?,
            _state: state,
        })
    }
}

/// What the old state has of the ledger.
pub(super) struct LedgerInState {
    /// The extent of the ledger at the last checkpoint.
    pub(super) mark: LedgerMark,
    /// Length of the export at the last checkpoint, bytes.
    pub(super) export_len: u64,
    /// The standing orders at the last checkpoint; `None` where they cannot be read.
    pub(super) orders: Option<Vec<Order>>,
    /// The offsets of the rows that were out then, and why; empty where they cannot be read.
    pub(super) rows_out: Vec<(u64, Cause)>,
    /// The lines that the journal holds since then.
    pub(super) journaled: Vec<LedgerLine>,
    /// Whether the export that is there is the one of the state.
    pub(super) is_of_export: bool,
}

impl LedgerInState {
    /// Returns the number of rows that were out and cannot be read.
    pub(super) fn rows_unread(&self) -> u64 {
        self.mark
            .rows_out
            .saturating_sub(self.rows_out.len() as u64)
    }

    /// Reads the state and its journal; `None` if there is no state, or it cannot be read.
    pub(super) fn read(setup: &Setup) -> Option<Self> {
        let storage = &*setup.storage;
        let state = State::open(storage, &setup.state_dir.join(STATE_FILE)).ok()?;
        let header = state.header();
        let mut export_committed = header.export.len_bytes;
        let mut journaled = Vec::new();
        if let Ok(journal) = storage.open_read(&setup.state_dir.join(JOURNAL_FILE)) {
            let (epoch, applied) = (header.journal_epoch, header.seq_applied);
            // Frames before a damaged one count: they were durable.
            let _damaged = Journal::replay(journal, epoch, applied, |_, batch| {
                export_committed = batch.export_to();
                let appended = batch.delta.ledger.map(|ledger| ledger.lines);
                let appended = appended.unwrap_or_default();
                let whole = appended.split_inclusive(|byte| *byte == b'\n');
                journaled.extend(whole.filter_map(|line| LedgerLine::parse(line).ok()));
                Ok::<(), JournalError>(())
            });
        }
        // As in `State::open`: redb may panic on a file that it did not write.
        let orders = catch_unwind(AssertUnwindSafe(|| state.view()?.orders()));
        let rows_out = catch_unwind(AssertUnwindSafe(|| state.view()?.rows_out()));
        let export = check_export(storage, &setup.export_path, header.export, export_committed);
        Some(Self {
            mark: header.ledger,
            export_len: header.export.len_bytes,
            orders: orders.ok().and_then(Result::ok),
            rows_out: rows_out.ok().and_then(Result::ok).unwrap_or_default(),
            journaled,
            is_of_export: export.is_ok(),
        })
    }
}

/// The scored line that earned a row, as the old state knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EarningLine {
    pub(super) pair: PairId,
    pub(super) offset: u64,
    pub(super) len_bytes: u32,
}

/// Rows of a pair that the fresh export may lack.
#[derive(Default)]
pub(super) struct PairRowsLost {
    pub(super) in_export: u64,
    pub(super) beyond: u64,
}

/// Writes the line of each row of the pair at one of the offsets into `lines`, and counts those and the rows at
/// `old_bytes` and later.
pub(super) fn find_rows(
    snapshot: &StateSnapshot,
    pair: &ActivePair,
    offsets: &[u64],
    old_bytes: u64,
    lines: &mut [Option<EarningLine>],
) -> Result<PairRowsLost, EngineError> {
    let mut lost = PairRowsLost::default();
    snapshot.for_each_scored(pair, |line| {
        let Verdict::Exported { row_offset, .. } = line.verdict else {
            return;
        };
        if row_offset >= old_bytes {
            lost.beyond += 1;
        } else if let Ok(at) = offsets.binary_search(&row_offset) {
            lost.in_export += 1;
            lines[at] = Some(EarningLine {
                pair: pair.id,
                offset: line.offset,
                len_bytes: line.len_bytes,
            });
        }
    })?;
    Ok(lost)
}
