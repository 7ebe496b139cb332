//! `distilld verify`: the comparison, its result as JSON, and the differences as an error.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use crate::batch::pair::LakeReader;
use crate::batch::verify::{self, KnownRows, VerifyOptions, VerifyReport, VerifyResult};
use crate::cli::AnyError;
use crate::cli::hints::UserError;
use crate::cli::known_rows::{self, WrittenRows};
use crate::config::{Settings, as_typed};
use crate::console::output;
use crate::console::progress::Steps;
use crate::platform::escape::{self, Printable};
use crate::platform::storage::OsStorage;

/// The remedy for a `verify` that could not read everything.
const UNREADABLE_FIX: &str = "run it as a user who may read all day-files, or mount their file system; `distilld check` names the rights \
                              that are missing";

/// The remedy for rows of which nothing is known but that their sources changed.
const UNDETERMINED_FIX: &str = "run it where the daemon ran, as its user and with its state directory; without its state, \
                                compare the export with a copy, or let `distilld rebuild` write a new one \
                                (`--dry-run` shows its rows)";

/// The time that a difference must persist to count while a daemon runs: far more than it needs for a row.
const VERIFY_PATIENCE: Duration = Duration::from_secs(3);

/// Compares the export with the sources, and prints the result and the first differences.
pub(super) fn verify(settings: &Settings, rejected_elsewhere: bool) -> Result<ExitCode, AnyError> {
    let options = VerifyOptions {
        max_line_bytes: usize::try_from(settings.max_line_bytes)?,
        settle: settings.settle,
        patience: VERIFY_PATIENCE,
        rows_held_max: verify::ROWS_HELD_MAX,
    };
    let mut bars = Steps::default();
    let lake = LakeReader::new(&OsStorage, &settings.root)?.excluding(&settings.exclude);
    let written = WrittenRows::new(settings);
    let known = KnownRows {
        deleted: &|rows| known_rows::deleted_rows(settings, rows),
        written: &|rows| written.rows(rows),
        ledger: &|| known_rows::ledger_fault(settings),
    };
    let report = verify::verify_knowing(
        &lake,
        &options,
        known,
        &mut |what, done_bytes, total_bytes| bars.at(what, done_bytes, total_bytes),
    )?;
    drop(bars);
    for (path, error) in &report.skipped {
        tracing::warn!(path = %path.display(), %error, "skipped {} ({error})", path.display());
    }
    log_counts(&report);
    if rejected_elsewhere {
        write_run_ids(&report.rejected_elsewhere)?;
        output::note(&escape::json(&serde_json::to_string(&report.result)?));
    } else {
        output::show_json(&report.result)?;
    }
    match &report.first_difference {
        Some(difference) => Err(difference_error(&report.result, difference).into()),
        None if report.result.complete => Ok(ExitCode::SUCCESS),
        None => Err(incomplete_error(&report).into()),
    }
}

/// Logs how much was compared, and what is no difference although the bytes differ.
fn log_counts(report: &VerifyReport) {
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
            "sources changed after their rows were written; keeping those rows; {} shows what a new export would have",
            as_typed("`distilld rebuild --dry-run`")
        );
    }
    if result.other_dialect > 0 {
        let rows = result.other_dialect;
        tracing::info!(
            rows,
            "{rows} rows have the bytes of the previous exporter (`--dialect go`); {} writes them as distilld does",
            as_typed("`distilld rebuild`")
        );
    }
}

/// Writes run IDs to stdout, one a line.
fn write_run_ids(run_ids: &[String]) -> io::Result<()> {
    // The input of `retract`, as it is; a person sees it escaped.
    let is_seen = io::stdout().is_terminal();
    let mut stdout = io::stdout().lock();
    for run_id in run_ids {
        if run_id.is_empty() || run_id.contains(['\n', '\r']) {
            tracing::warn!(
                "the run ID {run_id:?} is not one line of a list; pass it to {} as an argument",
                as_typed("`distilld retract`")
            );
        } else if is_seen {
            writeln!(stdout, "{}", Printable(run_id))?;
        } else {
            writeln!(stdout, "{run_id}")?;
        }
    }
    Ok(())
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
        None if report.result.undetermined > 0 => UserError {
            what: format!(
                "cannot verify everything: {} rows are not those of their lines; whether these rows or their sources were \
                 changed is not known, because neither a state nor a running daemon proves these rows; the first: {}",
                report.result.undetermined,
                report.first_undetermined.as_deref().unwrap_or_default()
            ),
            fix: UNDETERMINED_FIX.to_owned(),
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
