//! Owns what each command does with what was typed: settings, logging, the call, what is printed, the exit code.
//! Data goes to stdout, all else to stderr.

pub mod args;
pub mod check;
pub mod hints;
pub(crate) mod queries;
pub mod render;
pub mod run;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;

use crate::batch::export::{BatchOptions, Output, batch_export};
use crate::batch::output::directory_of;
use crate::batch::pair::{LakeReader, PairReading};
use crate::cli::args::{Arguments, Command, ExportArguments};
use crate::cli::check::Severity;
use crate::cli::hints::{in_a_line, remedy};
use crate::cli::run::DaemonError;

use crate::batch::verify;
use crate::batch::verify::{VerifyOptions, VerifyResult};
use crate::cli::hints::UserError;
use crate::config::{Environment, Settings};
use crate::console::logging;
use crate::console::progress;
use crate::console::progress::{Progress, Steps};
use crate::console::terminal::Terminal;
use crate::daemon::event_loop::Reloader;
use crate::daemon::{signals, status_line};
use crate::engine::Setup;
use crate::lake::path::Stream;
use crate::lake::path::export_path;
use crate::lake::walk::{pair_bytes, walk};
use crate::platform::clock::{Clock as _, HostClock};
use crate::platform::root_lock;
use crate::platform::sd_notify::ServiceManager;
use crate::platform::storage::{OsStorage, Storage as _};
use crate::record::json::escape::Dialect;
use crate::record::synthesize::Synthesis;
use crate::record::timestamp::stamp;
use crate::recovery::rebuild;
use crate::store::files::STATE_FILE;

/// Exit code of a command that failed, or found differences.
const FAILED: u8 = 1;

/// How long the service manager may take to hear how it ended.
const LAST_WORDS_PATIENCE: Duration = Duration::from_millis(200);

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
    let mut arguments = arguments;
    if let Command::Run(run) = &mut arguments.command {
        arguments.global.listen = run.listen.take();
    }
    let environment = Environment::from_env();
    let terminal = Terminal::for_stderr(&environment);
    progress::init(terminal.draws);
    // Only the daemon is a unit; another command in the same environment must not speak for it.
    let is_unit = matches!(arguments.command, Command::Run(_));
    let manager = || {
        is_unit
            .then(ServiceManager::from_environment)
            .unwrap_or_default()
    };
    let settings = match Settings::load(&arguments.global, &environment) {
        Ok(settings) => settings,
        Err(error) => {
            terminal.tell(&error, remedy(&error).as_deref());
            say_last_words(&manager(), &error, error.errno());
            return ExitCode::from(error.exit_code());
        }
    };
    let follows = matches!(&arguments.command, Command::Run(run) if !run.once);
    let log = logging::init(&settings, &environment, !follows);
    for variable in &settings.unused_variables {
        tracing::warn!(
            variable,
            "environment variable is not one that distilld reads"
        );
    }
    let (command, global) = (arguments.command, arguments.global);
    let reloader = Reloader {
        read: Box::new(move || Settings::load_again(&global, &environment)),
        log,
    };
    match run(command, &settings, reloader, manager()) {
        Ok(code) => code,
        Err(error) => {
            terminal.tell(&*error, remedy(&*error).as_deref());
            ExitCode::from(FAILED)
        }
    }
}

fn run(
    command: Command,
    settings: &Settings,
    reloader: Reloader,
    manager: ServiceManager,
) -> Result<ExitCode, AnyError> {
    match command {
        Command::Run(arguments) => follow(settings, arguments.once, reloader, manager)?,
        Command::Export(arguments) => export(settings, &arguments)?,
        Command::Verify => return verify(settings),
        Command::Rebuild => rebuild(settings)?,
        Command::Status(arguments) => queries::status(settings, &arguments)?,
        Command::Explain(arguments) => return queries::explain(settings, &arguments),
        Command::DeadLetters(arguments) => queries::dead_letters(settings, &arguments)?,
        Command::Plan(arguments) => queries::plan(settings, &arguments)?,
        Command::Check => return check(settings),
    }
    Ok(ExitCode::SUCCESS)
}

fn follow(
    settings: &Settings,
    once: bool,
    reloader: Reloader,
    manager: ServiceManager,
) -> Result<(), DaemonError> {
    let manager = Arc::new(manager);
    let ran = run::run(settings, once, reloader, Arc::clone(&manager));
    match &ran {
        Err(error) => say_last_words(&manager, error, error.errno()),
        Ok(()) => {
            let _told = manager.flush(LAST_WORDS_PATIENCE);
        }
    }
    ran
}

