//! The identity of a source for the next read: a fingerprint of the bytes that were read, its stat, and a mark for a
//! deleted day-file.

use std::io;

use crate::engine::read::cursor::SourceMemory;
use crate::lake::chunk::Chunk;
use crate::lake::identity::{SourceState, StatFingerprint};
use crate::lake::source::Source;

/// The device of a deleted source that is known to be deleted and not hidden. States of earlier versions have it for all
/// deleted sources.
const NO_DEVICE: u64 = 0;

const SECOND_NS: i128 = 1_000_000_000;
/// Coarsest tick of a kernel's file timestamps, with a margin, nanoseconds.
const CLOCK_TICK_NS: u128 = 20_000_000;
/// The same for a file system that keeps whole seconds (ext4 with inodes of 128 bytes, NFS on such) or two of them (FAT).
const COARSE_TICK_NS: u128 = 2_100_000_000;

/// Returns whether a source was read and then deleted.
#[must_use]
pub fn is_gone(state: &SourceState) -> bool {
    state.identity.is_some_and(|identity| identity.is_gone())
}

/// Returns the device that held a source when it was last read; `None` if it was never read.
#[must_use]
pub fn last_device(state: &SourceState) -> Option<u64> {
    let device = state.identity?.last_device();
    (device != NO_DEVICE).then_some(device)
}

/// Forgets the device of a deleted source.
pub fn forget_device(state: &mut SourceState) {
    if let Some(identity) = state
        .identity
        .as_mut()
        .filter(|identity| identity.is_gone())
    {
        identity.device = !NO_DEVICE;
    }
}

/// Marks a source as deleted, so that it is read from its start when it reappears: lines that need its content were read
/// without it, and only that read joins them again.
pub(super) fn mark_gone(state: &mut SourceState) {
    if is_gone(state) {
        return;
    }
    if let Some(identity) = &mut state.identity {
        identity.device = !identity.device;
        state.seen = StatFingerprint::default();
    }
}

/// Writes the identity of a source into its state, and its stat where nothing is left to read. Returns false where the
/// source changed during the read.
pub(super) fn remember(
    source: &Source,
    before: &SourceState,
    after: &mut SourceState,
    chunk: &Chunk,
    memory: SourceMemory,
    now_ms: u64,
) -> io::Result<bool> {
    // Without new bytes the identity stays as it is.
    if after.offset > before.offset {
        let consumed = (after.offset - before.offset) as usize;
        let bytes = if let Chunk::Lines(bytes) = chunk {
            &bytes[..consumed]
        } else {
            &[]
        };
        let Some(identity) = source.identify(before, after.offset, bytes)? else {
            return Ok(false);
        };
        after.identity = Some(identity);
        after.digest = source.digest(before, after.offset, bytes)?;
    }
    let all_read = after.offset == source.len_bytes() && memory.unterminated.is_none();
    let seen = source.seen();
    after.seen = if !all_read {
        StatFingerprint::default()
    } else if is_reliable(seen, now_ms) {
        seen
    } else {
        // Differs from every stat, so that a scan reads the source again; length and time of modification are kept, by
        // which that read notices that bytes were overwritten.
        StatFingerprint {
            changed_ns: 0,
            ..seen
        }
    };
    Ok(true)
}

/// Returns whether any later change must alter the stat. A change within the same tick of the file system's clock does not.
fn is_reliable(seen: StatFingerprint, now_ms: u64) -> bool {
    let is_coarse = seen.modified_ns % SECOND_NS == 0 || seen.changed_ns % SECOND_NS == 0;
    let tick_ns = if is_coarse {
        COARSE_TICK_NS
    } else {
        CLOCK_TICK_NS
    };
    let now_ns = i128::from(now_ms) * 1_000_000;
    seen.modified_ns.abs_diff(now_ns) > tick_ns && seen.changed_ns.abs_diff(now_ns) > tick_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_within_a_tick_of_the_clock_is_not_reliable() {
        const MS: i128 = 1_000_000;
        let now_ms: u64 = 1_777_000_010_000;
        let at = |modified_ago_ms: i128, changed_ago_ms: i128| StatFingerprint {
            len_bytes: 1,
            modified_ns: (i128::from(now_ms) - modified_ago_ms) * MS + 1,
            changed_ns: (i128::from(now_ms) - changed_ago_ms) * MS + 1,
        };
        assert!(is_reliable(at(100, 100), now_ms));
        assert!(!is_reliable(at(10, 10), now_ms));
        // The file was written long ago and renamed recently.
        assert!(!is_reliable(at(100_000, 10), now_ms));
        // The clock is later than that of the file system.
        assert!(!is_reliable(at(-10, -10), now_ms));
        let coarse = |ago_ms: i128| StatFingerprint {
            changed_ns: (i128::from(now_ms) - ago_ms) * MS,
            ..at(ago_ms, ago_ms)
        };
        assert!(!is_reliable(coarse(1_000), now_ms));
        assert!(!is_reliable(coarse(2_000), now_ms));
        assert!(is_reliable(coarse(3_000), now_ms));
    }
}
