//! What a start does with the files that it finds, and `rebuild`.

pub(crate) mod adopt;
pub mod decide;
pub mod open;
pub mod rebuild;
pub mod report;
pub(crate) mod swap;
