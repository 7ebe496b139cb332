//! FIXME: batch::verify::error

use crate::batch::pair::PairReadError;
use std::io;
use std::path::PathBuf;

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The scored runs' own directory cannot be listed.
    #[error("cannot list {}: {source}", path.display())]
    Walk {
        /// The directory.
        path: PathBuf,
        /// What the storage said.
        source: io::Error,
    },
    /// A day-file failed while it was read.
    #[error(transparent)]
    Pair(PairReadError),
    /// A day-file of the pair failed when rows of it were looked at.
    #[error("cannot look at {pair} again: {source}")]
    Examine {
        /// The pair.
        pair: String,
        /// What the storage said.
        source: io::Error,
    },
    /// The export cannot be read.
    #[error("cannot read the export {}: {source}", path.display())]
    Export {
        /// The export.
        path: PathBuf,
        /// What the storage said.
        source: io::Error,
    },
    /// Another export took its place.
    #[error("the export {} was replaced while it was verified", path.display())]
    Replaced {
        /// The export.
        path: PathBuf,
    },
}
