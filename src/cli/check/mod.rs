//! `distilld check`: finds what would fail later, with the fix. It changes nothing, and opens day-files only to check
//! that they can be opened.

mod files;
mod identity;
mod limits;
mod service;
mod unit;

use crate::cli::check::files::{check_export_file, check_ledger_file, check_writable, own_file};
use crate::cli::check::identity::assume_service_user;
use crate::cli::check::limits::{check_events, check_free};
use crate::cli::check::service::check_unit;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::cli::hints::in_one_line;
use crate::config::{Exclude, Settings, as_typed};
use crate::engine::EngineError;
use crate::lake::linked_dirs::links_to_unread;
use crate::lake::path::export_path;
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::{Level, list_level, open_day_file};
use crate::platform::clock::{Clock as _, HostClock};
use crate::platform::escape::Printable;
use crate::platform::rights::Denied;
use crate::platform::root_lock::lock_path;
use crate::platform::storage::{OsStorage, Storage as _, exists};
use crate::query::offline::{self, Backend, InquireError};
use crate::query::status::status;
use crate::store::files::{CHANGED_FILE, DISTRUSTED_FILE, JOURNAL_FILE, STATE_FILE};

/// The free disk space below which the daemon cannot work: a journal, a checkpoint and some rows, bytes.
pub(super) const FREE_BYTES_MIN: u64 = 64 << 20;
/// The free disk space below which a warning is due, bytes.
pub(super) const FREE_BYTES_LOW: u64 = 1 << 30;

/// The severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// No problem.
    Ok,
    /// The daemon works with restrictions.
    Warn,
    /// The daemon would fail, or miss sources.
    Fail,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The severity.
    pub severity: Severity,
    /// The subject of the check.
    pub what: String,
    /// The result and, if there is a problem, the fix.
    pub why: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Ok => "ok",
            Severity::Warn => "warn",
            Severity::Fail => "fail",
        };
        let (what, why) = (Printable(&self.what), Printable(&self.why));
        write!(out, "{severity:<4} {what}: {why}")
    }
}

/// The findings so far.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, severity: Severity, what: impl Into<String>, why: impl Into<String>) {
        self.0.push(Finding {
            severity,
            what: what.into(),
            why: as_typed(&why.into()),
        });
    }
}

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
            findings.add(
                Severity::Fail,
                format!("root {}", settings.root.display()),
                format!("{error}; use a directory that distilld may enter"),
            );
            return findings.0;
        }
    };
    if let Some(unit) = &mut unit {
        check_unit(unit, settings, &root, &mut findings);
    }
    assume_service_user(settings, unit.as_ref(), &root, &mut findings);
    if let Some(denied) = config.and_then(Denied::at) {
        let why = "give distilld's user the right to read the configuration";
        findings.add(Severity::Fail, "configuration", format!("{denied}; {why}"));
    }
    let mut directories = 0;
    for stream in Stream::ALL {
        directories += check_stream(&root, stream, &settings.exclude, &mut findings);
    }
    let export = export_path(&root);
    check_writable("export", export.parent().unwrap_or(&root), &mut findings);
    check_export_file(&export, &mut findings);
    check_ledger_file(&export, &mut findings);
    match &unit {
        // systemd creates it, with the owner and the mode that the unit needs.
        Some(unit) if !settings.state_dir.exists() && unit.creates(&settings.state_dir) => {}
        _ => check_writable("state", &settings.state_dir, &mut findings),
    }
    for path in [
        lock_path(&root),
        settings.state_dir.join(STATE_FILE),
        settings.state_dir.join(JOURNAL_FILE),
    ] {
        if let Err(why) = own_file(&path) {
            findings.add(Severity::Fail, format!("file {}", path.display()), why);
        }
    }
    check_start(settings, &mut findings);
    check_events(settings, &root, directories, &mut findings);
    check_free("export", &export, &mut findings);
    check_free("state", &settings.state_dir, &mut findings);
    findings.0
}

