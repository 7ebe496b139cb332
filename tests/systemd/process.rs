//! Owns running a program to its end, with what it said. Never decides whether that was right.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Time between two looks at a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A program that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// What it said, on either stream.
    pub said: String,
}

/// Runs it and takes what it says.
///
/// # Errors
/// It cannot be started.
pub fn run(command: &mut Command) -> Result<Ended, String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(Ended {
        code: output.status.code(),
        said,
    })
}

/// Runs it; it has to succeed. Gives what it said.
///
/// # Errors
/// It cannot be started, or fails.
pub fn run_well(command: &mut Command) -> Result<String, String> {
    let ended = run(command)?;
    match ended.code {
        Some(0) => Ok(ended.said),
        code => Err(format!("{command:?} ended with {code:?}:\n{}", ended.said)),
    }
}

/// Whether a program of that name can be called.
pub fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(OsStr::new(program)).is_file())
}

/// Looks at a condition until it holds or the time is over; says whether it held.
pub fn wait_until(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}
