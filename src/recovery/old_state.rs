//! The state that a rebuild replaces: which scored line earned a row of the old export. It is read and not recovered; a
//! damaged one is not used.

use crate::engine::{EngineError, Setup};
use crate::pair::ActivePair;
use crate::pair::index::PairId;
use crate::pair::verdict::Verdict;
use crate::platform::storage::exists;
use crate::record::ledger::LedgerLine;
use crate::store::files::{JOURNAL_FILE, STATE_FILE};
use crate::store::journal::Journal;
use crate::store::journal::error::JournalError;
use crate::store::replay::Replay;
use crate::store::snapshot::StateSnapshot;
use crate::store::state::State;

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

/// Returns the lines of the ledger that the journal holds; none if the state or the journal cannot be read.
pub(super) fn journaled_ledger_lines(setup: &Setup) -> Vec<LedgerLine> {
    let mut lines = Vec::new();
    let storage = &*setup.storage;
    let Ok(state) = State::open(storage, &setup.state_dir.join(STATE_FILE)) else {
        return lines;
    };
    let Ok(journal) = storage.open_read(&setup.state_dir.join(JOURNAL_FILE)) else {
        return lines;
    };
    let (epoch, applied) = (state.header().journal_epoch, state.header().seq_applied);
    // Frames before a damaged one count: they were durable.
    let _damaged = Journal::replay(journal, epoch, applied, |_, batch| {
        let appended = batch.delta.ledger.map(|ledger| ledger.lines);
        let appended = appended.unwrap_or_default();
        let whole = appended.split_inclusive(|byte| *byte == b'\n');
        lines.extend(whole.filter_map(|line| LedgerLine::parse(line).ok()));
        Ok::<(), JournalError>(())
    });
    lines
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
