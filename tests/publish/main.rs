//! `distilld-publish`: the real program and the real daemon, with a table that an independent reader reads. Needs
//! `--features publish`; without the Python packages of `requirements.txt` the tests are skipped, and fail in CI.

#![allow(
    clippy::unwrap_used,
    reason = "clippy knows test functions, not the helpers they share"
)]

#[allow(
    dead_code,
    reason = "support code of all test targets; this one uses a part of it"
)]
#[path = "../suite/support/mod.rs"]
mod support;

/// A lake, its publisher, and the independent reader of the table.
mod publisher;

/// Block devices that log writes.
#[cfg(feature = "root-tests")]
#[allow(
    dead_code,
    reason = "shared with the tests of power cuts; this target uses a part"
)]
#[path = "../power/block_device.rs"]
mod block_device;
/// The file systems on which power is cut.
#[cfg(feature = "root-tests")]
#[allow(
    dead_code,
    reason = "shared with the tests of power cuts; this target uses a part"
)]
#[path = "../power/file_systems.rs"]
mod file_systems;
/// Images and mounts that are removed after each test.
#[cfg(feature = "root-tests")]
#[allow(
    dead_code,
    reason = "shared with the tests of power cuts; this target uses a part"
)]
#[path = "../power/host.rs"]
mod host;
/// The logged writes that survive a power cut.
#[cfg(feature = "root-tests")]
#[path = "../power/write_log.rs"]
mod write_log;

/// Two hosts with twin publishers that are killed, or with orders and a maintenance at the same time.
mod churn;
/// Twins of several hosts.
mod concurrent;
/// What is published, and what is taken out again.
mod content;
/// The order of syncs.
mod durable;
/// The Python examples.
mod examples;
/// The manual pages and completions.
mod manual;
/// A table on NFS.
#[cfg(feature = "root-tests")]
mod nfs;
/// Power cuts.
#[cfg(feature = "root-tests")]
mod power;
/// Exports and tables that are refused.
mod refused;
/// A publisher without rights.
mod rights;
/// `run`, and the other commands: `status`, `verify` and `replace`.
mod running;
/// A table in S3.
mod s3;
/// The unit of the service.
mod unit;
