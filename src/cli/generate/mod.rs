//! `distilld generate`: the manual pages and the shell completions, made of the definitions that the program parses by, so
//! that a package is made of one build.

mod keys;
mod lake;
mod man;

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::aot::{Bash, Fish, Generator, Zsh};

use crate::cli::AnyError;
use crate::cli::args::Arguments;
use crate::cli::hints::UserError;
use crate::console::output;

/// A generated file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Path below the output directory.
    pub path: String,
    /// The content.
    pub bytes: Vec<u8>,
}

/// Writes every file below a directory, which is created, and prints their paths.
pub(super) fn write_all(out_dir: &Path) -> Result<ExitCode, AnyError> {
    for page in all()? {
        let path = out_dir.join(&page.path);
        write(&path, &page.bytes).map_err(|error| UserError {
            what: format!("cannot write {}: {error}", path.display()),
            fix: "name a directory that you may write to".to_owned(),
        })?;
        output::show(&format!("{}\n", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(path, bytes)
}

/// Generates every file.
///
/// # Errors
/// None that a caller can cause: a page is written to memory.
pub fn all() -> io::Result<Vec<Page>> {
    let mut pages = man::pages(&program())?;
    pages.push(keys::page()?);
    pages.push(lake::page()?);
    pages.push(completion(Bash, "distilld.bash"));
    pages.push(completion(Zsh, "_distilld"));
    pages.push(completion(Fish, "distilld.fish"));
    Ok(pages)
}

fn program() -> clap::Command {
    let mut program = Arguments::command().disable_help_subcommand(true);
    program.build();
    program
}

fn completion(shell: impl Generator, name: &str) -> Page {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut program(), "distilld", &mut bytes);
    Page {
        path: format!("completions/{name}"),
        bytes,
    }
}
