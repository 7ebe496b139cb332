//! Owns what the tests stand on: a disk that crashes, a second implementation to compare with, random lakes, and
//! a harness that kills the real process. Never decides what the product should do: the contract does.

pub mod bench;
pub mod browser;
pub mod export_reader;
pub mod http;
pub mod kill_harness;
pub mod lake_gen;
pub mod naive;
pub mod naive_json;
pub mod process;
pub mod sim_disk;
