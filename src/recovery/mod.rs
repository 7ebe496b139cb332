//! What a start does with the files that it finds, and `rebuild`.

pub(crate) mod adopt;
mod availability;
pub mod decide;
pub(crate) mod dropped;
mod ledger;
mod left_out;
mod losses;
mod lost_rows;
mod new_ledger;
mod old_ledger;
mod old_state;
mod older_state;
pub mod open;
mod owned_storage;
pub mod rebuild;
mod rebuild_state;
mod rebuilt;
pub mod report;
pub(crate) mod swap;
