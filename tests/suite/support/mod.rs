//! Shared support of the tests: a disk that crashes, a second implementation to compare with, random lakes, a harness
//! that kills the real process, and the bodies of the fuzz targets. The contract defines the expected behavior.

#[cfg(not(fuzzing))]
pub mod account;
pub mod bench;
#[cfg(not(fuzzing))]
pub mod browser;
pub mod earned;
#[cfg(not(fuzzing))]
pub mod export_reader;
pub mod fuzz_checks;
#[cfg(not(fuzzing))]
pub mod http;
#[cfg(not(fuzzing))]
pub mod kill_harness;
pub mod lake_gen;
pub mod ledger;
#[cfg(not(fuzzing))]
pub mod manager;
pub mod naive;
pub mod naive_json;
#[cfg(not(fuzzing))]
pub mod packaged_host;
#[cfg(not(fuzzing))]
pub mod pages;
#[cfg(not(fuzzing))]
pub mod process;
#[cfg(not(fuzzing))]
pub mod prose;
#[cfg(not(fuzzing))]
pub mod pty;
#[cfg(not(fuzzing))]
pub mod sim_daemon;
pub mod sim_disk;
#[cfg(not(fuzzing))]
pub mod tools;
