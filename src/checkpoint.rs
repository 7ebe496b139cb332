//! Owns what distilld remembers of a pair of day-files: how far each is read, what became of each line, and the
//! account that must balance. Pure: it is told, it never looks.
//!
//! Persisted forms live here, beside the types they are of; `tests/suite/formats.rs` pins their bytes. A change
//! of any of them raises [`FORMAT`], and a state of another format is rebuilt from the sources and the export.

use crate::lake::identity::SourceState;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::lake::path::Stream;
use crate::record::keys::{RowKey, RunKey};

/// The version of everything persisted under the state directory.
pub const FORMAT: u32 = 4;

/// The number under which the state keeps a pair; given once, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PairId(pub u32);

/// What became of the scored lines of a pair. Each line is in exactly one of the first six, or malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Has its row in the export.
    pub exported: u64,
    /// Refused by the firewall.
    pub firewalled: u64,
    /// Refused: a category nobody knows.
    pub unknown_category: u64,
    /// Refused: the evidence's model role gives no sample.
    pub role: u64,
    /// Refused: the evidence's text is blank.
    pub blank_text: u64,
    /// Waits for its evidence.
    pub waiting: u64,
    /// Of the exported: evidence that differs came after the row was written.
    pub superseded: u64,
    /// Of the exported: the run was scored `rejected` or `needs_human_review` later.
    pub contradicted: u64,
}

impl Counts {
    /// Lines with a verdict or a place in the waiting set. A state that says more than there are numbers is damaged, and
    /// fails the account instead of ending the process.
    #[must_use]
    pub fn records(&self) -> u64 {
        let refused = [self.unknown_category, self.role, self.blank_text];
        [self.exported, self.firewalled, self.waiting]
            .into_iter()
            .chain(refused)
            .fold(0, u64::saturating_add)
    }

    /// The count that a verdict is kept under.
    pub fn of_mut(&mut self, verdict: Verdict) -> &mut u64 {
        match verdict {
            Verdict::Exported { .. } => &mut self.exported,
            Verdict::Firewalled => &mut self.firewalled,
            Verdict::UnknownCategory => &mut self.unknown_category,
            Verdict::Role { .. } => &mut self.role,
            Verdict::BlankText { .. } => &mut self.blank_text,
            Verdict::Waiting { .. } => &mut self.waiting,
        }
    }
}

/// Everything remembered of a pair but its packed indexes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PairCheckpoint {
    /// Relative path, `YYYY/MM/DD/NAME.jsonl`, as the file system has it.
    pub path: Vec<u8>,
    /// The scored day-file.
    pub scored: SourceState,
    /// The evidence day-file.
    pub evidence: SourceState,
    /// What became of the scored lines.
    pub counts: Counts,
    /// No run of the pair waits since before this second of 1970; 0 where none waits. A bound: the run that set it
    /// may have found its evidence while others wait.
    pub waiting_since_s: u64,
}

/// The account of a pair does not balance: lines vanished or were counted twice. Only a bug can do this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the account of day-file {path} does not balance: {lines} lines read, {accounted} accounted for \
     ({counts:?}, {malformed} malformed)"
)]
pub struct Imbalance {
    path: String,
    lines: u64,
    accounted: u64,
    malformed: u64,
    counts: Counts,
}

impl PairCheckpoint {
    /// A pair of which nothing has been read.
    #[must_use]
    pub fn new(path: Vec<u8>) -> Self {
        Self {
            path,
            ..Self::default()
        }
    }

    /// How far one of its day-files is read.
    #[must_use]
    pub fn source(&self, stream: Stream) -> &SourceState {
        match stream {
            Stream::Scored => &self.scored,
            Stream::Evidence => &self.evidence,
        }
    }

    /// The inode of its scored day-file when that was last read.
    #[must_use]
    pub fn scored_inode(&self) -> Option<u64> {
        Some(self.scored.identity?.inode)
    }

    /// A run begins to wait.
    pub fn begin_to_wait(&mut self, now_s: u64) {
        if self.waiting_since_s == 0 || now_s < self.waiting_since_s {
            self.waiting_since_s = now_s;
        }
    }

