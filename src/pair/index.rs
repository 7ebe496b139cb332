//! The records that the state indexes per pair (scored lines, evidence, dead letters, unclaimed rows), and the packed
//! form of the first two.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::lake::identity::OFFSET_MAX;
use crate::pair::verdict::Verdict;
use crate::record::keys::{RowKey, RunKey};

/// The number of a pair in the state, which is never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PairId(pub u32);

/// The location of an evidence record in its day-file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceLocation {
    /// Start of its line, bytes.
    pub offset: u64,
    /// Length of its line without the newline, bytes.
    pub len_bytes: u32,
}

/// One well-formed scored line and its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoredLine {
    /// The key of its run within the pair.
    pub run: RunKey,
    /// Start of the line, bytes.
    pub offset: u64,
    /// Length of the line without the newline, bytes.
    pub len_bytes: u32,
    /// The verdict on the line.
    pub verdict: Verdict,
}

/// A malformed line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// `true` for the evidence day-file, `false` for the scored one.
    pub in_evidence: bool,
    /// Start of the line, bytes.
    pub offset: u64,
    /// Length of the line without the newline, bytes.
    pub len_bytes: u64,
    /// The stable code of the fault.
    pub reason: String,
}

impl DeadLetter {
    /// Returns the place of the line among those of its pair; a pair has one dead letter at a place.
    #[must_use]
    pub fn place(&self) -> (bool, u64) {
        (self.in_evidence, self.offset)
    }
}

/// A row in the export that no line owns yet. The line with its key claims it instead of being written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UnclaimedRow {
    /// The key of the row's origin.
    pub row: RowKey,
    /// The pair whose lines may claim the row in any case, or [`PairId::ANY`] if the state that recorded it is lost; the
    /// lines of other pairs may claim it if they would give an equal one.
    pub scope: PairId,
    /// Start of the row in the export, bytes.
    pub row_offset: u64,
}

impl PairId {
    /// Any pair, as the scope of an [`UnclaimedRow`].
    pub const ANY: PairId = PairId(u32::MAX);
    /// The largest number of a pair.
    pub const MAX: PairId = PairId(u32::MAX - 1);
}

/// The condition on which a line may claim a row with its key, the strongest right first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClaimRight {
    /// The row is of the line's pair.
    Own,
    /// It is not known of which pair the row is.
    Unknown,
    /// The row is of another pair, and the line may claim it only if it would give an equal one.
    IfEqual,
}

impl UnclaimedRow {
    /// Returns the right of the lines of a pair to claim this row. Equal rows are interchangeable, so a line may also claim
    /// one that was released to another pair: a day-file that was moved may have been moved back since.
    #[must_use]
    pub fn right_of(&self, pair: PairId) -> ClaimRight {
        if self.scope == PairId::ANY {
            ClaimRight::Unknown
        } else if self.scope == pair {
            ClaimRight::Own
        } else {
            ClaimRight::IfEqual
        }
    }
}

impl fmt::Display for PairId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A record with a packed form of fixed length that starts with its key, in sort order.
pub trait Packed: Sized {
    /// Length of a packed record, bytes.
    const LEN: usize;
    /// Length of the key at its start, bytes.
    const KEY_LEN: usize;
    /// Appends the packed form, exactly `LEN` bytes.
    fn pack(&self, out: &mut Vec<u8>);
    /// Reads the packed form; `None` for bytes that `pack` cannot have written.
    fn unpack(bytes: &[u8]) -> Option<Self>;
}

/// An evidence record in the index of its pair: run key (12), offset (5), length (4); big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceLine {
    /// The key of its run within the pair.
    pub run: RunKey,
    /// Its location in the evidence day-file.
    pub place: EvidenceLocation,
}

impl Packed for EvidenceLine {
    const LEN: usize = 21;
    const KEY_LEN: usize = 12;

    fn pack(&self, out: &mut Vec<u8>) {
        assert!(
            self.place.offset < OFFSET_MAX,
            "a day-file of more than 1 TiB"
        );
        out.extend_from_slice(&self.run.0);
        out.extend_from_slice(&self.place.offset.to_be_bytes()[3..]);
        out.extend_from_slice(&self.place.len_bytes.to_be_bytes());
    }

    fn unpack(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            run: RunKey(bytes.get(..12)?.try_into().ok()?),
            place: EvidenceLocation {
                offset: be_uint(bytes.get(12..17)?),
                len_bytes: u32::try_from(be_uint(bytes.get(17..21)?)).ok()?,
            },
        })
    }
}

/// Packed as run key (12), offset (5), length (4), verdict (1), and ten bytes (6 + 4) that depend on the verdict.
impl Packed for ScoredLine {
    const LEN: usize = 32;
    const KEY_LEN: usize = 17;

    fn pack(&self, out: &mut Vec<u8>) {
        let (code, long, short) = self.verdict.pack();
        assert!(self.offset < OFFSET_MAX, "a day-file of more than 1 TiB");
        assert!(long < 1 << 48, "an export of more than 256 TiB");
        out.extend_from_slice(&self.run.0);
        out.extend_from_slice(&self.offset.to_be_bytes()[3..]);
        out.extend_from_slice(&self.len_bytes.to_be_bytes());
        out.push(code);
        out.extend_from_slice(&long.to_be_bytes()[2..]);
        out.extend_from_slice(&short.to_be_bytes());
    }

    fn unpack(bytes: &[u8]) -> Option<Self> {
        let long = be_uint(bytes.get(22..28)?);
        let short = u32::try_from(be_uint(bytes.get(28..32)?)).ok()?;
        let verdict = Verdict::unpack(bytes[21], long, short)?;
        Some(Self {
            run: RunKey(bytes.get(..12)?.try_into().ok()?),
            offset: be_uint(bytes.get(12..17)?),
            len_bytes: u32::try_from(be_uint(bytes.get(17..21)?)).ok()?,
            verdict,
        })
    }
}

/// Reads a big-endian unsigned integer of at most eight bytes.
fn be_uint(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}
