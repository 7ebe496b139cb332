//! The evidence records of the chunk in memory, by run.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::pair::line::digest;
use crate::record::keys::RunKey;
use crate::record::parse::Evidence;

/// One evidence record and its line.
pub(super) struct NewEvidence<'c> {
    pub(super) evidence: Evidence<'c>,
    body: &'c [u8],
    /// Computed on first use: most records never need it, and a run that was scored often needs it many times.
    digest: OnceCell<u32>,
}

impl<'c> NewEvidence<'c> {
    /// Makes a record of parsed evidence and the line it was parsed from.
    pub(super) fn new(evidence: Evidence<'c>, body: &'c [u8]) -> Self {
        let digest = OnceCell::new();
        Self {
            evidence,
            body,
            digest,
        }
    }

    /// Returns the digest of the line.
    pub(super) fn digest(&self) -> u32 {
        *self.digest.get_or_init(|| digest(self.body))
    }
}

/// A hasher for run keys, which are hashes already: their first eight bytes serve as the hash.
#[derive(Debug, Default)]
pub(super) struct RunKeyHasher(u64);

impl Hasher for RunKeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for (at, byte) in bytes.iter().take(8).enumerate() {
            self.0 ^= u64::from(*byte) << (8 * at);
        }
    }
}

pub(super) type ByRunKey = BuildHasherDefault<RunKeyHasher>;

/// The evidence records of a chunk by run; the last record of a run counts.
pub(super) type NewEvidenceByRun<'c> = HashMap<RunKey, NewEvidence<'c>, ByRunKey>;
