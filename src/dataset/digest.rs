//! The digests of a version.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::dataset::error::DatasetError;
use crate::platform::storage::{StorageFile, read_full_at};
use crate::record::ledger::to_hex;

/// Bytes of one read.
const READ_BYTES: usize = 1 << 20;

/// Returns SHA-256 of the first `len_bytes` of a file.
pub(super) fn sha256_of(
    file: &dyn StorageFile,
    path: &Path,
    len_bytes: u64,
) -> Result<[u8; 32], DatasetError> {
    let mut hash = Sha256::new();
    let mut buf = vec![0; READ_BYTES];
    let mut at = 0;
    while at < len_bytes {
        let wanted = usize::try_from(len_bytes - at).unwrap_or(usize::MAX);
        let part = &mut buf[..wanted.min(READ_BYTES)];
        let read = read_full_at(file, part, at).map_err(DatasetError::io(path))?;
        if read == 0 {
            return Err(DatasetError::ShorterThanVersion {
                path: path.to_owned(),
                len_bytes: at,
                needed: len_bytes,
            });
        }
        hash.update(&part[..read]);
        at += read as u64;
    }
    Ok(hash.finalize().into())
}

/// Returns the digest of a version, as its definition has it.
pub(super) fn version_digest(export: &[u8; 32], ledger: &[u8; 32]) -> [u8; 8] {
    let lines = format!("{}\n{}\n", to_hex(export), to_hex(ledger));
    let digest: [u8; 32] = Sha256::digest(lines).into();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    first
}