    /// What [`Totals`] are sums of.
    #[must_use]
    pub fn figures(&self) -> Totals {
        Totals {
            scored_lines: self.scored.lines,
            scored_malformed: self.scored.malformed,
            evidence_lines: self.evidence.lines,
            evidence_malformed: self.evidence.malformed,
            counts: self.counts,
        }
    }

    /// Promise 5: lines read = exported + firewalled + refused by reason + waiting + malformed.
    ///
    /// # Errors
    /// [`Imbalance`] where they differ; the daemon must stop.
    pub fn balance(&self) -> Result<(), Imbalance> {
        let accounted = self.counts.records().saturating_add(self.scored.malformed);
        let evidence_accounted = self
            .evidence
            .records
            .saturating_add(self.evidence.malformed);
        if self.scored.lines == accounted
            && self.scored.records == self.counts.records()
            && self.evidence.lines == evidence_accounted
        {
            return Ok(());
        }
        Err(Imbalance {
            path: String::from_utf8_lossy(&self.path).into_owned(),
            lines: self.scored.lines,
            accounted,
            malformed: self.scored.malformed,
            counts: self.counts,
        })
    }
}

/// Sums over pairs, kept beside them so that a status costs no walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Scored lines read.
    pub scored_lines: u64,
    /// Scored lines that became dead letters.
    pub scored_malformed: u64,
    /// Evidence lines read.
    pub evidence_lines: u64,
    /// Evidence lines that became dead letters.
    pub evidence_malformed: u64,
    /// What became of the scored lines.
    pub counts: Counts,
}

impl Totals {
    /// Takes a pair's figures out (`before`) and puts its new ones in (`after`).
    pub fn replace(&mut self, before: &PairCheckpoint, after: &PairCheckpoint) {
        let (old, new) = (before.figures(), after.figures());
        self.step(&new, u64::wrapping_add);
        // Totals of a damaged state may be less than a pair's: they fail the account then.
        self.step(&old, u64::wrapping_sub);
    }

    /// Adds other sums.
    pub fn add(&mut self, other: &Totals) {
        self.step(other, u64::wrapping_add);
    }

    fn step(&mut self, other: &Totals, step: impl Fn(u64, u64) -> u64) {
        let Totals {
            scored_lines,
            scored_malformed,
            evidence_lines,
            evidence_malformed,
            counts,
        } = self;
        let (to, from) = (counts, &other.counts);
        for (total, figure) in [
            (scored_lines, other.scored_lines),
            (scored_malformed, other.scored_malformed),
            (evidence_lines, other.evidence_lines),
            (evidence_malformed, other.evidence_malformed),
            (&mut to.exported, from.exported),
            (&mut to.firewalled, from.firewalled),
            (&mut to.unknown_category, from.unknown_category),
            (&mut to.role, from.role),
            (&mut to.blank_text, from.blank_text),
            (&mut to.waiting, from.waiting),
            (&mut to.superseded, from.superseded),
            (&mut to.contradicted, from.contradicted),
        ] {
            *total = step(*total, figure);
        }
    }

    /// Promise 5 over all pairs.
    #[must_use]
    pub fn balanced(&self) -> bool {
        let accounted = self.counts.records().checked_add(self.scored_malformed);
        accounted == Some(self.scored_lines)
    }
}

/// Where an evidence record lies in its day-file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceRef {
    /// Start of its line, bytes.
    pub offset: u64,
    /// Length of its line without the newline, bytes.
    pub len_bytes: u32,
}

/// What is known of one well-formed scored line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// No evidence yet; looked at again when evidence with its run id arrives.
    Waiting {
        /// Its index among the well-formed records of its day-file.
        index: u32,
        /// When it began to wait, seconds since 1970.
        since_s: u64,
    },
    /// Refused for its evidence's model role; looked at again like a waiting run.
    Role {
        /// Its index among the well-formed records of its day-file.
        index: u32,
    },
    /// Refused for its evidence's blank text; looked at again like a waiting run.
    BlankText {
        /// Its index among the well-formed records of its day-file.
        index: u32,
    },
    /// Its row is in the export.
    Exported {
        /// Where its row starts in the export, bytes.
        row_offset: u64,
        /// Digest of the evidence line that the row was made from; of a row that was claimed, of the one that counted
        /// then; 0 where an earlier version did not note it.
        evidence_digest: u32,
        /// Evidence that differs came later.
        superseded: bool,
        /// The run was rejected later.
        contradicted: bool,
    },
    /// Refused by the firewall, for ever.
    Firewalled,
    /// Refused for a category nobody knows, for ever.
    UnknownCategory,
}

