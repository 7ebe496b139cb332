//! distilld turns scored model runs into supervised fine-tuning samples while the runs are being written.
//!
//! A record moves through four folders; the engine drives it:
//!
//! | folder | role in a record's life |
//! |---|---|
//! | [`lake`] | finds the day-files and reads one from an offset |
//! | [`record`] | parses a line, applies the firewall, synthesizes a row, reads rows back |
//! | [`pair`] | joins scored runs with their evidence: verdicts, ownership of rows, overruled rows, checkpoint, accounting |
//! | [`store`] | the durable files: journal, state, export, retraction ledger |
//! | [`engine`] | reads pairs in parallel, merges the results, commits batches, appends rows and retractions, verifies the export |
//!
//! The other folders surround it:
//!
//! | folder | role |
//! |---|---|
//! | [`batch`] | the stateless twin: `export` and `verify` read the whole lake, or one pair of day-files, and keep no state |
//! | [`dataset`] | reads export and ledger for consumers: effective rows, versions; needs neither state nor daemon |
//! | [`recovery`] | decides from the files on disk how to start; `rebuild` |
//! | [`query`] | answers `status`, `explain`, `plan` and `dead-letters`, from the daemon or from its files; `retract` |
//! | [`daemon`] | the running process: event loop, inotify, signals, watchdog |
//! | [`http`] | the sockets: control API, health, metrics, status page |
//! | [`cli`] | the commands and their output |
//! | [`config`] | the settings |
//! | [`console`] | terminal, progress, tables, log |
//! | `publish` | `distilld-publish`, with the feature of that name: the export into a Delta table |
//! | [`platform`] | the operating system: storage, clock, locks, threads, service manager |
//!
//! Imports point one way, from a later layer to an earlier one:
//!
//! {config, platform, record} < {console, lake} < pair < store < {engine, batch} < dataset < recovery < query < daemon < http < cli < publish
//!
//! `record` and `pair` are pure: they do no I/O, read no clock and start no thread, so they fail only for a reason in
//! their arguments. `tests/suite/tidy.rs` checks both rules.

pub mod lake;
pub mod record;

pub mod pair;

pub mod store;

pub mod engine;

pub mod batch;

pub mod dataset;

pub mod recovery;

pub mod query;

pub mod daemon;

pub mod http;

pub mod cli;

pub mod config;
pub mod console;
pub mod platform;

#[cfg(feature = "publish")]
pub mod publish;
