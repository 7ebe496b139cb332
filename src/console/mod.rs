//! Output for people: the terminal, progress bars, tables and the log.

pub mod logging;
pub mod output;
pub mod progress;
pub mod table;
pub mod terminal;
