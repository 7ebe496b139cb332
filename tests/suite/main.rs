//! The suite: one binary, so that its parts share the simulated disk, the naive batch and the random lakes.

/// What the tests stand on: nothing in here tests the product by itself.
#[allow(
    dead_code,
    reason = "support for several modules; each uses a part of it"
)]
mod support;
