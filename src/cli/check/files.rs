//! Checks of the directories and files that the daemon writes.

use std::io;
use std::path::Path;

use rustix::fs::Access;

use crate::cli::check::{Findings, Severity};
use crate::platform::storage::{FileKind, OsStorage, Storage as _};

/// Checks that a directory can be written, or created below the nearest existing one.
pub(super) fn check_writable(name: &str, dir: &Path, findings: &mut Findings) {
    let nearest = nearest_existing(dir);
    let what = format!("{name} directory {}", dir.display());
    let access = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    let is_dir = std::fs::metadata(nearest).is_ok_and(|metadata| metadata.is_dir());
    if !is_dir {
        let why = format!("{} is not a directory; move it away", nearest.display());
        findings.add(Severity::Fail, what, why);
    } else if let Err(error) = rustix::fs::access(nearest, access) {
        let why = format!(
            "{} cannot be written: {error}; give distilld's user write permission",
            nearest.display()
        );
        findings.add(Severity::Fail, what, why);
    } else if nearest == dir {
        findings.add(Severity::Ok, what, "writable");
    } else {
        let why = format!(
            "does not exist yet, can be created in {}",
            nearest.display()
        );
        findings.add(Severity::Ok, what, why);
    }
}

/// Checks that the daemon can write a file of its own. Returns its length, or `None` if it does not exist.
pub(super) fn own_file(path: &Path) -> Result<Option<u64>, String> {
    match OsStorage.stat(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{error}; let distilld read it")),
        Ok(stat) if stat.kind != FileKind::Regular => {
            Err("it is not a regular file; move it away, distilld creates a new one".to_owned())
        }
        Ok(stat) => match can_be_written(path) {
            Ok(()) => Ok(Some(stat.len_bytes)),
            Err(error) => Err(format!(
                "cannot be written: {error}; give distilld's user write permission"
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
        Ok(None) => findings.add(Severity::Ok, what, "does not exist yet"),
        Ok(Some(len_bytes)) => findings.add(Severity::Ok, what, format!("{len_bytes} bytes")),
        Err(why) => findings.add(Severity::Fail, what, why),
    }
}

/// Returns the directory itself or its nearest existing ancestor.
pub(super) fn nearest_existing(dir: &Path) -> &Path {
    let exists = |dir: &&Path| !dir.as_os_str().is_empty() && dir.symlink_metadata().is_ok();
    dir.ancestors().find(exists).unwrap_or(Path::new("."))
}
