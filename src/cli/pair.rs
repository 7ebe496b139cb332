//! `export --pair` and `verify --pair`: two day-files that are named one by one, without settings.

use std::fs::{self, File};
use std::io::{self, BufReader, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use crate::batch::named_pair::PairFiles;
use crate::batch::named_pair::error::NamedPairError;
use crate::batch::named_pair::export::{NamedPairOptions, export_named_pair};
use crate::batch::named_pair::verify::{GivenRows, verify_named_pair};
use crate::batch::output::{Output, Sink};
use crate::batch::pair::{MAX_LINE_BYTES, NO_ORDERS, PairReading, RowSelection};
use crate::cli::AnyError;
use crate::cli::args::{self, Command, ExportArguments, PairArguments, VerifyArguments};
use crate::cli::hints::UserError;
use crate::console::output::{self, JsonAtTerminal};
use crate::lake::path::{EXPORT_PATH, ledger_path};
use crate::platform::escape;
use crate::platform::storage::OsStorage;
use crate::record::json::escape::Dialect;
use crate::record::synthesize::Synthesis;

/// Runs a command with `--pair`; `None` for any other.
pub(super) fn without_settings(command: &Command) -> Option<Result<ExitCode, AnyError>> {
    match command {
        Command::Export(arguments) => Some(export(&arguments.pair.files()?, arguments)),
        Command::Verify(arguments) => Some(verify(&arguments.pair.files()?, arguments)),
        _ => None,
    }
}

fn export(files: &PairFiles, arguments: &ExportArguments) -> Result<ExitCode, AnyError> {
    let result_path = arguments.pair.result.as_deref();
    let out_path = match &arguments.output {
        Some(args::Output::File(path)) if !arguments.dry_run => Some(path.as_path()),
        _ => None,
    };
    refuse_inputs(files, &[out_path, result_path])?;
    out_path.map_or(Ok(()), refuse_daemon_export)?;
    remove_old_result(result_path)?;
    let synthesis = Synthesis {
        dialect: match arguments.dialect {
            args::Dialect::Native => Dialect::Native,
            args::Dialect::Go => Dialect::Go,
        },
        include_partial: arguments.include_partial,
        stamp: arguments.recorded_at.as_deref().unwrap_or_default(),
    };
    let options = NamedPairOptions {
        dry_run: arguments.dry_run,
        ..options(&arguments.pair, synthesis, arguments.effective)?
    };
    // The standard library's stdout searches each buffer for its last newline.
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut seen = JsonAtTerminal::new(io::stdout());
    let output = match out_path {
        Some(path) => Output::named(path).map_err(|source| NamedPairError::Write {
            path: path.display().to_string(),
            source,
        })?,
        None if stdout.is_terminal() => Output::Writer(&mut seen),
        None => Output::Writer(&mut stdout),
    };
    let (exported, ended) = export_named_pair(&OsStorage, files, &options, output);
    let shown = write_result(result_path, &exported, |text| {
        output::note(&escape::json(text));
        Ok(())
    });
    ended?;
    shown?;
    Ok(ExitCode::SUCCESS)
}

fn verify(files: &PairFiles, arguments: &VerifyArguments) -> Result<ExitCode, AnyError> {
    let result_path = arguments.pair.result.as_deref();
    refuse_inputs(files, &[result_path])?;
    remove_old_result(result_path)?;
    let synthesis = Synthesis {
        dialect: Dialect::Native,
        include_partial: false,
        stamp: "",
    };
    let options = options(&arguments.pair, synthesis, arguments.given.effective)?;
    let (mut stdin, mut file);
    let given = match &arguments.given.rows {
        Some(args::Output::File(path)) => {
            let opened = File::open(path).map_err(|source| NamedPairError::Rows {
                path: path.display().to_string(),
                source,
            })?;
            file = BufReader::new(opened);
            GivenRows {
                name: path.display().to_string(),
                lines: &mut file,
            }
        }
        _ => {
            stdin = io::stdin().lock();
            GivenRows {
                name: "-".to_owned(),
                lines: &mut stdin,
            }
        }
    };
    let (result, ended) = verify_named_pair(&OsStorage, files, &options, given);
    let shown = write_result(result_path, &result, |_| output::show_json(&result));
    let difference = ended?;
    shown?;
    match difference {
        None => Ok(ExitCode::SUCCESS),
        Some(difference) => Err(UserError {
            what: format!("the rows are not those of the pair: {difference}"),
            fix: "write them again with `distilld export --pair`; compare its `--lengths` with `scored_bytes` and \
                  `evidence_bytes` of this result"
                .to_owned(),
        }
        .into()),
    }
}

fn options<'a>(
    arguments: &PairArguments,
    synthesis: Synthesis<'a>,
    effective: bool,
) -> Result<NamedPairOptions<'a>, AnyError> {
    let max_line_bytes = arguments.max_line_bytes.map(usize::try_from).transpose()?;
    Ok(NamedPairOptions {
        dry_run: false,
        refuses_overlong: max_line_bytes.is_none(),
        reading: PairReading {
            synthesis,
            max_line_bytes: max_line_bytes.unwrap_or(MAX_LINE_BYTES),
            orders: &NO_ORDERS,
            selection: match effective {
                true => RowSelection::Effective,
                false => RowSelection::All,
            },
            other_dialect: None,
        },
    })
}

