//! The export as a dataset: its effective rows, its versions, and what changed between two of them. The readers need
//! only the right to read two files, the export and its ledger; they need no state and no daemon, and run in parallel
//! with one.
//!
//! 1. **Order.** A reader takes the length of the export first and reads the ledger to its end afterwards. The writer
//!    appends the ledger before the export, so a reader that has a row has each retraction that was committed with the
//!    row or before it.
//! 2. **Closed.** A ledger that is missing, damaged or of another export is an error, and never an empty set of
//!    retractions. A last line without its newline is the one that a writer has not finished; it does not count.
//! 3. **One pair.** `rebuild` removes the name of the old ledger, replaces the export, and gives the new ledger its name
//!    last. A reader opens the export first and compares both names with its open files afterwards, so it never
//!    combines an export with the ledger of another one.

pub mod cite;
mod digest;
pub mod error;
pub mod feed;
mod files;
pub mod follow;
pub(crate) mod ledger_reader;
mod point;
pub mod rows;
pub mod shape;
pub mod snapshot;
pub mod verify_at;
pub mod version;
