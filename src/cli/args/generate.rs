//! The flags of `generate`.

use std::path::PathBuf;

use clap::Args;

/// Flags of `generate`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct GenerateArguments {
    /// Directory for man/ and completions/
    ///
    /// It is created if it does not exist. Files in it are replaced.
    #[arg(value_name = "OUTDIR")]
    pub out_dir: PathBuf,
}
