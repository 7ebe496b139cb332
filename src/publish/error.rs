//! The reasons why rows are not published, each with what mends it.

use std::io;
use std::path::PathBuf;

use crate::dataset::error::DatasetError;
use crate::publish::table::{Location, TableError};

/// The command that takes the rows of this host out of the table and publishes the export that is there now.
const REPLACE: &str = "`distilld-publish replace` takes the rows of this host out of the table and publishes the export \
                       that is there now";

/// An error of the publisher.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The table cannot be used.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The export or its ledger cannot be used.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The rows of the host in the table are of another export.
    #[error("{0}")]
    OtherExport(String),
    /// The files are shorter than what was published, or have other lines, or a number of the table is missing.
    #[error("{0}")]
    OtherContent(String),
    /// A line of the export is no row.
    #[error("the line at byte {at_byte} of {} is no row: {reason}", path.display())]
    NoRow {
        /// The export.
        path: PathBuf,
        /// Its offset.
        at_byte: u64,
        /// The fault.
        reason: String,
    },
    /// The host never published.
    #[error("the host {host} has no rows in the table {table}")]
    Unpublished {
        /// The host.
        host: String,
        /// The table.
        table: Location,
    },
    /// Another writer was first each time.
    #[error("other writers were first at {attempts} commits to the table {table}")]
    Contended {
        /// The table.
        table: Location,
        /// The number of attempts.
        attempts: u32,
    },
    /// The configuration cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    NoConfig {
        /// The file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(String),
    /// The rows of the host in the table differ from those of its export.
    #[error("{0}")]
    Different(String),
    /// An I/O error of the process itself.
    #[error("{what}: {source}")]
    Io {
        /// What failed.
        what: String,
        /// The error.
        source: io::Error,
    },
}

impl PublishError {
    /// Returns the program's exit code. The service manager does not retry what an operator has to mend.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::NoConfig { .. } => crate::config::EXIT_CODE,
            _ => 1,
        }
    }

    /// Returns whether the same step may succeed later without an operator.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Table(error) => matches!(error, TableError::Unreachable { .. }),
            Self::Contended { .. } => true,
            Self::Dataset(error) => matches!(
                error,
                DatasetError::Replaced { .. } | DatasetError::Torn { .. } | DatasetError::Io { .. }
            ),
            _ => false,
        }
    }

    /// Returns whether it has nothing to do with the export or the table: a new process may work.
    #[must_use]
    pub fn is_of_process(&self) -> bool {
        matches!(
            self,
            Self::Io { .. } | Self::Table(TableError::Threads(_)) | Self::Config(_)
        )
    }

    /// Returns what mends it.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::Table(error) => fix_table(error),
            Self::Dataset(error) => fix_dataset(error),
            Self::OtherExport(_) => format!(
                "after `distilld rebuild`, {REPLACE}; where two hosts have one name, give one of them another `host` \
                 in its configuration instead"
            ),
            Self::OtherContent(_) => format!(
                "after a power cut start distilld first, which writes the newest rows again; where the export was \
                 restored from an old copy, put the newest copy back; else {REPLACE}"
            ),
            Self::NoRow { .. } => {
                "`distilld rebuild` writes a new export without lines that are no rows; then run \
                 `distilld-publish replace`"
                    .to_owned()
            }
            Self::Unpublished { .. } => "run `distilld-publish once`".to_owned(),
            Self::Contended { .. } => {
                "run this again, or raise `commit_interval_s` on the hosts that write to this table"
                    .to_owned()
            }
            Self::NoConfig { source, .. } => fix_config(source),
            Self::Config(_) => {
                "correct the configuration file; distilld-publish.toml(5) has all keys".to_owned()
            }
            Self::Different(_) => REPLACE.to_owned(),
            Self::Io { .. } => "mend what the message names, and run this again".to_owned(),
        }
    }
}

fn fix_config(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "create it, or name another with `--config`; publish.toml(5) has all keys"
        }
        _ => "give this user permission to read it, or name another with `--config`",
    }
    .to_owned()
}

fn fix_table(error: &TableError) -> String {
    match error {
        TableError::Unreachable { table, .. } => match table {
            Location::Directory(_) => {
                "mount the file system of the table, or create the directory above it, and give this user read and write \
                 permission for the table".to_owned()
            }
            Location::S3(_) => {
                "check that the bucket exists, and AWS_ENDPOINT_URL, AWS_REGION and the credentials in the environment"
                    .to_owned()
            }
        },
        TableError::Missing(_) => "run `distilld-publish once`, which creates it".to_owned(),
        TableError::Unfit { .. } => {
            "name another `table` in the configuration; `distilld-publish once` creates one that fits".to_owned()
        }
        TableError::FileMissing { .. } => format!(
            "restore the file; where it was deleted by a cleanup of the table, restore an older version of the table \
             without it, then {REPLACE}"
        ),
        TableError::Kernel { .. } => {
            "read the table with another Delta reader: if it fails too, restore an older version of the table".to_owned()
        }
        TableError::Threads(_) => crate::platform::background::THREADS_FIX.to_owned(),
    }
}

fn fix_dataset(error: &DatasetError) -> String {
    match error {
        DatasetError::NoExport(_) => {
            "correct `export` in the configuration, or start distilld, which creates it".to_owned()
        }
        DatasetError::NoLedger(_) | DatasetError::EmptyLedger(_) => {
            "start distilld, which creates the ledger of its export".to_owned()
        }
        DatasetError::Io { .. } => {
            "give this user permission to read the export and its ledger".to_owned()
        }
        DatasetError::Replaced { .. } => format!("if `distilld rebuild` replaced it, {REPLACE}"),
        _ => "run `distilld verify`, which finds the first difference".to_owned(),
    }
}
