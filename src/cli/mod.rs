//! The commands: from the command line to settings, logging, the call, the printed result and the exit code. Data goes
//! to stdout, everything else to stderr.

pub mod args;
pub mod check;
mod dataset;
mod export;
pub mod generate;
pub mod hints;
pub(crate) mod queries;
pub mod render;
mod retract;
pub mod run;
mod stopped;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;

use crate::batch::pair::LakeReader;
use crate::batch::verify::{self, VerifyOptions, VerifyReport, VerifyResult};
use crate::cli::args::{Arguments, Command, RebuildArguments, VerifyArguments};
use crate::cli::check::Severity;
use crate::cli::hints::{UserError, in_one_line, remedy};
use crate::cli::run::DaemonError;
use crate::config::{Environment, Settings};
use crate::console::logging;
use crate::console::output;
use crate::console::progress::{self, Steps};
use crate::console::terminal::Terminal;
use crate::daemon::event_loop::Reloader;
use crate::daemon::{signals, status_line};
use crate::lake::path::export_path;
use crate::platform::clock::HostClock;
use crate::platform::root_lock;
use crate::platform::sd_notify::ServiceManager;
use crate::platform::storage::{OsStorage, Storage as _, without_links};
use crate::query::engine_setup::engine_setup;
use crate::recovery::rebuild::{self, RebuildOptions};
use crate::store::files::STATE_FILE;

/// The exit code of a command that failed, or found differences.
const FAILED: u8 = 1;

/// The maximum time to wait for the service manager to receive the final notification.
const FINAL_NOTIFY_TIMEOUT: Duration = Duration::from_millis(200);

/// The maximum time to wait at the end for the reader of stderr or of the journal.
const FINAL_OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);

/// An error of any command, to be printed.
type AnyError = Box<dyn std::error::Error>;

/// Runs the program with these arguments, the first being the program's name, and returns its exit code.
#[must_use]
pub fn main_with(arguments: Vec<OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(usage) => {
            // Help goes to stdout, an error to stderr; a closed pipe is ignored.
            let _ = usage.print();
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
        }
    };
    let mut arguments = arguments;
    if let Command::Run(run) = &mut arguments.command {
        arguments.global.listen = run.listen.take();
    }
    let environment = Environment::from_env();
    let terminal = Terminal::for_stderr(&environment);
    let is_daemon = matches!(&arguments.command, Command::Run(run) if !run.once);
    // Drawing a bar waits for the terminal.
    progress::init(terminal.draws && !is_daemon);
    if let Some(result) = dataset::without_settings(&arguments.command) {
        return result.unwrap_or_else(|error| {
            terminal.report(&*error, remedy(&*error).as_deref());
            ExitCode::from(FAILED)
        });
    }
    // Only `run` is the unit; another command in its environment must not send notifications.
    let is_unit = matches!(arguments.command, Command::Run(_));
    let manager = || match is_unit {
        true => ServiceManager::from_environment(),
        false => Ok(ServiceManager::default()),
    };
    let settings = match Settings::load(&arguments.global, &environment) {
        Ok(settings) => settings,
        Err(error) => {
            terminal.report(&error, remedy(&error).as_deref());
            notify_failure(&manager().unwrap_or_default(), &error, error.errno());
            return ExitCode::from(error.exit_code());
        }
    };
    // A command waits for the reader of its output.
    if is_daemon && let Err(source) = output::detach() {
        let error = DaemonError::Start(source);
        terminal.report(&error, remedy(&error).as_deref());
        return ExitCode::from(FAILED);
    }
    let log = logging::init(&settings, &environment);
    for variable in &settings.unused_variables {
        tracing::warn!(
            variable,
            "ignoring the environment variable {variable}: unknown name"
        );
    }
    let (command, global) = (arguments.command, arguments.global);
    let config = global.config.clone();
    let reloader = Reloader {
        read: Box::new(move || Settings::load_again(&global, &environment)),
        log,
    };
    let result = manager()
        .map_err(|error| DaemonError::Start(error).into())
        .and_then(|manager| run(command, &settings, config.as_deref(), reloader, manager));
    let code = result.unwrap_or_else(|error| {
        terminal.report(&*error, remedy(&*error).as_deref());
        ExitCode::from(FAILED)
    });
    output::flush(FINAL_OUTPUT_TIMEOUT);
    code
}

