//! FIXME store

pub mod export;
pub(crate) mod files;
pub mod journal;
pub mod row_buffer;
pub mod snapshot;
pub mod state;
