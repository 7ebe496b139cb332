//! Owns the flags of each command, their help, and the values that only the command line has.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, ValueEnum};

use crate::cli::args::rfc3339::rfc3339;

/// Flags of `run`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct RunArguments {
    /// Catch up with all that is there, then exit
    ///
    /// Also takes a last line without its newline where its day-file has been still for `settle_ms`. Runs that
    /// still lack evidence stay in the state, waiting. Default: follow until a signal.
    #[arg(long)]
    pub once: bool,

    /// Serve status page, metrics and health on ADDR [default: none]
    ///
    /// A loopback address with a port (`127.0.0.1:9743`, `[::1]:9743`), or unix:/PATH. All of it is read-only. Sockets that
    /// systemd passes are served as well. Also the key `listen` and the variable DISTILLD_LISTEN.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
}

/// Flags of `export`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ExportArguments {
    /// Count, write nothing
    ///
    /// Prints the same result as without it. --output then only names the path in the result. Default: write.
    #[arg(long)]
    pub dry_run: bool,

    /// Let runs of every model role through
    ///
    /// Lifts the rule that model_role is executor, reviewer or applier, and that rule alone: never the
    /// firewall, missing evidence or a blank text. Default: off.
    #[arg(long)]
    pub include_partial: bool,

    /// Stamp of all rows, RFC 3339 [default: now]
    ///
    /// Written as given into `created_at` and `provenance.recorded_at` of every row, so that two exports can be
    /// compared byte for byte: 2026-05-02T03:04:05.678Z, or with an offset such as +02:00. Default: the time of the
    /// start, UTC, in milliseconds.
    #[arg(long, value_name = "TIME", value_parser = rfc3339)]
    pub recorded_at: Option<String>,

    /// Bytes as distilld or as the Go program writes them
    ///
    /// `go` is for comparing with the batch program that distilld replaces: <, >, &, U+2028 and U+2029 escaped, the
    /// contractor passed over, an unknown category let through.
    #[arg(long, value_name = "DIALECT", value_enum, default_value_t = Dialect::Native)]
    pub dialect: Dialect,

    /// Where rows go: a file, or - for stdout [default: the root's export]
    ///
    /// A file is replaced atomically, and only once all is written; a FIFO or a device is written to. With `-` the rows go
    /// to stdout and the result to stderr. Default: ROOT/data/distilled/sft/sft_export.jsonl. That one is refused, however
    /// its path is written, where a daemon's state keeps it.
    #[arg(long, value_name = "FILE", value_parser = OsStringValueParser::new().map(Output::from))]
    pub output: Option<Output>,
}

/// Whose bytes a batch writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// distilld's own, the daemon's
    #[default]
    Native,
    /// The Go program's, for a comparison
    Go,
}

/// Where a batch goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// `-`
    Stdout,
    /// Any other name. A file called `-` is `./-`.
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
