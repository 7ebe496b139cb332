//! Owns what the tests stand on: a disk that crashes, a second implementation to compare with, random lakes, and
//! a harness that kills the real process, the bodies of the fuzz targets. Never decides what the product should do: the contract does.

#[cfg(not(fuzzing))]
pub mod account;
pub mod bench;
#[cfg(not(fuzzing))]
pub mod browser;
#[cfg(not(fuzzing))]
pub mod export_reader;
pub mod fuzz_checks;
#[cfg(not(fuzzing))]
pub mod http;
#[cfg(not(fuzzing))]
pub mod kill_harness;
pub mod lake_gen;
#[cfg(not(fuzzing))]
pub mod manager;
pub mod naive;
pub mod naive_json;
#[cfg(not(fuzzing))]
pub mod process;
#[cfg(not(fuzzing))]
pub mod prose;
#[cfg(not(fuzzing))]
pub mod pty;
pub mod sim_disk;
#[cfg(not(fuzzing))]
pub mod tools;
