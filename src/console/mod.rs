//! FIXME console

pub mod logging;
pub mod progress;
pub mod table;
pub mod terminal;
