//! Owns what each command does with what was typed: settings, logging, the call, what is printed, the exit code.
//! Data goes to stdout, all else to stderr.

mod questions;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;

use crate::args::{self, Arguments, Command, ExportArguments};
use crate::batch_export::{BatchOptions, Output, batch_export, export_path};
use crate::batch_pair::{Lake, PairReading};
use crate::check::Severity;
use crate::clock::{Clock as _, HostClock, stamp};
use crate::config::{self, Environment, Settings};
use crate::json_text::Dialect;
use crate::open::STATE_FILE;
use crate::progress::Progress;
use crate::storage::{Disk, Storage as _};
use crate::synthesize::Synthesis;
use crate::verify::{self, VerifyOptions};
use crate::{check, daemon, lock, logging, rebuild};

/// Exit code of a command that failed, or found differences.
const FAILED: u8 = 1;

/// Any error on its way to the terminal.
type AnyError = Box<dyn std::error::Error>;

/// Runs the program with these arguments, the program's own name first.
#[must_use]
pub fn main_with(arguments: Vec<OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(usage) => {
            // Help goes to stdout, an error to stderr; a closed pipe is no reason to fail.
            let _ = usage.print();
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
        }
    };
    let environment = Environment::of_process();
    let settings = match Settings::load(&arguments.global, &environment) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("distilld: {error}");
            return ExitCode::from(config::EXIT_CODE);
        }
    };
    logging::init(&settings, &environment);
    for variable in &settings.unused_variables {
        tracing::warn!(
            variable,
            "environment variable is not one that distilld reads"
        );
    }
    match run(arguments.command, &settings) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("distilld: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn run(command: Command, settings: &Settings) -> Result<ExitCode, AnyError> {
    match command {
        Command::Run(arguments) => daemon::run(settings, arguments.once)?,
        Command::Export(arguments) => export(settings, &arguments)?,
        Command::Verify => return verify(settings),
        Command::Rebuild => rebuild(settings)?,
        Command::Status(arguments) => questions::status(settings, &arguments)?,
        Command::Explain(arguments) => return questions::explain(settings, &arguments),
        Command::DeadLetters(arguments) => questions::dead_letters(settings, &arguments)?,
        Command::Plan(arguments) => questions::plan(settings, &arguments)?,
        Command::Check => return check(settings),
    }
    Ok(ExitCode::SUCCESS)
}

fn export(settings: &Settings, arguments: &ExportArguments) -> Result<(), AnyError> {
    if arguments.output.is_none() && !arguments.dry_run {
        refuse_kept_export(settings)?;
    }
    let now = stamp(HostClock::new().wall_ms());
    let dialect = match arguments.dialect {
        args::Dialect::Native => Dialect::Native,
        args::Dialect::Go => Dialect::Go,
    };
    let options = BatchOptions {
        dry_run: arguments.dry_run,
        reading: PairReading {
            synthesis: Synthesis {
                dialect,
                include_partial: arguments.include_partial,
                stamp: arguments.recorded_at.as_deref().unwrap_or(&now),
            },
            max_line_bytes: usize::try_from(settings.max_line_bytes)?,
        },
    };
    let mut stdout = io::stdout().lock();
    let to_stdout = matches!(arguments.output, Some(args::Output::Stdout)) && !arguments.dry_run;
    let output = match &arguments.output {
        Some(args::Output::Stdout) => Output::Writer(&mut stdout),
        Some(args::Output::File(path)) => Output::File(path.clone()),
        None => Output::File(export_path(&settings.root)),
    };
    let mut bar: Option<Progress> = None;
    let report = batch_export(
        &Lake::new(&Disk, &settings.root)?,
        &options,
        output,
        &mut |progress| {
            bar.get_or_insert_with(|| Progress::new(progress.pairs_total as u64, "exporting"))
                .advance();
        },
    )?;
    if let Some(bar) = bar {
        bar.finish();
    }
    for (path, error) in &report.unreadable {
        tracing::warn!(path = %path.display(), %error, "passed over");
    }
    if report.written_bytes == 0 && !arguments.dry_run {
        tracing::warn!(
            output = report.result.output_path,
            "no row was earned, the output was not touched"
        );
    }
    let result = serde_json::to_string(&report.result)?;
    if to_stdout {
        writeln!(io::stderr(), "{result}")?
    } else {
        writeln!(stdout, "{result}")?
    }
    Ok(())
}

