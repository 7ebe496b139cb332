//! The commands: from the command line to settings, logging, the call, the printed result and the exit code. Data goes
//! to stdout, everything else to stderr.

pub mod args;
pub mod check;
mod config;
mod dataset;
mod export;
pub mod generate;
pub mod hints;
pub mod instances;
mod known_rows;
mod pair;
pub(crate) mod queries;
pub mod render;
mod retract;
pub mod run;
mod stopped;
mod verify;
mod wait;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::error::ContextValue;

use crate::cli::args::{Arguments, CheckArguments, Command, RebuildArguments, VerifyArguments};
use crate::cli::check::Severity;
use crate::cli::check::bundle::Bundle;
use crate::cli::hints::{UserError, in_one_line, remedy};
use crate::cli::run::DaemonError;
use crate::config::{ConfigError, Environment, Invocation, Settings, Sources, config_file};
use crate::console::logging;
use crate::console::output;
use crate::console::progress::{self, Steps};
use crate::console::terminal::Terminal;
use crate::daemon::event_loop::Reloader;
use crate::daemon::{signals, status_line};
use crate::lake::path::{Stream, export_path};
use crate::platform::answers;
use crate::platform::clock::HostClock;
use crate::platform::descend::resolved_dir;
use crate::platform::escape::{self, Printable};
use crate::platform::root_lock;
use crate::platform::sd_notify::ServiceManager;
use crate::platform::storage::{OsStorage, Storage as _, without_links};
use crate::query::engine_setup::engine_setup;
use crate::recovery::rebuild::{self, CarriedOrders, RebuildOptions};
use crate::store::files::STATE_FILE;

/// The exit code of a command that failed, or found differences.
pub(crate) const FAILED: u8 = 1;

/// The maximum time to wait for the service manager to receive the final notification.
const FINAL_NOTIFY_TIMEOUT: Duration = Duration::from_millis(200);

/// The maximum time to wait at the end for the reader of stderr or of the journal.
const FINAL_OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);

/// An error of any command, to be printed.
type AnyError = Box<dyn std::error::Error>;

/// Parses the arguments of a program, or prints its help or a usage error and returns the exit code.
pub(crate) fn parse<A: clap::Parser>(arguments: Vec<OsString>) -> Result<A, ExitCode> {
    A::try_parse_from(arguments).map_err(|usage| {
        let code = ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
        show_usage(usage);
        code
    })
}

/// Prints help to stdout, or a usage error to stderr. What was typed may be the name of a file, and is escaped.
fn show_usage(mut usage: clap::Error) {
    if usage.exit_code() == 0 {
        // A closed pipe is ignored.
        let _ = usage.print();
        return;
    }
    let typed = usage.context().filter_map(|(kind, value)| match value {
        ContextValue::String(text) => Some((kind, Printable(text).to_string())),
        _ => None,
    });
    let typed: Vec<_> = typed.collect();
    for (kind, text) in typed {
        usage.insert(kind, ContextValue::String(text));
    }
    let page = usage.render();
    let page = match Terminal::for_stderr(&Environment::from_env()).colours {
        true => page.ansi().to_string(),
        false => page.to_string(),
    };
    output::print(escape::styled(&page).as_bytes());
}

