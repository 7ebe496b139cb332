//! The command line of the publisher.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Commits the effective rows of an export to a Delta table that many hosts share, each exactly once.
#[derive(Debug, Parser)]
#[command(name = "distilld-publish", version, max_term_width = 100)]
pub struct Arguments {
    /// The configuration file.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "/etc/distilld/publish.toml"
    )]
    pub config: PathBuf,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Follow the export and commit what is new, until a signal ends the process
    Run,
    /// Commit all that the table lacks, then exit; creates the table if there is none
    Once,
    /// Print how much of the export the table has
    Status,
    /// Compare the rows of this host in the table with the effective rows of its export, byte for byte
    Verify,
    /// Take the rows of this host out of the table and add those of the export that is there now, in one commit
    Replace {
        /// Only count the rows
        #[arg(long)]
        dry_run: bool,
    },
}
