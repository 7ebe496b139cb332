//! Fuzz target `history`: passes the input to the check of that name, which has the assertions.
#![no_main]
#![allow(clippy::unwrap_used, dead_code, reason = "shared with the tests")]

#[path = "../../tests/suite/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| support::fuzz_checks::history(bytes));