/// How long a difference must stay before it counts: far more than the daemon needs for a row.
const VERIFY_PATIENCE: Duration = Duration::from_secs(3);

fn verify(settings: &Settings) -> Result<ExitCode, AnyError> {
    let options = VerifyOptions {
        max_line_bytes: usize::try_from(settings.max_line_bytes)?,
        settle: settings.settle,
        patience: VERIFY_PATIENCE,
    };
    let mut bar: Option<(&str, Progress)> = None;
    let lake = Lake::new(&Disk, &settings.root)?;
    let report = verify::verify(&lake, &options, &mut |what, total| {
        if bar.as_ref().is_none_or(|(shown, _)| *shown != what) {
            bar = Some((what, Progress::new(total as u64, what)));
        }
        if let Some((_, bar)) = &bar {
            bar.advance();
        }
    })?;
    if let Some((_, bar)) = bar {
        bar.finish();
    }
    for (path, error) in &report.passed_over {
        tracing::warn!(path = %path.display(), %error, "passed over");
    }
    let result = &report.result;
    if result.has_exceptions() {
        tracing::info!(
            superseded = result.superseded,
            rewritten = result.rewritten,
            contradicted = result.contradicted,
            refused_now = result.refused_now,
            orphaned = result.orphaned,
            other_dialect = result.other_dialect,
            "sources changed after rows of them were written; those rows stay until a rebuild"
        );
    }
    writeln!(io::stdout(), "{}", serde_json::to_string(result)?)?;
    let Some(difference) = report.first_difference else {
        return Ok(ExitCode::SUCCESS);
    };
    eprintln!(
        "distilld: export and sources differ; {difference}; `distilld rebuild` writes a fresh export"
    );
    Ok(ExitCode::from(FAILED))
}

fn rebuild(settings: &Settings) -> Result<(), AnyError> {
    let root = Disk.canonicalize(&settings.root)?;
    refuse_other_state(settings, &root)?;
    let _lock = lock::RootLock::take(&root, &settings.state_dir)?;
    let clock = Arc::new(HostClock::new());
    let mut bar: Option<Progress> = None;
    let rebuilt = rebuild::rebuild(
        &daemon::setup(settings, &root, &clock),
        &mut |_, pairs_total| {
            bar.get_or_insert_with(|| Progress::new(pairs_total, "rebuilding"))
                .advance();
        },
    )?;
    if let Some(bar) = bar {
        bar.finish();
    }
    writeln!(io::stdout(), "{}", serde_json::to_string(&rebuilt)?)?;
    Ok(())
}

/// A state made beside the one that the daemon uses would leave it with an export that it does not know.
fn refuse_other_state(settings: &Settings, root: &Path) -> Result<(), AnyError> {
    let Some(holder) = lock::last_holder(root)? else {
        return Ok(());
    };
    let same = match (
        holder.state_dir.canonicalize(),
        settings.state_dir.canonicalize(),
    ) {
        (Ok(last), Ok(given)) => last == given,
        _ => holder.state_dir == settings.state_dir,
    };
    if !same && holder.state_dir.join(STATE_FILE).try_exists()? {
        return Err(format!(
            "the daemon's state lies in {dir}, not in {}; give `--state-dir {dir}`",
            settings.state_dir.display(),
            dir = holder.state_dir.display()
        )
        .into());
    }
    Ok(())
}

fn check(settings: &Settings) -> Result<ExitCode, AnyError> {
    let findings = check::check(settings);
    let mut stdout = io::stdout().lock();
    for finding in &findings {
        writeln!(stdout, "{finding}")?;
    }
    let fails = findings
        .iter()
        .any(|finding| finding.severity == Severity::Fail);
    Ok(ExitCode::from(if fails { FAILED } else { 0 }))
}

/// An export that a daemon's state keeps is appended to by that daemon alone.
fn refuse_kept_export(settings: &Settings) -> Result<(), AnyError> {
    let holder = lock::last_holder(&settings.root)?;
    let dirs = holder
        .map(|holder| holder.state_dir)
        .into_iter()
        .chain([settings.state_dir.clone()]);
    for dir in dirs {
        if dir.join(STATE_FILE).try_exists()? {
            return Err(format!(
                "a daemon keeps the export {}, its state lies in {}; give `--output FILE` to write elsewhere, or \
                 run `distilld rebuild` for a fresh export",
                export_path(&settings.root).display(),
                dir.display()
            )
            .into());
        }
    }
    Ok(())
}
