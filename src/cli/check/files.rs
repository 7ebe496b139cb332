//! Checks of the directories and files that the daemon writes.

use std::io;
use std::path::Path;

use rustix::fs::Access;

use crate::cli::check::{Findings, Severity, fail_with, problem_with, reader};
use crate::dataset::error::DatasetError;
use crate::dataset::snapshot::Snapshot;
use crate::lake::path::ledger_path;
use crate::platform::escape::shell_word;
use crate::platform::storage::{FileKind, OsStorage, Rights, Storage as _};

/// Checks that a directory can be written, or created below the nearest existing one.
pub(super) fn check_writable(name: &str, dir: &Path, findings: &mut Findings) {
    let nearest = nearest_existing(dir);
    let what = format!("{name} directory {}", dir.display());
    let access = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    let is_dir = std::fs::metadata(nearest).is_ok_and(|metadata| metadata.is_dir());
    if !is_dir {
        let why = format!("{} is not a directory", nearest.display());
        let fix = format!("move it away: `mv {0} {0}.old`", shell_word(nearest));
        findings.fail(what, why, fix);
    } else if let Err(error) = rustix::fs::access(nearest, access) {
        let why = format!("{} cannot be written: {error}", nearest.display());
        findings.fail(what, why, reader::let_write(nearest, &error.into()));
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

/// Checks that the daemon can write a file of its own. Returns its length, or `None` if it does not exist. The error is the
/// reason and its fix.
pub(super) fn own_file(path: &Path) -> Result<Option<u64>, (String, String)> {
    match OsStorage.stat(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err((error.to_string(), reader::let_write(path, &error))),
        Ok(stat) if stat.kind != FileKind::Regular => {
            let fix = format!(
                "move it away, distilld creates a new one: `mv {0} {0}.old`",
                shell_word(path)
            );
            Err(("it is not a regular file".to_owned(), fix))
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

/// Opens a file for writing without changing it. This finds more than its mode does, such as an attribute that forbids
/// writing.
fn can_be_written(path: &Path) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).open(path).map(drop)
}

pub(super) fn check_export_file(export: &Path, findings: &mut Findings) {
    let what = format!("export {}", export.display());
    match own_file(export) {
        Ok(None) => findings.ok(what, "does not exist yet"),
        Ok(Some(len_bytes)) => findings.ok(what, format!("{len_bytes} bytes")),
        Err((why, fix)) => {
            findings.fail(what, why, fix);
        }
    }
}

/// Checks the retraction ledger of an export as its readers see it: it is there, it is whole, it fits the export, and who
/// may read the export may read it.
pub(super) fn check_ledger_file(export: &Path, findings: &mut Findings) {
    let ledger = ledger_path(export);
    let what = format!("retraction ledger {}", ledger.display());
    match own_file(&ledger) {
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
    match Snapshot::open(&OsStorage, export, None) {
        Ok(dataset) => {
            let rows = dataset.retracted.len();
            let why = format!("{} bytes, {rows} rows are retracted", dataset.ledger_len);
            findings.ok(what.clone(), why);
        }
        // What only the journal holds is written by the next start.
        Err(
            error @ (DatasetError::Short { .. }
            | DatasetError::Torn { .. }
            | DatasetError::NoExport(_)),
        ) => {
            problem_with(findings, Severity::Warn, what.clone(), &error);
        }
        Err(error) => fail_with(findings, what.clone(), &error),
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

/// Returns the directory itself or its nearest existing ancestor.
pub(super) fn nearest_existing(dir: &Path) -> &Path {
    let exists = |dir: &&Path| !dir.as_os_str().is_empty() && dir.symlink_metadata().is_ok();
    dir.ancestors().find(exists).unwrap_or(Path::new("."))
}
