//! Fixed identifiers of events that an operator may want to act on: `journalctl MESSAGE_ID=...` finds them
//! independent of their wording. An identifier never changes its meaning.

/// The daemon has recovered and begins to work.
pub const STARTED: &str = "f6fadfa7e5c15b629362da5cc13da58a";
/// All that was there has been read.
pub const CAUGHT_UP: &str = "2c63888f28f004817e6ddce7a7ace732";
/// An error stops reading for a while.
pub const READING_STOPPED: &str = "8a119b9e16bc17328f7b7676d015b0dc";
/// The error of `READING_STOPPED` is resolved.
pub const READING_AGAIN: &str = "bc67ba94637d6efa609e467ada679f81";
/// A changed configuration is in force.
pub const RELOADED: &str = "fab36728a78beb7e0787c0de2f960063";
/// A changed configuration is not in force, all of it or some keys.
pub const RELOAD_REFUSED: &str = "a712755f6cace4d519d5269512e74f7b";
/// A part of the daemon hangs.
pub const NO_PROGRESS: &str = "ac8efe121c5989f1ba2dde83458bfed0";
/// Lines of a day-file are malformed.
pub const DEAD_LETTERS: &str = "79ac021ce232413e9d6f07d08d63e9ef";
/// The report that a signal requests.
pub const STATUS: &str = "5796a670482c590e0d9782bfcdc83011";
/// The daemon cannot start, or cannot go on.
pub const FAILED: &str = "0b80a25553a12945a93258ef7777682c";
