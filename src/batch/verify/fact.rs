//! The facts that are kept of rows which may differ from the expected ones.

use crate::record::firewall::ACCEPTED;
use crate::record::row::{ReadRow, RowParts};
use crate::record::timestamp::stamp;

/// Length of the timestamps that this program writes.
const STAMP_BYTES: usize = 24;

/// A timestamp in a fixed size that sorts as its text does.
pub(super) type Stamp = [u8; STAMP_BYTES];

/// The first halves of the digests of the parts of a row: enough to find the rows that a line and evidence make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartHalves {
    pub frame: u64,
    pub sample: u64,
}

impl From<RowParts> for PartHalves {
    fn from(parts: RowParts) -> PartHalves {
        PartHalves {
            frame: half(parts.frame),
            sample: half(parts.sample),
        }
    }
}

/// Returns the first half of a digest.
pub(super) fn half(digest: u128) -> u64 {
    (digest >> u64::BITS) as u64
}

/// The facts kept of equal rows of one key that may differ from the expected ones; of a fixed size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RowFact {
    /// Offset of the first byte of the first row in the export.
    pub offset: u64,
    /// The same of the last row.
    pub last_offset: u64,
    /// Number of rows.
    pub count: u64,
    /// The digest of both parts, or of all bytes of a row that has none.
    pub digest: u128,
    /// `None` for rows that no exporter of ours writes.
    pub parts: Option<PartHalves>,
    pub index: Option<u64>,
    /// The category as an index into [`ACCEPTED`].
    pub category: Option<u8>,
    /// The beginning of the last row's timestamp; `None` if that is not RFC 3339 in UTC.
    pub created_at: Option<Stamp>,
}

impl RowFact {
    pub(super) fn new(offset: u64, row: &ReadRow<'_>) -> RowFact {
        let parts = row.parts();
        RowFact {
            offset,
            last_offset: offset,
            count: 1,
            digest: parts.map_or_else(|| row.digest(), |parts| parts.whole()),
            parts: parts.map(PartHalves::from),
            index: row.index,
            category: category_number(|known| row.quality_score == known),
            created_at: utc_stamp(row.created_at.as_bytes()),
        }
    }

    /// Adds equal rows.
    pub(super) fn merge(&mut self, other: &RowFact) {
        self.count += other.count;
        self.offset = self.offset.min(other.offset);
        if self.last_offset < other.last_offset {
            (self.last_offset, self.created_at) = (other.last_offset, other.created_at);
        }
    }

    /// Returns whether a file that changed at this time, milliseconds since 1970, changed after the row was written.
    pub(super) fn is_older_than(&self, changed_ms: u64) -> bool {
        self.created_at
            .is_none_or(|created| stamp(changed_ms).as_bytes() >= &created[..])
    }
}

/// Returns the index in [`ACCEPTED`] of the category that `is` true of.
pub(super) fn category_number(is: impl Fn(&str) -> bool) -> Option<u8> {
    (0..)
        .zip(ACCEPTED)
        .find(|(_, known)| is(known))
        .map(|(number, _)| number)
}

/// Returns a timestamp in a fixed size; `None` if it is not in UTC.
pub(super) fn utc_stamp(text: &[u8]) -> Option<Stamp> {
    let is_utc = text.len() >= 20 && text[4] == b'-' && text.ends_with(b"Z");
    let mut beginning = [0; STAMP_BYTES];
    let len = text.len().min(STAMP_BYTES);
    beginning[..len].copy_from_slice(&text[..len]);
    is_utc.then_some(beginning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_of_a_fixed_size_sort_as_their_texts() {
        let stamps = [
            "2026-05-01T00:00:00Z",
            "2026-05-01T00:00:00.123Z",
            "2026-05-01T00:00:00.123456789Z",
            "2026-05-01T00:00:00.124Z",
        ];
        for created in stamps {
            for changed_ms in [1_777_593_600_122, 1_777_593_600_123, 1_777_593_600_124] {
                let is_older = *stamp(changed_ms) >= *created;
                let kept = utc_stamp(created.as_bytes()).unwrap();
                assert_eq!(
                    stamp(changed_ms).as_bytes() >= &kept[..],
                    is_older,
                    "{created}"
                );
            }
        }
        for other in [
            "",
            "2026-05-01T00:00:00+01:00",
            "yesterday, at half past nineZ",
            "Z",
        ] {
            assert_eq!(utc_stamp(other.as_bytes()), None, "{other}");
        }
    }
}
