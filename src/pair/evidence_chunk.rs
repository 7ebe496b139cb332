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
        if let Some(first) = bytes.first_chunk() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }
}

pub(super) type ByRunKey = BuildHasherDefault<RunKeyHasher>;

/// The evidence records of a chunk by run; the last record of a run counts. A record is some hundred bytes, which a table
/// of records would move each time it grows.
#[derive(Default)]
pub(super) struct NewEvidenceByRun<'c> {
    records: Vec<NewEvidence<'c>>,
    last_of_run: HashMap<RunKey, usize, ByRunKey>,
}

impl<'c> NewEvidenceByRun<'c> {
    pub(super) fn insert(&mut self, run: RunKey, record: NewEvidence<'c>) {
        self.last_of_run.insert(run, self.records.len());
        self.records.push(record);
    }

    pub(super) fn get(&self, run: &RunKey) -> Option<&NewEvidence<'c>> {
        self.last_of_run.get(run).map(|at| &self.records[*at])
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = &RunKey> {
        self.last_of_run.keys()
    }
}
