//! The errors that end a verification without a result.

use std::io;
use std::path::PathBuf;

use crate::batch::pair::PairReadError;

/// An error that prevents a result.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The directory of the scored runs cannot be listed.
    #[error("cannot list {}: {source}", path.display())]
    Walk {
        /// The directory.
        path: PathBuf,
        /// The error of the storage.
        source: io::Error,
    },
    /// A day-file could not be read to its end.
    #[error(transparent)]
    Pair(PairReadError),
    /// A day-file of the pair could not be read again to explain a difference.
    #[error("cannot read {pair} again: {source}")]
    Examine {
        /// The pair.
        pair: String,
        /// The error of the storage.
        source: io::Error,
    },
    /// The export cannot be read.
    #[error("cannot read the export {}: {source}", path.display())]
    Export {
        /// The export.
        path: PathBuf,
        /// The error of the storage.
        source: io::Error,
    },
    /// The retraction ledger cannot be read.
    #[error("cannot read the retraction ledger {}: {source}", path.display())]
    Ledger {
        /// The ledger.
        path: PathBuf,
        /// The error of the storage.
        source: io::Error,
    },
    /// The export was replaced by another file.
    #[error("the export {} was replaced while it was verified; run `distilld verify` again", path.display())]
    Replaced {
        /// The export.
        path: PathBuf,
    },
}