/// Tells the service manager why there is no daemon.
fn say_last_words(
    manager: &ServiceManager,
    error: &(dyn std::error::Error + 'static),
    errno: Option<i32>,
) {
    manager.failed(&status_line::failed(&in_a_line(error)), errno);
    let _told = manager.flush(LAST_WORDS_PATIENCE);
}

fn export(settings: &Settings, arguments: &ExportArguments) -> Result<(), AnyError> {
    let _lock = if !arguments.dry_run && is_own_export(settings, arguments.output.as_ref()) {
        Some(lock_own_export(settings)?)
    } else {
        None
    };
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
        Some(args::Output::File(path)) if !arguments.dry_run => Output::named(path)?,
        Some(args::Output::File(path)) => Output::File(path.clone()),
        None => Output::File(export_path(&settings.root)),
    };
    let lake = LakeReader::new(&OsStorage, &settings.root)?;
    let bar = Progress::new(bytes_to_show(&lake), "exporting");
    let report = batch_export(&lake, &options, output, &mut |done| bar.at(done.read_bytes))?;
    bar.finish();
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
    let mut bars = Steps::default();
    let lake = LakeReader::new(&OsStorage, &settings.root)?;
    let report = verify::verify(&lake, &options, &mut |what, done_bytes, total_bytes| {
        bars.at(what, done_bytes, total_bytes);
    })?;
    drop(bars);
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
    let Some(difference) = &report.first_difference else {
        return Ok(ExitCode::SUCCESS);
    };
    Err(differ(result, difference).into())
}

/// Days that are told on stderr; all of them stand in the result.
const DAYS_TOLD_MAX: usize = 20;

/// What a failed `verify` says: the worst, then the first of each day.
fn differ(result: &VerifyResult, difference: &str) -> UserError {
    let failed = result.days.iter().filter(|day| day.is_failure());
    let days = failed.clone().count();
    let mut what = format!("export and sources differ: {difference}");
    for day in failed.take(DAYS_TOLD_MAX) {
        what += &format!("\n  {day}");
    }
    if days > DAYS_TOLD_MAX {
        what += &format!(
            "\n  and {} days more, see `days` in the result",
            days - DAYS_TOLD_MAX
        );
    }
    UserError {
        what,
        fix: "`distilld rebuild` writes a fresh export from the sources, once it is known why they differ".to_owned(),
    }
}

/// What there is to read, where a bar would show it: to find out costs a look at every day-file.
fn bytes_to_show(lake: &LakeReader<'_>) -> u64 {
    if !progress::is_drawn() {
        return 0;
    }
    let pairs = walk(lake.storage, &lake.root, Stream::Scored).unwrap_or_default();
    let sizes = pairs.day_files.iter();
    sizes
        .map(|pair| pair_bytes(lake.storage, &lake.root, pair))
        .sum()
}

fn rebuild(settings: &Settings) -> Result<(), AnyError> {
    let root = OsStorage.canonicalize(&settings.root)?;
    refuse_other_state(settings, &root)?;
    let _lock = run::take_lock(settings, &root)?;
    let clock = Arc::new(HostClock::new());
    let stop = signals::stop_flag()?;
    let mut bars = Steps::default();
    let rebuilt = rebuild::rebuild(
        &Setup::new(settings, &root, clock),
        &stop,
        &mut |label, done_bytes, total_bytes| bars.at(label, done_bytes, total_bytes),
    )?;
    drop(bars);
    writeln!(io::stdout(), "{}", serde_json::to_string(&rebuilt)?)?;
    Ok(())
}

/// A state made beside the one that the daemon uses would leave it with an export that it does not know.
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
                "the daemon's state lies in {dir}, not in {}",
                settings.state_dir.display()
            ),
            fix: format!("give `--state-dir {dir}`"),
        }
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

/// Whether a batch goes to the root's own export, however its path is written.
fn is_own_export(settings: &Settings, output: Option<&args::Output>) -> bool {
    let path = match output {
        None => return true,
        Some(args::Output::Stdout) => return false,
        Some(args::Output::File(path)) => path,
    };
    let place = |path: &Path| {
        let dir = directory_of(path).canonicalize().ok()?;
        Some(dir.join(path.file_name()?))
    };
    let own = export_path(&settings.root);
    let same_file = |path: &Path| path.canonicalize().ok();
    place(path).is_some_and(|given| Some(given) == place(&own))
        || same_file(path).is_some_and(|given| Some(given) == same_file(&own))
}

/// Until the batch is done no daemon starts to keep that export.
fn lock_own_export(settings: &Settings) -> Result<root_lock::RootLock, AnyError> {
    refuse_kept_export(settings)?;
    let root = OsStorage.canonicalize(&settings.root)?;
    let lock = root_lock::RootLock::take_root(&root, &settings.state_dir)?;
    refuse_kept_export(settings)?;
    Ok(lock)
}

/// An export that a daemon's state keeps is appended to by that daemon alone.
fn refuse_kept_export(settings: &Settings) -> Result<(), AnyError> {
    let holder = root_lock::last_holder(&settings.root)?;
    let dirs = holder
        .map(|holder| holder.state_dir)
        .into_iter()
        .chain([settings.state_dir.clone()]);
    for dir in dirs {
        if dir.join(STATE_FILE).try_exists()? {
            return Err(UserError {
                what: format!(
                    "a daemon keeps the export {}, its state lies in {}",
                    export_path(&settings.root).display(),
                    dir.display()
                ),
                fix: "give `--output FILE` to write elsewhere, or run `distilld rebuild` for a fresh export"
                    .to_owned(),
            }
            .into());
        }
    }
    Ok(())
}
