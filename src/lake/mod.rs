//! The day-files of a root: their paths, the walk that finds them, and the reading of one from an offset.

pub mod chunk;
pub mod identity;
pub mod linked_dirs;
pub mod path;
pub mod read_digest;
mod room;
mod search;
pub mod source;
pub mod walk;
