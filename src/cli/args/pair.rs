//! The flags of `export --pair` and `verify --pair`, which name two day-files instead of a lake.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;

use crate::batch::named_pair::PairFiles;
use crate::cli::args::flags::Output;
use crate::config::LINE_BYTES_MAX;

/// Flags that both commands have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct PairArguments {
    /// Read two day-files alone; EVIDENCE is - where the pair has none
    ///
    /// Needs no root, state or configuration, and uses none: for a job that runs it once for each pair of a history. Both
    /// are read to their end, or it fails: a file that is missing, is cut or has a line over the limit never gives a
    /// shorter result. Standing orders are not known here. Default: all day-files of the root.
    #[arg(long, num_args = 2, value_names = ["SCORED", "EVIDENCE"])]
    pub pair: Vec<PathBuf>,

    /// Name of the day-file in `id`, with --pair [default: that of SCORED]
    ///
    /// For a copy that has another name. It ends in .jsonl.
    #[arg(long, value_name = "NAME.jsonl", requires = "pair", value_parser = day_file_name)]
    pub name: Option<String>,

    /// Read exactly this many bytes of the two, with --pair
    ///
    /// A file that is longer is read up to there, one that is shorter is an error. A retry then reads what the first
    /// attempt read, also if scorers append meanwhile. Default: the lengths when they are opened, which the result has in
    /// `scored_bytes` and `evidence_bytes`.
    #[arg(long, value_name = "S,E", requires = "pair")]
    pub lengths: Option<Lengths>,

    /// Longest line in bytes, with --pair [default: 16777216]
    ///
    /// A longer line counts as malformed, as in a lake with this `max_line_bytes`. Without the flag it is an error,
    /// because the limit of the lake is not known.
    #[arg(
        long,
        value_name = "BYTES",
        requires = "pair",
        value_parser = clap::value_parser!(u64).range(1024..=LINE_BYTES_MAX)
    )]
    pub max_line_bytes: Option<u64>,

    /// File for the result, with --pair
    ///
    /// One JSON object: lines, lines by verdict, rows, and the lengths that were read. `complete` is false after an
    /// error, which `error` has then. The file is replaced. Default: stderr for `export`, stdout for `verify`.
    #[arg(long, value_name = "FILE", requires = "pair")]
    pub result: Option<PathBuf>,
}

impl PairArguments {
    /// Returns the day-files; `None` without `--pair`.
    #[must_use]
    pub fn files(&self) -> Option<PairFiles> {
        let [scored, evidence] = &self.pair[..] else {
            return None;
        };
        Some(PairFiles {
            scored: scored.clone(),
            evidence: (evidence != Path::new("-")).then(|| evidence.clone()),
            name: self.name.clone(),
            lengths: self.lengths.map(|it| (it.scored, it.evidence)),
        })
    }
}

/// Flags that `verify --pair` has in addition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct GivenArguments {
    /// Rows to compare with those of --pair, or - for stdin
    ///
    /// One a line, in any order; timestamps are not compared. Default: stdin.
    #[arg(long, value_name = "FILE", requires = "pair")]
    pub rows: Option<Output>,

    /// The rows lack those that later lines overrule, with --pair
    ///
    /// As `export --pair --effective` writes them. Default: all rows.
    #[arg(long, requires = "pair")]
    pub effective: bool,
}

/// The lengths of the two day-files of a pair, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lengths {
    /// Of the scored day-file.
    pub scored: u64,
    /// Of the evidence; 0 without it.
    pub evidence: u64,
}

impl FromStr for Lengths {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Lengths, &'static str> {
        let numbers = text
            .split_once(',')
            .and_then(|(scored, evidence)| Some((scored.parse().ok()?, evidence.parse().ok()?)));
        let (scored, evidence) = numbers.ok_or("not two lengths in bytes, such as 4096,1024")?;
        Ok(Lengths { scored, evidence })
    }
}

fn day_file_name(text: &str) -> Result<String, &'static str> {
    match text.ends_with(".jsonl") && !text.contains(['/', '\0']) {
        true => Ok(text.to_owned()),
        false => Err("not the name of a day-file, NAME.jsonl without a directory"),
    }
}
