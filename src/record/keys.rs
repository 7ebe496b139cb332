//! Keys of runs and rows: short hashes that are persisted. Pure.

use crate::record::parse::{JsonText, Provenance, ScoredRun};
use serde::{Deserialize, Serialize};
use std::fmt;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Names a run inside a pair: the first 12 bytes (little-endian) of xxh3-128 of its run id. Persisted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunKey(pub [u8; 12]);

impl RunKey {
    /// The key of a run id.
    pub fn of(run_id: &str) -> RunKey {
        RunKey::of_bytes(run_id.as_bytes())
    }

    /// Returns the key of a run id in the text of a line.
    pub fn of_text(run_id: &JsonText<'_>) -> RunKey {
        match run_id.as_plain() {
            Some(plain) => RunKey::of_bytes(plain),
            None => RunKey::of(&run_id.decode()),
        }
    }

    fn of_bytes(run_id: &[u8]) -> RunKey {
        RunKey(first_bytes(xxh3_128(run_id)))
    }
}

impl fmt::Debug for RunKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, formatter)
    }
}

/// The origin of a row: day-file name, run id, and the scored run's source file, line offset and signature. It is the
/// first 12 bytes (little-endian) of xxh3-128 of these; each text is preceded by its length, so that no two lists of
/// texts give the same bytes. Persisted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RowKey(pub [u8; 12]);

impl fmt::Debug for RowKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, formatter)
    }
}

impl RowKey {
    /// The key of the row that a scored line earns.
    pub fn from_scored(day_file_name: &str, run: &ScoredRun<'_>) -> RowKey {
        RowKey::of_parts(day_file_name, &run.evidence_run_id, &run.provenance)
    }

    pub(super) fn of_parts(
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

pub(crate) fn first_bytes(digest: u128) -> [u8; 12] {
    let [bytes @ .., _, _, _, _] = digest.to_le_bytes();
    bytes
}

pub(crate) fn write_hex(bytes: &[u8], formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes
        .iter()
        .try_for_each(|byte| write!(formatter, "{byte:02x}"))
}
