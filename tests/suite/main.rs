//! One test binary; each module says what belongs in it.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

/// The stateless batch: order, memory, what cannot be read, what cannot be written.
mod batch;
/// The batch over the golden lake, byte for byte, in each dialect.
mod golden;
