//! distilld
pub mod discover;
pub mod shutdown;
pub mod storage;
pub mod systemd;
pub mod wake;
pub mod watch;