fn check_settings(settings: &Settings, findings: &mut Findings) {
    for variable in &settings.unused_variables {
        findings.add(
            Severity::Warn,
            format!("variable {variable}"),
            "unknown name of a variable; correct or remove it",
        );
    }
    findings.add(
        Severity::Ok,
        "configuration",
        format!(
            "root {}, state in {}",
            settings.root.display(),
            settings.state_dir.display()
        ),
    );
}

/// The result of a walk over a stream.
#[derive(Default)]
struct Walk {
    directories: u64,
    day_files: u64,
    excluded: u64,
    /// Day-files that are read and whose names look like those of temporary files.
    temporary: Vec<PairPath>,
    unreadable: Vec<(PathBuf, io::Error)>,
    /// A link to day-files elsewhere is among the unreadable paths.
    leads_out: bool,
}

/// Checks a stream and returns the number of its directories.
fn check_stream(root: &Path, stream: Stream, exclude: &Exclude, findings: &mut Findings) -> u64 {
    let base = stream.base(root);
    let what = format!("{} {}", stream.dir_name(), base.display());
    match OsStorage.stat(&base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            findings.add(
                Severity::Warn,
                what,
                "does not exist yet; distilld waits for it, check the root if it should exist",
            );
            return 0;
        }
        Err(error) => {
            findings.add(
                Severity::Fail,
                what,
                format!("{error}; let distilld enter it"),
            );
            return 0;
        }
        Ok(_) => {}
    }
    let walk = walk_all(root, stream, exclude);
    check_names(&walk, stream, findings);
    if let Some((path, error)) = walk.unreadable.first() {
        // The daemon skips what is no day-file. Without a right it lacks input: its health is `incomplete`.
        let is_denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        let lacks_rights = walk.unreadable.iter().any(|(_, error)| is_denied(error));
        let severity = if *path == base || lacks_rights || walk.leads_out {
            Severity::Fail
        } else {
            Severity::Warn
        };
        let why = format!(
            "{} of its directories and day-files cannot be read, the first is {} ({error}); let distilld read them, \
             or their runs are skipped",
            walk.unreadable.len(),
            path.display()
        );
        findings.add(severity, what, why);
    } else {
        let why = format!(
            "{} day-files in {} directories, all readable",
            walk.day_files, walk.directories
        );
        findings.add(Severity::Ok, what, why);
    }
    walk.directories
}

/// Reports the day-files that `exclude` leaves out, and those that look as if it should.
fn check_names(walk: &Walk, stream: Stream, findings: &mut Findings) {
    let what = || format!("names of day-files in {}", stream.dir_name());
    if walk.excluded > 0 {
        let why = format!(
            "{} day-files match the key `exclude` and are not read; rows that they gave before stay in the export until \
             `distilld rebuild`",
            walk.excluded
        );
        findings.add(Severity::Ok, what(), why);
    }
    if let Some(first) = walk.temporary.first() {
        let why = format!(
            "{} look like temporary files, the first is {first}; their runs become rows under this name and again under \
             the final one; set the key `exclude` to a pattern such as \"tmp*\", or let the writer use a name that does \
             not end in .jsonl",
            walk.temporary.len()
        );
        findings.add(Severity::Warn, what(), why);
    }
}

/// Returns whether a name is one that writers usually give to a file that they rename.
fn looks_temporary(name: &str) -> bool {
    name.starts_with('.') || name.starts_with("tmp") || name.ends_with(".tmp.jsonl")
}

