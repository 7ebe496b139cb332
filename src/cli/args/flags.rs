//! The flags of `run` and `export`, and the values that only the command line has.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, ValueEnum};

use crate::cli::args::pair::PairArguments;
use crate::cli::args::rfc3339::rfc3339;

/// Flags of `run`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct RunArguments {
    /// Read everything once, then exit
    ///
    /// Also takes a last line without its newline if its day-file has not changed for `settle_ms`. Runs that still lack
    /// evidence stay in the state, waiting. Default: follow the lake until a signal.
    #[arg(long)]
    pub once: bool,

    /// Serve status page, metrics and health on ADDR [default: none]
    ///
    /// A loopback address with a port (`127.0.0.1:9743`, `[::1]:9743`), or unix:/PATH. All routes are read-only.
    /// Sockets passed by systemd are served as well. Also the key `listen` and the variable DISTILLD_LISTEN.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
}

/// Flags of `config`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ConfigArguments {
    /// Print one JSON object
    ///
    /// Keys are only added in later versions. Default: a table.
    #[arg(long)]
    pub json: bool,

    /// Print nothing, and exit with 78 if the configuration is invalid
    ///
    /// The units run this at a reload, so that `systemctl reload` fails where the daemon rejects the file. Default: print
    /// the values.
    #[arg(long, conflicts_with = "json")]
    pub check: bool,
}

/// Flags of `instances`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct InstancesArguments {
    /// Print a JSON list
    ///
    /// `name`, `config`, `root`, `unit`, `unit_state`, `health`, `error` of each. Default: a table.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `check`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct CheckArguments {
    /// Print one JSON object
    ///
    /// `checks` has `severity`, `what`, `why` and `fix` of each; `fails` and `warns` count them. Default: one line each.
    #[arg(long)]
    pub json: bool,

    /// Also write a report for others to FILE, without data of the lake
    ///
    /// One JSON document with versions, settings, findings, status, metrics and the last events of the unit. It has no
    /// text, id, category or file name of the lake, only numbers of them. FILE must not exist. Default: none.
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
}

/// Flags of `export`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ExportArguments {
    /// Count the rows without writing them
    ///
    /// Prints the same result as without it. --output then only sets the path in the result. Default: write.
    #[arg(long)]
    pub dry_run: bool,

    /// Accept runs of every model role
    ///
    /// Disables only the rule that model_role is executor, reviewer or applier, never the firewall or the rules for
    /// missing evidence and blank texts. Default: off.
    #[arg(long)]
    pub include_partial: bool,

    /// Leave out the rows that later lines of their runs overrule
    ///
    /// A row is overruled by a later line of the same day-file and run that is rejected, needs human review, has an unknown
    /// category, or has a row of its own. Rows of runs with a standing order are always left out. Default: all rows.
    #[arg(long)]
    pub effective: bool,

    /// Timestamp for all rows (RFC 3339) [default: now]
    ///
    /// Written as given to `created_at` and `provenance.recorded_at` of every row, so that two exports can be compared
    /// byte for byte: 2026-05-02T03:04:05.678Z, or with an offset such as +02:00. Default: the start time, UTC, in
    /// milliseconds; required with --pair, so that a retry writes the same bytes.
    #[arg(long, value_name = "TIME", value_parser = rfc3339)]
    pub recorded_at: Option<String>,

    /// Write rows as distilld or as the Go program
    ///
    /// `go` is for comparison with the batch program that distilld replaces: <, >, &, U+2028 and U+2029 are escaped,
    /// the contractor is skipped, an unknown category is accepted.
    #[arg(long, value_name = "DIALECT", value_enum, default_value_t = Dialect::Native)]
    pub dialect: Dialect,

    /// Output file, or - for stdout [default: the root's export]
    ///
    /// A file is replaced atomically, after all rows are written; a FIFO or a device is written to directly. With `-`
    /// the rows go to stdout and the result to stderr. Default: ROOT/data/distilled/sft/sft_export.jsonl. This file is
    /// refused, however its path is written, if it belongs to a daemon. With --pair the default is stdout.
    #[arg(long, value_name = "FILE", value_parser = OsStringValueParser::new().map(Output::from))]
    pub output: Option<Output>,

    /// The day-files, if they are named one by one.
    #[command(flatten)]
    pub pair: PairArguments,
}

/// Flags of `rebuild`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub struct RebuildArguments {
    /// Show what would change, and change nothing
    ///
    /// Prints the same result as without it: the rows that stay, are added and are dropped, by day and reason, and in
    /// `refused` why a rebuild would refuse. Needs the same disk space for the time that it takes. Default: rebuild.
    #[arg(long)]
    pub dry_run: bool,

    /// Drop rows whose source is gone
    ///
    /// These are rows whose day-file does not exist, or whose line was changed or removed. Rows whose source cannot be
    /// read now are never dropped: no permission, an I/O error, not mounted. Default: refuse.
    #[arg(long)]
    pub drop_missing: bool,

    /// Leave out the rows that are not effective
    ///
    /// These are rows that a later line of their run overrules, and rows of runs with a standing order. The daemon does
    /// not append them again while their day-files stay as they are, and `verify` finds the export equal without them.
    /// Rows that are retracted later stay, as always, until the next rebuild. Default: keep the rows that a later line
    /// overrules, retracted in the ledger.
    #[arg(long)]
    pub effective: bool,

    /// Make a new state, and keep the export
    ///
    /// The rows of the export stay as they are, at their offsets, so that consumers can go on. The next start reads the
    /// day-files and appends the rows that are missing. Default: replace both.
    #[arg(long, conflicts_with_all = ["dry_run", "drop_missing", "effective"])]
    pub state_only: bool,
}

/// The byte format of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// distilld's own, the daemon's
    #[default]
    Native,
    /// The Go program's, for a comparison
    Go,
}

/// The output of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// `-`
    Stdout,
    /// Any other name. A file named `-` is given as `./-`.
    File(PathBuf),
}

impl From<OsString> for Output {
    fn from(typed: OsString) -> Self {
        if typed == "-" {
            Self::Stdout
        } else {
            Self::File(typed.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dash_is_stdout() {
        assert_eq!(Output::from(OsString::from("-")), Output::Stdout);
        assert_eq!(
            Output::from(OsString::from("./-")),
            Output::File("./-".into())
        );
    }
}
