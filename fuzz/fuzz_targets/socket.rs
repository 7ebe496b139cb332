//! Owns the fuzz target `socket`: any bytes to the check of that name. Never decides what must hold.
#![no_main]
#![allow(clippy::unwrap_used, dead_code, reason = "shared with the tests")]

#[path = "../../tests/suite/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| support::fuzz_checks::socket(bytes));