fn run(
    command: Command,
    settings: &Settings,
    config: Option<&Path>,
    reloader: Reloader,
    manager: ServiceManager,
) -> Result<ExitCode, AnyError> {
    match command {
        Command::Run(arguments) => run_daemon(settings, arguments.once, reloader, manager)?,
        Command::Export(arguments) => export::export(&without_links_in(settings), &arguments)?,
        Command::Verify(VerifyArguments {
            at: None,
            rejected_elsewhere,
            ..
        }) => return verify(&without_links_in(settings), rejected_elsewhere),
        Command::Verify(VerifyArguments {
            at: Some(version), ..
        }) => return dataset::verify_at(&export_path(&settings.root), version),
        Command::Rows(arguments) => return dataset::rows(&export_path(&settings.root), &arguments),
        Command::Cite(arguments) => return dataset::cite(&export_path(&settings.root), &arguments),
        Command::Rebuild(arguments) => rebuild(&without_links_in(settings), arguments)?,
        Command::Query(query) => return queries::answer(settings, &query),
        Command::Retract(arguments) => return retract::run(settings, &arguments),
        Command::Check => return check(settings, config),
        Command::Generate(arguments) => return generate::write_all(&arguments.out_dir),
    }
    Ok(ExitCode::SUCCESS)
}

/// Resolves the links in the paths once: a long command must not begin with one lake and end with another.
fn without_links_in(settings: &Settings) -> Settings {
    Settings {
        root: without_links(&OsStorage, &settings.root),
        state_dir: without_links(&OsStorage, &settings.state_dir),
        ..settings.clone()
    }
}

fn run_daemon(
    settings: &Settings,
    once: bool,
    reloader: Reloader,
    manager: ServiceManager,
) -> Result<(), DaemonError> {
    let manager = Arc::new(manager);
    let result = run::run(settings, once, reloader, Arc::clone(&manager));
    match &result {
        Err(error) => notify_failure(&manager, error, error.errno()),
        Ok(()) => {
            let _delivered = manager.flush(FINAL_NOTIFY_TIMEOUT);
        }
    }
    result
}