/// Runs the program with these arguments, the first being the program's name, and returns its exit code.
#[must_use]
pub fn main_with(arguments: Vec<OsString>) -> ExitCode {
    let mut arguments: Arguments = match parse(arguments) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    if let Some(Command::Run(run)) = &mut arguments.command {
        arguments.global.listen = run.listen.take();
    }
    let environment = Environment::from_env();
    let terminal = Terminal::for_stderr(&environment);
    let is_daemon = matches!(&arguments.command, Some(Command::Run(run)) if !run.once);
    // Drawing a bar waits for the terminal.
    progress::init(terminal.draws && !is_daemon);
    let without_settings = |command: &Command| match command {
        Command::Instances(arguments) => Some(instances::instances(arguments)),
        command => pair::without_settings(command).or_else(|| dataset::without_settings(command)),
    };
    if let Some(result) = arguments.command.as_ref().and_then(without_settings) {
        return result.unwrap_or_else(|error| report(terminal, &*error, FAILED));
    }
    // Only `run` is the unit; another command in its environment must not send notifications.
    let is_unit = matches!(arguments.command, Some(Command::Run(_)));
    let manager = || match is_unit {
        true => ServiceManager::from_environment(),
        false => Ok(ServiceManager::default()),
    };
    let (settings, sources) = match load(&arguments, &environment) {
        Ok(loaded) => loaded,
        Err(error) => {
            let code = report(terminal, &error, error.exit_code());
            notify_failure(&manager().unwrap_or_default(), &error, error.errno());
            return code;
        }
    };
    if let Some(Command::Config(arguments)) = &arguments.command {
        let result = config::config(&settings, &sources, arguments);
        return result.unwrap_or_else(|error| report(terminal, &*error, config::exit_code(&error)));
    }
    // A command waits for the reader of its output.
    if is_daemon && let Err(source) = output::detach() {
        return report(terminal, &DaemonError::Start(source), FAILED);
    }
    let log = logging::init(&settings, &environment);
    for variable in &settings.unused_variables {
        tracing::warn!(
            variable,
            "ignoring the environment variable {variable}: unknown name"
        );
    }
    let (command, global) = (arguments.command, arguments.global);
    let reloader = Reloader {
        read: Box::new(move || Settings::load_again(&global, &environment)),
        log,
    };
    let result = manager()
        .map_err(|error| DaemonError::Start(error).into())
        .and_then(|manager| run(command, &settings, &sources, reloader, manager));
    let code = result.unwrap_or_else(|error| report(terminal, &*error, wait::exit_code(&error)));
    output::flush(FINAL_OUTPUT_TIMEOUT);
    code
}

