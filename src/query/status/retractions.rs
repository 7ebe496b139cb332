//! The retraction ledger in a status.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::query::offline::OfflineState;
use crate::store::replay::Replay;

/// The retraction ledger in figures.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RetractionStatus {
    /// The file.
    pub path: PathBuf,
    /// Its length, bytes.
    pub len_bytes: u64,
    /// Rows of the export that are out of the effective set.
    pub rows: u64,
    /// Standing orders of operators.
    pub orders: u64,
}

impl RetractionStatus {
    /// Returns the figures of a running daemon.
    pub(super) fn of_engine(engine: &Engine) -> Self {
        Self {
            len_bytes: engine.ledger_bytes(),
            rows: engine.rows_out(),
            orders: engine.orders().len() as u64,
            ..Self::default()
        }
    }

    /// Returns the figures of state and journal.
    pub(super) fn of_replay(replay: &Replay) -> Self {
        Self {
            len_bytes: replay.ledger_bytes,
            rows: replay.ledger.rows_out,
            orders: replay.orders().map_or(0, |orders| orders.len() as u64),
            ..Self::default()
        }
    }

    /// Returns the figures of the files of a daemon that is not running.
    pub(super) fn of_files(files: &OfflineState) -> Self {
        Self {
            len_bytes: files.ledger_bytes,
            rows: files.rows_out,
            orders: files.state.orders.len() as u64,
            ..Self::default()
        }
    }
}
