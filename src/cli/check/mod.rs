//! Owns `check`: what would fail later is found now, and said with what to do. It changes nothing, opens day-files
//! only to see that they open, and never decides for the daemon: each finding is for a person.

pub mod limits;

use crate::cli::check::limits::{check_events, check_free};

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use crate::config::Settings;
use crate::lake::path::export_path;
use crate::lake::path::{PairPath, Stream};
use crate::lake::walk::{Level, list_level, open_day_file};
use crate::platform::root_lock::lock_path;
use crate::platform::storage::{FileKind, OsStorage, Storage as _};
use crate::store::files::{JOURNAL_FILE, STATE_FILE};

/// Less free disk than this stops the daemon at once: a journal, a checkpoint and some rows.
pub(super) const FREE_BYTES_MIN: u64 = 64 << 20;
/// Less than this deserves a word.
pub(super) const FREE_BYTES_LOW: u64 = 1 << 30;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// The daemon works, but worse than it could.
    Warn,
    /// The daemon would fail, or miss sources.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at.
    pub what: String,
    /// What was found, and what to do.
    pub why: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Ok => "ok",
            Severity::Warn => "warn",
            Severity::Fail => "fail",
        };
        write!(out, "{severity:<4} {}: {}", self.what, self.why)
    }
}

/// The findings so far.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    fn say(&mut self, severity: Severity, what: impl Into<String>, why: impl Into<String>) {
        self.0.push(Finding {
            severity,
            what: what.into(),
            why: why.into(),
        });
    }
}

/// Looks at all that the daemon needs, in the order in which it would.
#[must_use]
pub fn check(settings: &Settings) -> Vec<Finding> {
    let mut found = Findings::default();
    check_settings(settings, &mut found);
    let root = match OsStorage.canonicalize(&settings.root) {
        Ok(root) => root,
        Err(error) => {
            found.say(
                Severity::Fail,
                format!("root {}", settings.root.display()),
                format!("{error}; give a directory that distilld may enter"),
            );
            return found.0;
        }
    };
    let mut directories = 0;
    for stream in Stream::ALL {
        directories += check_stream(&root, stream, &mut found);
    }
    let export = export_path(&root);
    check_writable("export", export.parent().unwrap_or(&root), &mut found);
    check_export_file(&export, &mut found);
    check_writable("state", &settings.state_dir, &mut found);
    for path in [
        lock_path(&root),
        settings.state_dir.join(STATE_FILE),
        settings.state_dir.join(JOURNAL_FILE),
    ] {
        if let Err(why) = own_file(&path) {
            found.say(Severity::Fail, format!("file {}", path.display()), why);
        }
    }
    check_events(settings, &root, directories, &mut found);
    check_free("export", &export, &mut found);
    check_free("state", &settings.state_dir, &mut found);
    found.0
}

fn check_settings(settings: &Settings, found: &mut Findings) {
    for variable in &settings.unused_variables {
        found.say(
            Severity::Warn,
            format!("variable {variable}"),
            "distilld reads no variable of this name; correct or remove it",
        );
    }
    found.say(
        Severity::Ok,
        "configuration",
        format!(
            "root {}, state in {}",
            settings.root.display(),
            settings.state_dir.display()
        ),
    );
}

/// What a walk that only looks has met.
#[derive(Default)]
struct Met {
    directories: u64,
    day_files: u64,
    closed: Vec<(PathBuf, io::Error)>,
}

/// Gives how many directories the stream has.
fn check_stream(root: &Path, stream: Stream, found: &mut Findings) -> u64 {
    let base = stream.base(root);
    let what = format!("{} {}", stream.dir_name(), base.display());
    match OsStorage.stat(&base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            found.say(
                Severity::Warn,
                what,
                "not there yet; distilld waits for it, check the root if it should be",
            );
            return 0;
        }
        Err(error) => {
            found.say(
                Severity::Fail,
                what,
                format!("{error}; let distilld enter it"),
            );
            return 0;
        }
        Ok(_) => {}
    }
    let met = walk_all(root, stream);
    if let Some((path, error)) = met.closed.first() {
        // The daemon passes over what it cannot read and goes on; without the stream's own directory it has nothing.
        let severity = if *path == base {
            Severity::Fail
        } else {
            Severity::Warn
        };
        let why = format!(
            "{} of its directories and day-files cannot be read, the first is {} ({error}); let distilld read them, \
             or their runs are passed over",
            met.closed.len(),
            path.display()
        );
        found.say(severity, what, why);
    } else {
        let why = format!(
            "{} day-files in {} directories, all can be read",
            met.day_files, met.directories
        );
        found.say(Severity::Ok, what, why);
    }
    met.directories
}

