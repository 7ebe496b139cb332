//! distilld
pub mod discover;
pub mod storage;
pub mod wake;
pub mod watch;
