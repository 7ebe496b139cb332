//! Checks of the directories and files that the daemon writes.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use crate::cli::check::{Findings, Severity, fail_with, problem_with, reader};
use crate::dataset::error::DatasetError;
use crate::dataset::snapshot::Snapshot;
use crate::lake::path::ledger_path;
use crate::platform::escape::shell_word;
use crate::platform::storage::{FileKind, OsStorage, Rights, Storage as _};

/// Checks that a directory can be written, or created below the nearest existing one. `own` is the directory of the daemon
/// that has it: the ones above are those of others, who keep their owner.
pub(super) fn check_writable(name: &str, dir: &Path, own: &Path, findings: &mut Findings) {
    let nearest = nearest_existing(dir);
    let what = format!("{name} directory {}", dir.display());
    if let Err(error) = std::fs::metadata(nearest)
        && error.kind() == io::ErrorKind::PermissionDenied
    {
        // A link whose target is in a directory that cannot be entered.
        let why = format!("{} cannot be used: {error}", nearest.display());
        findings.fail(what, why, reader::let_read(nearest, own));
        return;
    }
    if !nearest.is_dir() {
        let why = format!("{} is not a directory", nearest.display());
        let fix = format!("move it away: `{}`", moved_away(nearest));
        findings.fail(what, why, fix);
        return;
    }
    let is_own = nearest.starts_with(own);
    let may = |access| rustix::fs::access(nearest, access).map_err(io::Error::from);
    if let Err(error) = may(Access::EXEC_OK)
        && !is_own
    {
        let why = format!("{} cannot be entered: {error}", nearest.display());
        findings.fail(what, why, reader::let_enter(nearest));
    } else if let Err(error) = may(Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        let why = format!("{} cannot be written: {error}", nearest.display());
        let fix = match is_own {
            true => reader::let_write(nearest, &error),
            false => reader::create(own, nearest, &error),
        };
        findings.fail(what, why, fix);
    } else if reader::has_attribute(nearest) {
        // It permits to create files, but none could be renamed or removed.
        let why = format!("files in {} cannot be replaced", nearest.display());
        let error = io::ErrorKind::PermissionDenied.into();
        findings.fail(what, why, reader::let_write(nearest, &error));
    } else if nearest == dir {
        findings.ok(what, "writable");
    } else {
        let why = format!(
            "does not exist yet, can be created in {}",
            nearest.display()
        );
        findings.ok(what, why);
    }
}

/// Returns the command that moves a path away, to a name that is free: a second name would be overwritten.
pub(super) fn moved_away(path: &Path) -> String {
    let old = free_name(path, "old");
    format!("mv {} {}", shell_word(path), shell_word(&old))
}

/// Returns the step that lets distilld create a file.
fn new_one(path: &Path) -> String {
    let moved = moved_away(path);
    format!("move it away, distilld creates a new one: `{moved}`")
}

/// Returns a free name next to a path, with a suffix.
pub(super) fn free_name(path: &Path, suffix: &str) -> PathBuf {
    let named = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(".");
        name.push(suffix);
        PathBuf::from(name)
    };
    let is_free = |path: &PathBuf| path.symlink_metadata().is_err();
    let numbered = (2..).map(|number| named(&format!("{suffix}{number}")));
    let mut names = std::iter::once(named(suffix)).chain(numbered);
    names.find(is_free).unwrap_or_else(|| named(suffix))
}

/// Checks that the daemon can write a file of its own. Returns its length, or `None` if it does not exist. The error is the
/// reason and its fix.
pub(super) fn own_file(path: &Path, own: &Path) -> Result<Option<u64>, (String, String)> {
    match OsStorage.stat(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err((error.to_string(), reachable(path, own, &error))),
        Ok(stat) if stat.kind != FileKind::Regular => {
            Err(("it is not a regular file".to_owned(), new_one(path)))
        }
        Ok(stat) => match can_be_written(path) {
            Ok(()) => Ok(Some(stat.len_bytes)),
            Err(error) => Err((
                format!("cannot be written: {error}"),
                reader::let_write(path, &error),
            )),
        },
    }
}

/// Returns the command that lets the daemon reach a file in its directory `own`, which refused that with an error.
fn reachable(path: &Path, own: &Path, error: &io::Error) -> String {
    match reader::closed_above(path) {
        Some(dir) if !dir.starts_with(own) => reader::let_enter(&dir),
        Some(dir) => reader::let_write(&dir, error),
        None => reader::let_write(path, error),
    }
}

