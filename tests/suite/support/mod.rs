//! Owns what the tests stand on: a disk that crashes, a second implementation to compare with, random lakes, and
//! a harness that kills the real process. Never decides what the product should do: the contract does.

pub mod bench;
pub mod export_reader;
pub mod kill_harness;
pub mod lake_gen;
pub mod manager;
pub mod naive;
pub mod naive_json;
pub mod process;
pub mod pty;
pub mod sim_disk;
pub mod tools;