fn walk_all(root: &Path, stream: Stream, exclude: &Exclude) -> Walk {
    let mut walk = Walk::default();
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        walk.directories += 1;
        match list_level(&OsStorage, root, stream, &dir) {
            Ok(Level::Directories(deeper)) => {
                for (link, error) in links_to_unread(&OsStorage, root, stream, &dir) {
                    walk.leads_out = true;
                    walk.add_unreadable(stream.base(root).join(link), error);
                }
                dirs.extend(deeper);
            }
            Ok(Level::DayFiles(day_files)) => {
                for day_file in day_files {
                    if exclude.matches(day_file.as_path()) {
                        walk.excluded += 1;
                        continue;
                    }
                    walk.open(root, stream, &day_file);
                    if looks_temporary(&day_file.file_name()) {
                        walk.temporary.push(day_file);
                    }
                }
            }
            Err(error) => walk.add_unreadable(below(&stream.base(root), &dir), error),
        }
    }
    walk
}

/// Returns `base` itself for an empty path: joining that would append a slash.
fn below(base: &Path, dir: &Path) -> PathBuf {
    if dir.as_os_str().is_empty() {
        base.to_owned()
    } else {
        base.join(dir)
    }
}

impl Walk {
    fn open(&mut self, root: &Path, stream: Stream, day_file: &PairPath) {
        self.day_files += 1;
        if let Err(error) = open_day_file(&OsStorage, root, root, stream, day_file) {
            self.add_unreadable(day_file.path(root, stream), error);
        }
    }

    fn add_unreadable(&mut self, path: PathBuf, error: io::Error) {
        // A file that vanished since it was listed is not a finding.
        if error.kind() != io::ErrorKind::NotFound {
            self.unreadable.push((path, error));
        }
    }
}

/// Checks the health verdict of a running daemon.
fn check_health(settings: &Settings, findings: &mut Findings) {
    let what = "health of the daemon".to_owned();
    let health = match status(settings, HostClock::new().wall_ms()) {
        Ok(status) => status.health,
        Err(error) => return findings.add(Severity::Fail, what, in_one_line(&error)),
    };
    let severity = match health.verdict {
        verdict if verdict.is_ready() => Severity::Ok,
        verdict if verdict.is_temporary() => Severity::Warn,
        _ => Severity::Fail,
    };
    let fix = health.fix.as_ref();
    let fix = fix.map_or(String::new(), |fix| format!("; {fix}"));
    findings.add(severity, what, format!("{health}{fix}"));
}

/// Checks what a start decides from the state and the export, if no daemon runs.
fn check_start(settings: &Settings, findings: &mut Findings) {
    let dir = &settings.state_dir;
    let what = format!("start with the state in {}", dir.display());
    let is_there = |name| exists(&OsStorage, &dir.join(name)).unwrap_or(false);
    if is_there(DISTRUSTED_FILE) {
        let why = "marked as damaged; the next start rebuilds it from the sources and the export";
        return findings.add(Severity::Warn, what, why);
    }
    let files = match offline::find(settings) {
        Ok(Backend::OfflineState(files)) => files,
        Ok(Backend::Daemon(holder)) => {
            let why = format!("in use by the daemon, process {}", holder.pid);
            findings.add(Severity::Ok, what, why);
            return check_health(settings, findings);
        }
        Err(InquireError::NoState(_)) => return,
        Err(error @ (InquireError::State(_) | InquireError::Journal(_))) => {
            let why = format!("{error}; the next start rebuilds a damaged state");
            return findings.add(Severity::Warn, what, why);
        }
        Err(error) => return findings.add(Severity::Fail, what, in_one_line(&error)),
    };
    if let Err(error) = files.check_export() {
        let why = in_one_line(&EngineError::Export(error));
        findings.add(Severity::Fail, what, why);
    } else if is_there(CHANGED_FILE) {
        let why = "a daemon found changed bytes in the export; a start compares them again and stops unless they were \
                   restored; restore them, or run `distilld rebuild`";
        findings.add(Severity::Warn, what, why);
    } else {
        findings.add(Severity::Ok, what, "the export is as it was left");
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
            "fail disk of the state: 0 MiB free; reading pauses when it is full, free space"
        );
    }
}
