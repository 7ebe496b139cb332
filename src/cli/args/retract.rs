//! The flags of `retract`.

use std::path::PathBuf;

use clap::Args;

/// Flags of `retract`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct RetractArguments {
    /// IDs of the runs
    ///
    /// The field `evidence_run_id` of a scored run, `source_run_id` of a row.
    #[arg(value_name = "RUN_ID", required_unless_present_any = ["from", "list"])]
    pub run_ids: Vec<String>,

    /// Reason of the order, kept in the ledger
    ///
    /// Required, except with --revoke and --list.
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["revoke", "list"])]
    pub reason: Option<String>,

    /// Read run IDs from a file, one a line; - for standard input
    ///
    /// Empty lines are ignored. Default: only those of the command line.
    #[arg(long, value_name = "FILE", conflicts_with = "list")]
    pub from: Option<PathBuf>,

    /// Limit the order to the runs of one day-file
    ///
    /// YYYY/MM/DD/NAME.jsonl, relative to data/scored-runs. If the day-file is moved, the order holds at its new path too.
    /// Default: all.
    #[arg(long, value_name = "DAY_FILE", conflicts_with = "list")]
    pub day_file: Option<String>,

    /// End the orders on these runs
    ///
    /// Rows that nothing else keeps out return to the effective set. Default: add orders.
    #[arg(long, conflicts_with = "list")]
    pub revoke: bool,

    /// Record orders also on runs of which no line is known
    ///
    /// For runs that have yet to arrive. Default: such runs are named, and the exit code is 1.
    #[arg(long, conflicts_with_all = ["list", "revoke"])]
    pub unseen: bool,

    /// List the orders in force
    ///
    /// Reads only the ledger. Default: change orders.
    #[arg(long)]
    pub list: bool,

    /// Show what would change, and change nothing
    ///
    /// Default: carry it out.
    #[arg(long, conflicts_with = "list")]
    pub dry_run: bool,

    /// Print one JSON object
    ///
    /// Keys are only added in later versions. Default: text.
    #[arg(long)]
    pub json: bool,
}
