//! The stateless twin of the daemon: `export` and `verify` read the whole lake, or one pair of day-files, from front
//! to end and keep no state.

mod evidence_index;
pub mod export;
mod kept_rows;
mod lake_reader;
pub mod line_reader;
pub mod named_pair;
pub mod output;
pub mod overruled;
pub mod pair;
pub mod parts;
pub mod verify;
