//! Owns by what a source is known again at the next look: what was read of it, what was seen, and that it is gone.

use std::io;

use crate::engine::read::cursor::SourceMemory;
use crate::lake::chunk::Chunk;
use crate::lake::identity::{SourceState, StatFingerprint};
use crate::lake::source::Source;

/// No kernel gives this device number: a source with it is gone, and whatever comes back under its path is another.
/// Its inode stays, by which it is found where it was moved.
const GONE_DEVICE: u64 = u64::MAX;

const SECOND_NS: i128 = 1_000_000_000;
/// Coarsest tick of a kernel's file clock, with a margin.
const CLOCK_TICK_NS: u128 = 20_000_000;
/// The same where a file system keeps whole seconds (ext4 with inodes of 128 bytes, NFS on such) or pairs of them (FAT).
const COARSE_TICK_NS: u128 = 2_100_000_000;

/// Whether a source was there and is gone.
#[must_use]
pub fn is_gone(state: &SourceState) -> bool {
    state
        .identity
        .is_some_and(|identity| identity.device == GONE_DEVICE)
}

/// A source that vanished must be read again when it comes back: lines that wanted what it said were looked at
/// meanwhile, and nothing else would have them looked at again.
pub(super) fn mark_gone(state: &mut SourceState) {
    if let Some(identity) = &mut state.identity {
        identity.device = GONE_DEVICE;
        state.seen = StatFingerprint::default();
    }
}

/// Puts into the state by what the source is known again, and what was seen where nothing is left to be read. False
/// where the source changed while it was read.
pub(super) fn remember(
    source: &Source,
    before: &SourceState,
    after: &mut SourceState,
    chunk: &Chunk,
    memory: SourceMemory,
    now_ms: u64,
) -> io::Result<bool> {
    // Of a source of which nothing was read there is nothing to be known again.
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
    }
    let all_read = after.offset == source.len_bytes() && memory.unterminated.is_none();
    let seen = source.seen();
    after.seen = if all_read && is_telling(seen, now_ms) {
        seen
    } else {
        StatFingerprint::default()
    };
    Ok(true)
}

/// Whether a later change must show in a stat: within a tick of the file system's clock it leaves no trace.
fn is_telling(seen: StatFingerprint, now_ms: u64) -> bool {
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
    fn what_changed_within_a_tick_of_a_clock_is_looked_at_again() {
        const MS: i128 = 1_000_000;
        let now_ms: u64 = 1_777_000_010_000;
        let at = |modified_ago_ms: i128, changed_ago_ms: i128| StatFingerprint {
            len_bytes: 1,
            modified_ns: (i128::from(now_ms) - modified_ago_ms) * MS + 1,
            changed_ns: (i128::from(now_ms) - changed_ago_ms) * MS + 1,
        };
        assert!(is_telling(at(100, 100), now_ms));
        assert!(!is_telling(at(10, 10), now_ms));
        // Renamed just now, written long ago.
        assert!(!is_telling(at(100_000, 10), now_ms));
        // A clock that is behind the file system's.
        assert!(!is_telling(at(-10, -10), now_ms));
        let coarse = |ago_ms: i128| StatFingerprint {
            changed_ns: (i128::from(now_ms) - ago_ms) * MS,
            ..at(ago_ms, ago_ms)
        };
        assert!(!is_telling(coarse(1_000), now_ms));
        assert!(!is_telling(coarse(2_000), now_ms));
        assert!(is_telling(coarse(3_000), now_ms));
    }
}
