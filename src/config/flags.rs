//! The flags that every command has: those of the configuration. The parent module merges them with the environment and
//! the file.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};

use crate::config::keys::LogFormat;
use crate::config::locate::PUBLISHER;

/// The flags that are accepted before or after any command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct GlobalArguments {
    /// Root of the lake, the directory that contains data/
    ///
    /// Scored runs are read below ROOT/data/scored-runs, evidence below ROOT/data/evidence; the export is
    /// ROOT/data/distilled/sft/sft_export.jsonl. Without this flag the variable LH_DISTILL_ROOT applies, then the key
    /// `root` of the configuration file. There is no default.
    // clap's own parser of paths would report an empty root as a usage error; it is a configuration error, like all
    // others.
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
    /// Without this flag the file of --instance is read, then that of the variable DISTILLD_CONFIG, then
    /// /etc/distilld/distilld.toml where it exists. That last one is not read by a command that names a root by --root
    /// or LH_DISTILL_ROOT. Each key can also be given by a flag or an environment variable, which override the file:
    /// DISTILLD_SETTLE_MS for `settle_ms` and so on, but LH_DISTILL_ROOT for `root` and RUST_LOG for `log`. An unknown
    /// key is an error. `distilld config` shows the values in force and the source of each.
    ///
    /// A running daemon reads it again on SIGHUP (`systemctl reload`), and applies changes of all keys except `root`,
    /// `state_dir`, `exclude`, `listen`, `log_format`, which need a restart.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub config: Option<PathBuf>,

    /// Name of an instance: NAME for /etc/distilld/NAME.toml
    ///
    /// The service distilld@NAME has the same file. `distilld` is the name of the default instance.
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        value_parser = parse_instance,
        conflicts_with = "config",
        help_heading = "Global options"
    )]
    pub instance: Option<String>,

    /// Directory of the daemon's state
    ///
    /// Default: the variable DISTILLD_STATE_DIR, then the key `state_dir`, then the first entry of STATE_DIRECTORY (set
    /// by systemd), then ROOT/data/distilled/.distilld. A lost state is rebuilt from the sources and the export. All
    /// commands on one root must use the same directory.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub state_dir: Option<PathBuf>,

    /// Pattern of day-files that are not read; can be given several times
    ///
    /// A glob such as 'tmp*' that is compared with the name of a day-file, or if it contains a slash with its path
    /// YYYY/MM/DD/NAME.jsonl. Default: the variable DISTILLD_EXCLUDE (patterns separated by colons), then the key
    /// `exclude`, then none. Rows that an excluded day-file gave before stay in the export until a rebuild.
    #[arg(
        long,
        global = true,
        value_name = "PATTERN",
        help_heading = "Global options"
    )]
    pub exclude: Vec<String>,

    /// Format of log lines: auto, human, kv, json [default: auto]
    ///
    /// `auto` is `human` if stderr is a terminal; fields of the journal (`journalctl DAY_FILE=...`) if it is the
    /// systemd journal; otherwise `kv`: one line of key=value per event. In the journal `kv` lines have no time of
    /// their own. Colours are used only on a terminal, and never with NO_COLOR.
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        hide_possible_values = true,
        help_heading = "Global options"
    )]
    pub log_format: Option<LogFormat>,

    /// Log filter, such as debug or distilld::lake::source=trace [default: info]
    ///
    /// A comma-separated list of levels (off, error, warn, info, debug, trace) and of TARGET=LEVEL. Without this flag
    /// the variable RUST_LOG applies, then the key `log` of the configuration file, then `info`.
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        help_heading = "Global options"
    )]
    pub log: Option<String>,

    /// The value of `--listen` of `run`.
    #[arg(skip)]
    pub listen: Option<String>,
}

/// Parses the name of an instance: a file name that systemd also accepts as the name of an instance.
fn parse_instance(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_-.:@".contains(c);
    let is_name =
        text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(is_allowed);
    match is_name {
        true if text == PUBLISHER => {
            Err("publish.toml is the configuration of distilld-publish, and not of an instance".to_owned())
        }
        true => Ok(text.to_owned()),
        false => Err("an instance is named by letters, digits and _ - . : @, without a directory and `.toml`".to_owned()),
    }
}