/// Prints an error with what mends it, and returns the exit code.
pub(crate) fn report(
    terminal: Terminal,
    error: &(dyn std::error::Error + 'static),
    code: u8,
) -> ExitCode {
    terminal.report(error, remedy(error).as_deref());
    ExitCode::from(code)
}

/// Loads the settings, and keeps how other commands find the same lake. `config` and `check` report an unusable root
/// themselves.
fn load(
    arguments: &Arguments,
    environment: &Environment,
) -> Result<(Settings, Sources), ConfigError> {
    let global = &arguments.global;
    let loaded = Settings::load_with_sources(global, environment);
    let invocation = match &loaded {
        Ok((settings, sources)) => Invocation::of_settings(global, environment, settings, sources),
        Err(_) => {
            let file = config_file(global, environment);
            Invocation::of_arguments(global, environment, file.as_deref())
        }
    };
    invocation.set();
    let (settings, sources) = loaded?;
    if let Some(path) = answers::silent(&asked_first(arguments, &settings), ANSWER_PATIENCE) {
        let path = path.to_owned();
        return Err(ConfigError::FileSystemSilent { path });
    }
    match (settings.check_root(&sources), &arguments.command) {
        (Err(_), Some(Command::Config(_)))
        | (Err(ConfigError::RootOutOfReach { .. }), Some(Command::Check(_)))
        | (Ok(()), _) => Ok((settings, sources)),
        (Err(error), _) => Err(error),
    }
}

/// Time for a file system to answer at all.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// Returns the paths without which a command could print nothing and never end: it asks first whether their file systems
/// answer. The sources are not among them where a daemon on other disks reports that they hang.
fn asked_first(arguments: &Arguments, settings: &Settings) -> Vec<PathBuf> {
    let mut paths = vec![settings.root.clone(), settings.state_dir.clone()];
    match arguments.command {
        None | Some(Command::Query(_) | Command::Wait(_) | Command::Retract(_)) => {}
        Some(Command::Check(_) | Command::Verify(_)) => {
            paths.extend(Stream::ALL.map(|stream| stream.base(&settings.root)));
        }
        // They report nothing at once, or name another path.
        Some(_) => paths.clear(),
    }
    paths
}

fn run(
    command: Option<Command>,
    settings: &Settings,
    sources: &Sources,
    reloader: Reloader,
    manager: ServiceManager,
) -> Result<ExitCode, AnyError> {
    let Some(command) = command else {
        return queries::health(settings);
    };
    match command {
        Command::Run(arguments) => run_daemon(settings, arguments.once, reloader, manager)?,
        Command::Export(arguments) => export::export(&without_links_in(settings), &arguments)?,
        Command::Verify(VerifyArguments {
            at: None,
            rejected_elsewhere,
            ..
        }) => return verify::verify(&without_links_in(settings), rejected_elsewhere),
        Command::Verify(VerifyArguments {
            at: Some(version), ..
        }) => return dataset::verify_at(&export_path(&settings.root), version),
        Command::Rows(arguments) => return dataset::rows(&export_path(&settings.root), &arguments),
        Command::Cite(arguments) => return dataset::cite(&export_path(&settings.root), &arguments),
        Command::Rebuild(arguments) => rebuild(&without_links_in(settings), arguments)?,
        Command::Query(query) => return queries::answer(settings, &query),
        Command::Wait(arguments) => return wait::wait(settings, &arguments),
        Command::Retract(arguments) => return retract::run(settings, &arguments),
        Command::Check(arguments) => return check(settings, sources, &arguments),
        Command::Generate(arguments) => return generate::write_all(&arguments.out_dir),
        // They end before the log starts.
        Command::Config(_) | Command::Instances(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Resolves the links in the paths once: a long command must not begin with one lake and end with another.
fn without_links_in(settings: &Settings) -> Settings {
    Settings {
        root: without_links(&OsStorage, &settings.root),
        state_dir: resolved_dir(&settings.state_dir),
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

fn rebuild(settings: &Settings, arguments: RebuildArguments) -> Result<(), AnyError> {
    let root = OsStorage.canonicalize(&settings.root)?;
    refuse_other_state(settings, &root)?;
    let _lock = run::take_lock(settings, &root)?;
    let clock = Arc::new(HostClock::new());
    let stop = signals::stop_flag()?;
    let mut bars = Steps::default();
    let setup = engine_setup(settings, &root, clock);
    let mut on_step = |label, done_bytes, total_bytes| bars.at(label, done_bytes, total_bytes);
    if arguments.state_only {
        let (report, orders) = rebuild::rebuild_state(&setup, &mut on_step)?;
        drop(bars);
        output::show_json(&StateRebuilt {
            output_path: setup.export_path.display().to_string(),
            rows_adopted: report.rows_adopted,
            lines_foreign: report.rows_foreign,
            orders,
        })?;
    } else {
        let options = RebuildOptions {
            dry_run: arguments.dry_run,
            drop_missing: arguments.drop_missing,
            effective: arguments.effective,
        };
        let result = rebuild::rebuild(&setup, options, &stop, &mut on_step)?;
        drop(bars);
        output::show_json(&result)?;
    }
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
    #[serde(flatten)]
    orders: CarriedOrders,
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

fn check(
    settings: &Settings,
    sources: &Sources,
    arguments: &CheckArguments,
) -> Result<ExitCode, AnyError> {
    let config = sources.file.as_deref();
    let bundle = arguments.bundle.as_deref();
    let bundle = bundle.map(|path| Bundle::create(path, settings, config));
    let bundle = bundle.transpose()?;
    let findings = check::check(settings, config);
    let count = |severity| {
        let of_severity = findings.iter().filter(|it| it.severity == severity);
        of_severity.count()
    };
    let (fails, warns) = (count(Severity::Fail), count(Severity::Warn));
    if arguments.json {
        output::show_json(
            &serde_json::json!({ "checks": findings, "fails": fails, "warns": warns }),
        )?;
    } else {
        for finding in &findings {
            output::show(&format!("{finding}\n"))?;
        }
    }
    if let Some(bundle) = bundle {
        let path = bundle.write(settings, sources, &findings)?;
        output::note(&format!("the report is in {}", path.display()));
    }
    Ok(ExitCode::from(if fails > 0 { FAILED } else { 0 }))
}
