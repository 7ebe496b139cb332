//! The account of the lines that were read, as a status has it.

use serde::{Deserialize, Serialize};

use crate::pair::verdict::PerVerdict;

/// The account of the scored stream. `lines` is the sum over the verdicts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoredStatus {
    /// Lines read.
    pub lines: u64,
    /// Lines by verdict, one JSON key each.
    #[serde(flatten)]
    pub verdicts: PerVerdict<u64>,
    /// Whether the account balances.
    pub balanced: bool,
}

impl Default for ScoredStatus {
    /// Returns the account of no line, which balances: that of a daemon whose account is not known yet.
    fn default() -> Self {
        Self {
            lines: 0,
            verdicts: PerVerdict::default(),
            balanced: true,
        }
    }
}

/// The account of the evidence stream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EvidenceStatus {
    /// Lines read.
    pub lines: u64,
    /// Malformed lines.
    pub malformed: u64,
}
