//! One test binary; each module says what belongs in it.

#![allow(
    clippy::unwrap_used,
    reason = "clippy knows test functions, not the helpers they share"
)]

/// What the tests stand on: a simulated disk, a second batch join, random lakes, a harness that kills.
#[allow(
    dead_code,
    reason = "a harness offers more than one test of the moment uses"
)]
mod support;

/// The stateless batch: order, memory, what cannot be read, what cannot be written.
mod batch;
/// Flags, environment and file to settings; the annotated configuration file.
mod config;
/// A crash at every call that reaches the disk.
mod crash;
/// An error from every call that reaches the disk.
mod faults;
/// The bytes of everything persisted, and how a damaged journal reads.
mod formats;
/// The batch over the golden lake, byte for byte, in each dialect.
mod golden;
/// The engine against the naive batch, on random lakes.
mod model;
/// Day-files whose history is rewritten under the daemon.
mod rewritten;
/// The rules of the house that no compiler checks.
mod tidy;
/// `verify`: every kind of difference, every stated exception, and no false alarm beside a daemon at work.
mod verify;
