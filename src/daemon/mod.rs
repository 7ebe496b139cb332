//! The running daemon around the engine: the event loop, the inbox that wakes it, inotify watches, signals and the
//! watchdog.

pub mod event_loop;
pub mod inbox;
pub mod monitored_disk;
pub mod requests;
pub mod signals;
pub mod status_line;
pub mod watch;
pub mod watchdog;
