//! Owns the error of a command that must not be carried out as it was asked for: what stands against it, and the
//! command that may be given instead.

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Refusal {
    /// What stands against it, and where.
    pub what: String,
    /// What to do instead.
    pub fix: String,
}
