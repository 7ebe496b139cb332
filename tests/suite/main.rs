//! One test binary; each module describes its scope.

#![allow(
    clippy::unwrap_used,
    reason = "clippy knows test functions, not the helpers they share"
)]

/// Shared support: a simulated disk, a second batch join, random lakes, a harness that kills.
#[allow(
    dead_code,
    reason = "a harness offers more than one test of the moment uses"
)]
mod support;

/// Day-files that are unavailable for a while, and ends of day-files that never settle.
mod absent;
/// Other users than the daemon's: what each may ask, and what none of them can prevent.
mod access;
/// Random sequences of changes to day-files, under the real daemon.
mod actions;
/// The real daemon with an export that it did not write, and with a state that is lost, damaged or too old.
mod adoption;
/// Rows that were altered in the export, and sources that were rewritten: `verify` distinguishes them.
mod altered;
/// The real daemon with lines, day-files and directories that should not exist.
mod bad_input;
/// The stateless batch: order, memory, unreadable input, unwritable output.
mod batch;
/// `check --json` and the report of `check --bundle`.
mod bundle;
/// `check`: its findings, and which of them are failures.
mod check;
/// Ids, origins and texts that are made to have one checksum.
mod colliding;
/// The length of the state after a history that was written live.
mod compaction;
/// Flags, environment and file to settings; the annotated configuration file.
mod config;
/// The socket on which the daemon answers commands.
mod control;
mod copied_lake;
/// A crash at every call that reaches the disk.
mod crash;
/// The real daemon: what it follows, how it ends, what it refuses, its cost.
mod daemon;
/// A flipped bit anywhere in the state, and errors of its disk.
mod damaged;
/// The readers of an export and its ledger: `rows`, `cite`, `verify --at`.
mod dataset;
/// Exports that are edited before the part that an append verifies, and those that were only touched.
mod edited;
/// `rebuild --effective`: what it leaves out, and that it stays out.
mod effective;
/// The example lake, the example of the input page, and the table of files in the operator's page.
mod examples;
/// Day-files that are excluded by their names.
mod exclude;
/// An error from every call that reaches the disk.
mod faults;
/// Figures that are shown in several places, and their sums.
mod figures;
/// The bytes of everything persisted, and how a damaged journal reads.
mod formats;
/// The corpora of the fuzz targets.
mod fuzzed;
/// Manual pages and completions, read by the real tools.
mod generated;
/// The batch over the golden lake, byte for byte, in each dialect.
mod golden;
mod gone_lines;
/// The health verdict on every surface.
mod health;
/// Hostile names and texts on every surface that a person reads.
mod hostile;
/// The public sockets: metrics, health, hostile clients.
mod http;
/// How a command finds its lake, and the commands in hints.
mod invocation;
/// The real daemon, killed repeatedly.
mod kill;
/// The ledger of retractions: its events, and its loss.
mod ledger;
/// Links that scorers and the daemon's user put in the way.
mod links;
/// `rebuild` and `export` while sources of rows are away.
mod losses;
/// Standing orders outlive the loss of their ledger.
mod lost_ledger;
/// The real daemon under a service manager: ready, status, reload, watchdog, journal, last words.
mod managed;
/// Day-files with a hole in their middle, restored by the usual tools.
mod mended;
/// The engine against the naive batch, on random lakes.
mod model;
/// Day-files moved to other days.
mod moved;
mod moved_on;
/// Two day-files that are named one by one: `export --pair`, `verify --pair`.
mod named_pair;
/// The page in a real browser.
mod page;
/// The list of instances on the page.
mod page_instances;
/// The states of a real daemon on the page.
mod page_states;
/// A real Prometheus: the alert rules and the dashboard of the examples.
mod prometheus;
/// Operator queries: `explain`, `dead-letters`, `plan`, the account per source class; with a daemon and without.
mod questions;
/// `rebuild`: batch order, what is dropped, a crash at any call of it.
mod rebuild;
/// Export and state damaged or restored from old copies, with a running daemon and without it.
mod restored;
/// `retract`: orders of operators.
mod retract;
/// Day-files whose history is rewritten under the daemon.
mod rewritten;
/// Space that writers reserve at the end of a day-file.
mod room;
/// Day-files of several days with lines of one row key, whose rows are released.
mod same_key;
/// The whole daemon in a simulation that a seed drives.
mod simulated;
/// The Spark job of the examples, on a real local cluster.
mod spark;
/// `status`: from a running daemon, from the state of a dead one.
mod status;
/// The environment of the process: log readers that do not read, thread limits, a root that is a link.
mod surroundings;
/// Terminals: colors, bars, errors with their remedy, Ctrl-C.
mod terminal;
/// The rules of the project that no compiler checks.
mod tidy;
/// Last lines without a newline whose end differs from their start.
mod torn;
/// The training examples, with the real Python library.
mod train;
/// The commands that `check` prints: each is typed by root, as it is printed, and mends what it is printed for.
mod typed;
/// The units and the files packaged with them, as texts.
mod units;
/// Empty directories: a disk that is not mounted, and day-files that were deleted.
mod unmounted;
/// `verify`: every kind of difference, every documented exception, and no false alarm with a running daemon.
mod verify;
/// `wait --fresh` and its exit codes.
mod wait;
/// `status --watch` at a real terminal: its output, and the terminal's settings afterwards.
mod watching;
