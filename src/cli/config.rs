//! `distilld config`: the values in force, and the source of each.

use std::process::ExitCode;

use serde_json::json;

use crate::cli::AnyError;
use crate::cli::args::ConfigArguments;
use crate::config::{ConfigError, Origin, Setting, Settings, Sources};
use crate::console::output;
use crate::console::table::{plain_table, trim_table};

/// Prints the settings. A root that cannot be used is an error, after they were printed.
pub(super) fn config(
    settings: &Settings,
    sources: &Sources,
    arguments: &ConfigArguments,
) -> Result<ExitCode, AnyError> {
    let listed = sources.list(settings);
    if arguments.json {
        output::show_json(&to_json(sources, &listed))?;
    } else if !arguments.check {
        output::show(&table(sources, &listed))?;
    }
    match settings.check_root(sources) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error.into()),
    }
}

/// Returns the exit code for an error of this command.
pub(super) fn exit_code(error: &AnyError) -> u8 {
    let config = error.downcast_ref::<ConfigError>();
    config.map_or(super::FAILED, ConfigError::exit_code)
}

fn table(sources: &Sources, listed: &[Setting]) -> String {
    let file = match &sources.file {
        Some(file) => format!("file {}\n", file.display()),
        None => "no file is read\n".to_owned(),
    };
    let mut table = plain_table();
    table.set_header(["key", "value", "source"]);
    for setting in listed {
        table.add_row([
            setting.key.to_owned(),
            setting.text().escape_debug().to_string(),
            source(&setting.origin),
        ]);
    }
    file + &trim_table(&table)
}

fn source(origin: &Origin) -> String {
    match origin {
        Origin::Default => "default".to_owned(),
        given => format!("{} {given}", given.kind()),
    }
}

fn to_json(sources: &Sources, listed: &[Setting]) -> serde_json::Value {
    let settings: Vec<_> = listed
        .iter()
        .map(|setting| {
            let location = match &setting.origin {
                Origin::Default => None,
                given => Some(given.to_string()),
            };
            json!({
                "key": setting.key,
                "value": setting.value,
                "source": setting.origin.kind(),
                "location": location,
            })
        })
        .collect();
    let file = sources.file.as_ref().map(|file| file.to_string_lossy());
    json!({ "file": file, "settings": settings })
}
