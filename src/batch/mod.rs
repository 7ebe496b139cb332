//! FIXME batch

pub mod export;
pub mod line_reader;
pub mod output;
pub mod pair;
pub mod verify;