/// One well-formed scored line and its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoredEntry {
    /// Names its run inside the pair.
    pub run: RunKey,
    /// Start of its line, bytes.
    pub offset: u64,
    /// Length of its line without the newline, bytes.
    pub len_bytes: u32,
    /// What became of it.
    pub verdict: Verdict,
}

/// A line that is no record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// `true` for the evidence day-file, `false` for the scored one.
    pub in_evidence: bool,
    /// Start of the line, bytes.
    pub offset: u64,
    /// Its length without the newline, bytes.
    pub len_bytes: u64,
    /// The stable code of what is wrong with it.
    pub reason: String,
}

/// A row that stood in the export before its line was read: the line claims it, and is not written again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// What the row came from.
    pub row: RowKey,
    /// The pair that the row belonged to, or [`PairId::ANY`] where the state that knew it is gone.
    pub scope: PairId,
    /// Where the row starts in the export, bytes.
    pub row_offset: u64,
}

impl PairId {
    /// Stands for every pair, in a [`Claim`].
    pub const ANY: PairId = PairId(u32::MAX);
}

impl fmt::Display for PairId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A packed record of fixed length whose first bytes are its place in byte order.
pub trait Packed: Sized {
    /// Length of a packed record, bytes.
    const LEN: usize;
    /// How many of its first bytes order it and tell it from others.
    const KEY_LEN: usize;
    /// Appends the packed form, exactly `LEN` bytes.
    fn pack(&self, out: &mut Vec<u8>);
    /// Reads the packed form.
    ///
    /// # Errors
    /// `None` for bytes that no `pack` wrote.
    fn unpack(bytes: &[u8]) -> Option<Self>;
}

/// An evidence record in the index of its pair: run key (12), offset (5), length (4); big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceEntry {
    /// Names its run inside the pair.
    pub run: RunKey,
    /// Where it lies.
    pub place: EvidenceRef,
}

impl Packed for EvidenceEntry {
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
            place: EvidenceRef {
                offset: be_uint(bytes.get(12..17)?),
                len_bytes: u32::try_from(be_uint(bytes.get(17..21)?)).ok()?,
            },
        })
    }
}

/// Packed as run key (12), offset (5), length (4), verdict (1), six and four bytes that depend on the verdict.
impl Packed for ScoredEntry {
    const LEN: usize = 32;
    const KEY_LEN: usize = 17;

    fn pack(&self, out: &mut Vec<u8>) {
        let (code, long, short): (u8, u64, u32) = match self.verdict {
            Verdict::Waiting { index, since_s } => (0, since_s, index),
            Verdict::Role { index } => (1, 0, index),
            Verdict::BlankText { index } => (2, 0, index),
            Verdict::Exported {
                row_offset,
                evidence_digest,
                superseded,
                contradicted,
            } => {
                let flags = u8::from(superseded) << 4 | u8::from(contradicted) << 5;
                (3 | flags, row_offset, evidence_digest)
            }
            Verdict::Firewalled => (4, 0, 0),
            Verdict::UnknownCategory => (5, 0, 0),
        };
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
        let code = bytes[21];
        let verdict = match code & 0x0f {
            0 => Verdict::Waiting {
                index: short,
                since_s: long,
            },
            1 => Verdict::Role { index: short },
            2 => Verdict::BlankText { index: short },
            3 => Verdict::Exported {
                row_offset: long,
                evidence_digest: short,
                superseded: code & 0x10 != 0,
                contradicted: code & 0x20 != 0,
            },
            4 => Verdict::Firewalled,
            5 => Verdict::UnknownCategory,
            _ => return None,
        };
        Some(Self {
            run: RunKey(bytes.get(..12)?.try_into().ok()?),
            offset: be_uint(bytes.get(12..17)?),
            len_bytes: u32::try_from(be_uint(bytes.get(17..21)?)).ok()?,
            verdict,
        })
    }
}

/// Offsets into day-files are packed into five bytes.
pub const OFFSET_MAX: u64 = 1 << 40;

fn be_uint(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}
