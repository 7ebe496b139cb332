//! Whether file systems answer: a call to one whose server is gone may never return, and no signal that can be handled ends
//! it. Threads that wait for it end with the process.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::platform::background::spawn;

/// Returns the first path whose file system does not answer within this time. An error is an answer. What the kernel
/// remembers of the file is none: the file system itself is asked.
#[must_use]
pub fn silent(paths: &[PathBuf], within: Duration) -> Option<&Path> {
    let (answer, answers) = mpsc::channel();
    for (at, path) in paths.iter().enumerate() {
        let (answer, path) = (answer.clone(), path.clone());
        let ask = move || {
            _ = statx(
                CWD,
                &path,
                AtFlags::STATX_FORCE_SYNC,
                StatxFlags::BASIC_STATS,
            );
            _ = answer.send(at);
        };
        // Without a thread it is not known.
        spawn("disk", ask).ok()?;
    }
    let until = Instant::now() + within;
    let mut awaited: BTreeSet<usize> = (0..paths.len()).collect();
    while !awaited.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        match answers.recv_timeout(left) {
            Ok(at) => drop(awaited.remove(&at)),
            Err(_) => break,
        }
    }
    awaited.first().map(|at| &*paths[*at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_answers_is_not_silent() {
        let dir = tempfile::tempdir().unwrap();
        let paths = [dir.path().to_owned(), dir.path().join("missing/file")];
        assert_eq!(silent(&paths, Duration::from_secs(60)), None);
        assert_eq!(silent(&[], Duration::ZERO), None);
    }
}
