//! Owns the flags of the commands by which an operator asks: `status`, `explain`, `dead-letters`, `plan`.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, Subcommand};

use crate::lake::path::{PairPath, Stream};

/// Flags of `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct StatusArguments {
    /// One JSON object, for programs
    ///
    /// Keys are only ever added. Default: a page for a person.
    #[arg(long)]
    pub json: bool,

    /// Stay, and show the status as it changes, until q or Ctrl-C
    ///
    /// Needs a terminal. It goes on over a restart of the daemon. Default: show it once.
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
}

/// Flags of `explain`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ExplainArguments {
    /// The run's id, as the records have it
    ///
    /// `evidence_run_id` of a scored run, `run_id` of its evidence.
    #[arg(
        value_name = "RUN_ID",
        required_unless_present = "contradicted",
        conflicts_with = "contradicted"
    )]
    pub run_id: Option<String>,

    /// List the runs that were rejected after their rows were written
    ///
    /// Such a row stays in the append-only export until a rebuild. For each its run, its day-file, where in it the line
    /// starts that earned the row and the one that refused the run, and where the row is in the export.
    #[arg(long)]
    pub contradicted: bool,

    /// Of the list at most so many
    ///
    /// Where there are more, the end of the list says how to see those behind them. Default: 100.
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 100,
        requires = "contradicted"
    )]
    pub limit: usize,

    /// Of the list pass over so many before them
    ///
    /// Day-file by day-file, in the order of their paths. Default: 0.
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 0,
        requires = "contradicted"
    )]
    pub skip: usize,

    /// One JSON object, for programs
    ///
    /// Keys are only ever added. Default: a page for a person.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `plan`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct PlanArguments {
    /// One JSON object, for programs
    ///
    /// Keys are only ever added. Default: a page for a person.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `dead-letters`, and what to do with one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DeadLettersArguments {
    /// What to do; nothing: list them.
    #[command(subcommand)]
    pub action: Option<DeadLettersAction>,

    /// Those of this pair of day-files alone
    ///
    /// YYYY/MM/DD/NAME.jsonl, as it lies below data/scored-runs. Default: all.
    #[arg(long, value_name = "DAY_FILE", value_parser = day_file_parser())]
    pub day_file: Option<PairPath>,

    /// At most so many
    ///
    /// Where there are more, the end of the list says how to see those behind them. Default: 100.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub limit: usize,

    /// Pass over so many before them
    ///
    /// Day-file by day-file, in the order in which they were first read. Default: 0.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub skip: usize,

    /// One JSON object, for programs
    ///
    /// Keys are only ever added. Default: a table for a person.
    #[arg(long)]
    pub json: bool,
}

/// What to do with dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum DeadLettersAction {
    /// Show the bytes of one
    ///
    /// As they stand in the day-file now. What a terminal would obey is escaped, unless --raw is given.
    Show(ShowArguments),
    /// Read a day-file again after it was mended
    ///
    /// Needed where a line was mended in place: what does not change the length, the beginning or the end of what was
    /// read is not noticed. The whole day-file is read again; rows that are there are not written again. Prints one
    /// JSON object: the account of its pair before and after.
    Retry(RetryArguments),
}

/// Flags of `dead-letters show`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ShowArguments {
    /// The pair, YYYY/MM/DD/NAME.jsonl
    #[arg(value_name = "DAY_FILE", value_parser = day_file_parser())]
    pub day_file: PairPath,

    /// Where the line starts in the day-file, bytes: as the list has it
    #[arg(value_name = "OFFSET")]
    pub offset: u64,

    /// In the evidence day-file
    ///
    /// Default: in the scored one.
    #[arg(long)]
    pub evidence: bool,

    /// The bytes as they are, for a pipe
    ///
    /// Default: escaped, and at most the first 64 KiB.
    #[arg(long)]
    pub raw: bool,
}

/// Flags of `dead-letters retry`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct RetryArguments {
    /// The pair, YYYY/MM/DD/NAME.jsonl
    #[arg(value_name = "DAY_FILE", value_parser = day_file_parser())]
    pub day_file: PairPath,

    /// The evidence day-file
    ///
    /// Default: the scored one.
    #[arg(long)]
    pub evidence: bool,
}

/// The stream that a flag names.
#[must_use]
pub fn stream(evidence: bool) -> Stream {
    if evidence {
        Stream::Evidence
    } else {
        Stream::Scored
    }
}

fn day_file_parser() -> impl clap::builder::TypedValueParser<Value = PairPath> {
    OsStringValueParser::new().try_map(|typed| {
        PairPath::from_relative(&PathBuf::from(typed))
            .ok_or("not a day-file's path below its stream, such as 2026/05/02/audits.jsonl")
    })
}
