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

/// The real daemon with an export it did not write, and with a state that is lost, damaged or too old.
mod adoption;
/// The real daemon on lines, day-files and directories that should not be there.
mod bad_input;
/// The stateless batch: order, memory, what cannot be read, what cannot be written.
mod batch;
/// Flags, environment and file to settings; the annotated configuration file.
mod config;
/// The real daemon: what it follows, how it ends, what it refuses, what it costs.
mod daemon;
/// The batch over the golden lake, byte for byte, in each dialect.
mod golden;
/// The real daemon, killed again and again.
mod kill;
