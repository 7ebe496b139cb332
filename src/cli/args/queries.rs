//! The commands that query, `status`, `explain`, `dead-letters` and `plan`: their flags and their help.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, Subcommand};

use crate::cli::args::help::{self, CONFIGURATION, DONE, Help, USAGE, example};
use crate::lake::path::{PairPath, Stream};
use crate::query::explain::Page;

/// The commands that query.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum QueryCommand {
    /// Show lag, waiting runs, dead letters and faults
    ///
    /// Works whether or not the daemon runs.
    #[command(after_help = help::short("status"), after_long_help = help::long("status"))]
    Status(StatusArguments),
    /// Explain the verdict on a run
    ///
    /// Prints each line of the run, its verdict with the rule and the value that decided it, its row in the export and
    /// whether that is retracted and why, or what it waits for. Works whether or not the daemon runs. Exits with 1 if no
    /// line has the run. With --retracted: lists the rows that the retraction ledger has out.
    #[command(after_help = help::short("explain"), after_long_help = help::long("explain"))]
    Explain(ExplainArguments),
    /// List, show and retry malformed lines
    ///
    /// Works whether or not the daemon runs.
    #[command(after_help = help::short("dead-letters"), after_long_help = help::long("dead-letters"))]
    DeadLetters(DeadLettersArguments),
    /// Show what the next run would change (dry run)
    ///
    /// Shows the rows and verdicts of everything after the point that the state has reached; the cost depends only on
    /// new input. Works whether or not the daemon runs, and writes nothing.
    #[command(after_help = help::short("plan"), after_long_help = help::long("plan"))]
    Plan(PlanArguments),
}

/// The help of these commands after their flags.
pub(super) const HELP: &[Help] = &[
    Help {
        command: "status",
        examples: &[
            example("distilld --root /srv/lake status", "show the status once"),
            example(
                "distilld --root /srv/lake status --watch",
                "show it live, until q or Ctrl-C",
            ),
            example(
                "distilld --root /srv/lake status --json | jq .lag",
                "print one value for a script",
            ),
            example(
                "distilld --root /srv/lake status --check",
                "exit with a code for the health verdict",
            ),
        ],
        exits: &[
            DONE,
            (
                "1",
                "there is no status, or it cannot be read; with --check: the verdict needs an action",
            ),
            (
                "3",
                "with --check: the verdict is starting, recovering or catching_up",
            ),
            USAGE,
            CONFIGURATION,
        ],
    },
    Help {
        command: "explain",
        examples: &[
            example(
                "distilld --root /srv/lake explain run-4711",
                "show each line of the run and its verdict",
            ),
            example(
                "distilld --root /srv/lake explain run-4711 --json",
                "print the same as JSON",
            ),
            example(
                "distilld --root /srv/lake explain --retracted",
                "list the retracted rows",
            ),
        ],
        exits: &[
            ("0", "a line has the run; with --retracted: listed"),
            ("1", "no line has it, or an error occurred"),
            USAGE,
            CONFIGURATION,
        ],
    },
    Help {
        command: "dead-letters",
        examples: &[
            example(
                "distilld --root /srv/lake dead-letters",
                "list the first hundred",
            ),
            example(
                "distilld --root /srv/lake dead-letters show 2026/05/02/audits.jsonl 4096",
                "print the bytes of one",
            ),
            example(
                "distilld --root /srv/lake dead-letters retry 2026/05/02/audits.jsonl",
                "read a corrected day-file again",
            ),
        ],
        exits: &[
            DONE,
            ("1", "no such dead letter or day-file, or it cannot be read"),
            USAGE,
            CONFIGURATION,
        ],
    },
    Help {
        command: "plan",
        examples: &[
            example(
                "distilld --root /srv/lake plan",
                "show what the next run would change",
            ),
            example(
                "distilld --root /srv/lake plan --json | jq .total.rows",
                "print one number for a script",
            ),
        ],
        exits: &[
            DONE,
            ("1", "there is no state to plan from, or it cannot be read"),
            USAGE,
            CONFIGURATION,
        ],
    },
];

