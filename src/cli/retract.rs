//! `retract`: gives, ends and lists standing orders.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::process::ExitCode;

use crate::cli::args::RetractArguments;
use crate::cli::hints::UserError;
use crate::cli::{AnyError, FAILED};
use crate::config::Settings;
use crate::console::output;
use crate::console::table::{plain_table, thousands, trim_table};
use crate::engine::{OrderRequest, OrderResult};
use crate::lake::path::{export_path, ledger_path};
use crate::platform::storage::OsStorage;
use crate::query::retract;

/// Maximum runs without a known line that are named.
const NAMED_MAX: usize = 5;

/// Carries out the command.
pub(super) fn run(settings: &Settings, arguments: &RetractArguments) -> Result<ExitCode, AnyError> {
    if arguments.list {
        return list(settings, arguments.json);
    }
    let mut run_ids = arguments.run_ids.clone();
    if let Some(from) = &arguments.from {
        let text = read(from)?;
        run_ids.extend(text.lines().map(str::to_owned).filter(|id| !id.is_empty()));
    }
    let request = OrderRequest {
        run_ids,
        reason: arguments.reason.clone().unwrap_or_default(),
        day_file: arguments.day_file.clone(),
        revoke: arguments.revoke,
        dry_run: arguments.dry_run,
        unseen: arguments.unseen,
    };
    let result = retract::order(settings, &request)?;
    if arguments.json {
        output::show_json(&result)?;
    } else {
        output::show(&(sentence(&request, &result) + "\n"))?;
    }
    if result.unknown.is_empty() || arguments.unseen {
        return Ok(ExitCode::SUCCESS);
    }
    let named = result.unknown.iter().take(NAMED_MAX);
    let named: Vec<String> = named.map(|id| format!("{id:?}")).collect();
    let more = match result.unknown.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {} more", thousands(more as u64)),
    };
    output::note(&format!(
        "no line has the run {}{more}; --unseen records orders on runs that have yet to arrive",
        named.join(", ")
    ));
    Ok(ExitCode::from(FAILED))
}

fn sentence(request: &OrderRequest, result: &OrderResult) -> String {
    let (orders, rows) = (thousands(result.orders_changed), thousands(result.rows));
    match (request.revoke, request.dry_run) {
        (false, false) => format!("{orders} orders added, {rows} rows retracted"),
        (false, true) => format!("{rows} rows would be retracted"),
        (true, false) => format!("{orders} orders ended, {rows} rows restored"),
        (true, true) => format!("{rows} rows would be restored"),
    }
}

fn read(from: &Path) -> Result<String, AnyError> {
    let read = if from == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(from)
    };
    read.map_err(|error| {
        let what = format!("cannot read run IDs from {}: {error}", from.display());
        let fix = "name a text file with one run ID a line, or - for standard input".to_owned();
        UserError { what, fix }.into()
    })
}

fn list(settings: &Settings, json: bool) -> Result<ExitCode, AnyError> {
    let ledger = ledger_path(&export_path(&settings.root));
    let orders = retract::orders(&OsStorage, &ledger)?;
    if json {
        output::show_json(&orders)?;
        return Ok(ExitCode::SUCCESS);
    }
    if orders.is_empty() {
        output::show("no standing orders\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = plain_table();
    table.set_header(["run", "day-file", "since", "reason"]);
    for order in orders {
        table.add_row([
            order.run_id.escape_debug().to_string(),
            order.day_file.escape_debug().to_string(),
            order.at,
            order.reason.escape_debug().to_string(),
        ]);
    }
    output::show(&trim_table(&table))?;
    Ok(ExitCode::SUCCESS)
}
