//! `rows`, `cite` and `verify --at`: the export as a dataset, without a state and without a daemon.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;

use crate::cli::AnyError;
use crate::cli::args::{CiteArguments, Command, RowsArguments, VerifyArguments};
use crate::cli::generate;
use crate::console::output::{self, JsonAtTerminal};
use crate::console::table::{plain_table, thousands, trim_table};
use crate::dataset::cite::{self, Difference, Manifest};
use crate::dataset::error::DatasetError;
use crate::dataset::follow::Follower;
use crate::dataset::rows::copy_rows;
use crate::dataset::shape::Shape;
use crate::dataset::snapshot::Snapshot;
use crate::dataset::verify_at::verify_version;
use crate::dataset::version::{From, Version};
use crate::platform::file_wait::{FileWait, is_stdout_closed};
use crate::platform::storage::OsStorage;

/// Runs a command that needs no settings, such as one that names its export itself; `None` for any other command.
pub(super) fn without_settings(command: &Command) -> Option<Result<ExitCode, AnyError>> {
    if let Command::Generate(arguments) = command {
        return Some(generate::write_all(&arguments.out_dir));
    }
    let export = match command {
        Command::Rows(arguments) => arguments.export.as_ref(),
        Command::Cite(arguments) => arguments.export.as_ref(),
        Command::Verify(arguments) => arguments.export.as_ref(),
        _ => None,
    };
    let export = export?.clone();
    Some(match command {
        Command::Rows(arguments) => rows(&export, arguments),
        Command::Cite(arguments) => cite(&export, arguments),
        Command::Verify(VerifyArguments {
            at: Some(version), ..
        }) => verify_at(&export, *version),
        _ => return None,
    })
}

/// Writes rows to stdout. It is no error if their reader closes it.
pub(super) fn rows(export: &Path, arguments: &RowsArguments) -> Result<ExitCode, AnyError> {
    match write_rows(export, arguments) {
        Err(error) if !error.is_closed_output() => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn write_rows(export: &Path, arguments: &RowsArguments) -> Result<(), DatasetError> {
    let shape = Shape {
        offsets: arguments.offsets,
        key: arguments.key,
        safe_lines: arguments.safe_lines,
    };
    // The standard library's stdout searches each buffer for its last newline.
    let mut stdout = io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .map(File::from)
        .map_err(DatasetError::Output)?;
    let mut seen;
    // A program gets the bytes of the rows, a person the same values.
    let out: &mut dyn Write = match stdout.is_terminal() {
        true => {
            seen = JsonAtTerminal::new(stdout);
            &mut seen
        }
        false => &mut stdout,
    };
    if arguments.follow {
        return follow(export, arguments.from, shape, out);
    }
    let snapshot = Snapshot::open(&OsStorage, export, arguments.at)?;
    let from = snapshot.start(arguments.from)?;
    copy_rows(&snapshot, from, arguments.all, shape, out)
}

fn follow(
    export: &Path,
    from: Option<From>,
    shape: Shape,
    stdout: &mut dyn Write,
) -> Result<(), DatasetError> {
    let snapshot = match from {
        Some(From::Version(version)) => Snapshot::resume(&OsStorage, export, version)?,
        _ => Snapshot::open(&OsStorage, export, None)?,
    };
    let dir = snapshot.export_path().parent().unwrap_or(Path::new("/"));
    // Before the first length is taken again, so that no change is missed.
    let wait = FileWait::new(dir);
    // A consumer that resumes with a version has its rows, and is to learn what became of them.
    let events_from = match from {
        Some(From::Version(_)) => 0,
        _ => {
            let from = snapshot.start(from)?;
            copy_rows(&snapshot, from, false, shape, stdout)?;
            from
        }
    };
    let mut follower = Follower::new(&OsStorage, snapshot, events_from, shape);
    loop {
        follower.write_news(stdout)?;
        wait.wait();
        if is_stdout_closed().map_err(DatasetError::Output)? {
            return Ok(());
        }
    }
}

/// Prints the name and the figures of a version, or the difference between two.
pub(super) fn cite(export: &Path, arguments: &CiteArguments) -> Result<ExitCode, AnyError> {
    match &arguments.range {
        Some(range) => {
            let difference = cite::difference(&OsStorage, export, range.from, range.to)?;
            match arguments.json {
                true => output::show_json(&difference)?,
                false => output::show(&difference_page(&difference))?,
            }
        }
        None => {
            let manifest = cite::cite(&OsStorage, export, arguments.at)?;
            match arguments.json {
                true => output::show_json(&manifest)?,
                false => output::show(&manifest_page(&manifest))?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn difference_page(difference: &Difference) -> String {
    let mut table = plain_table();
    for (what, rows) in [
        ("added", difference.added),
        ("retracted", difference.retracted),
        ("restored", difference.restored),
    ] {
        table.add_row([what.to_owned(), thousands(rows)]);
    }
    trim_table(&table)
}

fn manifest_page(manifest: &Manifest) -> String {
    let mut figures = plain_table();
    for (what, value) in [
        ("rows", thousands(manifest.rows)),
        ("retracted", thousands(manifest.retracted)),
        ("effective", thousands(manifest.effective)),
        ("first row", manifest.first_stamp.clone()),
        ("last row", manifest.last_stamp.clone()),
    ] {
        figures.add_row([what.to_owned(), value]);
    }
    let mut classes = plain_table();
    for (class, categories) in &manifest.classes {
        for (category, rows) in categories {
            classes.add_row([class.clone(), category.clone(), thousands(*rows)]);
        }
    }
    let mut hashes = plain_table();
    for (what, bytes, sha256) in [
        ("export", manifest.export_len, &manifest.export_sha256),
        ("ledger", manifest.ledger_len, &manifest.ledger_sha256),
    ] {
        hashes.add_row([
            what.to_owned(),
            format!("{} bytes", thousands(bytes)),
            sha256.clone(),
        ]);
    }
    let classes = match manifest.classes.is_empty() {
        true => String::new(),
        false => trim_table(&classes) + "\n",
    };
    format!(
        "{}\n\n{}\n{classes}{}\nThis command prints the last field of the version:\n{}\n",
        manifest.version,
        trim_table(&figures),
        trim_table(&hashes),
        manifest.check
    )
}

/// Prints whether a version is still there.
pub(super) fn verify_at(export: &Path, version: Version) -> Result<ExitCode, AnyError> {
    let (result, error) = verify_version(&OsStorage, export, version)?;
    output::show_json(&result)?;
    match error {
        None => Ok(ExitCode::SUCCESS),
        Some(error) => Err(error.into()),
    }
}
