//! The packed, sorted blocks of a pair's indexes: merging entries into them, finding entries, and detecting damage.
//! Pure; the state keeps the bytes.
//!
//! A block is a checksum (4 bytes, the low half of xxh3-64 of the rest, little-endian) and packed entries in byte
//! order. One value holds a hundred entries or more, so that an entry costs little more than its own bytes, and a
//! batch of a thousand entries touches a few values instead of a thousand tree leaves.

use xxhash_rust::xxh3::xxh3_64;

use crate::pair::index::Packed;

/// Payload of a full block: with its key and the store's own overhead it fits one 4 KiB page.
const PAYLOAD_BYTES_MAX: usize = 3_900;
const CHECKSUM_LEN: usize = 4;

/// A block whose checksum or form does not fit: the state is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a block of the state is damaged")]
pub struct DamagedBlock;

/// Returns the concatenated packed form of entries.
pub fn packed<T: Packed>(entries: impl IntoIterator<Item = T>) -> Vec<u8> {
    let entries = entries.into_iter();
    let mut bytes = Vec::with_capacity(entries.size_hint().0 * T::LEN);
    for entry in entries {
        entry.pack(&mut bytes);
        assert!(
            bytes.len().is_multiple_of(T::LEN),
            "an entry has the length of its kind"
        );
    }
    bytes
}

/// Returns the payload with its checksum in front.
#[must_use]
pub fn seal(payload: &[u8]) -> Vec<u8> {
    let mut block = Vec::with_capacity(CHECKSUM_LEN + payload.len());
    block.extend_from_slice(&xxh3_64(payload).to_le_bytes()[..CHECKSUM_LEN]);
    block.extend_from_slice(payload);
    block
}

/// The payload of a sealed value.
///
/// # Errors
/// [`DamagedBlock`] where the checksum does not fit.
pub fn open(block: &[u8]) -> Result<&[u8], DamagedBlock> {
    let (checksum, payload) = block.split_at_checked(CHECKSUM_LEN).ok_or(DamagedBlock)?;
    if checksum == &xxh3_64(payload).to_le_bytes()[..CHECKSUM_LEN] {
        Ok(payload)
    } else {
        Err(DamagedBlock)
    }
}

/// The payload of a sealed value, unchecked: for a search whose finds are looked up again with their checksum.
///
/// # Errors
/// [`DamagedBlock`] where it is too short to have one.
pub fn peek(block: &[u8]) -> Result<&[u8], DamagedBlock> {
    let split = block.split_at_checked(CHECKSUM_LEN).ok_or(DamagedBlock)?;
    Ok(split.1)
}

/// The payload of a block of `T`s.
///
/// # Errors
/// [`DamagedBlock`] where the checksum does not fit or the length is no multiple of an entry's.
pub fn entries_of<T: Packed>(block: &[u8]) -> Result<&[u8], DamagedBlock> {
    let payload = open(block)?;
    if payload.len() % T::LEN == 0 {
        Ok(payload)
    } else {
        Err(DamagedBlock)
    }
}

/// Splits a payload before its first entry whose key is not below `key`, or below what `key` is the beginning of.
pub fn split<'p, T: Packed>(payload: &'p [u8], key: &[u8]) -> (&'p [u8], &'p [u8]) {
    let (mut low, mut high) = (0, payload.len() / T::LEN);
    while low < high {
        let middle = usize::midpoint(low, high);
        if &payload[middle * T::LEN..][..key.len()] < key {
            low = middle + 1
        } else {
            high = middle
        }
    }
    payload.split_at(low * T::LEN)
}

/// The entries of a payload whose key starts with `prefix`, in order.
pub fn matching<'p, T: Packed>(payload: &'p [u8], prefix: &[u8]) -> impl Iterator<Item = &'p [u8]> {
    let (_, from_prefix) = split::<T>(payload, prefix);
    from_prefix
        .chunks_exact(T::LEN)
        .take_while(move |entry| entry.starts_with(prefix))
}

/// Returns whether a payload has an entry after all whose key starts with `prefix`: no later block has one of these then.
pub fn ends_after<T: Packed>(payload: &[u8], prefix: &[u8]) -> bool {
    let last = payload.len().checked_sub(T::LEN);
    last.is_some_and(|at| &payload[at..][..prefix.len()] > prefix)
}

