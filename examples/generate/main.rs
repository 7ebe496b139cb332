//! Writes the manual pages and the shell completions, made of the same definitions as the parser.
//!
//! `cargo run --example generate -- OUTDIR` gives `OUTDIR/man/*` and `OUTDIR/completions/*`, for a package to include.

mod pages;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

/// Write distilld's manual pages and shell completions.
#[derive(Debug, Parser)]
#[command(name = "generate")]
struct Arguments {
    /// Directory for man/ and completions/; made where it is missing
    #[arg(value_name = "OUTDIR")]
    out_dir: PathBuf,
}

fn main() -> ExitCode {
    match write_all(&Arguments::parse().out_dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("generate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_all(out_dir: &Path) -> io::Result<()> {
    for page in pages::all()? {
        let path = out_dir.join(&page.path);
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(&path, &page.bytes)?;
        println!("{}", path.display());
    }
    Ok(())
}
