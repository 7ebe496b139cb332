//! The hashed keys of runs and rows. Both are persisted, so their bytes never change.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::record::parse::{JsonText, Provenance, ScoredRun};

/// The key of a run within a pair: the first 12 bytes (little-endian) of xxh3-128 of its run id. Persisted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunKey(pub [u8; 12]);

impl RunKey {
    /// Makes the key of a run id.
    pub fn from_run_id(run_id: &str) -> RunKey {
        RunKey::from_bytes(run_id.as_bytes())
    }

    /// Makes the key of a run id as written in a line.
    pub fn from_text(run_id: &JsonText<'_>) -> RunKey {
        match run_id.as_plain() {
            Some(plain) => RunKey::from_bytes(plain),
            None => RunKey::from_run_id(&run_id.decode()),
        }
    }

    fn from_bytes(run_id: &[u8]) -> RunKey {
        RunKey(first_bytes(xxh3_128(run_id)))
    }
}

impl fmt::Debug for RunKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, formatter)
    }
}

/// The key of a row's origin: the first 12 bytes (little-endian) of xxh3-128 of day-file name, run id, and the scored
/// run's source file, signature and line offset. Each text follows its length, so that no two lists of texts hash the
/// same bytes. Persisted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RowKey(pub [u8; 12]);

impl fmt::Debug for RowKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, formatter)
    }
}

impl RowKey {
    /// Makes the key of the row of a scored line.
    pub fn from_scored(day_file_name: &str, run: &ScoredRun<'_>) -> RowKey {
        RowKey::from_parts(day_file_name, &run.evidence_run_id, &run.provenance)
    }

    pub(super) fn from_parts(
        day_file_name: &str,
        run_id: &JsonText<'_>,
        provenance: &Provenance<'_>,
    ) -> RowKey {
        let mut hash = Xxh3::new();
        let mut text = |text: &str| {
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        text(day_file_name);
        text(&run_id.decode());
        text(&provenance.source_file.decode());
        text(&provenance.sig_hash.decode());
        hash.update(&provenance.line_offset.to_le_bytes());
        RowKey(first_bytes(hash.digest128()))
    }
}

pub(super) fn first_bytes(digest: u128) -> [u8; 12] {
    let [bytes @ .., _, _, _, _] = digest.to_le_bytes();
    bytes
}

pub(super) fn write_hex(bytes: &[u8], formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes
        .iter()
        .try_for_each(|byte| write!(formatter, "{byte:02x}"))
}
