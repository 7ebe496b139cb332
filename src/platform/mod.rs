//! What distilld needs of the operating system: storage, clock, locks, threads and the service manager.

pub mod answers;
pub mod background;
pub mod buffer_pool;
pub mod checksummed_file;
pub mod clock;
pub mod descend;
pub mod escape;
pub mod file_wait;
pub mod heartbeat;
pub mod held_dir;
pub mod host;
mod lock_takers;
pub(crate) mod map_in_order;
pub mod message_ids;
mod os_storage;
pub mod rights;
pub mod rights_of;
pub mod root_lock;
pub mod sd_notify;
pub mod storage;
