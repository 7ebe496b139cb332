//! The flags of the commands that read the export as a dataset: `rows`, `cite`, and `verify --at`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use crate::cli::args::help::{CONFIGURATION, DONE, Help, USAGE, example};
use crate::cli::args::pair::{GivenArguments, PairArguments};
use crate::dataset::version::{At, From, Version};

/// The help of the commands that read the dataset.
pub(super) const HELP: &[Help] = &[
    Help {
        command: "rows",
        examples: &[
            example(
                "distilld --root /srv/lake rows | wc -l",
                "count the rows that are not retracted",
            ),
            example(
                "distilld rows --export /srv/lake/data/distilled/sft/sft_export.jsonl --offsets",
                "write them with their offsets, without a configuration",
            ),
            example(
                "distilld --root /srv/lake rows --at 2026-05-02T00:00:00Z",
                "write those that were known then",
            ),
            example(
                "distilld --root /srv/lake rows --follow",
                "write new rows, and what happens to old ones, as it is committed",
            ),
        ],
        exits: &[
            ("0", "done, or the reader of the output closed it"),
            ("1", "failed, or it is not certain which rows are retracted"),
            USAGE,
            CONFIGURATION,
        ],
    },
    Help {
        command: "cite",
        examples: &[
            example(
                "distilld --root /srv/lake cite",
                "name the dataset as it is now",
            ),
            example(
                "distilld --root /srv/lake cite --json",
                "print name, figures and digests, to be kept with a model",
            ),
            example(
                "distilld --root /srv/lake cite --at 2026-05-02T00:00:00Z",
                "name the dataset as it was then",
            ),
        ],
        exits: &[
            DONE,
            ("1", "failed, or the version is not there"),
            USAGE,
            CONFIGURATION,
        ],
    },
];

/// Flags of `rows`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct RowsArguments {
    /// Read the dataset as it was [default: as it is now]
    ///
    /// A version that `distilld cite` printed, whose bytes are compared first; a length of the export in bytes; or a
    /// UTC time such as 2026-05-02T03:04:05Z: the rows, and the retractions, that were known then.
    #[arg(long, value_name = "VERSION")]
    pub at: Option<At>,

    /// Begin at this byte offset, or after a version
    ///
    /// An offset must be the start of a row, or the end of the export. A version of `distilld cite` is safer than an
    /// offset: after a `rebuild` it is refused. Default: the first row.
    #[arg(long, value_name = "OFFSET")]
    pub from: Option<From>,

    /// Write retracted rows too
    ///
    /// Default: only rows that are not retracted.
    #[arg(long, conflicts_with = "follow")]
    pub all: bool,

    /// Begin each row with its byte offset, "_offset":N
    ///
    /// The offset names the row in the ledger, and in another call of --from. Default: rows as they are.
    #[arg(long)]
    pub offsets: bool,

    /// Begin each row with its key, "_row_key":"HEX"
    ///
    /// The key is the same in each export of a lake, and unique where `id` is not. Default: rows as they are.
    #[arg(long)]
    pub key: bool,

    /// Escape U+0085, U+2028 and U+2029 in strings
    ///
    /// Some readers of lines, such as Python's splitlines and Node's readline, end a line at these characters. Default:
    /// rows as they are.
    #[arg(long)]
    pub safe_lines: bool,

    /// Write new rows, and retractions, as they are committed
    ///
    /// A row that was written and is retracted later gives a line {"_retracted":OFFSET,...}. A row that returns gives a
    /// line {"_restored":OFFSET,...}, and the row follows it. With --from and a version the events since then come
    /// first. Ends with an error when a rebuild replaces the export. Default: end with the last row.
    #[arg(long, conflicts_with = "at")]
    pub follow: bool,

    /// The export [default: that of the root]
    ///
    /// Its ledger sft_retractions.jsonl is in the same directory; that of a `.before-rebuild` export has the same end of its
    /// name. With this flag neither a root nor a configuration is needed.
    #[arg(long, value_name = "FILE")]
    pub export: Option<PathBuf>,
}

/// Flags of `cite`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct CiteArguments {
    /// Two versions, as A..B: the rows between them
    ///
    /// Prints how many rows were added, retracted and restored from the first version to the second one.
    #[arg(value_name = "A..B", conflicts_with = "at")]
    pub range: Option<Range>,

    /// Name the dataset as it was [default: as it is now]
    ///
    /// A UTC time such as 2026-05-02T03:04:05Z, a length of the export in bytes, or a version, whose bytes are then
    /// compared.
    #[arg(long, value_name = "TIME")]
    pub at: Option<At>,

    /// Print the manifest as one JSON object
    ///
    /// Default: lines for people, the version first.
    #[arg(long)]
    pub json: bool,

    /// The export [default: that of the root]
    ///
    /// Its ledger sft_retractions.jsonl is in the same directory; that of a `.before-rebuild` export has the same end of its
    /// name. With this flag neither a root nor a configuration is needed.
    #[arg(long, value_name = "FILE")]
    pub export: Option<PathBuf>,
}

/// Flags of `verify`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct VerifyArguments {
    /// Verify only that a version is still there
    ///
    /// Compares the bytes that a version of `distilld cite` names with export and ledger, and reads no sources. Prints
    /// one JSON object with `result`: fits; rebuilt, with the new identity in `export`; shorter; or changed. Exits with
    /// 1 unless it fits. Default: compare the export with the sources.
    #[arg(long, value_name = "VERSION", conflicts_with = "pair")]
    pub at: Option<Version>,

    /// The export, with --at [default: that of the root]
    ///
    /// Its ledger sft_retractions.jsonl is in the same directory; that of a `.before-rebuild` export has the same end of its
    /// name. With this flag neither a root nor a configuration is needed.
    #[arg(long, value_name = "FILE", requires = "at")]
    pub export: Option<PathBuf>,

    /// Print the IDs of runs that another day's file rejects
    ///
    /// One a line, for `distilld retract --from -`: runs with an effective row whose last line in another day-file is
    /// refused for its category. The result goes to stderr. Default: print the result.
    #[arg(long, conflicts_with_all = ["at", "pair"])]
    pub rejected_elsewhere: bool,

    /// The day-files, if they are named one by one.
    #[command(flatten)]
    pub pair: PairArguments,

    /// The rows to compare with them.
    #[command(flatten)]
    pub given: GivenArguments,
}

/// Two versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub from: Version,
    /// The second.
    pub to: Version,
}

impl FromStr for Range {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Range, &'static str> {
        let (from, to) = text
            .split_once("..")
            .ok_or("not two versions with .. between them")?;
        match (from.parse(), to.parse()) {
            (Ok(from), Ok(to)) => Ok(Range { from, to }),
            _ => Err("not two versions of `distilld cite` with .. between them"),
        }
    }
}