fn walk_all(root: &Path, stream: Stream) -> Met {
    let mut met = Met::default();
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        met.directories += 1;
        match list_level(&OsStorage, root, stream, &dir) {
            Ok(Level::Directories(deeper)) => dirs.extend(deeper),
            Ok(Level::DayFiles(day_files)) => {
                for day_file in day_files {
                    met.open(root, stream, &day_file);
                }
            }
            Err(error) => met.close(below(&stream.base(root), &dir), error),
        }
    }
    met
}

/// `base` itself for an empty path: joining that would leave a slash.
fn below(base: &Path, dir: &Path) -> PathBuf {
    if dir.as_os_str().is_empty() {
        base.to_owned()
    } else {
        base.join(dir)
    }
}

impl Met {
    fn open(&mut self, root: &Path, stream: Stream, day_file: &PairPath) {
        self.day_files += 1;
        if let Err(error) = open_day_file(&OsStorage, root, root, stream, day_file) {
            self.close(day_file.path(root, stream), error);
        }
    }

    fn close(&mut self, path: PathBuf, error: io::Error) {
        // What vanished since it was listed is no finding.
        if error.kind() != io::ErrorKind::NotFound {
            self.closed.push((path, error));
        }
    }
}

/// Whether the directory can be written, or made below the nearest one that is there.
fn check_writable(name: &str, dir: &Path, found: &mut Findings) {
    let nearest = nearest_there(dir);
    let what = format!("{name} directory {}", dir.display());
    let access = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    let is_dir = std::fs::metadata(nearest).is_ok_and(|metadata| metadata.is_dir());
    if !is_dir {
        let why = format!("{} is not a directory; move it away", nearest.display());
        found.say(Severity::Fail, what, why);
    } else if let Err(error) = rustix::fs::access(nearest, access) {
        let why = format!(
            "{} cannot be written: {error}; give distilld's user the right to",
            nearest.display()
        );
        found.say(Severity::Fail, what, why);
    } else if nearest == dir {
        found.say(Severity::Ok, what, "can be written");
    } else {
        let why = format!("not there yet, can be made in {}", nearest.display());
        found.say(Severity::Ok, what, why);
    }
}

/// What would keep the daemon from writing a file that it made; its length, or nothing where there is none.
fn own_file(path: &Path) -> Result<Option<u64>, String> {
    match OsStorage.stat(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{error}; let distilld read it")),
        Ok(stat) if stat.kind != FileKind::Regular => {
            Err("it is no regular file; move it away, distilld makes a fresh one".to_owned())
        }
        Ok(stat) => match can_be_written(path) {
            Ok(()) => Ok(Some(stat.len_bytes)),
            Err(error) => Err(format!(
                "cannot be written: {error}; give distilld's user the right to"
            )),
        },
    }
}

/// Opens it for writing, which shows more than its mode (an attribute that forbids it), and changes nothing.
fn can_be_written(path: &Path) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).open(path).map(drop)
}

fn check_export_file(export: &Path, found: &mut Findings) {
    let what = format!("export {}", export.display());
    match own_file(export) {
        Ok(None) => found.say(Severity::Ok, what, "not there yet"),
        Ok(Some(len_bytes)) => found.say(Severity::Ok, what, format!("{len_bytes} bytes")),
        Err(why) => found.say(Severity::Fail, what, why),
    }
}

/// The directory itself or the nearest above it that is there.
pub(super) fn nearest_there(dir: &Path) -> &Path {
    let there = |dir: &&Path| !dir.as_os_str().is_empty() && dir.symlink_metadata().is_ok();
    dir.ancestors().find(there).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::limits::of_free;
    use crate::cli::check::limits::of_limits;

    #[test]
    fn limits_warn_before_watches_run_out() {
        let check = |watches, watches_max, instances_max, expected| {
            let finding = of_limits(watches, watches_max, instances_max);
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
            let finding = of_free("disk".into(), free_bytes, free_inodes);
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
        let finding = of_free("disk of the state".into(), 0, None);
        assert_eq!(
            finding.to_string(),
            "fail disk of the state: 0 MiB free; reading stops when it is full, make room"
        );
    }
}
