//! Renders the results of queries as text for a terminal.

pub mod class_table;
pub mod explain;
pub(crate) mod live_status;
pub mod plan;
pub mod status;