/// Notifies the service manager of the error that ended the daemon.
fn notify_failure(
    manager: &ServiceManager,
    error: &(dyn std::error::Error + 'static),
    errno: Option<i32>,
) {
    manager.failed(&status_line::failed(&in_one_line(error)), errno);
    let _delivered = manager.flush(FINAL_NOTIFY_TIMEOUT);
}

/// The remedy for a `verify` that could not read everything.
const UNREADABLE_FIX: &str = "run it as a user who may read all day-files, or mount their file system; `distilld check` names the rights \
                              that are missing";

/// The time that a difference must persist to count while a daemon runs: far more than it needs for a row.
const VERIFY_PATIENCE: Duration = Duration::from_secs(3);

fn verify(settings: &Settings, rejected_elsewhere: bool) -> Result<ExitCode, AnyError> {
    let options = VerifyOptions {
        max_line_bytes: usize::try_from(settings.max_line_bytes)?,
        settle: settings.settle,
        patience: VERIFY_PATIENCE,
        rows_held_max: verify::ROWS_HELD_MAX,
    };
    let mut bars = Steps::default();
    let lake = LakeReader::new(&OsStorage, &settings.root)?.excluding(&settings.exclude);
    let deleted_rows = |rows: &[u64]| queries::deleted_rows(settings, rows);
    let report = verify::verify_knowing(
        &lake,
        &options,
        &deleted_rows,
        &mut |what, done_bytes, total_bytes| bars.at(what, done_bytes, total_bytes),
    )?;
    drop(bars);
    for (path, error) in &report.skipped {
        tracing::warn!(path = %path.display(), %error, "skipped {} ({error})", path.display());
    }
    let work = report.work;
    tracing::debug!(
        slices = work.slices,
        facts_held = work.facts_held,
        rows_made = work.rows_made,
        "compared the differing rows in {} slices of up to {} rows and lines",
        work.slices,
        work.facts_held
    );
    let result = &report.result;
    if result.has_exceptions() {
        tracing::info!(
            superseded = result.superseded,
            rewritten = result.rewritten,
            contradicted = result.contradicted,
            refused_now = result.refused_now,
            orphaned = result.orphaned,
            other_dialect = result.other_dialect,
            "sources changed after their rows were written; keeping those rows; `distilld rebuild --dry-run` shows what a new export would have"
        );
    }
    let text = serde_json::to_string(result)?;
    if rejected_elsewhere {
        let mut stdout = io::stdout().lock();
        for run_id in &report.rejected_elsewhere {
            if run_id.contains(['\n', '\r']) {
                tracing::warn!(
                    "the run ID {run_id:?} has more than one line; pass it to `distilld retract` as an argument"
                );
            } else {
                writeln!(stdout, "{run_id}")?;
            }
        }
        writeln!(io::stderr(), "{text}")?;
    } else {
        writeln!(io::stdout(), "{text}")?;
    }
    match &report.first_difference {
        Some(difference) => Err(difference_error(result, difference).into()),
        None if result.complete => Ok(ExitCode::SUCCESS),
        None => Err(incomplete_error(&report).into()),
    }
}

/// Returns the error of a `verify` that found no difference in what it could read.
fn incomplete_error(report: &VerifyReport) -> UserError {
    match report.skipped.first() {
        Some((path, error)) => UserError {
            what: format!(
                "cannot verify everything: {} paths cannot be read; the first: {} ({error})",
                report.skipped.len(),
                path.display()
            ),
            fix: UNREADABLE_FIX.to_owned(),
        },
        None => UserError {
            what: format!(
                "cannot verify everything: the sources of {} keys changed during the verification",
                report.result.inconclusive
            ),
            fix: "run `distilld verify` again".to_owned(),
        },
    }
}

/// The maximum number of days printed on stderr; the result has all of them.
const PRINTED_DAYS_MAX: usize = 20;

/// Returns the error of a failed `verify`: the worst difference, then the first of each day.
fn difference_error(result: &VerifyResult, difference: &str) -> UserError {
    let failed = result.days.iter().filter(|day| day.is_failure());
    let days = failed.clone().count();
    let mut what = format!("export and sources differ: {difference}");
    for day in failed.take(PRINTED_DAYS_MAX) {
        what += &format!("\n  {day}");
    }
    if days > PRINTED_DAYS_MAX {
        what += &format!(
            "\n  and {} more days, see `days` in the result",
            days - PRINTED_DAYS_MAX
        );
    }
    let fix = match result.skipped {
        0 if result.missing > 0 => {
            "find out why they differ; `distilld rebuild --state-only` makes the next start append the rows that are \
             missing; as a last resort `distilld rebuild` writes a new export (`--dry-run` shows its rows)"
        }
        0 => {
            "find out why they differ; as a last resort `distilld rebuild` writes a new export from the sources \
             (`--dry-run` shows its rows)"
        }
        _ => UNREADABLE_FIX,
    };
    UserError {
        what,
        fix: fix.to_owned(),
    }
}

fn rebuild(settings: &Settings, arguments: RebuildArguments) -> Result<(), AnyError> {
    let root = OsStorage.canonicalize(&settings.root)?;
    refuse_other_state(settings, &root)?;
    let _lock = run::take_lock(settings, &root)?;
    let clock = Arc::new(HostClock::new());
    let stop = signals::stop_flag()?;
    let mut bars = Steps::default();
    let setup = engine_setup(settings, &root, clock);
    let mut on_step = |label, done_bytes, total_bytes| bars.at(label, done_bytes, total_bytes);
    let result = if arguments.state_only {
        let report = rebuild::rebuild_state(&setup, &mut on_step)?;
        serde_json::to_string(&StateRebuilt {
            output_path: setup.export_path.display().to_string(),
            rows_adopted: report.rows_adopted,
            lines_foreign: report.rows_foreign,
        })?
    } else {
        let options = RebuildOptions {
            dry_run: arguments.dry_run,
            drop_missing: arguments.drop_missing,
            effective: arguments.effective,
        };
        serde_json::to_string(&rebuild::rebuild(&setup, options, &stop, &mut on_step)?)?
    };
    drop(bars);
    writeln!(io::stdout(), "{result}")?;
    Ok(())
}

/// The result of `rebuild --state-only`, printed as JSON.
#[derive(serde::Serialize)]
struct StateRebuilt {
    output_path: String,
    /// Rows of the export that the new state has taken over.
    rows_adopted: u64,
    /// Lines of the export that are not rows.
    lines_foreign: u64,
}

/// Refuses to rebuild with another state directory than the daemon's, which would leave the daemon with an export that
/// its state does not describe.
fn refuse_other_state(settings: &Settings, root: &Path) -> Result<(), AnyError> {
    let Some(holder) = root_lock::last_holder(root)? else {
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
        let dir = holder.state_dir.display();
        return Err(UserError {
            what: format!(
                "the daemon's state is in {dir}, not in {}",
                settings.state_dir.display()
            ),
            fix: format!("use `--state-dir {dir}`"),
        }
        .into());
    }
    Ok(())
}

fn check(settings: &Settings, config: Option<&Path>) -> Result<ExitCode, AnyError> {
    let findings = check::check(settings, config);
    let mut stdout = io::stdout().lock();
    for finding in &findings {
        writeln!(stdout, "{finding}")?;
    }
    let fails = findings
        .iter()
        .any(|finding| finding.severity == Severity::Fail);
    Ok(ExitCode::from(if fails { FAILED } else { 0 }))
}
