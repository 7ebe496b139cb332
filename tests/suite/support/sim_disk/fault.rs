//! The types of disk events: fates of a power cut and injected errors.

/// The unsynced changes that the next process finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// All: the process was killed, the host continues. They stay unsynced.
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

/// The unsynced changes of the names in one directory that may survive a torn power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameOrder {
    /// A prefix of them, as with a journaling file system.
    Prefix,
    /// Any of them: the only assumption that the product may make.
    Any,
}

/// The effect of a failing write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partly {
    /// Nothing was written.
    Nothing,
    /// Some bytes were written, and the call returns `Ok` with their number; the call after it fails.
    Short,
    /// Some bytes were written, and the call fails.
    Torn,
}

/// An error to inject.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The error number, such as [`ENOSPC`].
    pub errno: i32,
    /// Whether every later call fails too, until [`SimDisk::heal`](super::SimDisk::heal).
    pub persistent: bool,
    /// The effect of a failing write; ignored for other calls.
    pub partly: Partly,
}

/// Interrupted system call.
pub const EINTR: i32 = 4;
/// No space left on device.
pub const ENOSPC: i32 = 28;
/// Input/output error.
pub const EIO: i32 = 5;

impl Fault {
    /// Interrupts one call, which has no effect.
    pub fn interruption() -> Self {
        Self::once(EINTR)
    }

    /// Fails one call, which has no effect.
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
