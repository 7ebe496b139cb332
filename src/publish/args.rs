//! The command line of the publisher.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::cli::args::GenerateArguments;
use crate::publish::help::{long, short};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "distilld-publish",
    version,
    about = "Commits the effective rows of an export to a Delta table that many hosts share",
    long_about = "Commits the rows of an export that its ledger does not retract to a Delta Lake table that many hosts \
                  share, in a directory or in S3: each exactly once. A row that is retracted later leaves the table \
                  again.\n\nIt reads the export and its ledger, needs no daemon, and has no state of its own: each commit \
                  leaves in the table how much of the export it covers. Each command prints one JSON object, except run.",
    after_help = short("distilld-publish"),
    after_long_help = long("distilld-publish"),
    max_term_width = 100
)]
pub struct Arguments {
    /// Configuration file
    ///
    /// It names the export, the table and the host. An unknown key or an invalid value is an error, and nothing is
    /// published.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "/etc/distilld/publish.toml",
        help_heading = "Global options"
    )]
    pub config: PathBuf,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Follow the export and commit what is new
    ///
    /// Commits each `commit_interval_s`, or as soon as `commit_bytes` are there, until a signal ends the process. Storage
    /// that is away is tried again. So is what an operator has to decide, such as an export that `distilld rebuild`
    /// replaced: the log has the reason once, the status line of the unit and the metrics have it as long as it lasts.
    /// Any number of copies may run at once.
    #[command(after_help = short("run"), after_long_help = long("run"))]
    Run,
    /// Commit all that the table lacks, then exit
    ///
    /// Creates the table if there is none. For a timer or a cron job, also while another copy follows the export.
    #[command(after_help = short("once"), after_long_help = long("once"))]
    Once,
    /// Print how much of the export the table has
    ///
    /// Reads export, ledger and table, and writes nothing.
    #[command(after_help = short("status"), after_long_help = long("status"))]
    Status,
    /// Compare the rows of this host in the table with its export
    ///
    /// Compares byte for byte, as far as the export is published, and writes nothing. A difference is an error that
    /// counts the missing, extra and changed rows and names the first. Needs 24 bytes of memory for each row of both.
    #[command(after_help = short("verify"), after_long_help = long("verify"))]
    Verify,
    /// Exchange the rows of this host for those of the export that is there now
    ///
    /// One commit takes the rows of this host out of the table and adds the effective rows of its export, so that a
    /// reader sees all old rows or all new ones. Rows of other hosts stay. For an export that `distilld rebuild` wrote.
    #[command(after_help = short("replace"), after_long_help = long("replace"))]
    Replace {
        /// Count the rows, and write nothing
        ///
        /// Prints what would be removed and added.
        #[arg(long)]
        dry_run: bool,
    },
    /// Write manual pages and shell completions
    ///
    /// They are made of the definitions by which the program parses its command line and its configuration.
    #[command(after_help = short("generate"), after_long_help = long("generate"))]
    Generate(GenerateArguments),
}
