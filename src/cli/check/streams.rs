//! Checks of the day-files: whether each can be read, and whether its name looks like that of a temporary file.

use std::io;
use std::path::{Path, PathBuf};

use crate::cli::check::files::moved_away;
use crate::cli::check::{Findings, Severity, reader};
use crate::config::Exclude;
use crate::lake::linked_dirs::links_to_unread;
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::{Level, list_level, open_day_file};
use crate::platform::storage::{OsStorage, Storage as _};

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
pub(super) fn check_stream(
    root: &Path,
    stream: Stream,
    exclude: &Exclude,
    findings: &mut Findings,
) -> u64 {
    let base = stream.base(root);
    let what = format!("{} {}", stream.dir_name(), base.display());
    match OsStorage.stat(&base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            findings.warn(
                what,
                "does not exist yet, distilld waits for it",
                "start the scorers, or correct the root if it should exist (`distilld config` shows it)",
            );
            return 0;
        }
        Err(error) => {
            findings.fail(what, error.to_string(), reader::let_read(&base, &base));
            return 0;
        }
        // A link may lead to it, as to a larger disk.
        Ok(_) if base.metadata().is_ok_and(|found| !found.is_dir()) => {
            let fix = format!("move it away: `{}`", moved_away(&base));
            findings.fail(what, "it is not a directory", fix);
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
        let unreadable = walk.unreadable.len();
        let why = format!(
            "{unreadable} of its directories and day-files cannot be read and their runs are skipped, the first is {} \
             ({error})",
            path.display()
        );
        let fix = match is_denied(error) {
            true => {
                let denied = walk.unreadable.iter();
                let denied = denied.filter(|(_, error)| is_denied(error));
                let denied: Vec<&Path> = denied.map(|(path, _)| path.as_path()).collect();
                reader::let_read_all(&denied, &base)
            }
            false => format!("`ls -ld {}` shows what is in its place", path.display()),
        };
        let finding = findings.problem(severity, what, why, fix);
        finding.public(format!(
            "{unreadable} of its directories and day-files cannot be read ({})",
            error.kind()
        ));
    } else {
        let why = format!(
            "{} day-files in {} directories, all readable",
            walk.day_files, walk.directories
        );
        findings.ok(what, why);
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
        findings.ok(what(), why);
    }
    if let Some(first) = walk.temporary.first() {
        let temporary = walk.temporary.len();
        let why = format!(
            "{temporary} look like temporary files, the first is {first}; their runs become rows under this name and again \
             under the final one"
        );
        let fix = "set the key `exclude` to a pattern such as \"tmp*\", or let the writer use a name that does not end in \
                   .jsonl";
        let finding = findings.warn(what(), why, fix);
        finding.public(format!("{temporary} look like temporary files"));
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
