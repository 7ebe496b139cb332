//! FIXME recovery

pub(crate) mod adopt;
pub mod decide;
pub mod open;
pub mod rebuild;
pub mod report;
pub(crate) mod swap;
