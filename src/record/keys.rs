//! The hashed keys of runs and rows. Both are persisted, so their bytes never change.
//!
//! Scorers choose run ids and origins, so the hash is a cryptographic one. To find an id with the key of another
//! person's run takes 2^96 attempts. Two ids of one's own with equal keys take 2^48, which is possible: therefore the
//! join compares the ids too, and no run gets the evidence of another. A collision harms only its author: one of the two
//! runs waits, or has the marks of the other.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::record::local_digest::{Digest, digest};
use crate::record::parse::{JsonText, Provenance, ScoredRun};

/// The key of a run within a pair: the first 12 bytes of BLAKE3 of its run id. Persisted.
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
        RunKey(first_bytes(blake3::hash(run_id)))
    }
}

impl fmt::Debug for RunKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, formatter)
    }
}

/// The key of a row's origin: the first 12 bytes of BLAKE3 of day-file name, run id, and the scored run's source file,
/// signature and line offset. Each text follows its length, so that no two lists of texts hash the same bytes. The same
/// on every host. Persisted.
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
        let mut hash = blake3::Hasher::new();
        visit_parts(day_file_name, run_id, provenance, |bytes| {
            hash.update(bytes);
        });
        RowKey(first_bytes(hash.finalize()))
    }
}

/// The key of a row's origin in this process alone: a digest with a random secret, so that no author of lines can choose
/// two origins with one key. The comparison of an export with its sources relies on it. It begins with the group of the
/// day-file's name, so that the keys of a group are those of a few day-files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalRowKey(pub u128);

impl LocalRowKey {
    /// Number of bits of the group at the beginning.
    pub const GROUP_BITS: u32 = 6;

    /// Returns the group of the keys of a day-file.
    pub fn group_of(day_file_name: &str) -> usize {
        (digest(day_file_name.as_bytes()) >> (u128::BITS - Self::GROUP_BITS)) as usize
    }

    /// Returns the group of the key.
    pub fn group(self) -> usize {
        (self.0 >> (u128::BITS - Self::GROUP_BITS)) as usize
    }

    /// Makes the key of the row of a scored line.
    pub fn from_scored(day_file_name: &str, run: &ScoredRun<'_>) -> LocalRowKey {
        LocalRowKey::from_parts(day_file_name, &run.evidence_run_id, &run.provenance)
    }

    pub(super) fn from_parts(
        day_file_name: &str,
        run_id: &JsonText<'_>,
        provenance: &Provenance<'_>,
    ) -> LocalRowKey {
        let mut digest = Digest::new();
        visit_parts(day_file_name, run_id, provenance, |bytes| {
            digest.update(bytes);
        });
        let group = Self::group_of(day_file_name) as u128;
        LocalRowKey(group << (u128::BITS - Self::GROUP_BITS) | digest.finish() >> Self::GROUP_BITS)
    }
}

/// The key of a run in this process alone, as [`LocalRowKey`] is that of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalRunKey(u128);

impl LocalRunKey {
    /// Makes the key of a run id as written in a line.
    pub fn from_text(run_id: &JsonText<'_>) -> LocalRunKey {
        LocalRunKey(digest(run_id.decode().as_bytes()))
    }
}

/// Visits the bytes that identify the origin of a row.
fn visit_parts(
    day_file_name: &str,
    run_id: &JsonText<'_>,
    provenance: &Provenance<'_>,
    mut visit: impl FnMut(&[u8]),
) {
    let mut text = |text: &str| {
        visit(&(text.len() as u64).to_le_bytes());
        visit(text.as_bytes());
    };
    text(day_file_name);
    text(&run_id.decode());
    text(&provenance.source_file.decode());
    text(&provenance.sig_hash.decode());
    visit(&provenance.line_offset.to_le_bytes());
}

pub(super) fn first_bytes(hash: blake3::Hash) -> [u8; 12] {
    std::array::from_fn(|at| hash.as_bytes()[at])
}

pub(super) fn write_hex(bytes: &[u8], formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes
        .iter()
        .try_for_each(|byte| write!(formatter, "{byte:02x}"))
}
