//! `distilld export`: the stateless batch, with the lock that protects the root's own export.

use std::io::{self, IsTerminal as _};
use std::path::Path;

use crate::batch::export::{BatchOptions, Output, batch_export};
use crate::batch::output::directory_of;
use crate::batch::pair::{LakeReader, PairReading, RowSelection};
use crate::batch::verify::error::VerifyError;
use crate::cli::AnyError;
use crate::cli::args::{self, ExportArguments};
use crate::cli::hints::UserError;
use crate::config::Settings;
use crate::console::output::{self, JsonAtTerminal};
use crate::console::progress::{self, Progress};
use crate::lake::path::{export_path, ledger_path};
use crate::lake::walk::pair_bytes;
use crate::platform::clock::{Clock as _, HostClock};
use crate::platform::escape;
use crate::platform::root_lock;
use crate::platform::storage::{OsStorage, Storage as _};
use crate::record::json::escape::Dialect;
use crate::record::synthesize::Synthesis;
use crate::record::timestamp::stamp;
use crate::store::files::STATE_FILE;
use crate::store::ledger::read_orders;

/// Runs the batch and prints its result: to stdout, or to stderr if the rows go to stdout.
pub(super) fn export(settings: &Settings, arguments: &ExportArguments) -> Result<(), AnyError> {
    let lock = if !arguments.dry_run && is_own_export(settings, arguments.output.as_ref()) {
        Some(lock_own_export(settings)?)
    } else {
        None
    };
    let now = stamp(HostClock::new().wall_ms());
    let dialect = match arguments.dialect {
        args::Dialect::Native => Dialect::Native,
        args::Dialect::Go => Dialect::Go,
    };
    let ledger = ledger_path(&export_path(&settings.root));
    let orders = read_orders(&OsStorage, &ledger).map_err(|source| VerifyError::Ledger {
        path: ledger,
        source,
    })?;
    let options = BatchOptions {
        dry_run: arguments.dry_run,
        reading: PairReading {
            synthesis: Synthesis {
                dialect,
                include_partial: arguments.include_partial,
                stamp: arguments.recorded_at.as_deref().unwrap_or(&now),
            },
            max_line_bytes: usize::try_from(settings.max_line_bytes)?,
            orders: &orders,
            selection: match arguments.effective {
                true => RowSelection::Effective,
                false => RowSelection::All,
            },
            other_dialect: None,
        },
    };
    let mut stdout = io::stdout().lock();
    let mut seen = JsonAtTerminal::new(io::stdout());
    let to_stdout = matches!(arguments.output, Some(args::Output::Stdout)) && !arguments.dry_run;
    let output = match &arguments.output {
        Some(args::Output::Stdout) if stdout.is_terminal() => Output::Writer(&mut seen),
        Some(args::Output::Stdout) => Output::Writer(&mut stdout),
        Some(args::Output::File(path)) if lock.is_some() => Output::Own(path.clone()),
        Some(args::Output::File(path)) if !arguments.dry_run => Output::named(path)?,
        Some(args::Output::File(path)) => Output::File(path.clone()),
        None => Output::Own(export_path(&settings.root)),
    };
    let lake = LakeReader::new(&OsStorage, &settings.root)?.excluding(&settings.exclude);
    let bar = Progress::new(bytes_for_progress(&lake), "exporting");
    let report = batch_export(&lake, &options, output, &mut |done| bar.at(done.read_bytes))?;
    bar.finish();
    for (path, error) in &report.unreadable {
        tracing::warn!(path = %path.display(), %error, "skipped {} ({error})", path.display());
    }
    if report.written_bytes == 0 && !arguments.dry_run {
        tracing::warn!(
            output = report.result.output_path,
            "no rows, {} is unchanged",
            report.result.output_path
        );
    }
    drop(stdout);
    if to_stdout {
        output::note(&escape::json(&serde_json::to_string(&report.result)?));
    } else {
        output::show_json(&report.result)?;
    }
    Ok(())
}

/// Returns the total bytes of all pairs if a progress bar is drawn, otherwise 0, because it costs a stat of every
/// day-file.
fn bytes_for_progress(lake: &LakeReader<'_>) -> u64 {
    if !progress::is_drawn() {
        return 0;
    }
    let pairs = lake.walk().unwrap_or_default();
    let sizes = pairs.day_files.iter();
    sizes
        .map(|pair| pair_bytes(lake.storage, &lake.root, pair))
        .sum()
}

/// Returns whether a batch writes to the root's own export, however its path is written.
fn is_own_export(settings: &Settings, output: Option<&args::Output>) -> bool {
    let path = match output {
        None => return true,
        Some(args::Output::Stdout) => return false,
        Some(args::Output::File(path)) => path,
    };
    let resolved = |path: &Path| {
        let dir = directory_of(path).canonicalize().ok()?;
        Some(dir.join(path.file_name()?))
    };
    let own = export_path(&settings.root);
    let same_file = |path: &Path| path.canonicalize().ok();
    resolved(path).is_some_and(|given| Some(given) == resolved(&own))
        || same_file(path).is_some_and(|given| Some(given) == same_file(&own))
}

/// Takes the root's lock, so that no daemon starts with that export until the batch is done.
fn lock_own_export(settings: &Settings) -> Result<root_lock::RootLock, AnyError> {
    refuse_daemon_export(settings)?;
    let root = OsStorage.canonicalize(&settings.root)?;
    let lock = root_lock::RootLock::take_root(&root, &settings.state_dir)?;
    refuse_daemon_export(settings)?;
    Ok(lock)
}

/// Refuses to write to an export that a daemon's state describes; only that daemon appends to it.
fn refuse_daemon_export(settings: &Settings) -> Result<(), AnyError> {
    let holder = root_lock::last_holder(&settings.root)?;
    let dirs = holder
        .map(|holder| holder.state_dir)
        .into_iter()
        .chain([settings.state_dir.clone()]);
    for dir in dirs {
        if dir.join(STATE_FILE).try_exists()? {
            return Err(UserError {
                what: format!(
                    "the export {} belongs to a daemon with the state in {}",
                    export_path(&settings.root).display(),
                    dir.display()
                ),
                fix: "use `--output FILE` to write elsewhere; only `distilld rebuild` replaces this export (`--dry-run` \
                      shows its rows)"
                    .to_owned(),
            }
            .into());
        }
    }
    Ok(())
}
