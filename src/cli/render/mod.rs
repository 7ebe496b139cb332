//! FIXME cli::render

pub mod class_table;
pub mod explain;
pub(crate) mod live_status;
pub mod plan;
pub mod status;
