//! distilld
pub mod discover;
pub mod storage;
