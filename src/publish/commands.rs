//! The commands of the publisher.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::generate::write_pages;
use crate::cli::{FAILED, parse, report};
use crate::config::{Environment, LogFormat};
use crate::console::logging;
use crate::console::output;
use crate::console::terminal::Terminal;
use crate::publish::args::{Arguments, Command};
use crate::publish::checkpoint::Checkpoints;
use crate::publish::error::PublishError;
use crate::publish::help;
use crate::publish::publisher::{Account, Publisher};
use crate::publish::run;
use crate::publish::settings::Settings;

/// The events that are logged: those of the publisher, and warnings of its libraries. The kernel logs each error that it
/// returns, with all that it knows of the table.
const LOG: &str = "warn,delta_kernel=off,distilld=info";

/// The time that the reader of the log has to read the last lines.
const FINAL_PATIENCE: Duration = Duration::from_secs(1);

/// Runs the program with these arguments, the first being the program's name, and returns its exit code.
#[must_use]
pub fn main_with(arguments: Vec<OsString>) -> ExitCode {
    let arguments: Arguments = match parse(arguments) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let environment = Environment::from_env();
    let terminal = Terminal::for_stderr(&environment);
    if let Command::Generate(generate) = &arguments.command {
        let pages = help::pages().map_err(Into::into);
        let written = pages.and_then(|pages| write_pages(&pages, &generate.out_dir));
        return written.unwrap_or_else(|error| report(terminal, &*error, FAILED));
    }
    let _filter = logging::init_with(LOG, LogFormat::Auto, &environment);
    let done = Settings::load(&arguments.config).and_then(|settings| match arguments.command {
        Command::Run => run::run(&settings),
        Command::Once => once(&settings),
        Command::Status => show(&Publisher::open(&settings)?.status(&settings)?),
        Command::Verify => verify(&settings),
        Command::Replace { dry_run } => {
            show(&Publisher::open(&settings)?.replace(&settings, dry_run)?)
        }
        // It has ended.
        Command::Generate(_) => Ok(ExitCode::SUCCESS),
    });
    let code = done.unwrap_or_else(|error| {
        terminal.report(&error, Some(&error.fix()));
        ExitCode::from(error.exit_code())
    });
    output::flush(FINAL_PATIENCE);
    code
}

/// Commits what the table lacks now, and prints what was done.
fn once(settings: &Settings) -> Result<ExitCode, PublishError> {
    let mut publisher = Publisher::open(settings)?;
    let mut checkpoints = Checkpoints::new(settings);
    let mut total = Account::default();
    publisher.catch_up(&mut |step| {
        total.add(step.account);
        if step.account.commits > 0 {
            checkpoints.after(step.account.version);
        }
        true
    })?;
    show(&total)
}

/// Prints the result of the comparison; a difference is an error.
fn verify(settings: &Settings) -> Result<ExitCode, PublishError> {
    let verified = Publisher::open(settings)?.verify(settings)?;
    show(&verified)?;
    verified.check(settings)?;
    Ok(ExitCode::SUCCESS)
}

fn show(value: &impl serde::Serialize) -> Result<ExitCode, PublishError> {
    output::show_json(value).map_err(|source| PublishError::Io {
        what: "cannot write the output".to_owned(),
        source,
    })?;
    Ok(ExitCode::SUCCESS)
}
