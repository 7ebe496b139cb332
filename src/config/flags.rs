//! Owns the flags that every command has: those of the configuration. What they mean beside the environment and the file is
//! the parent's.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};

use crate::config::keys::LogFormat;

/// Flags that go before or after any command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct GlobalArguments {
    /// Root of the lake, the directory that holds data/
    ///
    /// Scored runs are read below ROOT/data/scored-runs, evidence below ROOT/data/evidence; the export is
    /// ROOT/data/distilled/sft/sft_export.jsonl. Without this flag the variable LH_DISTILL_ROOT counts, then the
    /// key `root` of the configuration file. There is no default.
    // clap's own parser of paths would call an empty root a usage error; it is one of configuration, like all others.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        value_parser = OsStringValueParser::new().map(PathBuf::from),
        help_heading = "Global options"
    )]
    pub root: Option<PathBuf>,

    /// Configuration file, in TOML
    ///
    /// No file is read without this flag. Each key may also be given by a flag or an environment variable, which
    /// win over the file: DISTILLD_SETTLE_MS for `settle_ms` and so on, but LH_DISTILL_ROOT for `root` and RUST_LOG
    /// for `log`. A key that is not known is an error.
    ///
    /// A running daemon reads it again on SIGHUP (`systemctl reload`), and takes up changes of all keys but `root`,
    /// `state_dir`, `listen`, `log_format`: those need a restart.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub config: Option<PathBuf>,

    /// Directory of the daemon's state
    ///
    /// Default: the variable DISTILLD_STATE_DIR, then the key `state_dir`, then the first entry of STATE_DIRECTORY
    /// (set by systemd), then ROOT/data/distilled/.distilld. It may be lost: the daemon then builds it again from
    /// the sources and the export. All commands on one root must be given the same one.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub state_dir: Option<PathBuf>,

    /// How log lines look: auto, human, kv, json [default: auto]
    ///
    /// `auto` is `human` where stderr is a terminal; fields of the journal (`journalctl DAY_FILE=...`) where it is the
    /// systemd journal; and `kv` elsewhere: one line of key=value per event. In the journal `kv` lines carry no time
    /// of their own. Colours only on a terminal, and never with NO_COLOR.
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        hide_possible_values = true,
        help_heading = "Global options"
    )]
    pub log_format: Option<LogFormat>,

    /// What to log, such as debug or distilld::lake::source=trace [default: info]
    ///
    /// A comma-separated list of levels (off, error, warn, info, debug, trace) and of TARGET=LEVEL. Without this flag
    /// the variable RUST_LOG counts, then the key `log` of the configuration file, then `info`.
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        help_heading = "Global options"
    )]
    pub log: Option<String>,

    /// `--listen` of `run`, which is a key like the others.
    #[arg(skip)]
    pub listen: Option<String>,
}