/// Refuses to replace one of the day-files that are read.
fn refuse_inputs(files: &PairFiles, written: &[Option<&Path>]) -> Result<(), AnyError> {
    let resolved = |path: &Path| fs::canonicalize(path).ok();
    let inputs = [Some(&files.scored), files.evidence.as_ref()];
    let inputs = inputs.into_iter().flatten().filter_map(|it| resolved(it));
    let inputs: Vec<PathBuf> = inputs.collect();
    let mut paths = written.iter().flatten();
    let is_input = |path: &&&Path| resolved(path).is_some_and(|path| inputs.contains(&path));
    if let Some(path) = paths.find(is_input) {
        return Err(UserError {
            what: format!("{} is a day-file that is read", path.display()),
            fix: "name another file with --output and --result".to_owned(),
        }
        .into());
    }
    match written {
        [Some(output), Some(result)] if output == result => Err(UserError {
            what: format!("{} is named by --output and --result", output.display()),
            fix: "name two files".to_owned(),
        }
        .into()),
        _ => Ok(()),
    }
}

/// Refuses to replace the export of a lake by the rows of a pair: a ledger belongs to it.
fn refuse_daemon_export(path: &Path) -> Result<(), AnyError> {
    let is_export = path.file_name() == Path::new(EXPORT_PATH).file_name();
    match is_export && ledger_path(path).try_exists()? {
        true => Err(UserError {
            what: format!("{} is the export of a lake", path.display()),
            fix: "use another name for --output".to_owned(),
        }
        .into()),
        false => Ok(()),
    }
}

/// Removes the result of an earlier attempt, which would be taken for that of one that is killed.
fn remove_old_result(path: Option<&Path>) -> Result<(), NamedPairError> {
    let Some(path) = path.filter(|path| path.is_file()) else {
        return Ok(());
    };
    fs::remove_file(path).map_err(|source| NamedPairError::Write {
        path: path.display().to_string(),
        source,
    })
}

/// Writes the result to its file, if one is named.
fn write_result(
    path: Option<&Path>,
    result: &impl Serialize,
    show: impl FnOnce(&str) -> io::Result<()>,
) -> Result<(), AnyError> {
    let text = serde_json::to_string(result)?;
    let Some(path) = path else {
        return Ok(show(&text)?);
    };
    let write = || {
        let mut sink = Sink::new(&OsStorage, Output::named(path)?, false);
        let written = sink.append(format!("{text}\n").as_bytes());
        let written = written.and_then(|()| sink.finish());
        written.inspect_err(|_| sink.abandon())
    };
    write().map_err(|source| {
        let path = path.display().to_string();
        NamedPairError::Write { path, source }.into()
    })
}
