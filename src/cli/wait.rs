//! `distilld wait --fresh`: blocks until what is in the lake is exported or refused, and turns the end into an exit code.

use std::process::ExitCode;

use crate::cli::args::WaitArguments;
use crate::cli::hints::UserError;
use crate::cli::{AnyError, FAILED};
use crate::config::Settings;
use crate::console::output;
use crate::console::table::thousands;
use crate::query::health::Health;
use crate::query::wait::{WaitResult, Waited, wait_fresh};

/// An end of the wait other than that all is exported or refused.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(super) struct WaitError {
    result: WaitResult,
    pub(super) error: UserError,
}

/// Waits, and prints the end.
pub(super) fn wait(settings: &Settings, arguments: &WaitArguments) -> Result<ExitCode, AnyError> {
    let waited = wait_fresh(settings, arguments.timeout)?;
    if arguments.json {
        output::show_json(&waited)?;
    }
    if waited.result != WaitResult::Fresh {
        return Err(error(waited).into());
    }
    if !arguments.json {
        output::show(&format!("{}\n", describe(&waited)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the exit code of a command that failed with this error.
pub(super) fn exit_code(error: &AnyError) -> u8 {
    match error.downcast_ref().map(|error: &WaitError| error.result) {
        None | Some(WaitResult::Fresh) => FAILED,
        Some(WaitResult::Timeout) => 3,
        Some(WaitResult::NotRunning) => 4,
        Some(WaitResult::Stopped) => 5,
        Some(WaitResult::Incomplete) => 6,
    }
}

fn describe(waited: &Waited) -> String {
    let rows = thousands(waited.report.rows);
    let waiting = match waited.report.waiting {
        0 => String::new(),
        1 => ", 1 run without evidence in the lake".to_owned(),
        runs => format!(", {} runs without evidence in the lake", thousands(runs)),
    };
    let health = &waited.report.health;
    let what = match health.verdict {
        // Everything is done as long as nothing is there, which a root that is not the intended one has as well.
        Health::NoSources => health.to_string(),
        _ => "fresh: everything in the lake is exported or refused".to_owned(),
    };
    format!("{what}, {rows} rows in the export{waiting}")
}

fn error(waited: Waited) -> WaitError {
    let Waited { result, report } = waited;
    let health = report.health;
    let (what, fix) = match result {
        WaitResult::Timeout => (
            format!("not fresh in the given time; {health}"),
            "wait again, or with a longer --timeout; `distilld status` shows what is pending",
        ),
        _ => (
            format!("not fresh: {health}"),
            "start `distilld run`, then wait again",
        ),
    };
    let fix = health.fix.unwrap_or_else(|| fix.to_owned());
    WaitError {
        result,
        error: UserError { what, fix },
    }
}
