//! Fuzz target `state_file`: passes the input to the check of that name, which has the assertions.
#![no_main]
#![allow(clippy::unwrap_used, dead_code, reason = "shared with the tests")]

#[path = "../../tests/suite/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(
    // The store panics at some files that it did not write, and the state catches these panics; the fuzzer's own hook
    // would end the process earlier. A panic that is not caught still ends it where it would leave Rust.
    init: drop(std::panic::take_hook()),
    |bytes: &[u8]| support::fuzz_checks::state_file(bytes)
);