/// Opens a file for writing without changing it. This finds more than its mode does, such as an attribute that forbids
/// writing.
fn can_be_written(path: &Path) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).open(path).map(drop)
}

/// Checks a file of the daemon.
pub(super) fn check_file(path: &Path, own: &Path, findings: &mut Findings) {
    if let Err((why, fix)) = own_file(path, own) {
        findings.fail(format!("file {}", path.display()), why, fix);
    }
}

/// Checks a lock file, which may have no other name: a user could have linked a file there that only root can write.
pub(super) fn check_lock(path: &Path, own: &Path, findings: &mut Findings) {
    let has_others = path.symlink_metadata().is_ok_and(|found| found.nlink() > 1);
    match own_file(path, own) {
        Ok(Some(_len_bytes)) if has_others => {
            let why = "it is a file that has other names too";
            findings.fail(format!("file {}", path.display()), why, new_one(path));
        }
        _ => check_file(path, own, findings),
    }
}

/// Checks the place of a file that each start replaces, which only a directory prevents.
pub(super) fn check_replaced(path: &Path, findings: &mut Findings) {
    if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        let what = format!("file {}", path.display());
        findings.fail(what, "it is a directory", new_one(path));
    }
}

/// Checks the export, and returns whether it can be read.
pub(super) fn check_export_file(export: &Path, own: &Path, findings: &mut Findings) -> bool {
    let what = format!("export {}", export.display());
    match own_file(export, own) {
        Ok(None) => findings.ok(what, "does not exist yet"),
        Ok(Some(len_bytes)) => findings.ok(what, format!("{len_bytes} bytes")),
        Err((why, fix)) => {
            findings.fail(what, why, fix);
            return false;
        }
    }
    true
}

/// Checks the retraction ledger of an export as its readers see it: it is there, it is whole, it fits the export, and who
/// may read the export may read it.
pub(super) fn check_ledger_file(
    export: &Path,
    own: &Path,
    export_is_readable: bool,
    findings: &mut Findings,
) {
    let ledger = ledger_path(export);
    let what = format!("retraction ledger {}", ledger.display());
    match own_file(&ledger, own) {
        Err((why, fix)) => {
            findings.fail(what, why, fix);
            return;
        }
        Ok(None) if OsStorage.stat(export).is_ok_and(|stat| stat.len_bytes > 0) => {
            let why = "does not exist, so nothing shows which rows are retracted and readers refuse the export";
            let fix = "restore it from the copy that the export is from, or stop the daemon and run `distilld rebuild \
                       --state-only`, which begins a new one";
            findings.warn(what, why, fix);
            return;
        }
        Ok(None) => return findings.ok(what, "does not exist yet"),
        Ok(Some(_len_bytes)) => {}
    }
    // The finding of the export has the reason otherwise.
    if export_is_readable {
        check_fit(export, &what, findings);
    }
    let rights = |path: &Path| OsStorage.rights(path).ok().flatten();
    if let (Some(own), Some(of_export)) = (rights(&ledger), rights(export))
        && own != of_export
    {
        let shown = |rights: Rights| {
            let Rights { user, group, mode } = rights;
            format!("{user}:{group}, mode {mode:04o}")
        };
        let (own, of_export) = (shown(own), shown(of_export));
        let (ledger, export) = (shell_word(&ledger), shell_word(export));
        let why = format!(
            "it is of {own}, and the export of {of_export}: a user may be able to read one of them alone"
        );
        let fix = format!(
            "run `chown --reference={export} {ledger} && chmod --reference={export} {ledger}`"
        );
        findings.warn(what, why, fix);
    }
}

/// Checks whether a ledger fits its export.
fn check_fit(export: &Path, what: &str, findings: &mut Findings) {
    match Snapshot::open(&OsStorage, export, None) {
        Ok(dataset) => {
            let rows = dataset.retracted.len();
            let why = format!("{} bytes, {rows} rows are retracted", dataset.ledger_len);
            findings.ok(what, why);
        }
        // What only the journal holds is written by the next start.
        Err(
            error @ (DatasetError::Short { .. }
            | DatasetError::Torn { .. }
            | DatasetError::NoExport(_)),
        ) => {
            problem_with(findings, Severity::Warn, what.to_owned(), &error);
        }
        Err(error) => fail_with(findings, what.to_owned(), &error),
    }
}

/// Returns the directory itself or its nearest existing ancestor.
pub(super) fn nearest_existing(dir: &Path) -> &Path {
    let exists = |dir: &&Path| !dir.as_os_str().is_empty() && dir.symlink_metadata().is_ok();
    dir.ancestors().find(exists).unwrap_or(Path::new("."))
}
