//! distilld
pub mod args;
pub mod config;
pub mod logging;
pub mod progress;
pub mod storage;
