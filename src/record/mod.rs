//! FIXME record

pub mod final_check;
pub mod firewall;
pub mod json;
pub mod keys;
pub mod parse;
pub mod row;
pub mod synthesize;
pub mod timestamp;