/// Merges `added` (packed, sorted by key, keys unique) into a payload: an added entry replaces the one with its key.
#[must_use]
pub fn merge<T: Packed>(payload: &[u8], added: &[u8]) -> Vec<u8> {
    let mut merged = Vec::with_capacity(payload.len() + added.len());
    let mut old = payload.chunks_exact(T::LEN).peekable();
    for new in added.chunks_exact(T::LEN) {
        let key = &new[..T::KEY_LEN];
        while let Some(entry) = old.next_if(|entry| &entry[..T::KEY_LEN] < key) {
            merged.extend_from_slice(entry);
        }
        old.next_if(|entry| &entry[..T::KEY_LEN] == key);
        merged.extend_from_slice(new);
    }
    old.for_each(|entry| merged.extend_from_slice(entry));
    merged
}

/// Cuts a merged payload into payloads that fit a block, of nearly equal length.
pub fn cut<T: Packed>(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let count = payload.len() / T::LEN;
    let count_max = PAYLOAD_BYTES_MAX / T::LEN;
    let pieces = count.div_ceil(count_max).max(1);
    payload.chunks(count.div_ceil(pieces).max(1) * T::LEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::index::{EvidenceLine, EvidenceLocation, ScoredLine};
    use crate::pair::verdict::Verdict;
    use crate::record::keys::RunKey;
    use std::collections::BTreeMap;

    fn evidence(run: u8, offset: u64) -> EvidenceLine {
        EvidenceLine {
            run: RunKey([run; 12]),
            place: EvidenceLocation {
                offset,
                len_bytes: 7,
            },
        }
    }

    #[test]
    fn merging_behaves_like_a_sorted_map_and_finds_what_it_holds() {
        for seed in 0..300 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut model = BTreeMap::new();
            let mut payload = Vec::new();
            for _ in 0..rng.usize(1..6) {
                let mut added = BTreeMap::new();
                for _ in 0..rng.usize(0..40) {
                    added.insert(rng.u8(..), evidence(0, rng.u64(..1 << 40)));
                }
                let added: Vec<_> = added
                    .into_iter()
                    .map(|(run, entry)| EvidenceLine {
                        run: RunKey([run; 12]),
                        ..entry
                    })
                    .collect();
                payload = merge::<EvidenceLine>(&payload, &packed(added.iter().copied()));
                model.extend(added.into_iter().map(|entry| (entry.run, entry)));
            }
            for run in 0..=255 {
                let key = RunKey([run; 12]);
                let found: Vec<_> = matching::<EvidenceLine>(&payload, &key.0)
                    .map(|bytes| EvidenceLine::unpack(bytes).unwrap())
                    .collect();
                let expected: Vec<_> = model.get(&key).copied().into_iter().collect();
                assert_eq!(found, expected, "seed {seed}");
            }
            let whole: Vec<u8> = cut::<EvidenceLine>(&payload).flatten().copied().collect();
            assert_eq!(whole, payload, "seed {seed}");
        }
    }

    #[test]
    fn a_flipped_bit_is_a_damaged_block() {
        let block = seal(&packed([evidence(3, 9)]));
        assert!(entries_of::<EvidenceLine>(&block).is_ok());
        for bit in 0..block.len() * 8 {
            let mut flipped = block.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                entries_of::<EvidenceLine>(&flipped),
                Err(DamagedBlock),
                "bit {bit}"
            );
        }
        assert_eq!(entries_of::<EvidenceLine>(&[]), Err(DamagedBlock));
        assert_eq!(
            entries_of::<ScoredLine>(&block),
            Err(DamagedBlock),
            "another entry length"
        );
    }

    #[test]
    fn every_verdict_survives_packing() {
        let verdicts = [
            Verdict::Waiting {
                index: u32::MAX,
                since_s: 1_789_000_000,
            },
            Verdict::WrongRole { index: 3 },
            Verdict::BlankText { index: 0 },
            Verdict::Exported {
                row_offset: (1 << 48) - 1,
                evidence_digest: 7,
                superseded: true,
                contradicted: false,
            },
            Verdict::Exported {
                row_offset: 0,
                evidence_digest: 0,
                superseded: false,
                contradicted: true,
            },
            Verdict::Firewalled,
            Verdict::UnknownCategory,
            Verdict::Ordered { index: 2 },
            Verdict::Overruled,
        ];
        for verdict in verdicts {
            let entry = ScoredLine {
                run: RunKey([9; 12]),
                offset: (1 << 40) - 1,
                len_bytes: u32::MAX,
                verdict,
            };
            assert_eq!(ScoredLine::unpack(&packed([entry])), Some(entry));
        }
        assert_eq!(ScoredLine::unpack(&[0x0f; 32]), None);
        assert_eq!(ScoredLine::unpack(&[0; 31]), None);
    }
}
