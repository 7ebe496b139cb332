//! distilld turns scored model runs into supervised fine-tuning samples while they are being written.
//!
//! Read downward, the modules follow a record's life: discover, tail, parse, firewall, join, synthesize, commit,
//! append. Those marked * are pure: they do no I/O, read no clock and start no thread, and so cannot fail for a
//! reason outside their arguments.
//!
//! | stage | modules |
//! |---|---|
//! | discover, tail | `discover` lists day-files; `tail` reads one from an offset and knows it again |
//! | parse | `json`*, `json_plain`*, `json_text`*, `parse`*: a line's bytes to a record that still lies in the line |
//! | firewall | `firewall`*: the only place that admits a run |
//! | join, synthesize | `pair`*: what becomes of new lines of a pair; `synthesize`*: a row's bytes |
//! | commit | `checkpoint`*, `blocks`*: what is remembered; `rows`*: what a batch shows; `journal`: where a batch becomes durable; `state`: the store under it, `checked_file` its checksums |
//! | append | `row`*: rows read back; `export`: the file that consumers read, and the proof that nobody changed it |
//!
//! `engine` ties them together: it looks at many pairs, each by `reader`, and commits what they gave; `beside` takes
//! what takes its time, `buffers` its memory; `open` starts it by the table in `recover`*, from what stands in the
//! `state_dir` once a `swap` is finished. All of these reach the disk through `storage` alone, and the time through
//! `clock` (`stamp`*: how it is written); what they count goes to `meters`. No module stands on one that stands on it.
//!
//! Around the engine, the process: `follow` is its thread, `wake` what wakes it, `watch` what hears inotify, `daemon`
//! the shell with signals (`shutdown`), service manager (`systemd`, told in the words of `status_line`*), `lock` and
//! the sockets (`control`: a command's way to the daemon; `serve`: health, metrics and page, which asks by `ask` and
//! reads what `meters` count); `watched_disk` is the disk with a `pulse`, and `watchdog` tells the manager that all of
//! them live, by what each `pulse` counts. Before it: `args`, `config`, `logging`, `cli`, which tells of errors by
//! `terminal` with their `remedy`, refuses with a `refusal`, and shows `progress`.
//!
//! Beside it, sharing only the pure core: `batch_export` and its parts, the stateless
//! batch, and `verify`, which holds the export against it. For its operators: `rebuild` drives the same engine beside
//! the old files, `check` warns, and the rest answers from `figures`, one moment of all that is remembered, taken from
//! the daemon or by `inquire` from its files: `status` tells, `explain` and `plan` say why and what next,
//! `dead_letters` show and retry. `account`* and `recent`* are what they add up.

pub mod batch;
pub mod console;
pub mod daemon;
pub mod http;
pub mod lake;
pub mod platform;
pub mod query;
pub mod record;
pub mod recovery;
pub mod store;

pub mod pair;

pub mod engine;

pub mod cli;
pub mod config;
