//! `distilld check`: finds what would fail later, with the fix. It changes nothing, and opens day-files only to check
//! that they can be opened.

pub(super) mod bundle;
mod files;
mod finding;
mod identity;
mod limits;
mod reader;
mod service;
mod streams;
mod unit;

use crate::cli::check::files::{
    check_export_file, check_file, check_ledger_file, check_lock, check_replaced, check_writable,
};
use crate::cli::check::identity::assume_service_user;
use crate::cli::check::limits::{check_events, check_free};
use crate::cli::check::service::check_unit;
use crate::cli::check::streams::check_stream;
use crate::cli::check::unit::Unit;

use finding::Findings;
pub use finding::{Finding, Severity};

use std::error::Error;
use std::path::Path;

use crate::cli::hints::remedy;
use crate::config::Settings;
use crate::engine::EngineError;
use crate::lake::path::{Stream, export_path};
use crate::platform::clock::{Clock as _, HostClock};
use crate::platform::rights::Denied;
use crate::platform::root_lock::{holder_paths, lock_path, state_lock_path};
use crate::platform::storage::{OsStorage, Storage as _, exists};
use crate::query::offline::{self, Backend, InquireError};
use crate::query::status::status;
use crate::store::files::{CHANGED_FILE, DISTRUSTED_FILE, JOURNAL_FILE, STATE_FILE};

/// The free disk space below which the daemon cannot work: a journal, a checkpoint and some rows, bytes.
pub(super) const FREE_BYTES_MIN: u64 = 64 << 20;
/// The free disk space below which a warning is due, bytes.
pub(super) const FREE_BYTES_LOW: u64 = 1 << 30;

/// Checks all that the daemon needs, in the order in which it would need it. If root checks, its thread takes on the
/// rights of the daemon's user. `config` is the configuration file.
#[must_use]
pub fn check(settings: &Settings, config: Option<&Path>) -> Vec<Finding> {
    let mut findings = Findings::default();
    let mut unit = service::find(settings, config);
    let settings = match &unit {
        Some(unit) => &service::settings_in(unit, settings),
        None => settings,
    };
    check_settings(settings, &mut findings);
    let root = match OsStorage.canonicalize(&settings.root) {
        Ok(root) => root,
        Err(error) => {
            let fix = format!(
                "`namei -l {root}` shows the directory that refuses or lacks it; mount it, or set another root in the \
                 configuration",
                root = settings.root.display()
            );
            let what = format!("root {}", settings.root.display());
            findings.fail(what, error.to_string(), fix);
            return findings.0;
        }
    };
    if let Some(unit) = &mut unit {
        check_unit(unit, settings, &root, &mut findings);
    }
    assume_service_user(settings, unit.as_ref(), &root, &mut findings);
    if let Some(config) = config
        && let Some(denied) = Denied::at(config)
    {
        let fix = reader::let_read(config, config);
        findings.fail("configuration", denied.to_string(), fix);
    }
    let mut directories = 0;
    for stream in Stream::ALL {
        directories += check_stream(&root, stream, &settings.exclude, &mut findings);
    }
    let export = export_path(&root);
    let are_usable = check_own(settings, unit.as_ref(), &root, &export, &mut findings);
    check_start(settings, are_usable, &mut findings);
    check_events(settings, &root, directories, &mut findings);
    check_free("export", &export, &mut findings);
    check_free("state", &settings.state_dir, &mut findings);
    findings.0
}

/// Checks the directories and files that the daemon writes. Returns whether it can use all of them.
fn check_own(
    settings: &Settings,
    unit: Option<&Unit>,
    root: &Path,
    export: &Path,
    findings: &mut Findings,
) -> bool {
    let before = findings.0.len();
    let lock = lock_path(root);
    let distilled = lock.parent().unwrap_or(root);
    // The directory of the daemon that has its state.
    let of_state = match settings.state_dir.starts_with(distilled) {
        true => distilled,
        false => &settings.state_dir,
    };
    let sft = export.parent().unwrap_or(root);
    check_writable("lock", distilled, distilled, findings);
    check_writable("export", sft, distilled, findings);
    let is_readable = check_export_file(export, distilled, findings);
    check_ledger_file(export, distilled, is_readable, findings);
    match unit {
        // systemd creates it, with the owner and the mode that the unit needs.
        Some(unit) if !settings.state_dir.exists() && unit.creates(&settings.state_dir) => {}
        _ => check_writable("state", &settings.state_dir, of_state, findings),
    }
    check_lock(&lock, distilled, findings);
    check_lock(&state_lock_path(&settings.state_dir), of_state, findings);
    for path in holder_paths(root) {
        check_replaced(&path, findings);
    }
    for name in [STATE_FILE, JOURNAL_FILE] {
        check_file(&settings.state_dir.join(name), of_state, findings);
    }
    let found = &findings.0[before..];
    found.iter().all(|found| found.severity != Severity::Fail)
}

