//! The tests that need more than one module, as one program.
#![allow(
    clippy::unwrap_used,
    reason = "clippy knows test functions, not the helpers they share"
)]

/// Flags, environment and file to settings; the annotated configuration file.
mod config;
