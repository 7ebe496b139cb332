//! Runs programs to completion and captures their output.

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Polling interval of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A program that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Combined output of stdout and stderr.
    pub text: String,
}

/// Runs a command and captures its output.
///
/// # Errors
/// The command cannot be started.
pub fn run(command: &mut Command) -> Result<Ended, String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(Ended {
        code: output.status.code(),
        text,
    })
}

/// Runs a command, which must succeed, and returns its output.
///
/// # Errors
/// The command cannot be started, or fails.
pub fn run_well(command: &mut Command) -> Result<String, String> {
    let ended = run(command)?;
    match ended.code {
        Some(0) => Ok(ended.text),
        code => Err(format!("{command:?} ended with {code:?}:\n{}", ended.text)),
    }
}

/// Returns whether a program of that name is on the PATH.
pub fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(OsStr::new(program)).is_file())
}

/// Polls a condition until it holds or the timeout expires. Returns whether it held.
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
