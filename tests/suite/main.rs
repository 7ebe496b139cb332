//! One test binary; each module says what belongs in it.

#![allow(
    clippy::unwrap_used,
    reason = "clippy knows test functions, not the helpers they share"
)]

/// What the tests stand on: a simulated disk, a second batch join, random lakes, a harness that kills.
#[allow(
    dead_code,
    reason = "a harness offers more than one test of the moment uses"
)]
mod support;

/// Day-files that are out of reach for a while, and ends of day-files that never settle.
mod absent;
/// Random sequences of what is done to day-files, under the real daemon.
mod actions;
/// The real daemon with an export it did not write, and with a state that is lost, damaged or too old.
mod adoption;
/// The real daemon on lines, day-files and directories that should not be there.
mod bad_input;
/// The stateless batch: order, memory, what cannot be read, what cannot be written.
mod batch;
/// `check`: what it finds, and what is worth a failure.
mod check;
/// Flags, environment and file to settings; the annotated configuration file.
mod config;
/// The socket on which the daemon answers commands.
mod control;
/// A crash at every call that reaches the disk.
mod crash;
/// The real daemon: what it follows, how it ends, what it refuses, what it costs.
mod daemon;
/// Exports that are edited further back than an append looks, and those that were only touched.
mod edited;
/// The example lake, the example of the input page, and the table of files in the operator's page.
mod examples;
/// An error from every call that reaches the disk.
mod faults;
/// The bytes of everything persisted, and how a damaged journal reads.
mod formats;
/// The corpora of the fuzz targets.
mod fuzzed;
/// Manual pages and completions, read by the real tools.
mod generated;
/// The batch over the golden lake, byte for byte, in each dialect.
mod golden;
/// The sockets that others may connect to: metrics, health, hostile clients.
mod http;
/// The real daemon, killed again and again.
mod kill;
/// The real daemon under a service manager: ready, status, reload, watchdog, journal, last words.
mod managed;
/// The engine against the naive batch, on random lakes.
mod model;
/// Day-files moved to other days.
mod moved;
/// The page in a real browser.
mod page;
/// A real Prometheus: the alert rules and the dashboard of the examples.
mod prometheus;
/// What operators ask: `explain`, `dead-letters`, `plan`, the account per source class; with a daemon and without.
mod questions;
/// `rebuild`: batch order, what is dropped, a crash at any call of it.
mod rebuild;
/// Export and state harmed or restored from old copies, under the daemon and without it.
mod restored;
/// Day-files whose history is rewritten under the daemon.
mod rewritten;
/// Room that the writers of day-files reserve, of any size.
mod room;
/// `status`: from a running daemon, from the state of a dead one.
mod status;
/// Terminals: colours, bars, errors with their fix, Ctrl-C.
mod terminal;
/// The rules of the house that no compiler checks.
mod tidy;
/// Last lines without a newline that do not end as they began.
mod torn;
/// The examples for those who train, by the real Python library.
mod train;
/// The units and what is packaged with them, as texts.
mod units;
/// `verify`: every kind of difference, every stated exception, and no false alarm beside a daemon at work.
mod verify;
/// `status --watch` at a real terminal: what it shows, what it leaves.
mod watching;
