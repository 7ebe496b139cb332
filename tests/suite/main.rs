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
/// `check`: what it finds, and what is worth a failure.
mod check;
/// Flags, environment and file to settings; the annotated configuration file.
mod config;
/// A crash at every call that reaches the disk.
mod crash;
/// An error from every call that reaches the disk.
mod faults;
/// The batch over the golden lake, byte for byte, in each dialect.
mod golden;
/// The engine against the naive batch, on random lakes.
mod model;
/// `rebuild`: batch order, what is dropped, a crash at any call of it.
mod rebuild;
/// `status`: from a running daemon, from the state of a dead one.
mod status;
