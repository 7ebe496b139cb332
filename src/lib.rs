//! distilld turns scored model runs into supervised fine-tuning samples while they are being written.
//!
//! A record passes downward through these folders, driven by the engine:
//!
//! | folder | content |
//! |---|---|
//! | `lake` | day-files: their paths, the walk that finds them, their identity, and reading one from an offset |
//! | `record` | a line as a value: JSON, parsing, the firewall, synthesis of a row, keys, the final check; pure |
//! | `pair` | the join of both day-files of a pair: verdicts, claims, indexes, checkpoint, accounting; pure |
//! | `store` | everything durable: the journal, the state, the export, and the snapshot of them |
//! | `engine` | the pass of the daemon: schedule, read, merge, commit, lag, metrics |
//!
//! The others surround it:
//!
//! | folder | content |
//! |---|---|
//! | `batch` | the stateless export over the whole history, and `verify`; it shares only the pure core with the engine |
//! | `recovery` | what a start does with the files that it finds, and `rebuild` |
//! | `query` | `status`, `explain`, `plan` and `dead-letters`, from the daemon or from its files |
//! | `daemon` | the engine's thread and its inbox, inotify, signals, the watchdog, the unit's status line |
//! | `http` | the public routes, the routes of the control socket, metrics and the status page |
//! | `cli` | arguments, the composition of the daemon, rendering for people, `check`, hints |
//! | `config`, `console`, `platform` | settings; terminal, progress, tables and logs; storage, clock, locks, threads, systemd |
//!
//! A folder imports from lower layers alone: {config, platform, record} < {console, lake} < pair < store <
//! {engine, batch} < recovery < query < daemon < http < cli. `tests/suite/tidy.rs` checks this, and that the pure files
//! name no I/O, clock or thread. The disk is reached through `platform::storage` and the time through `platform::clock`,
//! so that a test can crash the engine at any call.

pub mod lake;

pub mod record;

pub mod pair;

pub mod store;

pub mod engine;

pub mod batch;
pub mod daemon;
pub mod http;
pub mod query;
pub mod recovery;

pub mod cli;
pub mod config;
pub mod console;
pub mod platform;