/// Flags of `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct StatusArguments {
    /// Print one JSON object
    ///
    /// Keys are only added in later versions. Default: text.
    #[arg(long)]
    pub json: bool,

    /// Exit with a code for the health verdict
    ///
    /// 0: fresh or no_sources; 3: starting, recovering or catching_up; 1: any other verdict. Default: exit with 0 if
    /// there is a status.
    #[arg(long, conflicts_with = "watch")]
    pub check: bool,

    /// Show the status live, until q or Ctrl-C
    ///
    /// Needs a terminal. Continues over a restart of the daemon. Default: show it once.
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
}

/// Flags of `explain`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ExplainArguments {
    /// ID of the run
    ///
    /// The field `evidence_run_id` of a scored run, `run_id` of its evidence.
    #[arg(
        value_name = "RUN_ID",
        required_unless_present = "retracted",
        conflicts_with = "retracted"
    )]
    pub run_id: Option<String>,

    /// List the rows that are retracted
    ///
    /// Reads only the retraction ledger. Lists for each row its run, the cause, the day-file and the offset of the line
    /// that overrules it, the time, and its place in the export. A row that is restored is not listed.
    #[arg(long, alias = "contradicted")]
    pub retracted: bool,

    /// Maximum number of results
    ///
    /// If there are more, the end of the list shows how to continue. Default: 100.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub limit: usize,

    /// Skip the first COUNT results
    ///
    /// Lines of a run are in the order of their day-files, retracted rows in the order in which they were retracted.
    /// Default: 0.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub skip: usize,

    /// Print one JSON object
    ///
    /// Keys are only added in later versions. Default: text.
    #[arg(long)]
    pub json: bool,
}

impl ExplainArguments {
    /// Returns which results are wanted.
    #[must_use]
    pub fn page(&self) -> Page {
        Page {
            skip: self.skip,
            limit: self.limit,
        }
    }
}

/// Flags of `plan`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct PlanArguments {
    /// Print one JSON object
    ///
    /// Keys are only added in later versions. Default: text.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `dead-letters`, and its subcommands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DeadLettersArguments {
    /// The subcommand; without one the dead letters are listed.
    #[command(subcommand)]
    pub action: Option<DeadLettersAction>,

    /// Only those of this pair of day-files
    ///
    /// YYYY/MM/DD/NAME.jsonl, relative to data/scored-runs. Default: all.
    #[arg(long, value_name = "DAY_FILE", value_parser = day_file_parser())]
    pub day_file: Option<PairPath>,

    /// Maximum number of results
    ///
    /// If there are more, the end of the list shows how to continue. Default: 100.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub limit: usize,

    /// Skip the first COUNT results
    ///
    /// Results are ordered by day-file, in the order of their first reading. Default: 0.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub skip: usize,

    /// Print one JSON object
    ///
    /// Keys are only added in later versions. Default: a table.
    #[arg(long)]
    pub json: bool,
}

/// The subcommands of `dead-letters`.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum DeadLettersAction {
    /// Print the bytes of one dead letter
    ///
    /// Prints the bytes that the day-file has now. Control characters are escaped, unless --raw is given.
    Show(ShowArguments),
    /// Read a corrected day-file again
    ///
    /// Needed if a line was corrected in place: a change that leaves the length, the beginning and the end of what was
    /// read is not detected. The whole day-file is read again; existing rows are not written again. Prints one JSON
    /// object: the accounting of its pair before and after.
    Retry(RetryArguments),
}

/// Flags of `dead-letters show`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ShowArguments {
    /// The pair, YYYY/MM/DD/NAME.jsonl
    #[arg(value_name = "DAY_FILE", value_parser = day_file_parser())]
    pub day_file: PairPath,

    /// Byte offset of the line in the day-file, as listed
    #[arg(value_name = "OFFSET")]
    pub offset: u64,

    /// Read the evidence day-file
    ///
    /// Default: the scored day-file.
    #[arg(long)]
    pub evidence: bool,

    /// Print the bytes unchanged, for a pipe
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

    /// Read the evidence day-file again
    ///
    /// Default: the scored day-file.
    #[arg(long)]
    pub evidence: bool,
}

/// Returns the stream selected by the flag `--evidence`.
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
        PairPath::from_relative(&PathBuf::from(typed)).ok_or(
            "not a path of a day-file relative to its stream, such as 2026/05/02/audits.jsonl",
        )
    })
}
