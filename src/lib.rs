//! distilld
pub mod storage;
