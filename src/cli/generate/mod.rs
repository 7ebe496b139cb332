//! `distilld generate`: the manual pages and the shell completions, made of the definitions that the program parses by, so
//! that a package is made of one build.

pub(crate) mod keys;
mod lake;
pub(crate) mod man;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::aot::{Bash, Fish, Generator, Zsh};

use crate::cli::AnyError;
use crate::cli::args::{Arguments, help};
use crate::cli::generate::man::Manual;
use crate::cli::hints::UserError;
use crate::console::output;
use crate::platform::held_dir::HeldDir;
use crate::platform::storage::{FILE_MODE_MAX, OsStorage, Storage as _};

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
    write_pages(&all()?, out_dir)
}

/// Writes files below a directory, which is created, and prints their paths.
pub(crate) fn write_pages(pages: &[Page], out_dir: &Path) -> Result<ExitCode, AnyError> {
    for page in pages {
        let path = out_dir.join(&page.path);
        write(&path, &page.bytes).map_err(|error| UserError {
            what: format!("cannot write {}: {error}", path.display()),
            fix: "name a directory that you may write to".to_owned(),
        })?;
        output::show(&format!("{}\n", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Replaces a file. A link in its place is replaced too, and not followed: another user may own the directory.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OsStorage.create_dir_all(path.parent().unwrap_or(Path::new("")))?;
    let (dir, name) = HeldDir::of(path)?;
    match dir.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    dir.create(name, FILE_MODE_MAX)?.write_all(bytes)
}

/// Generates every file.
///
/// # Errors
/// None that a caller can cause: a page is written to memory.
pub fn all() -> io::Result<Vec<Page>> {
    let manual = Manual {
        program: built(Arguments::command()),
        help: help::find,
        environment: man::environment,
        files: man::FILES,
        see_also: &[("distilld.toml", "5"), ("distilld-lake", "5")],
    };
    let mut pages = manual.pages()?;
    pages.push(keys::page()?);
    pages.push(lake::page()?);
    pages.extend(completions(&manual.program));
    Ok(pages)
}

/// Returns a program as its pages and completions have it.
pub(crate) fn built(program: clap::Command) -> clap::Command {
    let mut program = program.disable_help_subcommand(true);
    program.build();
    program
}

/// Generates the completions of a program for each shell.
pub(crate) fn completions(program: &clap::Command) -> [Page; 3] {
    let name = program.get_name();
    [
        completion(program, Bash, &format!("{name}.bash")),
        completion(program, Zsh, &format!("_{name}")),
        completion(program, Fish, &format!("{name}.fish")),
    ]
}

fn completion(program: &clap::Command, shell: impl Generator, file: &str) -> Page {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut program.clone(), program.get_name(), &mut bytes);
    Page {
        path: format!("completions/{file}"),
        bytes,
    }
}
