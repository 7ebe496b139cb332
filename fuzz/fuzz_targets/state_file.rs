//! Owns the fuzz target `state_file`: any bytes to the check of that name. Never decides what must hold.
#![no_main]
#![allow(clippy::unwrap_used, dead_code, reason = "shared with the tests")]

#[path = "../../tests/suite/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(
    // The store panics at some files that it did not write, and the state catches that: the fuzzer's own hook would end the
    // process before. A panic that nobody catches still does, where it would leave Rust.
    init: drop(std::panic::take_hook()),
    |bytes: &[u8]| support::fuzz_checks::state_file(bytes)
);