fn check_settings(settings: &Settings, findings: &mut Findings) {
    for variable in &settings.unused_variables {
        findings.warn(
            format!("variable {variable}"),
            "unknown name of a variable",
            format!("correct it, or `unset {variable}`; `distilld config` shows the known keys"),
        );
    }
    findings.ok(
        "configuration",
        format!(
            "root {}, state in {}",
            settings.root.display(),
            settings.state_dir.display()
        ),
    );
}

/// Checks the health verdict of a running daemon.
fn check_health(settings: &Settings, findings: &mut Findings) {
    let what = "health of the daemon".to_owned();
    let health = match status(settings, HostClock::new().wall_ms()) {
        Ok(status) => status.health,
        Err(error) => return fail_with(findings, what, &error),
    };
    let severity = match health.verdict {
        verdict if verdict.is_ready() && health.fix.is_none() => Severity::Ok,
        verdict if verdict.is_ready() || verdict.is_temporary() => Severity::Warn,
        _ => Severity::Fail,
    };
    let mut finding = Finding::new(severity, what, health.to_string(), health.fix.as_deref());
    finding.public(health.verdict.title());
    findings.0.push(finding);
}

/// Adds an error as a failure. Its text may name lines of the lake.
fn fail_with(findings: &mut Findings, what: String, error: &(dyn Error + 'static)) {
    problem_with(findings, Severity::Fail, what, error);
}

/// Adds an error as a problem. Its text may name lines of the lake.
fn problem_with(
    findings: &mut Findings,
    severity: Severity,
    what: String,
    error: &(dyn Error + 'static),
) {
    let fix = remedy(error).unwrap_or_default();
    let finding = findings.problem(severity, what, error.to_string(), fix);
    finding.public("an error whose text may name lines of the lake");
}

/// Checks what a start decides from the state and the export, if no daemon runs. Files that are not usable, each of which
/// is a finding, may not show that.
fn check_start(settings: &Settings, are_usable: bool, findings: &mut Findings) {
    let dir = &settings.state_dir;
    let what = format!("start with the state in {}", dir.display());
    let is_there = |name| exists(&OsStorage, &dir.join(name)).unwrap_or(false);
    let start = "`systemctl start distilld`, or `distilld run`";
    if is_there(DISTRUSTED_FILE) {
        let why = "marked as damaged; the next start rebuilds it from the sources and the export";
        findings.warn(what, why, start);
        return;
    }
    let files = match offline::find(settings) {
        Ok(Backend::OfflineState(files)) => files,
        Ok(Backend::Daemon(holder)) => {
            let why = format!("in use by the daemon, process {}", holder.pid);
            findings.ok(what, why);
            return check_health(settings, findings);
        }
        Err(InquireError::NoState(_)) => return,
        Err(InquireError::Denied(_) | InquireError::DeniedFiles(_)) if !are_usable => return,
        Err(error @ (InquireError::State(_) | InquireError::Journal(_))) => {
            let why = format!("{error}; the next start rebuilds a damaged state");
            let finding = findings.warn(what, why, start);
            return finding.public("the state or the journal cannot be read");
        }
        Err(error) => return fail_with(findings, what, &error),
    };
    if let Err(error) = files.check_export() {
        fail_with(findings, what, &EngineError::Export(error));
    } else if is_there(CHANGED_FILE) {
        let why = "a daemon found changed bytes in the export; a start compares them again and stops unless they were \
                   restored";
        let fix = "restore them, or run `distilld rebuild --state-only`, which keeps the rows of the file as it is";
        findings.warn(what, why, fix);
    } else {
        findings.ok(what, "the export is as it was left");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::limits::free_finding;
    use crate::cli::check::limits::limits_finding;

    #[test]
    fn limits_warn_before_watches_run_out() {
        let check = |watches, watches_max, instances_max, expected| {
            let finding = limits_finding(watches, watches_max, instances_max);
            assert_eq!(finding.severity, expected, "{finding}");
        };
        check(10, Some(8_192), Some(128), Severity::Ok);
        check(7_000, Some(8_192), Some(128), Severity::Warn);
        check(9_000, Some(8_192), Some(128), Severity::Warn);
        check(10, Some(8_192), Some(0), Severity::Warn);
        check(10, None, None, Severity::Warn);
    }

    #[test]
    fn a_full_disk_fails_and_a_nearly_full_one_warns() {
        let check = |free_bytes, free_inodes, expected| {
            let finding = free_finding("disk".into(), free_bytes, free_inodes);
            assert_eq!(finding.severity, expected, "{finding}");
        };
        check(1 << 40, Some(1 << 20), Severity::Ok);
        check(1 << 40, None, Severity::Ok);
        check(1 << 40, Some(0), Severity::Fail);
        check(FREE_BYTES_LOW - 1, None, Severity::Warn);
        check(FREE_BYTES_MIN - 1, None, Severity::Fail);
    }

    #[test]
    fn a_finding_is_one_line_that_begins_with_its_severity() {
        let finding = free_finding("disk of the state".into(), 0, None);
        assert_eq!(
            finding.to_string(),
            "fail disk of the state: 0 MiB free, reading pauses when it is full; free space"
        );
    }
}
