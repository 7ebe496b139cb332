//! The evidence records of a chunk, by run: of several records with one run id the last one counts.

use crate::pair::line::digest;
use crate::record::keys::RunKey;
use crate::record::parse::Evidence;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Evidence of the chunk in hand.
pub(super) struct NewEvidence<'c> {
    pub(super) evidence: Evidence<'c>,
    body: &'c [u8],
    /// Computed on demand: most evidence never needs it, evidence of a run that was scored often needs it many times.
    digest: OnceCell<u32>,
}

impl<'c> NewEvidence<'c> {
    pub(crate) fn new(evidence: Evidence<'c>, body: &'c [u8]) -> Self {
        let digest = OnceCell::new();
        Self {
            evidence,
            body,
            digest,
        }
    }

    pub(crate) fn digest(&self) -> u32 {
        *self.digest.get_or_init(|| digest(self.body))
    }
}

/// A run key is a hash already: its first bytes serve as the hash of the map.
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

pub(super) type NewEvidenceByRun<'c> = HashMap<RunKey, NewEvidence<'c>, ByRunKey>;
