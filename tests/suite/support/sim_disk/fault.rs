//! Owns the words for what can happen to a disk: fates of a power cut and injected errors. Decides nothing.

/// What of the un-synced changes the next process finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// All: the process was killed, the host lives. They stay un-synced.
    Kept,
    /// None: the power was cut before any of them reached the disk.
    Lost,
    /// Each write, sector by sector, each length and each name at random.
    Torn,
}

impl Fate {
    /// All fates, for loops.
    pub const ALL: [Fate; 3] = [Fate::Kept, Fate::Lost, Fate::Torn];
}

/// Which un-synced changes of the names in one directory may survive a torn power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameOrder {
    /// The first so many, as a journaling file system does it.
    Prefix,
    /// Any of them: all that the product may assume.
    Any,
}

/// How the call that fails leaves things, where it is a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partly {
    /// Nothing was written.
    Nothing,
    /// Some bytes were written, and the call says so with `Ok`; the call after it fails.
    Short,
    /// Some bytes were written, and the call fails all the same.
    Torn,
}

/// An error to inject.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The error number, such as [`ENOSPC`].
    pub errno: i32,
    /// Whether every later call fails too, until [`SimDisk::heal`](super::SimDisk::heal).
    pub persistent: bool,
    /// What a failing write leaves behind; of no concern to other calls.
    pub partly: Partly,
}

/// Interrupted system call.
pub const EINTR: i32 = 4;
/// No space left on device.
pub const ENOSPC: i32 = 28;
/// Input/output error.
pub const EIO: i32 = 5;

impl Fault {
    /// A signal interrupts one call, which does nothing.
    pub fn interruption() -> Self {
        Self::once(EINTR)
    }

    /// Fails one call, which does nothing.
    pub fn once(errno: i32) -> Self {
        let partly = Partly::Nothing;
        Self {
            errno,
            persistent: false,
            partly,
        }
    }

    /// Fails all calls until the disk is healed.
    pub fn until_healed(errno: i32) -> Self {
        Self {
            persistent: true,
            ..Self::once(errno)
        }
    }
}
