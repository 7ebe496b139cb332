//! Tests that only root can run: power cuts under a real ext4, and faults of real file systems. Needs
//! `--features root-tests`, root, loop devices, FUSE and the programs that `host` checks for; if one is missing, the
//! test fails where `CI` is `true` and is skipped with a message elsewhere.

#![allow(
    clippy::unwrap_used,
    reason = "clippy knows test functions, not the helpers they share"
)]

#[allow(
    dead_code,
    reason = "support code of both test targets; this one uses a part of it"
)]
#[path = "../suite/support/mod.rs"]
mod support;

/// Block devices that log writes or fail to read.
mod block_device;
/// The file systems on which power is cut.
mod file_systems;
/// Requirements of the host; images, file systems and mounts that are removed after each test.
mod host;
/// The logged writes that survive a power cut.
mod write_log;

/// Scorers that lose the ends of their day-files in a cut and continue.
mod scorers;

/// What readers and logs had at each moment before a cut.
mod sightings;

/// Power cuts under the real daemon.
mod cuts;
/// Full disks, disks that fail a sync, disks that turn read-only, unreadable sectors.
mod disks;
/// A file system that hangs.
mod hanging;
/// Lost events and exhausted watches.
mod limits;
/// File systems without events.
mod mounts;
/// Day-files and directories without read permission for the daemon.
mod rights;
/// System calls interrupted by signals.
mod signals;
/// Hosts with a low limit of threads.
mod threads;
