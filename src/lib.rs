//! distilld
pub mod args;
pub mod batch_export;
pub mod batch_output;
pub mod batch_pair;
pub mod config;
pub mod discover;
pub mod firewall;
pub mod json;
pub mod json_text;
pub mod lines;
pub mod logging;
pub mod parse;
pub mod progress;
pub mod row;
pub mod storage;
pub mod synthesize;
