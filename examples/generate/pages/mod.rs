//! Generates each file's name and content without writing it, so that tests can compare the same bytes.

mod keys;
mod lake;
mod man;

use std::io;

use clap::CommandFactory as _;
use clap_complete::aot::{Bash, Fish, Generator, Zsh};
use distilld::cli::args::Arguments;

/// A generated file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Path below the output directory.
    pub path: String,
    /// The content.
    pub bytes: Vec<u8>,
}

/// Generates every file.
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
