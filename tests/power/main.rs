//! What only root can produce: a power cut under a real ext4, and the faults of real file systems. Needs
//! `--features root-tests`, root, loop devices, FUSE and the programs that `host` asks for; where `CI` is `true` a
//! lack of them is a failure, elsewhere it is said and the test passes over it.

#![allow(
    clippy::unwrap_used,
    reason = "clippy knows test functions, not the helpers they share"
)]

#[allow(
    dead_code,
    reason = "what both test targets stand on; this one uses a part of it"
)]
#[path = "../suite/support/mod.rs"]
mod support;

/// Block devices that log what is written, or fail to read.
mod block_device;
/// What the host must have; images, file systems and mounts that vanish with their test.
mod host;
/// What a power cut leaves of logged writes.
mod write_log;

/// Scorers that lose the ends of their day-files in a cut and go on.
mod scorers;

/// Power cuts under the real daemon.
mod cuts;
/// Full disks, disks that fail a sync, disks that turn read-only, sectors that cannot be read.
mod disks;
/// Events lost and watches used up.
mod limits;
/// File systems without events.
mod mounts;
/// Day-files and directories that the daemon may not read.
mod rights;
/// Calls that signals interrupt.
mod signals;
/// Hosts that have few threads to give.
mod threads;
