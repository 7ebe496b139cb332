//! One record: a line's bytes to a scored run or evidence, through the firewall, to a row; and rows read back. Pure: no
//! file of this folder does I/O, reads a clock or starts a thread.

pub mod category;
mod fields;
pub mod final_check;
pub mod firewall;
pub mod json;
pub mod kept_stamps;
pub mod keys;
pub mod ledger;
mod local_digest;
pub mod parse;
pub mod row;
pub mod synthesize;
pub mod timestamp;
